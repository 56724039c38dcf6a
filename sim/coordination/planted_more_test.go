//go:build mutation

package coordination

import "understudy/sim/mutant"

// anything is what a bug may show as that strikes where many things hang on.
var anything = []string{"tree-model", "identical-state", "snapshot-state", "log-kept", "hard-state-kept", "start-refused", "stopped-by-itself",
	"panic", "no-progress", "no-convergence", "watch-order", "watch-lost", "read-content", "sync-read", "fifo", "acknowledged-lost",
	"zxid-epoch", "session-expired-early", "reply-order", "applied-twice", "identical-result", "ended-session-acts", "ended-session-served", "log-matching", "zxid-monotone"}

// moreMutations are bugs that nobody asked for by name: what a careless change could do.
var moreMutations = []mutant.Bug{
	// The tree.
	{
		Name:    "pzxid not noted",
		Edits:   stmt(inZnode+"tree.go", "	binary.LittleEndian.PutUint64(record[atPzxid:], uint64(zxid))\n", "	_ = zxid\n"),
		Caught:  anything,
		Because: "child watches that were missed are found by it",
	},
	{
		Name:    "a create does not count in its parent",
		Edits:   expr(inZnode+"apply_op.go", "nextCounter(m.tree.counter(parent))", "m.tree.counter(parent)"),
		Caught:  anything,
		Because: "cversion stands still, and sequential names are given twice",
	},
	{
		Name:    "setData does not count",
		Edits:   stmt(inZnode+"apply_op.go", "	n.version++\n", ""),
		Caught:  anything,
		Because: "conditional writes succeed that must not",
	},
	{
		Name:    "mzxid of a change is that of the one before",
		Edits:   stmt(inZnode+"apply_op.go", "	n.data, n.mzxid, n.mtime = c.data, m.result.Zxid, timeMs\n", "	n.data, n.mzxid, n.mtime = c.data, m.result.Zxid-1, timeMs\n"),
		Caught:  anything,
		Because: "data watches that were missed are found by it",
	},
	{
		Name:    "multi is not atomic",
		Edits:   stmt(inZnode+"apply_op.go", "			m.endReply(appendFailedMulti(m.beginReply(), len(operations), i, code))\n", "			for j := range m.changes {\n				m.perform(&m.changes[j], timeMs)\n			}\n			m.endReply(appendFailedMulti(m.beginReply(), len(operations), i, code))\n"),
		Caught:  anything,
		Because: "what came before the failure is done",
	},
	{
		Name:    "a multi does not see what it creates",
		Edits:   stmt(inZnode+"check.go", "		c.pending[path] = view{exists: true, ephemeral: r.Flags.Ephemeral(), acl: acl}\n", ""),
		Caught:  anything,
		Because: "a create and a set of the same node in one multi",
	},
	{
		Name:    "a multi does not see what it deletes",
		Edits:   stmt(inZnode+"check.go", "		c.pending[path] = view{}\n", ""),
		Caught:  anything,
		Because: "a delete and a create of the same node in one multi",
	},
	{
		Name:    "a multi does not count what it sets",
		Edits:   stmt(inZnode+"check.go", "		node.version++\n		c.pending[path] = node\n", "		c.pending[path] = node\n"),
		Caught:  anything,
		Because: "its second conditional write is refused, or one that must be is not",
	},
	{
		Name:    "delete does not look at the version",
		Edits:   always(inZnode+"check.go", "	case version != jute.AnyVersion && version != node.version:\n", "	case version != jute.AnyVersion && version != node.version && !planted(BUG):\n"),
		Caught:  anything,
		Because: "somebody has changed it since",
	},
	{
		Name:    "check does not look at the version",
		Edits:   always(inZnode+"check.go", "		return change{}, jute.BadVersion\n	}\n	return change{op: jute.OpCheck, path: path}, jute.OK\n", "		if !planted(BUG) {\n			return change{}, jute.BadVersion\n		}\n	}\n	return change{op: jute.OpCheck, path: path}, jute.OK\n"),
		Caught:  anything,
		Because: "fences of controllers are checks in multis",
	},
	{
		Name:    "a re-attached session keeps its generation",
		Edits:   expr(inZnode+"apply_session.go", "before.generation + 1", "before.generation"),
		Caught:  anything,
		Because: "what was sent on the connection before counts",
	},
	{
		Name:    "a new leader's zxids go on in the old epoch",
		Edits:   stmt(inZnode+"machine.go", "		m.lastZxid = (m.lastZxid>>32 + 1) << 32\n", ""),
		Caught:  anything,
		Because: "their upper half is the epoch, and Kafka's controllers and tools look at it",
	},
	{
		Name:    "ephemerals of a restored snapshot belong to nobody",
		Edits:   stmt(inZnode+"restore.go", "		r.m.sessions.addEphemeral(n.owner, id)\n", "		_ = id\n"),
		Caught:  anything,
		Because: "they outlive their session on one member",
	},
	// Watches.
	{
		Name:    "a lasting watch fires once",
		Edits:   stmt(inWatch+"watch.go", "				t.setModes(r, r.modes&^once)\n", "				t.setModes(r, 0)\n"),
		Caught:  anything,
		Because: "a persistent watch at a path with a one-shot one goes with it",
	},
	{
		Name:    "child watches of a deleted node are not told",
		Edits:   always(inWatch+"watch.go", "		dst = t.fireAbove(dst, path)\n		return t.fireAt(dst, path, modeChild|modePersistent)\n", "		dst = t.fireAbove(dst, path)\n		if planted(BUG) {\n			return dst\n		}\n		return t.fireAt(dst, path, modeChild|modePersistent)\n"),
		Caught:  anything,
		Because: "its client waits for a node that is gone",
	},
	{
		Name:    "watches are lost with the connection",
		Edits:   stmt(inWatch+"watch.go", "				t.Add(kind, path, w)\n", "				_ = kind\n"),
		Caught:  anything,
		Because: "setWatches tells what was missed, and must watch on",
	},
	{
		Name:    "setWatches forgets who waits for a node",
		Edits:   always(inWatch+"watch.go", "		return jute.EventCreated, exists\n", "		return jute.EventCreated, exists && !planted(BUG)\n"),
		Caught:  anything,
		Because: "it was created while the connection was lost",
	},
	{
		Name:    "setWatches forgets deletions",
		Edits:   when(inWatch+"watch.go", "!exists || mzxid > r.RelativeZxid", "exists && mzxid > r.RelativeZxid"),
		Caught:  anything,
		Because: "a node that is gone has no zxid",
	},
	{
		Name:    "exists of a missing node leaves no watch",
		Edits:   when(inServer+"requests.go", "registration.Kind != watch.None", "registration.Kind != watch.None && code == jute.OK"),
		Caught:  anything,
		Because: "its client waits for the node",
	},
	{
		Name:    "the end of a session leaves its connection",
		Edits:   when(inServer+"observer.go", "other != nil && other != c", "false"),
		Caught:  anything,
		Because: "its client believes that it has a session",
	},
	// Sessions' clock.
	{
		Name:    "a leader that was paused blames the clients",
		Edits:   when(inSession+"session.go", "c.ran && late > c.config.Lateness", "false"),
		Caught:  append([]string{"session-expired-early"}, anything...),
		Because: "it has heard nobody while it slept",
	},
	{
		Name:    "a new leader counts from its own start",
		Edits:   expr(inSession+"session.go", "&entry{Session: s, put: now, seen: c.clockTime(now)}", "&entry{Session: s, put: now}"),
		Caught:  append([]string{"session-expired-early"}, anything...),
		Because: "sessions get their full timeout from it",
	},
	{
		Name:    "an expiry is decided in the next bucket",
		Edits:   always(inSession+"session.go", "	if bucket < c.next {\n", "	if planted(BUG) {\n		bucket--\n	}\n	if bucket < c.next {\n"),
		Caught:  append([]string{"session-expired-early"}, anything...),
		Because: "a session dies before its timeout",
	},
	// The log.
	{
		Name:    "an overwritten log keeps an entry too many",
		Edits:   expr(inWal+"log.go", "int(index - l.mu.base.index - 1)", "min(int(index-l.mu.base.index), len(l.mu.positions))"),
		Caught:  append([]string{"log-matching"}, anything...),
		Because: "it is of another leader",
	},
	{
		Name:    "a single entry is no reason to sync",
		Edits:   when(inWal+"log.go", "len(w.Entries) > 0", "len(w.Entries) > 1"),
		Caught:  append([]string{"durable-before-answer", "majority-durable", "log-matching"}, anything...),
		Because: "it is not even written",
	},
	{
		Name:    "a new segment's name is not synced",
		Edits:   call(inWal+"log.go", "error", "l.fs.SyncDir(filepath.Dir(path))", "nil"),
		Caught:  append([]string{"durable-before-answer", "majority-durable"}, anything...),
		Because: "the power takes all that is in it",
	},
	{
		Name:    "a snapshot is not synced before it has its name",
		Edits:   call(inWal+"identity.go", "error", "f.Sync()", "nil"),
		Caught:  append([]string{"durable-before-answer", "majority-durable"}, anything...),
		Because: "the log below it is removed",
	},
	{
		Name:    "the segment before the first one needed goes, too",
		Edits:   when(inWal+"log.go", "l.mu.segments[0].number < lowest", "l.mu.segments[0].number <= lowest && len(l.mu.segments) > 1"),
		Caught:  append([]string{"durable-before-answer", "majority-durable"}, anything...),
		Because: "it has entries that are kept",
	},
	{
		Name:    "the beginning of a segment forgets what it continues",
		Edits:   stmt(inWal+"log.go", "	frame = appendPositionRecord(frame, recordBase, last.index, last.term)\n", "	_ = last\n"),
		Caught:  append([]string{"durable-before-answer", "majority-durable"}, anything...),
		Because: "without the segments before it nobody knows where its entries belong",
	},
	// Forwarding.
	{
		Name:    "a snapshot drops one request too few",
		Edits:   when(inEnsemble+"forward.go", "f.mu.first < next && len(f.mu.queue) > 0", "f.mu.first+1 < next && len(f.mu.queue) > 0"),
		Caught:  anything,
		Because: "it was applied, and waits for ever",
	},
	{
		Name:    "a member serves while it is behind",
		Edits:   when(inEnsemble+"run.go", "context < b.first || context > b.context", "false"),
		Caught:  anything,
		Because: "an answer to an earlier question says less",
	},
}
