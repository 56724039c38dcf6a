package zookeeper

import (
	"fmt"
	"time"

	"understudy/internal/verify"
)

// touchSlack is the part of its timeout by which a session may rightly end early: a follower
// reports its sessions' signs of life to the leader every half tick, and takes the last ones
// with it when it dies; the least timeout is two ticks.
const touchSlack = 4

// lastContact is the last answered operation that was sent before an instant.
func (l *life) lastContact(before int64) *Entry {
	var last *Entry
	for _, e := range l.answered {
		if e.At >= before {
			break
		}
		last = e
	}
	return last
}

// promised reports whether a session must still have been alive at an instant by its timeout,
// and the contact that shows it.
func (l *life) promised(at int64) (*Entry, bool) {
	contact := l.lastContact(at)
	if contact == nil {
		return nil, false
	}
	timeout := l.timeoutMs * int64(time.Millisecond)
	return contact, at < contact.At+timeout-timeout/touchSlack
}

// checkSessions demands that an id is given to one session only and that no session ends
// before its time.
func checkSessions(x *index, report *verify.Report) {
	for _, e := range x.reused {
		report.Add(ruleSessionReused, sessionName(e), "two clients were given the same session", x.lives[e.Session].first.String(), e.String())
	}
	for _, id := range x.order {
		l := x.lives[id]
		if l.end == nil || l.end.Kind != kindExpired {
			continue
		}
		if contact, alive := l.promised(l.end.At); alive {
			report.Add(ruleExpiredEarly, sessionName(l.end), fmt.Sprintf("expired %v after a sign of life, its timeout is %d ms", time.Duration(l.end.At-contact.At), l.timeoutMs), contact.String(), l.end.String())
		}
	}
}

// checkEphemerals demands that an ephemeral is there as long as its session lives and gone when
// it has ended, for whoever reads after a sync.
func checkEphemerals(h *History, x *index, report *verify.Report) {
	creations := map[string]*Entry{}
	h.each(func(e *Entry) {
		if e.Ephemeral && e.Outcome == outcomeOK {
			creations[e.Path] = e
		}
	})
	h.each(func(e *Entry) {
		creation := creations[e.Path]
		if creation == nil || e.Name != opGetData && e.Name != opExists {
			return
		}
		switch e.Outcome {
		case outcomeOK:
			checkPresent(e, creation, x.lives[creation.Session], report)
		case outcomeNoNode:
			checkAbsent(e, creation, x, report)
		}
	})
	for _, entries := range h.Clients {
		checkLeft(entries, creations, report)
	}
}

func checkPresent(e, creation *Entry, l *life, report *verify.Report) {
	if e.Stat.Owner != creation.Session {
		report.Add(ruleEphemeralOwner, e.Path, fmt.Sprintf("its owner is said to be session 0x%x", uint64(e.Stat.Owner)), creation.String(), e.String())
	}
	if e.SyncAt == 0 || l.end == nil {
		return
	}
	ended := int64(0)
	switch {
	case l.end.Kind == kindExpired:
		ended = l.end.At
	case l.end.Kind == kindOp && l.end.Outcome == outcomeOK:
		ended = l.end.Return
	}
	if ended != 0 && e.SyncAt > ended {
		report.Add(ruleEphemeralGhost, e.Path, "an ephemeral is there although its session had ended before the reader's sync", creation.String(), l.end.String(), e.String())
	}
}

func checkAbsent(e, creation *Entry, x *index, report *verify.Report) {
	if !(e.SyncAt > creation.Return || x.floor[e] >= creation.Zxid) {
		return // the reader's server may not have come that far
	}
	l := x.lives[creation.Session]
	if l.lastWrite != nil && l.lastWrite.At > e.Return && l.lastWrite.Name != opClose {
		report.Add(ruleEphemeralGone, e.Path, "an ephemeral was gone although its session lived: it wrote later", creation.String(), e.String(), l.lastWrite.String())
		return
	}
	if l.end != nil && l.end.Kind == kindOp && l.end.At < e.Return {
		return // it was being closed
	}
	if contact, alive := l.promised(e.Return); alive {
		report.Add(ruleEphemeralGone, e.Path, fmt.Sprintf("an ephemeral was gone %v after a sign of life of its session, whose timeout is %d ms", time.Duration(e.Return-contact.At), l.timeoutMs), creation.String(), contact.String(), e.String())
	}
}

// checkLeft looks at what was there after the last moment.
func checkLeft(entries []Entry, creations map[string]*Entry, report *verify.Report) {
	over := false
	for i := range entries {
		e := &entries[i]
		over = over || e.Kind == kindDeadline
		if !over || e.Kind != kindOp || e.Name != opChildren || e.Path != ephemeralParent {
			continue
		}
		for _, child := range e.Children {
			path := ephemeralParent + "/" + child
			shown := []string{e.String()}
			if creation := creations[path]; creation != nil {
				shown = []string{creation.String(), e.String()}
			}
			report.Add(ruleEphemeralGhost, path, "an ephemeral has outlived its session by more than its timeout", shown...)
		}
	}
}
