package zookeeper

import (
	"fmt"
	"time"
)

// actorPause bounds the pause between two actions of a client; half of it is the mean.
const actorPause = 8 * time.Millisecond

// letters name an object's znodes.
var letters = []string{"a", "b", "c"}

func objectPath(object int64, letter string) string {
	return fmt.Sprintf("/d%d/%s%d", object%directories, letter, object)
}

// actor decides what a client does next. Every decision comes from the client's own seeded
// source; what the others do in the meantime is not repeatable.
type actor struct {
	*client
	run      *run
	versions map[string]int32 // last seen here, for conditions that sometimes hold
	owned    int              // ephemerals of the session, about
}

// versionsMax bounds what the actor remembers.
const versionsMax = 200

func (a *actor) act() {
	switch n := a.random.IntN(1000); {
	case n < 640:
		a.workOnObject()
	case n < 700:
		a.createSequential()
	case n < 760:
		a.createEphemeral()
	case n < 870:
		a.lookAtEphemerals()
	case n < 985:
		a.watch()
	case n < 994:
		a.hop()
	case n < 998:
		a.owned = 0
		a.closeSession()
	default:
		a.owned = 0
		a.abandon()
	}
}

// object chooses one of the latest; each call counts towards the next.
func (a *actor) object() int64 {
	latest := a.run.calls.Add(1) / operationsAnyhow
	return max(0, latest-a.random.Int64N(objectsAtATime))
}

// workOnObject sends a burst of operations on one object, pipelined: the later ones must not
// overtake the earlier.
func (a *actor) workOnObject() {
	object := a.object()
	calls := make([]call, 1+a.random.IntN(3))
	for i := range calls {
		if i > 0 {
			a.run.calls.Add(1)
		}
		calls[i] = a.call(object)
	}
	a.learn(a.do(calls...))
}

func (a *actor) call(object int64) call {
	path := objectPath(object, letters[a.random.IntN(len(letters))])
	switch n := a.random.IntN(100); {
	case n < 62:
		return call{Request: a.change(path)}
	case n < 74:
		return call{Request: a.multi(object)}
	case n < 84:
		return call{Request: Request{Name: opGetData, Path: path}}
	case n < 95:
		return call{sync: true, Request: Request{Name: opGetData, Path: path}}
	}
	return call{sync: true, Request: Request{Name: opExists, Path: path}}
}

// change is a write to one znode.
func (a *actor) change(path string) Request {
	switch n := a.random.IntN(60); {
	case n < 20:
		return Request{Name: opCreate, Path: path, Data: a.value()}
	case n < 32:
		return Request{Name: opDelete, Path: path, Version: a.version(path)}
	}
	return Request{Name: opSetData, Path: path, Data: a.value(), Version: a.version(path)}
}

func (a *actor) multi(object int64) Request {
	multi := Request{Name: opMulti}
	for _, i := range a.random.Perm(len(letters))[:2+a.random.IntN(2)] {
		path := objectPath(object, letters[i])
		if a.random.IntN(5) == 0 {
			multi.Ops = append(multi.Ops, Request{Name: opCheck, Path: path, Version: a.version(path)})
		} else {
			multi.Ops = append(multi.Ops, a.change(path))
		}
	}
	return multi
}

// version is the last seen, or any.
func (a *actor) version(path string) int32 {
	if version, seen := a.versions[path]; seen && a.random.IntN(2) == 0 {
		return version
	}
	return -1
}

func (a *actor) learn(done []*Entry) {
	if len(a.versions) > versionsMax {
		clear(a.versions)
	}
	for _, entry := range done {
		if entry.Stat != nil && entry.Name != opChildren {
			a.versions[entry.Path] = entry.Stat.Version
		}
	}
}

func (a *actor) createSequential() {
	parent := a.random.IntN(sequenceParents)
	path := fmt.Sprintf("/s%d/n-", parent)
	calls := make([]call, 1+a.random.IntN(2))
	for i := range calls {
		calls[i].Request = Request{Name: opCreate, Path: path, Data: a.value(), Sequential: true}
	}
	a.do(calls...)
}

// ephemeralsOfASession bounds them, so that sessions differ.
const ephemeralsOfASession = 6

func (a *actor) createEphemeral() {
	if a.owned >= ephemeralsOfASession {
		return
	}
	a.owned++
	value := a.value()
	path := ephemeralParent + "/" + value
	for _, done := range a.do(call{Request: Request{Name: opCreate, Path: path, Data: value, Ephemeral: true}}) {
		if done.Outcome == outcomeOK {
			a.run.remember(path)
		}
	}
}

func (r *run) remember(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.ephemerals = append(r.mu.ephemerals, path); len(r.mu.ephemerals) > ephemeralsAtATime {
		r.mu.ephemerals = r.mu.ephemerals[1:]
	}
}

// someEphemeral is one of the latest that anybody has created, "" if there is none.
func (a *actor) someEphemeral() string {
	a.run.mu.Lock()
	defer a.run.mu.Unlock()
	if len(a.run.mu.ephemerals) == 0 {
		return ""
	}
	return a.run.mu.ephemerals[a.random.IntN(len(a.run.mu.ephemerals))]
}

func (a *actor) lookAtEphemerals() {
	calls := make([]call, 0, 3)
	for range cap(calls) {
		if path := a.someEphemeral(); path != "" {
			calls = append(calls, call{sync: a.random.IntN(3) > 0, Request: Request{Name: opGetData, Path: path}})
		}
	}
	if len(calls) > 0 {
		a.do(calls...)
	}
}

// watchesOfASession bounds the watches that are set at the same time.
const watchesOfASession = 12

// watch sets watches on what is about to change.
func (a *actor) watch() {
	if len(a.dataWatches)+len(a.existWatches)+len(a.childWatches) >= watchesOfASession {
		a.readWatched()
		return
	}
	object := a.object()
	path := objectPath(object, letters[a.random.IntN(len(letters))])
	request := Request{Name: opGetData, Path: path, Watch: true}
	switch a.random.IntN(5) {
	case 0, 1:
		request.Name = opExists
	case 2:
		request = Request{Name: opChildren, Path: fmt.Sprintf("/d%d", object%directories), Watch: true}
	case 3:
		if ephemeral := a.someEphemeral(); ephemeral != "" {
			request = Request{Name: opExists, Path: ephemeral, Watch: true}
		}
	}
	a.learn(a.do(call{Request: request}))
}
