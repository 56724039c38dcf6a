package zookeeper

import (
	"fmt"
	"strconv"
	"strings"

	"slices"

	"understudy/internal/verify"
)

// seen is what a session has learned so far.
type seen struct {
	zxid      *Entry            // of the reply with the highest zxid
	lastWrite *Entry            // the last write that was applied
	mzxids    map[string]*Entry // by path: the newest reading
}

// checkSessionOrder demands that a session is never shown anything older than before: not by
// the zxids of its replies, whichever server gives them, not by what it reads; and that its
// writes are applied in the order in which they were sent.
func checkSessionOrder(h *History, x *index, report *verify.Report) {
	for _, entries := range h.Clients {
		sessions := map[int64]*seen{}
		for i := range entries {
			e := &entries[i]
			if e.Kind != kindOp || e.Return == 0 {
				continue
			}
			s := sessions[e.Session]
			if s == nil {
				s = &seen{mzxids: map[string]*Entry{}}
				sessions[e.Session] = s
			}
			s.checkZxid(e, report)
			s.checkReading(e, report)
			checkFresh(e, x, report)
		}
	}
}

func (s *seen) checkZxid(e *Entry, report *verify.Report) {
	if s.zxid != nil && e.Zxid < s.zxid.Zxid {
		report.Add(ruleZxidBack, sessionName(e), fmt.Sprintf("a reply has zxid 0x%x after one with 0x%x", e.Zxid, s.zxid.Zxid), s.zxid.String(), e.String())
	} else {
		s.zxid = e
	}
	if !e.write() || e.Outcome != outcomeOK || e.Name == opClose {
		return
	}
	if s.lastWrite != nil && e.Zxid <= s.lastWrite.Zxid {
		report.Add(ruleSessionOrder, sessionName(e), "two writes of a session were applied in another order than they were sent", s.lastWrite.String(), e.String())
	}
	s.lastWrite = e
}

// checkReading compares with the session's own readings of the same znode.
func (s *seen) checkReading(e *Entry, report *verify.Report) {
	if e.Stat == nil || e.Name == opChildren {
		return
	}
	before := s.mzxids[e.Path]
	if before != nil && e.Stat.Mzxid < before.Stat.Mzxid {
		report.Add(ruleStaleRead, e.Path, "a session read an older state than it had read before", before.String(), e.String())
		return
	}
	s.mzxids[e.Path] = e
}

// checkFresh compares a reading with the changes that are known, up to the zxid that the
// session has been shown.
func checkFresh(e *Entry, x *index, report *verify.Report) {
	switch {
	case e.Name == opChildren && e.Stat != nil:
		last := lastBefore(x.children[e.Path], x.floor[e])
		if last != nil && e.Stat.Pzxid < last.zxid {
			report.Add(ruleStaleRead, e.Path, fmt.Sprintf("a list of children (pzxid 0x%x) lacks a change of zxid 0x%x, which the session was past", e.Stat.Pzxid, last.zxid), last.entry.String(), e.String())
		}
	case e.Name != opGetData && e.Name != opExists:
	case e.Outcome == outcomeOK:
		last := lastBefore(x.changes[e.Path], x.floor[e])
		if last != nil && (e.Stat.Mzxid < last.zxid || last.kind == deleted && e.Stat.Czxid <= last.zxid) {
			report.Add(ruleStaleRead, e.Path, fmt.Sprintf("a reading lacks a change of zxid 0x%x, which the session was past", last.zxid), last.entry.String(), e.String())
		}
	case e.Outcome == outcomeNoNode && !strings.HasPrefix(e.Path, ephemeralParent+"/"):
		last := lastBefore(x.changes[e.Path], x.floor[e])
		if last != nil && last.kind != deleted && !x.removedSince(e, last.zxid) {
			report.Add(ruleStaleRead, e.Path, fmt.Sprintf("a reading does not find the znode, which exists since zxid 0x%x and nobody has deleted since", last.zxid), last.entry.String(), e.String())
		}
	}
}

// removedSince reports whether somebody may have removed what a reading misses.
func (x *index) removedSince(e *Entry, zxid int64) bool {
	return slices.ContainsFunc(x.removals[e.Path], func(removal *Entry) bool {
		return removal.At < e.Return && (removal.Outcome != outcomeOK || removal.Zxid >= zxid)
	})
}

func sessionName(e *Entry) string { return fmt.Sprintf("session 0x%x", uint64(e.Session)) }

// writing is the one operation that wrote a value, and what is known of its place.
type writing struct {
	entry *Entry
	zxid  int64
	shown *Entry // who saw that zxid
}

// checkValues uses that every value is written once: a value has one mzxid, wherever and by
// whom it is read, and the values of a session have theirs in the order of sending, also those
// whose answers were lost.
func checkValues(h *History, x *index, report *verify.Report) {
	writings := map[string]*writing{}
	var order []string
	h.each(func(e *Entry) {
		for _, value := range valuesOf(&e.Request) {
			w := &writing{entry: e}
			if e.Outcome == outcomeOK {
				w.zxid, w.shown = e.Zxid, e
			}
			writings[value] = w
			order = append(order, value)
		}
	})
	h.each(func(e *Entry) {
		if e.Name != opGetData || e.Outcome != outcomeOK || e.Value == "" {
			return
		}
		w := writings[e.Value]
		switch {
		case w == nil:
			report.Add(ruleUnwritten, e.Path, fmt.Sprintf("nobody wrote the value %q", e.Value), e.String())
		case w.entry.Outcome != outcomeOK && w.entry.Outcome != outcomeOpen:
			report.Add(ruleUnwritten, e.Path, fmt.Sprintf("the value %q is of a write that was refused", e.Value), w.entry.String(), e.String())
		case w.zxid == 0:
			w.zxid, w.shown = e.Stat.Mzxid, e
		case w.zxid != e.Stat.Mzxid:
			report.Add(ruleAppliedTwice, e.Path, fmt.Sprintf("the value %q was written once and stands at two zxids, 0x%x and 0x%x", e.Value, w.zxid, e.Stat.Mzxid), w.entry.String(), w.shown.String(), e.String())
		}
	})
	last := map[int64]*writing{}
	for _, value := range order { // each session's in the order of its requests
		w := writings[value]
		if w.zxid == 0 {
			continue
		}
		if before := last[w.entry.Session]; before != nil && w.zxid <= before.zxid && w.entry != before.entry {
			report.Add(ruleSessionOrder, sessionName(w.entry), "two writes of a session were applied in another order than they were sent", before.entry.String(), before.shown.String(), w.entry.String(), w.shown.String())
		}
		last[w.entry.Session] = w
	}
}

// valuesOf lists what a request writes.
func valuesOf(r *Request) []string {
	var values []string
	for i := range r.Ops {
		values = append(values, valuesOf(&r.Ops[i])...)
	}
	if r.Data != "" {
		values = append(values, r.Data)
	}
	return values
}

// ticket is one number that a parent gave out.
type ticket struct {
	number int64
	entry  *Entry
}

// checkSequences demands that a parent's numbers are given once, in the order of zxids and of
// time.
func checkSequences(h *History, report *verify.Report) {
	tickets := map[string][]ticket{}
	var parents []string
	h.each(func(e *Entry) {
		if !e.Sequential || e.Outcome != outcomeOK {
			return
		}
		number, err := strconv.ParseInt(strings.TrimPrefix(e.Created, e.Path), 10, 64)
		if err != nil || !strings.HasPrefix(e.Created, e.Path) {
			report.Add(ruleProtocol, e.Path, fmt.Sprintf("a sequential znode is called %q", e.Created), e.String())
			return
		}
		if tickets[e.Path] == nil {
			parents = append(parents, e.Path)
		}
		tickets[e.Path] = append(tickets[e.Path], ticket{number, e})
	})
	for _, parent := range parents {
		checkTickets(parent, tickets[parent], report)
	}
}

func checkTickets(parent string, tickets []ticket, report *verify.Report) {
	slices.SortStableFunc(tickets, func(a, b ticket) int { return int(a.number - b.number) })
	var earliest *Entry // of the higher numbers: the one that was answered first
	for i := len(tickets) - 1; i >= 0; i-- {
		e := tickets[i].entry
		if i+1 < len(tickets) {
			next := tickets[i+1]
			if next.number == tickets[i].number {
				report.Add(ruleSequenceTwice, parent, fmt.Sprintf("number %d was given twice", next.number), e.String(), next.entry.String())
			} else if e.Zxid >= next.entry.Zxid {
				report.Add(ruleSequenceOrder, parent, "the higher number has not the higher zxid", e.String(), next.entry.String())
			}
		}
		if earliest != nil && earliest.Return < e.At {
			report.Add(ruleSequenceOrder, parent, "a lower number was given after a higher one", earliest.String(), e.String())
		}
		if earliest == nil || e.Return < earliest.Return {
			earliest = e
		}
	}
}
