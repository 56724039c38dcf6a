package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync/atomic"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/zkclient"
	"understudy/internal/streaming/cluster"
)

// Store is what the registry needs of a ZooKeeper client; *zkclient.Client is one.
type Store interface {
	Do(ctx context.Context, op zkclient.Op) zkclient.Result
	// DoAll executes ops pipelined and in order; those whose connection was lost carry
	// zkclient.ErrConnectionLoss and are not repeated by the client.
	DoAll(ctx context.Context, ops []zkclient.Op) []zkclient.Result
	Session() zkclient.Session
}

// What the ensemble can answer, as errors to test for with errors.Is.
var (
	ErrNoNode     error = jute.NoNode
	ErrNodeExists error = jute.NodeExists
	ErrBadVersion error = jute.BadVersion
	ErrNotEmpty   error = jute.NotEmpty
	// ErrBeingDeleted: a topic of the name was marked for deletion, and the mark is still there.
	ErrBeingDeleted = errors.New("the topic of this name is being deleted")
	// ErrControllerMoved: a fenced write found that another controller has been elected.
	ErrControllerMoved = errors.New("another controller has been elected")
	// ErrNoController: a configuration write needs an active controller to be guarded by.
	ErrNoController = errors.New("no active controller")
)

// Fence is what a controller won in its election: every write it makes as controller is a
// multi whose first operation checks the version of /controller_epoch.
type Fence struct {
	Epoch   cluster.ControllerEpoch
	Version int32 // data version of /controller_epoch after the election
}

// OpKind is what an Op does.
type OpKind uint8

// The operations of Execute.
const (
	OpGet      OpKind = iota + 1
	OpExists          // ErrNoNode if missing; a watch stays in both cases
	OpChildren        // sorted
	OpCreate          // persistent
	OpSet
	OpDelete
	OpDeleteTree // with all descendants, after the other operations of the batch; missing is fine
)

func (k OpKind) String() string {
	names := [...]string{"?", "get", "exists", "children", "create", "set", "delete", "delete tree"}
	if int(k) < len(names) {
		return names[k]
	}
	return "?"
}

// Op is one read or write of a znode as a value: what the controller's core asks for.
type Op struct {
	Kind    OpKind
	Path    string
	Data    []byte
	Version int32 // set, delete: expected version, AnyVersion for any
	Watch   bool  // reads
}

// AnyVersion matches every version.
const AnyVersion int32 = -1

// IsWrite reports whether the op changes anything.
func (op *Op) IsWrite() bool { return op.Kind >= OpCreate }

func (op *Op) String() string { return op.Kind.String() + " " + op.Path }

// OpResult is the outcome of one Op.
type OpResult struct {
	Err      error // nil, one of the errors above, or what the client said
	Data     []byte
	Version  int32 // data version of the node after a set, of the node read otherwise
	Czxid    int64
	Mzxid    int64 // of the last change of the data
	CtimeMs  int64
	Owner    int64 // session of an ephemeral node, else 0
	Children []string
}

// Registry reads and writes cluster state. Its methods may be called concurrently.
type Registry struct {
	store  atomic.Pointer[storeBox] // replaced when a session expired and a new one began
	logger *slog.Logger
}

type storeBox struct{ Store }

// New makes a registry over a connected client.
func New(store Store, logger *slog.Logger) *Registry {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	r := &Registry{logger: logger}
	r.Attach(store)
	return r
}

// Attach replaces the client: the owner's reaction to an expired session. Calls under way
// end with the old client's error.
func (r *Registry) Attach(store Store) { r.store.Store(&storeBox{store}) }

// Execute performs ops pipelined, in order, and returns one result for each. Writes are
// fenced if fence is given: if another controller has been elected meanwhile they all have
// ErrControllerMoved. Operations whose connection was lost are sent again until ctx ends.
func (r *Registry) Execute(ctx context.Context, fence *Fence, ops []Op) []OpResult {
	raw := make([]zkclient.Op, 0, len(ops))
	at := make([]int, 0, len(ops)) // where the result of raw[i] belongs
	var trees []int
	for i := range ops {
		if ops[i].Kind == OpDeleteTree {
			trees = append(trees, i)
			continue
		}
		request := ops[i].request()
		if fence != nil && ops[i].IsWrite() {
			request = zkclient.Multi(zkclient.Check(PathControllerEpoch, fence.Version), request)
		}
		raw, at = append(raw, request), append(at, i)
	}
	out := make([]OpResult, len(ops))
	if len(raw) > 0 {
		replies := r.doAll(ctx, raw)
		for i := range replies {
			out[at[i]] = toResult(&replies[i], raw[i].Code == jute.OpMulti)
		}
	}
	for _, i := range trees {
		out[i].Err = r.DeleteTree(ctx, fence, ops[i].Path)
	}
	return out
}

func (op *Op) request() zkclient.Op {
	switch op.Kind {
	case OpGet:
		return zkclient.GetData(op.Path, op.Watch)
	case OpExists:
		return zkclient.Exists(op.Path, op.Watch)
	case OpChildren:
		return zkclient.Children(op.Path, op.Watch)
	case OpCreate:
		return zkclient.Create(op.Path, op.Data, zkclient.Persistent)
	case OpSet:
		return zkclient.SetData(op.Path, op.Data, op.Version)
	case OpDelete:
		return zkclient.Delete(op.Path, op.Version)
	}
	panic(fmt.Sprintf("registry: operation kind %d on %s", op.Kind, op.Path))
}

func toResult(reply *zkclient.Result, fenced bool) OpResult {
	out := OpResult{Err: reply.Err}
	if fenced {
		if len(reply.Results) == 2 {
			if reply.Err != nil && failedCheck(reply.Results[0].Err) {
				out.Err = ErrControllerMoved
				return out
			}
			reply = &reply.Results[1]
		}
		if out.Err != nil {
			return out
		}
	}
	out.Data, out.Children = reply.Data, reply.Children
	out.Version, out.Czxid, out.Mzxid = reply.Stat.Version, int64(reply.Stat.Czxid), int64(reply.Stat.Mzxid)
	out.CtimeMs, out.Owner = reply.Stat.Ctime, int64(reply.Stat.EphemeralOwner)
	sort.Strings(out.Children)
	return out
}

// failedCheck tells the op that failed a multi from those that fell with it: the others
// carry no error or RUNTIMEINCONSISTENCY.
func failedCheck(err error) bool {
	return errors.Is(err, ErrBadVersion) || errors.Is(err, ErrNoNode)
}

// doAll sends again what was lost with a connection, until ctx ends. The client queues
// requests while it has no connection, so this does not spin.
func (r *Registry) doAll(ctx context.Context, ops []zkclient.Op) []zkclient.Result {
	store := r.store.Load()
	results := store.DoAll(ctx, ops)
	for ctx.Err() == nil {
		var again []int
		for i := range results {
			if errors.Is(results[i].Err, zkclient.ErrConnectionLoss) {
				again = append(again, i)
			}
		}
		if len(again) == 0 {
			break
		}
		lost := make([]zkclient.Op, len(again))
		for i, index := range again {
			lost[i] = ops[index]
		}
		for i, result := range store.DoAll(ctx, lost) {
			results[again[i]] = result
		}
	}
	return results
}

func (r *Registry) do(ctx context.Context, op zkclient.Op) zkclient.Result {
	for {
		result := r.store.Load().Do(ctx, op)
		if !errors.Is(result.Err, zkclient.ErrConnectionLoss) || ctx.Err() != nil {
			return result
		}
	}
}

// createRecursive creates a node and, where they are missing, its parents with null data
// (KafkaZkClient.createRecursive).
func (r *Registry) createRecursive(ctx context.Context, path string, data []byte) error {
	result := r.do(ctx, zkclient.Create(path, data, zkclient.Persistent))
	if !errors.Is(result.Err, ErrNoNode) {
		return result.Err
	}
	for i := 1; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		result := r.do(ctx, zkclient.Create(path[:i], nil, zkclient.Persistent))
		if result.Err != nil && !errors.Is(result.Err, ErrNodeExists) {
			return fmt.Errorf("create %s: %w", path[:i], result.Err)
		}
	}
	return r.do(ctx, zkclient.Create(path, data, zkclient.Persistent)).Err
}

// DeleteTree deletes nodes with all their descendants, level by level, each level in one
// pipelined batch. Missing nodes are fine.
func (r *Registry) DeleteTree(ctx context.Context, fence *Fence, roots ...string) error {
	var all []string // parents before children
	level := roots
	for len(level) > 0 {
		all = append(all, level...)
		ops := make([]Op, len(level))
		for i, path := range level {
			ops[i] = Op{Kind: OpChildren, Path: path}
		}
		var next []string
		for i, result := range r.Execute(ctx, nil, ops) {
			if result.Err != nil && !errors.Is(result.Err, ErrNoNode) {
				return fmt.Errorf("list %s: %w", level[i], result.Err)
			}
			for _, child := range result.Children {
				next = append(next, strings.TrimSuffix(level[i], "/")+"/"+child)
			}
		}
		level = next
	}
	slices.Reverse(all)
	ops := make([]Op, len(all))
	for i, path := range all {
		ops[i] = Op{Kind: OpDelete, Path: path, Version: AnyVersion}
	}
	for i, result := range r.Execute(ctx, fence, ops) {
		if result.Err != nil && !errors.Is(result.Err, ErrNoNode) {
			return fmt.Errorf("delete %s: %w", all[i], result.Err)
		}
	}
	return nil
}
