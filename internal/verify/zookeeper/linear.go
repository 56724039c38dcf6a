package zookeeper

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"understudy/internal/verify"
)

// znode is one of an object's three, as the model knows it. A zxid of 0 is not known: it was
// given to a write whose answer is missing.
type znode struct {
	exists  bool
	version int32
	czxid   int64
	mzxid   int64
	data    string
}

// object is the state of the model: comparable, so that the search can remember it.
type object struct {
	znodes [3]znode
	zxid   int64 // of the last write with a known one: writes take effect in the order of theirs
}

// The sequential specification of an object. Each operation of the history, multi included, is
// one step; an open one takes effect if it can.
var model = porcupine.Model{
	Init: func() any { return object{} },
	Step: func(state, input, _ any) (bool, any) {
		from := state.(object)
		e := input.(*Entry)
		to, fits := step(from, e)
		return fits, to
	},
}

func step(from object, e *Entry) (object, bool) {
	switch {
	case e.Name == opGetData || e.Name == opExists:
		return reading(from, e)
	case e.Outcome == outcomeOpen:
		if to, refusal, _ := apply(from, &e.Request, 0); refusal == "" {
			return to, true
		}
		return from, true
	case e.Outcome == outcomeOK:
		if e.Zxid <= from.zxid {
			return from, false
		}
		to, refusal, _ := apply(from, &e.Request, e.Zxid)
		if refusal != "" || !statsFit(&to, e) {
			return from, false
		}
		to.zxid = e.Zxid
		return to, true
	}
	_, refusal, failed := apply(from, &e.Request, 0)
	return from, refusal == e.Outcome && (e.Name != opMulti || failed == e.Failed)
}

// reading compares what was read, and learns the zxids of writes that were not answered.
func reading(from object, e *Entry) (object, bool) {
	_, letter, _ := isObject(e.Path)
	n := from.znodes[letter]
	if e.Outcome != outcomeOK {
		return from, !n.exists
	}
	fits := n.exists && n.version == e.Stat.Version &&
		(n.czxid == 0 || n.czxid == e.Stat.Czxid) && (n.mzxid == 0 || n.mzxid == e.Stat.Mzxid) &&
		(e.Name != opGetData || n.data == e.Value)
	n.czxid, n.mzxid = e.Stat.Czxid, e.Stat.Mzxid
	from.znodes[letter] = n
	return from, fits
}

// apply makes a write of the given zxid, all of it or nothing. refusal is why not, and failed
// which op of a multi was refused.
func apply(from object, r *Request, zxid int64) (to object, refusal string, failed int) {
	if r.Name == opMulti {
		to = from
		for i := range r.Ops {
			if to, refusal, _ = apply(to, &r.Ops[i], zxid); refusal != "" {
				return from, refusal, i
			}
		}
		return to, "", 0
	}
	_, letter, _ := isObject(r.Path)
	n := &from.znodes[letter]
	switch {
	case r.Name == opCreate && n.exists:
		return from, outcomeNodeExists, 0
	case r.Name == opCreate:
		*n = znode{exists: true, czxid: zxid, mzxid: zxid, data: r.Data}
		return from, "", 0
	case !n.exists:
		return from, outcomeNoNode, 0
	case r.Version >= 0 && r.Version != n.version:
		return from, outcomeBadVersion, 0
	case r.Name == opDelete:
		*n = znode{}
	case r.Name == opSetData:
		n.version++
		n.mzxid, n.data = zxid, r.Data
	}
	return from, "", 0
}

// statsFit compares the Stats in a write's reply with the state after it.
func statsFit(to *object, e *Entry) bool {
	fits := func(r *Request, stat *Stat) bool {
		_, letter, _ := isObject(r.Path)
		return stat == nil || stat.Version == to.znodes[letter].version && stat.Mzxid == e.Zxid
	}
	for i, stat := range e.Stats {
		if i < len(e.Ops) && !fits(&e.Ops[i], stat) {
			return false
		}
	}
	return fits(&e.Request, e.Stat)
}

// isObject reports whether a path is an object's znode: which object's, and which of its znodes.
func isObject(path string) (object string, letter int, ok bool) {
	slash := strings.LastIndexByte(path, '/')
	if !strings.HasPrefix(path, "/d") || slash <= 0 || len(path) < slash+3 {
		return "", 0, false
	}
	letter = slices.Index(letters, path[slash+1:slash+2])
	if letter < 0 {
		return "", 0, false
	}
	return path[slash+2:], letter, true
}

// objectOf is the object that an operation works on, "" if none or not to be judged here: a
// reading without a sync may be old.
func objectOf(e *Entry) string {
	switch e.Name {
	case opGetData, opExists:
		if e.SyncAt == 0 || e.Outcome != outcomeOK && e.Outcome != outcomeNoNode {
			return ""
		}
	case opCreate, opDelete, opSetData:
	case opMulti:
		return commonObject(e.Ops)
	default:
		return ""
	}
	object, _, _ := isObject(e.Path)
	return object
}

// commonObject is the object that all of a multi's operations work on, "" if there is none.
func commonObject(ops []Request) string {
	common := ""
	for i := range ops {
		object, _, ok := isObject(ops[i].Path)
		if !ok || i > 0 && object != common || len(ops[i].Ops) > 0 {
			return ""
		}
		common = object
	}
	return common
}

// checkLinearizable searches a linearization of each object's operations.
func checkLinearizable(h *History, bound time.Duration, report *verify.Report) {
	operations := map[string][]porcupine.Operation{}
	var objects []string
	h.each(func(e *Entry) {
		object := objectOf(e)
		if object == "" {
			return
		}
		if operations[object] == nil {
			objects = append(objects, object)
		}
		operation := porcupine.Operation{ClientId: e.Client, Input: e, Call: e.At, Return: e.Return}
		if e.SyncAt != 0 {
			operation.Call = e.SyncAt
		}
		if e.Return == 0 || e.Outcome == outcomeOpen {
			operation.Return = math.MaxInt64
		}
		operations[object] = append(operations[object], operation)
	})
	slices.Sort(objects)
	ends := time.Now().Add(bound)
	undecided := 0
	for _, object := range objects {
		left := time.Until(ends)
		if left <= 0 {
			undecided++
			continue
		}
		result, info := porcupine.CheckOperationsVerbose(model, operations[object], left)
		switch result {
		case porcupine.Illegal:
			reportIllegal(object, operations[object], &info, report)
		case porcupine.Unknown:
			undecided++
		}
	}
	report.Fact("objects searched for a linearization", len(objects)-undecided)
	if undecided > 0 {
		report.Undecidable("linearizability of %d of %d objects: the search did not end within %v", undecided, len(objects), bound)
	}
}

// illegalShown bounds how many operations of a hopeless object are spelled out.
const illegalShown = 8

// reportIllegal shows where the longest attempt got stuck: its last steps, then the operations
// that had to be next and could not.
func reportIllegal(object string, operations []porcupine.Operation, info *porcupine.LinearizationInfo, report *verify.Report) {
	var longest []porcupine.Operation
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, attempt := range partition {
			if len(attempt) > len(longest) {
				longest = attempt
			}
		}
	}
	placed := map[*Entry]bool{}
	for i := range longest {
		placed[longest[i].Input.(*Entry)] = true
	}
	var rest []porcupine.Operation
	for i := range operations {
		if !placed[operations[i].Input.(*Entry)] {
			rest = append(rest, operations[i])
		}
	}
	slices.SortFunc(rest, func(a, b porcupine.Operation) int { return int(a.Call/2 - b.Call/2) })
	var shown []string
	for _, operation := range longest[max(0, len(longest)-illegalShown/2):] {
		shown = append(shown, "in order: "+operation.Input.(*Entry).String())
	}
	state := describe(longest)
	for _, operation := range rest[:min(illegalShown, len(rest))] {
		shown = append(shown, "cannot follow: "+operation.Input.(*Entry).String())
	}
	report.Add(ruleLinearizable, "object "+object, fmt.Sprintf("no order of its %d operations explains all answers; the longest attempt places %d and ends in %s", len(operations), len(longest), state), shown...)
}

// describe tells the state that an attempt ends in.
func describe(attempt []porcupine.Operation) string {
	var state object
	for i := range attempt {
		state, _ = step(state, attempt[i].Input.(*Entry))
	}
	text := ""
	for i, n := range state.znodes {
		if i > 0 {
			text += ", "
		}
		if !n.exists {
			text += letters[i] + " absent"
			continue
		}
		text += fmt.Sprintf("%s %q version %d czxid 0x%x mzxid 0x%x", letters[i], n.data, n.version, n.czxid, n.mzxid)
	}
	return text
}
