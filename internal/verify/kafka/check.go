package kafka

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"understudy/internal/verify"
)

// The rules; docs/verify.md says what each of them means to an operator.
const (
	ruleLostWrite        = "lost-write"
	ruleVanished         = "vanished-read"
	ruleDuplicate        = "duplicate"
	ruleInconsistent     = "inconsistent-offset"
	ruleAckedTwice       = "offset-acknowledged-twice"
	rulePollSkip         = "poll-skip"
	ruleNonmonotonicPoll = "nonmonotonic-poll"
	ruleNonmonotonicSend = "nonmonotonic-send"
	ruleAborted          = "aborted-read"
	ruleUnwritten        = "unwritten-value"
	ruleDamaged          = "damaged-value"
	ruleMisplaced        = "wrong-partition"
	ruleHole             = "offset-hole"
	ruleUnseen           = "unseen"
	ruleCommitBack       = "commit-went-back"
)

// sight is who saw a value at an offset: a reader, or the producer in its acknowledgement.
type sight struct {
	value string
	entry *Entry
}

// log is what is known of one partition.
type log struct {
	name  string
	sends []*Entry // acknowledged ones, in the order of sending
	// at is the first sight of each offset, place that of each value.
	at    map[int64]sight
	place map[string]int64
	known []int64  // the offsets in at, sorted, once every sight is in
	polls []*Entry // by consumers, while the run went on

	whole    *Entry // nil: it was not read back
	readback map[int64]sight
	final    map[string]int64 // the readback by value
}

// index is a history sorted by what the checks look up.
type index struct {
	history *History
	logs    map[string]*log
	sends   map[string]*Entry // by value
	clients map[string][]*Entry
}

// Check judges a history.
func Check(h *History) *verify.Report {
	report := &verify.Report{}
	x := newIndex(h)
	x.tally(report)
	for _, name := range slices.Sorted(maps.Keys(x.logs)) {
		l := x.logs[name]
		x.checkSights(l, report)
		l.checkAcknowledgements(report)
		x.checkFinal(l, report)
		x.checkReaders(l, report)
	}
	for _, client := range slices.Sorted(maps.Keys(x.clients)) {
		x.checkOrderSent(x.clients[client], report)
		checkPolls(x.clients[client], x, report)
	}
	x.checkCommitted(report)
	return report
}

func newIndex(h *History) *index {
	x := &index{history: h, logs: map[string]*log{}, sends: map[string]*Entry{}, clients: map[string][]*Entry{}}
	for i := range h.Entries {
		e := &h.Entries[i]
		x.clients[e.Client] = append(x.clients[e.Client], e)
		if e.Partition == "" || e.Kind == kindTrouble {
			continue
		}
		l := x.logs[e.Partition]
		if l == nil {
			l = &log{name: e.Partition, at: map[int64]sight{}, place: map[string]int64{}, readback: map[int64]sight{}, final: map[string]int64{}}
			x.logs[e.Partition] = l
		}
		switch e.Kind {
		case kindSend:
			x.sends[e.Value] = e
			if e.Outcome == outcomeOK {
				l.sends = append(l.sends, e)
			}
		case kindPoll:
			l.polls = append(l.polls, e)
		case kindWhole:
			l.whole = e // the last one counts
		}
	}
	for _, entries := range x.clients {
		slices.SortStableFunc(entries, func(a, b *Entry) int { return a.N - b.N })
	}
	for i := range h.Entries {
		e := &h.Entries[i]
		if l := x.logs[e.Partition]; e.Kind == kindReadback && l.whole != nil && l.whole.Client == e.Client {
			for i, offset := range e.Offsets {
				l.readback[offset] = sight{e.Values[i], e}
				l.final[e.Values[i]] = offset
			}
		}
	}
	return x
}

func (x *index) tally(report *verify.Report) {
	counts := map[string]int{}
	for i := range x.history.Entries {
		e := &x.history.Entries[i]
		counts[e.Kind]++
		counts[e.Kind+e.Outcome]++
		counts[e.Kind+"ed"] += len(e.Offsets)
	}
	read := 0
	for _, name := range slices.Sorted(maps.Keys(x.logs)) {
		read += len(x.logs[name].readback)
		if x.logs[name].whole == nil {
			report.Undecidable("%s was not read back: nothing is said of lost records in it", name)
		}
	}
	report.Fact("records sent", counts[kindSend])
	report.Fact("of them acknowledged", counts[kindSend+outcomeOK])
	report.Fact("refused", counts[kindSend+outcomeRefused])
	report.Fact("without a clear answer", counts[kindSend+outcomeOpen])
	report.Fact("readings by consumers", counts[kindPoll+"ed"])
	report.Fact("records read back", read)
	report.Fact("commits acknowledged", counts[kindCommit+outcomeOK])
}

// checkSights goes through every offset that anybody saw: one value at an offset, one offset
// for a value, and nothing that was not sent.
func (x *index) checkSights(l *log, report *verify.Report) {
	for _, e := range l.sends {
		if before, seen := l.at[e.Offset]; seen {
			report.Add(ruleAckedTwice, l.name, fmt.Sprintf("offset %d was acknowledged to two records", e.Offset), before.entry.String(), e.String())
			continue
		}
		l.at[e.Offset], l.place[e.Value] = sight{e.Value, e}, e.Offset
	}
	for _, e := range l.polls {
		x.see(l, e, report)
	}
	for i := range x.history.Entries {
		if e := &x.history.Entries[i]; e.Kind == kindReadback && e.Partition == l.name {
			x.see(l, e, report)
		}
	}
	l.known = slices.Sorted(maps.Keys(l.at))
}

// see enters a reading. What the same place was seen with before has been judged then.
func (x *index) see(l *log, e *Entry, report *verify.Report) {
	for i, offset := range e.Offsets {
		value := e.Values[i]
		before, seen := l.at[offset]
		if seen && before.value == value {
			continue
		}
		if seen {
			report.Add(ruleInconsistent, l.name, fmt.Sprintf("offset %d is seen as %q and as %q", offset, before.value, value), before.entry.String(), e.String())
		} else {
			l.at[offset] = sight{value, e}
			x.judgeValue(l, e, offset, value, report)
		}
		if place, known := l.place[value]; known && place != offset {
			report.Add(ruleDuplicate, l.name, fmt.Sprintf("%q stands at offset %d and at offset %d", value, place, offset), l.at[place].entry.String(), e.String())
		} else {
			l.place[value] = offset
		}
	}
}

func (x *index) judgeValue(l *log, e *Entry, offset int64, value string, report *verify.Report) {
	sent := x.sends[value]
	switch {
	case strings.HasPrefix(value, damaged):
		report.Add(ruleDamaged, l.name, fmt.Sprintf("offset %d holds other bytes than any record that was sent: %s", offset, value[len(damaged):]), e.String())
	case sent == nil:
		report.Add(ruleUnwritten, l.name, fmt.Sprintf("offset %d holds %q, which nobody sent", offset, value), e.String())
	case sent.Partition != l.name:
		report.Add(ruleMisplaced, l.name, fmt.Sprintf("offset %d holds %q, which was sent to %s", offset, value, sent.Partition), sent.String(), e.String())
	case sent.Outcome == outcomeRefused:
		report.Add(ruleAborted, l.name, fmt.Sprintf("offset %d holds %q, which the broker had refused", offset, value), sent.String(), e.String())
	}
}

// checkAcknowledgements demands that a record which was sent when another one had been
// acknowledged stands behind it, whoever sent them.
func (l *log) checkAcknowledgements(report *verify.Report) {
	byReturn := slices.SortedStableFunc(slices.Values(l.sends), func(a, b *Entry) int { return int(a.Return - b.Return) })
	byStart := slices.SortedStableFunc(slices.Values(l.sends), func(a, b *Entry) int { return int(a.At - b.At) })
	var highest *Entry // of those acknowledged before
	done := 0
	for _, e := range byStart {
		for ; done < len(byReturn) && byReturn[done].Return < e.At; done++ {
			if highest == nil || byReturn[done].Offset > highest.Offset {
				highest = byReturn[done]
			}
		}
		if highest != nil && e.Offset < highest.Offset {
			report.Add(ruleNonmonotonicSend, l.name, fmt.Sprintf("a record got offset %d when offset %d had been acknowledged already", e.Offset, highest.Offset), highest.String(), e.String())
		}
	}
}

// checkOrderSent demands of a producer that keeps the order that its records of a partition
// stand in the order in which it sent them, acknowledged or not.
func (x *index) checkOrderSent(entries []*Entry, report *verify.Report) {
	type placed struct {
		entry  *Entry
		offset int64
	}
	last := map[string]placed{}
	for _, e := range entries {
		if e.Kind != kindSend || !e.Ordered {
			continue
		}
		offset, known := e.Offset, e.Outcome == outcomeOK
		if !known {
			offset, known = x.logs[e.Partition].place[e.Value]
		}
		if !known {
			continue
		}
		if before, seen := last[e.Partition]; seen && offset < before.offset {
			report.Add(ruleNonmonotonicSend, e.Partition, fmt.Sprintf("a producer's later record stands at offset %d, its earlier one at %d", offset, before.offset), before.entry.String(), e.String())
		}
		last[e.Partition] = placed{e, offset}
	}
}

// checkFinal compares what was acknowledged and what was read with what is there at the end.
func (x *index) checkFinal(l *log, report *verify.Report) {
	if l.whole == nil {
		return
	}
	next := l.whole.Start
	for _, offset := range slices.Sorted(maps.Keys(l.readback)) {
		if offset > next {
			report.Add(ruleHole, l.name, fmt.Sprintf("nothing stands from offset %d to %d, the log was read from %d to %d", next, offset-1, l.whole.Start, l.whole.Offset), l.whole.String())
		}
		next = offset + 1
	}
	for _, e := range l.sends {
		if _, there := l.final[e.Value]; !there {
			report.Add(ruleLostWrite, l.name, fmt.Sprintf("the record %q was acknowledged at offset %d and is gone; %s", e.Value, e.Offset, l.standsAt(e.Offset)), e.String(), l.whole.String())
		}
	}
	gone := map[string]bool{}
	for _, e := range l.polls {
		for i, value := range e.Values {
			_, there := l.final[value]
			if sent := x.sends[value]; there || gone[value] || sent == nil || sent.Outcome == outcomeOK {
				continue // an acknowledged one is in the report as lost
			}
			gone[value] = true
			report.Add(ruleVanished, l.name, fmt.Sprintf("%q was read at offset %d and is gone; %s", value, e.Offsets[i], l.standsAt(e.Offsets[i])), x.sends[value].String(), e.String(), l.whole.String())
		}
	}
}

// standsAt says what an offset holds at the end.
func (l *log) standsAt(offset int64) string {
	if now, there := l.readback[offset]; there {
		return fmt.Sprintf("offset %d holds %q now, and the log ends at %d", offset, now.value, l.whole.Offset)
	}
	return fmt.Sprintf("the log goes from %d to %d now", l.whole.Start, l.whole.Offset)
}

// checkReaders demands that every consumer came to the end, and that a group got every record.
func (x *index) checkReaders(l *log, report *verify.Report) {
	if l.whole == nil {
		return
	}
	group := x.history.Setting.Group
	end := map[string]*Entry{}
	for i := range x.history.Entries {
		if e := &x.history.Entries[i]; e.Kind == kindEnd && e.Partition == l.name {
			end[e.Client] = e
		}
	}
	for _, consumer := range slices.Sorted(maps.Keys(end)) {
		if at := end[consumer]; at.Offset < l.whole.Offset {
			report.Add(ruleUnseen, l.name, fmt.Sprintf("%s came only to offset %d, the log ends at %d", consumer, at.Offset, l.whole.Offset), at.String(), l.whole.String())
		}
	}
	if end[group] == nil {
		return
	}
	got := map[int64]bool{}
	for _, e := range l.polls {
		if x.isMember(e.Client) {
			for _, offset := range e.Offsets {
				got[offset] = true
			}
		}
	}
	for _, offset := range slices.Sorted(maps.Keys(l.readback)) {
		if offset < end[group].Offset && !got[offset] {
			now := l.readback[offset]
			report.Add(rulePollSkip, l.name, fmt.Sprintf("the group has passed offset %d, which holds %q, and no member has got it", offset, now.value), now.entry.String(), end[group].String())
		}
	}
}

// isMember reports whether a client was given positions by its group.
func (x *index) isMember(client string) bool {
	return slices.ContainsFunc(x.clients[client], func(e *Entry) bool { return e.Kind == kindPosition && e.Group != "" })
}

// checkPolls follows what one consumer got: within a partition and from its position on, every
// record once and in order.
func checkPolls(entries []*Entry, x *index, report *verify.Report) {
	next := map[string]int64{}
	since := map[string]*Entry{} // what made the consumer expect next
	for _, e := range entries {
		switch e.Kind {
		case kindPosition:
			next[e.Partition], since[e.Partition] = e.Offset, e
		case kindPoll:
			before, placed := since[e.Partition]
			for _, offset := range e.Offsets {
				switch expected := next[e.Partition]; {
				case !placed:
				case offset < expected:
					report.Add(ruleNonmonotonicPoll, e.Partition, fmt.Sprintf("%s got offset %d when it was past it, at %d", e.Client, offset, expected), before.String(), e.String())
				case offset > expected:
					x.skipped(e, before, expected, offset, report)
				}
				next[e.Partition], placed = offset+1, true
			}
			since[e.Partition] = e
		}
	}
}

// skipped reports a jump, if something is known to stand in between.
func (x *index) skipped(e, before *Entry, from, to int64, report *verify.Report) {
	l := x.logs[e.Partition]
	i, _ := slices.BinarySearch(l.known, from)
	if i == len(l.known) || l.known[i] >= to {
		return
	}
	missed := l.at[l.known[i]]
	report.Add(rulePollSkip, e.Partition, fmt.Sprintf("%s got offset %d when %d was next, and offset %d holds %q", e.Client, to, from, l.known[i], missed.value), before.String(), e.String(), missed.entry.String())
}

// checkCommitted demands that a committed offset, once acknowledged or shown, is not followed
// by a lower one that nobody has committed since.
func (x *index) checkCommitted(report *verify.Report) {
	commits := map[string][]*Entry{}
	for i := range x.history.Entries {
		if e := &x.history.Entries[i]; e.Kind == kindCommit || e.Kind == kindCommitted {
			commits[e.Partition] = append(commits[e.Partition], e)
		}
	}
	for _, partition := range slices.Sorted(maps.Keys(commits)) {
		checkRegister(partition, commits[partition], report)
	}
}

// checkRegister compares each reading of a committed offset with what was known when it was
// asked for. commits are a partition's commits and readings.
func checkRegister(partition string, entries []*Entry, report *verify.Report) {
	known := slices.DeleteFunc(slices.Clone(entries), func(e *Entry) bool { return e.Return == 0 })
	slices.SortStableFunc(known, func(a, b *Entry) int { return int(a.Return - b.Return) })
	slices.SortStableFunc(entries, func(a, b *Entry) int { return int(a.At - b.At) })
	var highest *Entry // among those that ended before the reading began
	var lower []*Entry // commits, in order of time: a group that was set back commits lower offsets itself
	done := 0
	for _, e := range entries {
		for ; done < len(known) && known[done].Return < e.At; done++ {
			if highest == nil || known[done].Offset >= highest.Offset {
				highest = known[done]
			}
		}
		if e.Kind == kindCommit {
			lower = append(lower, e)
			continue
		}
		if highest == nil || e.Offset >= highest.Offset || slices.ContainsFunc(lower, func(c *Entry) bool {
			return c.Offset <= e.Offset && c.At < e.Return && (c.Return == 0 || c.Return > highest.At)
		}) {
			continue
		}
		report.Add(ruleCommitBack, partition, fmt.Sprintf("the group's offset is %d, and was %d before", e.Offset, highest.Offset), highest.String(), e.String())
	}
}
