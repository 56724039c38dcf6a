#!/usr/bin/env python3
"""Fails on a skipped test that the list does not name: skips.py TESTS.json LIST."""
import json
import sys

skipped, failures, passed, failed, reasons = set(), set(), 0, 0, {}
for line in open(sys.argv[1]):
    event = json.loads(line)
    test = event.get("Test")
    if not test:
        continue
    name = f"{event['Package']}.{test}"
    if event["Action"] == "skip":
        skipped.add(name)
    elif event["Action"] == "pass":
        passed += 1
    elif event["Action"] == "fail":
        failed += 1
        failures.add(name)
    elif event["Action"] == "output":
        reasons[name] = reasons.get(name, "") + event["Output"]
allowed = {line.split("#")[0].strip() for line in open(sys.argv[2])} - {""}
for name in sorted(failures):
    print(f"failed: {name}\n{reasons.get(name, '')[-4000:]}")
for name in sorted(skipped - allowed):
    print(f"skipped, and not in {sys.argv[2]}: {name}\n{reasons.get(name, '')}")
for name in sorted(allowed - skipped):
    print(f"{sys.argv[2]} names a test that was not skipped: {name}")
print(f"{passed} passed, {failed} failed, {len(skipped)} skipped")
sys.exit(bool(failed or skipped - allowed))
