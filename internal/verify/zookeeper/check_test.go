package zookeeper

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/internal/verify"
)

// Histories are written here with one time unit per millisecond, so that session timeouts (in
// ms) can be read off.
const unit = int64(time.Millisecond)

// planted makes a history of entries in their order.
func planted(entries ...Entry) *History {
	h := &History{Header: verify.Header{History: "zookeeper"}}
	for _, e := range entries {
		for e.Client >= len(h.Clients) {
			h.Clients = append(h.Clients, nil)
		}
		e.N, e.At, e.Return, e.SyncAt = len(h.Clients[e.Client]), e.At*unit, e.Return*unit, e.SyncAt*unit
		h.Clients[e.Client] = append(h.Clients[e.Client], e)
	}
	return h
}

// Client n has session n+1; its timeout is 4000.
func attached(client int, at int64) Entry {
	return Entry{Kind: kindAttached, Client: client, Session: int64(client + 1), At: at, TimeoutMs: 4000}
}

func happened(kind string, client int, at int64) Entry {
	return Entry{Kind: kind, Client: client, Session: int64(client + 1), At: at}
}

func event(client int, at int64, what, path string, zxid int64) Entry {
	e := happened(kindEvent, client, at)
	e.Event, e.Path, e.Zxid = what, path, zxid
	return e
}

// op is an operation of a client from one time to another; to 0: never answered.
func op(client int, from, to int64, r Request, details ...func(*Entry)) Entry {
	e := Entry{Kind: kindOp, Client: client, Session: int64(client + 1), At: from, Return: to, Request: r, Outcome: outcomeOpen}
	for _, detail := range details {
		detail(&e)
	}
	return e
}

func ok(zxid int64) func(*Entry) {
	return func(e *Entry) { e.Outcome, e.Zxid = outcomeOK, zxid }
}

func refuse(outcome string, zxid int64) func(*Entry) {
	return func(e *Entry) { e.Outcome, e.Zxid = outcome, zxid }
}

// found is a reading of a value.
func found(zxid int64, value string, czxid, mzxid int64, version int32) func(*Entry) {
	return func(e *Entry) {
		e.Outcome, e.Zxid, e.Value, e.Stat = outcomeOK, zxid, value, &Stat{Czxid: czxid, Mzxid: mzxid, Version: version}
	}
}

func listed(zxid, pzxid int64, children ...string) func(*Entry) {
	return func(e *Entry) {
		e.Outcome, e.Zxid, e.Stat, e.Children = outcomeOK, zxid, &Stat{Pzxid: pzxid}, children
	}
}

func owned(owner int64) func(*Entry) { return func(e *Entry) { e.Stat.Owner = owner } }

func synced(e *Entry) { e.SyncAt = e.At }

func named(name string) func(*Entry) { return func(e *Entry) { e.Created = name } }

func create(path, data string) Request { return Request{Name: opCreate, Path: path, Data: data} }
func set(path, data string) Request {
	return Request{Name: opSetData, Path: path, Data: data, Version: -1}
}
func setIf(path, data string, version int32) Request {
	return Request{Name: opSetData, Path: path, Data: data, Version: version}
}
func remove(path string) Request { return Request{Name: opDelete, Path: path, Version: -1} }
func get(path string) Request    { return Request{Name: opGetData, Path: path} }
func exists(path string) Request { return Request{Name: opExists, Path: path} }
func list(path string) Request   { return Request{Name: opChildren, Path: path} }
func multi(ops ...Request) Request {
	return Request{Name: opMulti, Ops: ops}
}
func watching(r Request) Request { r.Watch = true; return r }
func ephemeral(path string) Request {
	return Request{Name: opCreate, Path: path, Data: "of " + path, Ephemeral: true}
}
func sequential(path string) Request { return Request{Name: opCreate, Path: path, Sequential: true} }

const a, b = "/d0/a0", "/d0/b0"

var closing = Request{Name: opClose}

// The rules that a planted history violates, and no others; none: it is right.
var cases = []struct {
	name    string
	entries []Entry
	want    []string
}{
	{name: "writes and readings as they should be", entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, create(a, "v1"), ok(10)),
		op(0, 3, 4, multi(set(a, "v2"), create(b, "w1")), ok(11)),
		op(1, 5, 6, get(a), found(11, "v2", 10, 11, 1), synced),
		op(1, 7, 8, setIf(a, "v3", 0), refuse(outcomeBadVersion, 12)),
		op(1, 9, 10, remove(b), ok(13)),
		op(0, 11, 12, get(b), refuse(outcomeNoNode, 13), synced),
	}},
	{name: "a reading without a sync may be old", entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, create(a, "v1"), ok(10)), op(0, 3, 4, set(a, "v2"), ok(11)),
		op(1, 5, 6, get(a), found(10, "v1", 10, 10, 0)),
	}},
	{name: "a synced reading may not", want: []string{ruleLinearizable}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, create(a, "v1"), ok(10)), op(0, 3, 4, set(a, "v2"), ok(11)),
		op(1, 5, 6, get(a), found(10, "v1", 10, 10, 0), synced),
	}},
	{name: "an acknowledged write that is gone", want: []string{ruleLinearizable}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, create(a, "v1"), ok(10)),
		op(1, 5, 6, get(a), refuse(outcomeNoNode, 9), synced),
	}},
	{name: "two creations that both succeed", want: []string{ruleLinearizable}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 4, create(a, "v1"), ok(10)), op(1, 1, 4, create(a, "v2"), ok(11)),
	}},
	{name: "two conditional writes on the same version", want: []string{ruleLinearizable}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, create(a, "v1"), ok(10)),
		op(0, 3, 6, setIf(a, "v2", 0), ok(11)), op(1, 3, 6, setIf(a, "v3", 0), ok(12)),
	}},
	{name: "half a multi, which also contradicts the zxid that the session was shown", want: []string{ruleLinearizable, ruleStaleRead}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, multi(create(a, "v1"), create(b, "w1")), ok(10)),
		op(1, 3, 4, get(a), found(10, "v1", 10, 10, 0), synced),
		op(1, 5, 6, get(b), refuse(outcomeNoNode, 10), synced),
	}},
	{name: "an open write may have been applied", entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, create(a, "v1"), ok(10)), op(0, 3, 0, set(a, "v2")), happened(kindLost, 0, 4),
		op(1, 50, 60, get(a), found(11, "v2", 10, 11, 1), synced),
	}},
	{name: "or not", entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, create(a, "v1"), ok(10)), op(0, 3, 0, set(a, "v2")), happened(kindLost, 0, 4),
		op(1, 50, 60, get(a), found(10, "v1", 10, 10, 0), synced),
	}},
	{name: "but not applied and taken back", want: []string{ruleLinearizable}, entries: []Entry{
		attached(0, 0), attached(1, 0), attached(2, 0),
		op(0, 1, 2, create(a, "v1"), ok(10)), op(0, 3, 0, set(a, "v2")), happened(kindLost, 0, 4),
		op(1, 50, 60, get(a), found(11, "v2", 10, 11, 1), synced),
		op(2, 70, 80, get(a), found(10, "v1", 10, 10, 0), synced),
	}},

	{name: "zxids that go back", want: []string{ruleZxidBack}, entries: []Entry{
		attached(0, 0),
		op(0, 1, 2, exists("/d0/a1"), refuse(outcomeNoNode, 20)), op(0, 3, 4, exists("/d0/a2"), refuse(outcomeNoNode, 19)),
	}},
	{name: "an older state at the next server", want: []string{ruleStaleRead, ruleZxidBack}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(1, 1, 2, create(a, "v1"), ok(10)), op(1, 3, 4, set(a, "v2"), ok(11)),
		op(0, 5, 6, get(a), found(11, "v2", 10, 11, 1)), happened(kindLost, 0, 7), attached(0, 8),
		op(0, 9, 10, get(a), found(10, "v1", 10, 10, 0)),
	}},
	{name: "a reading that lacks what the session was past", want: []string{ruleStaleRead}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(1, 1, 2, create(a, "v1"), ok(10)), op(1, 3, 4, set(a, "v2"), ok(11)),
		op(0, 5, 6, exists("/d0/a9"), refuse(outcomeNoNode, 12)), op(0, 7, 8, get(a), found(12, "v1", 10, 10, 0)),
	}},
	{name: "a znode that is not found and that nobody deleted", want: []string{ruleStaleRead}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(1, 1, 2, create(a, "v1"), ok(10)), op(0, 5, 6, get(a), refuse(outcomeNoNode, 12)),
	}},
	{name: "unless a deletion is open", entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(1, 1, 2, create(a, "v1"), ok(10)), op(1, 3, 0, remove(a)), op(0, 5, 6, get(a), refuse(outcomeNoNode, 12)),
	}},
	{name: "a list of children from the past", want: []string{ruleStaleRead}, entries: []Entry{
		attached(0, 0), op(0, 1, 2, create(a, "v1"), ok(10)), op(0, 3, 4, list("/d0"), listed(10, 9)),
	}},

	{name: "writes of a session applied the other way round", want: []string{ruleSessionOrder}, entries: []Entry{
		attached(0, 0), op(0, 1, 3, create("/d0/a1", "v1"), ok(11)), op(0, 1, 4, create("/d0/a2", "v2"), ok(11)),
	}},
	{name: "the same seen by others after the answers were lost", want: []string{ruleSessionOrder}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 0, create("/d0/a1", "v1")), op(0, 1, 0, create("/d0/a2", "v2")), happened(kindLost, 0, 4),
		op(1, 5, 6, get("/d0/a1"), found(12, "v1", 12, 12, 0)), op(1, 5, 6, get("/d0/a2"), found(12, "v2", 11, 11, 0)),
	}},
	{name: "one write at two zxids", want: []string{ruleAppliedTwice}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 0, create("/s0/x", "v1")), happened(kindLost, 0, 4),
		op(1, 5, 6, get("/s0/x"), found(11, "v1", 11, 11, 0)), op(1, 7, 8, get("/s0/x"), found(13, "v1", 11, 13, 1)),
	}},
	{name: "a value that nobody wrote", want: []string{ruleUnwritten}, entries: []Entry{
		attached(0, 0), op(0, 1, 2, get("/s0/x"), found(11, "v1", 11, 11, 0)),
	}},
	{name: "a value whose write was refused", want: []string{ruleUnwritten}, entries: []Entry{
		attached(0, 0), op(0, 1, 2, create("/s0/x", "v1"), refuse(outcomeNodeExists, 10)), op(0, 3, 4, get("/s0/x"), found(11, "v1", 9, 9, 0)),
	}},
	{name: "a reply out of turn", want: []string{ruleProtocol}, entries: []Entry{
		attached(0, 0), happened(kindProtocol, 0, 1), happened(kindLost, 0, 1),
	}},

	{name: "sequence numbers, with one lost", entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, sequential("/s0/n-"), ok(10), named("/s0/n-0000000000")),
		op(1, 3, 4, sequential("/s0/n-"), ok(12), named("/s0/n-0000000002")),
	}},
	{name: "a number given twice", want: []string{ruleSequenceTwice}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 9, sequential("/s0/n-"), ok(10), named("/s0/n-0000000000")),
		op(1, 1, 9, sequential("/s0/n-"), ok(12), named("/s0/n-0000000000")),
	}},
	{name: "a lower number after a higher one", want: []string{ruleSequenceOrder}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, sequential("/s0/n-"), ok(12), named("/s0/n-0000000001")),
		op(1, 3, 4, sequential("/s0/n-"), ok(11), named("/s0/n-0000000000")),
	}},
	{name: "a higher number with the lower zxid", want: []string{ruleSequenceOrder}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 9, sequential("/s0/n-"), ok(10), named("/s0/n-0000000001")),
		op(1, 1, 9, sequential("/s0/n-"), ok(11), named("/s0/n-0000000000")),
	}},
	{name: "a sequential znode without a number", want: []string{ruleProtocol}, entries: []Entry{
		attached(0, 0), op(0, 1, 2, sequential("/s0/n-"), ok(10), named("/s0/other")),
	}},

	{name: "one session for two clients", want: []string{ruleSessionReused}, entries: []Entry{
		attached(0, 0), {Kind: kindAttached, Client: 1, Session: 1, At: 3, TimeoutMs: 4000},
	}},
	{name: "a session that expires in its time", entries: []Entry{
		attached(0, 0), op(0, 10, 11, exists("/x"), refuse(outcomeNoNode, 1)), happened(kindLost, 0, 12), happened(kindExpired, 0, 4012),
	}},
	{name: "one that expires too early", want: []string{ruleExpiredEarly}, entries: []Entry{
		attached(0, 0), op(0, 10, 11, exists("/x"), refuse(outcomeNoNode, 1)), happened(kindLost, 0, 12), happened(kindExpired, 0, 900),
	}},

	{name: "an ephemeral that goes with its session", entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, ephemeral("/e/1"), ok(10)), op(1, 3, 4, get("/e/1"), found(10, "of /e/1", 10, 10, 0), owned(1), synced),
		op(0, 5, 6, closing, ok(11)), op(1, 7, 8, get("/e/1"), refuse(outcomeNoNode, 11), synced),
	}},
	{name: "an ephemeral of an abandoned session", entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, ephemeral("/e/1"), ok(10)), happened(kindAbandoned, 0, 3),
		op(1, 100, 101, get("/e/1"), found(10, "of /e/1", 10, 10, 0), owned(1), synced),
		op(1, 5000, 5001, get("/e/1"), refuse(outcomeNoNode, 12), synced),
	}},
	{name: "that goes before its time", want: []string{ruleEphemeralGone}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, ephemeral("/e/1"), ok(10)), happened(kindAbandoned, 0, 3), op(1, 900, 901, get("/e/1"), refuse(outcomeNoNode, 12), synced),
	}},
	{name: "that is gone although its session writes on", want: []string{ruleEphemeralGone}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, ephemeral("/e/1"), ok(10)), op(1, 9000, 9001, get("/e/1"), refuse(outcomeNoNode, 12), synced),
		op(0, 9002, 9003, create("/s0/x", "v"), ok(13)),
	}},
	{name: "that is still there for a synced reader", want: []string{ruleEphemeralGhost, ruleStaleRead}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, ephemeral("/e/1"), ok(10)), op(0, 3, 4, closing, ok(11)),
		op(1, 5, 6, get("/e/1"), found(11, "of /e/1", 10, 10, 0), owned(1), synced),
	}},
	{name: "that is there after the expiry was told", want: []string{ruleEphemeralGhost}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, ephemeral("/e/1"), ok(10)), happened(kindLost, 0, 3), happened(kindExpired, 0, 4500),
		op(1, 4600, 4601, get("/e/1"), found(11, "of /e/1", 10, 10, 0), owned(1), synced),
	}},
	{name: "that never goes", want: []string{ruleEphemeralGhost}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, ephemeral("/e/1"), ok(10)), happened(kindAbandoned, 0, 3), happened(kindDeadline, 1, 20000),
		op(1, 20001, 20002, list(ephemeralParent), listed(12, 10, "1"), synced),
	}},
	{name: "that belongs to another session", want: []string{ruleEphemeralOwner}, entries: []Entry{
		attached(0, 0), op(0, 1, 2, ephemeral("/e/1"), ok(10)), op(0, 3, 4, get("/e/1"), found(10, "of /e/1", 10, 10, 0), owned(7)),
	}},

	{name: "watches as they should be", entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, watching(exists(a)), refuse(outcomeNoNode, 5)), op(0, 1, 2, watching(list("/d0")), listed(5, 1)),
		op(1, 3, 4, create(a, "v1"), ok(10)),
		event(0, 5, created, a, 10), event(0, 5, childrenChanged, "/d0", 10),
		op(0, 6, 7, watching(get(a)), found(10, "v1", 10, 10, 0)),
		op(1, 8, 9, set(a, "v2"), ok(11)), op(1, 10, 11, set(a, "v3"), ok(12)),
		event(0, 12, changed, a, 11), op(0, 13, 14, get(a), found(12, "v3", 10, 12, 2)),
	}},
	{name: "one event for both kinds of watch on a deleted znode", entries: []Entry{
		attached(0, 0), op(0, 1, 2, create(a, "v1"), ok(10)),
		op(0, 3, 4, watching(get(a)), found(10, "v1", 10, 10, 0)), op(0, 3, 4, watching(list(a)), listed(10, 10)),
		event(0, 5, deleted, a, 11), op(0, 5, 6, remove(a), ok(11)),
	}},
	{name: "a watch that fires twice", want: []string{ruleWatchUnset}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, watching(exists(a)), refuse(outcomeNoNode, 5)), op(1, 3, 4, create(a, "v1"), ok(10)),
		event(0, 5, created, a, 10), event(0, 6, created, a, 10),
	}},
	{name: "a watch that was never set", want: []string{ruleWatchUnset}, entries: []Entry{
		attached(0, 0), op(0, 1, 2, exists(a), refuse(outcomeNoNode, 5)), event(0, 5, created, a, 10),
	}},
	{name: "a watch that does not fire", want: []string{ruleWatchMissed}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, watching(exists(a)), refuse(outcomeNoNode, 5)), op(1, 3, 4, create(a, "v1"), ok(10)),
		op(0, 5, 6, get(a), found(10, "v1", 10, 10, 0)),
	}},
	{name: "a watch on children that does not fire", want: []string{ruleWatchMissed}, entries: []Entry{
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, watching(list("/d0")), listed(5, 1)), op(1, 3, 4, create(a, "v1"), ok(10)),
		op(0, 5, 6, exists("/d0/a9"), refuse(outcomeNoNode, 10)),
	}},
	{name: "a watch that fires for the second change", want: []string{ruleWatchMissed}, entries: []Entry{
		attached(0, 0), attached(1, 0), op(1, 1, 2, create(a, "v1"), ok(10)),
		op(0, 3, 4, watching(get(a)), found(10, "v1", 10, 10, 0)),
		op(1, 5, 6, set(a, "v2"), ok(11)), op(1, 7, 8, set(a, "v3"), ok(12)),
		event(0, 9, changed, a, 12),
	}},
	{name: "an event after newer data, and after that of another", want: []string{ruleEventLate}, entries: []Entry{
		attached(0, 0), op(0, 1, 2, watching(exists(a)), refuse(outcomeNoNode, 5)), op(0, 3, 4, exists(b), refuse(outcomeNoNode, 12)),
		event(0, 5, created, a, 11), // by an open creation: only the event itself tells its zxid
	}},
	{name: "events in another order than the changes", want: []string{ruleEventOrder}, entries: []Entry{
		attached(0, 0), op(0, 1, 2, watching(exists(a)), refuse(outcomeNoNode, 5)), op(0, 1, 2, watching(exists(b)), refuse(outcomeNoNode, 5)),
		event(0, 5, created, b, 12), event(0, 6, created, a, 11),
	}},
	{name: "an event of what the reading has shown", want: []string{ruleEventSeenBefore}, entries: []Entry{
		attached(0, 0), attached(1, 0), op(1, 1, 2, create(a, "v1"), ok(10)),
		op(0, 3, 4, watching(get(a)), found(10, "v1", 10, 10, 0)), event(0, 5, created, a, 10),
	}},
	{name: "watches that are put back at the next server", entries: []Entry{
		attached(0, 0), attached(1, 0), op(1, 1, 2, create(a, "v1"), ok(10)),
		op(0, 3, 4, watching(get(a)), found(10, "v1", 10, 10, 0)), op(0, 3, 4, watching(exists(b)), refuse(outcomeNoNode, 10)), happened(kindLost, 0, 5),
		op(1, 6, 7, set(a, "v2"), ok(11)), op(1, 6, 7, create(b, "w1"), ok(12)), op(1, 6, 8, remove(b), ok(13)),
		attached(0, 9), event(0, 10, changed, a, 0), happened(kindRestored, 0, 11),
		op(0, 12, 13, get(a), found(13, "v2", 10, 11, 1)), // that b came and went nobody can know
	}},
	{name: "or are not", want: []string{ruleWatchMissed}, entries: []Entry{
		attached(0, 0), attached(1, 0), op(1, 1, 2, create(a, "v1"), ok(10)),
		op(0, 3, 4, watching(get(a)), found(10, "v1", 10, 10, 0)), happened(kindLost, 0, 5),
		op(1, 6, 7, set(a, "v2"), ok(11)),
		attached(0, 9), happened(kindRestored, 0, 11), op(0, 12, 13, get(a), found(13, "v2", 10, 11, 1)),
	}},
}

func TestPlantedHistories(t *testing.T) {
	covered := map[string]bool{}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			report := Check(planted(test.entries...), time.Minute)
			for _, rule := range test.want {
				covered[rule] = true
			}
			if got := report.Rules(); !slices.Equal(got, test.want) {
				var text strings.Builder
				report.Print(&text)
				t.Errorf("violated: %v, want %v\n%s", got, test.want, &text)
			}
		})
	}
	for _, rule := range []string{
		ruleProtocol, ruleLinearizable, ruleSessionOrder, ruleZxidBack, ruleStaleRead, ruleAppliedTwice, ruleUnwritten,
		ruleSequenceTwice, ruleSequenceOrder, ruleSessionReused, ruleExpiredEarly, ruleEphemeralGone, ruleEphemeralGhost,
		ruleEphemeralOwner, ruleWatchUnset, ruleWatchMissed, ruleEventLate, ruleEventOrder, ruleEventSeenBefore,
	} {
		if !covered[rule] {
			t.Errorf("no planted history violates %s", rule)
		}
	}
}

// A reported violation names the operations that show it.
func TestAViolationNamesItsOperations(t *testing.T) {
	report := Check(planted(
		attached(0, 0), attached(1, 0),
		op(0, 1, 2, create(a, "v1"), ok(10)), op(0, 3, 4, set(a, "v2"), ok(11)),
		op(1, 5, 6, get(a), found(10, "v1", 10, 10, 0), synced),
	), time.Minute)
	var text strings.Builder
	report.Print(&text)
	for _, want := range []string{"client 1", "session 0x2", `setData /d0/a0 "v2"`, `getData /d0/a0 -> ok after a sync`, "cannot follow"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &text)
		}
	}
}

// A search that does not end is reported as that.
func TestAnUnfinishedSearchIsUndecided(t *testing.T) {
	entries := []Entry{attached(0, 0)}
	for i := range 5 {
		entries = append(entries, op(0, int64(i), int64(i)+1, get(a), refuse(outcomeNoNode, 1), synced))
	}
	if report := Check(planted(entries...), 0); len(report.Undecided) != 1 || !report.Clean() {
		t.Fatalf("%+v", report)
	}
}

func TestAHistoryIsReadAsItWasWritten(t *testing.T) {
	for _, test := range cases {
		h := planted(test.entries...)
		path := filepath.Join(t.TempDir(), "history.jsonl")
		if err := h.Write(path); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadHistory(file)
		file.Close()
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if !reflect.DeepEqual(got.Clients, h.Clients) {
			t.Errorf("%s: %+v, want %+v", test.name, got.Clients, h.Clients)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, test := range cases {
		path := filepath.Join(f.TempDir(), "history.jsonl")
		if err := planted(test.entries...).Write(path); err != nil {
			f.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if h, err := ReadHistory(bytes.NewReader(text)); err == nil {
			Check(h, 100*time.Millisecond) // whatever it says, it does not panic
		}
	})
}
