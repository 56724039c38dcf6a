package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"understudy/internal/fleet"
)

// errClock tells that this Go's package time could not be given a clock that jumps.
var errClock = errors.New("the source of time.Now is not the one that this program knows how to patch")

// buildHooked builds the program with the tag chaos, over a package time whose Now adds a
// number of seconds to the wall clock and leaves the monotonic one alone: every reader of the
// wall clock sees the jump, the libraries' too, and production code has no seam for it. With an
// errClock the program is built without.
func buildHooked(ctx context.Context, scratch string) (binary string, remove func(), err error) {
	flags := []string{"-tags", "chaos"}
	overlay, patchErr := patchClock(ctx, scratch)
	if patchErr == nil {
		flags = append(flags, "-overlay", overlay)
	}
	binary, _, remove, err = fleet.Build(ctx, flags...)
	if err != nil {
		return "", nil, err
	}
	return binary, remove, patchErr
}

func patchClock(ctx context.Context, scratch string) (overlay string, err error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if bytes.Count(source, []byte(now)) != 1 {
		return "", errClock
	}
	patched := bytes.Replace(source, []byte(now), []byte(
		"// chaosShift is set by internal/vfs when it is built with the tag chaos.\n//\n//go:linkname chaosShift\nvar chaosShift int64\n\n"+
			now+"\tsec += chaosShift\n"), 1)
	replacement := filepath.Join(scratch, "time.go")
	if err := os.WriteFile(replacement, patched, 0o644); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": {original: replacement}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(scratch, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o644)
}
