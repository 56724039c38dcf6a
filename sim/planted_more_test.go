//go:build mutation

package main

// anything is what a bug may show as that strikes where many things hang on.
var anything = append([]string{"no-convergence", "epoch-fence", "state-node", "recovery", "read", "disk", "panic", "producer-forgotten", "hw-beyond-log",
	"hw-goes-back", "reassignment-early", "below-min-isr", "isr-by-controller", "stale-generation"}, broken...)

// moreMutations are bugs that nobody asked for by name: what a careless change could do.
var moreMutations = []mutation{
	// The high watermark, the ISR, roles.
	{
		name: "follower's high watermark beyond its log", file: inPartition + "replica.go",
		edits:  stmt("	r.highWatermark, r.proven = leaderHighWatermark, math.MaxInt64\n	r.clampHighWatermark(logStart, logEnd)\n", "	r.highWatermark, r.proven = leaderHighWatermark, math.MaxInt64\n"),
		caught: anything, because: "it shows what it does not have, and leads with it later",
	},
	{
		name: "follower joins one record too early", file: inPartition + "isr.go",
		edits:  when("follower.logEnd < r.highWatermark || follower.logEnd < r.epochStartOffset || !env.Alive(follower.id)", "follower.logEnd+1 < r.highWatermark || follower.logEnd+1 < r.epochStartOffset || !env.Alive(follower.id)"),
		caught: anything, because: "it lacks a committed record",
	},
	{
		name: "follower joins before the leader's epoch", file: inPartition + "isr.go",
		edits:  when("follower.logEnd < r.highWatermark || follower.logEnd < r.epochStartOffset || !env.Alive(follower.id)", "follower.logEnd < r.highWatermark || !env.Alive(follower.id)"),
		caught: anything, because: "a new leader's high watermark lags: what its predecessor committed lies above",
	},
	{
		name: "acks=all is appended below min ISR", file: inReplication + "append.go",
		edits:  when("op.request.Acks == AcksAll && !h.replica.EnoughReplicas(h.minISR)", "false"),
		caught: anything, because: "it is promised that nothing is stored then",
	},
	{
		name: "consumers read one record too far", file: inReplication + "fetch.go",
		edits:  always("	default:\n		v.limit = v.highWatermark\n", "	default:\n		v.limit = v.highWatermark\n		if planted(BUG) {\n			v.limit = min(v.highWatermark+1, h.log.EndOffset())\n		}\n"),
		caught: anything, because: "it may be lost with the leader",
	},
	{
		name: "latest is the log's end", file: inReplication + "offsets.go",
		edits:  when("replica != ConsumerReplica", "true"),
		caught: anything, because: "a consumer that begins there skips or goes back",
	},
	{
		name: "a new leader tells its high watermark at once", file: inReplication + "offsets.go",
		edits:  when("replica == ConsumerReplica && highWatermark < epochStart", "false"),
		caught: anything, because: "it goes back in consumers' eyes (KIP-207)",
	},
	{
		name: "truncation to the leader's end alone", file: inPartition + "judge.go",
		edits:  expr("min(local.End, leader.End, logEnd)", "min(leader.End, logEnd)"),
		caught: anything, because: "a follower's part of that epoch may be shorter, with another history behind",
	},
	{
		name: "divergence compares one record too far", file: inPartition + "judge.go",
		edits:  when("lookup.Epoch < lastFetched || lookup.End < offset", "lookup.Epoch < lastFetched || lookup.End+1 < offset"),
		caught: anything, because: "one record of another history stays",
	},
	// The log.
	{
		name: "sequences do not wrap", file: "internal/streaming/record/batch.go",
		edits:  when("sequence > maxSequenceNumber-increment", "false"),
		caught: anything, because: "a producer is refused for good after 2^31 records",
	},
	{
		name: "a duplicate is answered with its last offset", file: inLog + "producers.go",
		edits:  expr("b.lastOffset - cluster.Offset(b.offsetDelta)", "b.lastOffset"),
		caught: anything, because: "the producer believes that its records are elsewhere",
	},
	{
		name: "producer snapshot one offset too late", file: inLog + "roll.go",
		edits:  call("error", "l.takeSnapshotLocked(base, false)", "l.takeSnapshotLocked(base+1, false)"),
		caught: anything, because: "a batch is missing from the producers' state",
	},
	{
		name: "producer snapshot after what is flushed", file: inLog + "flush.go",
		edits:  append(expr("l.filePath(offsetName(plan.target, snapshotSuffix))", "l.filePath(offsetName(plan.target+1, snapshotSuffix))"), stmt("		l.addSnapshotLocked(plan.target)\n", "		l.addSnapshotLocked(plan.target + 1)\n")...),
		caught: anything, because: "a batch is missing from the producers' state",
	},
	{
		name: "only the first epoch of a fetch is noted", file: inLog + "append.go",
		edits:  when("l.epochs.assign(batch.LeaderEpoch(), batch.BaseOffset())", "position == active.size.Load() && l.epochs.assign(batch.LeaderEpoch(), batch.BaseOffset())"),
		caught: anything, because: "an answer may hold batches of several epochs",
	},
	{
		name: "recovery believes a log that was not closed", file: inLog + "load.go",
		edits:  when("!clean && (last || segments[i+1].base >= recoveryPoint)", "false"),
		caught: anything, because: "its end may be torn",
	},
	{
		name: "the mark of a clean stop stays", file: inLog + "directory.go",
		edits:  when("!d.cleanShutdown", "true"),
		caught: anything, because: "a crash is taken for a clean stop",
	},
	{
		name: "a new segment's name is not synced", file: inLog + "flush.go",
		edits:  stmt("	if named {\n		return end, truncations, nil\n	}\n", "	return end, truncations, nil\n"),
		caught: anything, because: "the power takes the file",
	},
	{
		name: "checkpoints are replaced without fsync", file: inLog + "checkpoint.go",
		edits:  call("error", "writeFile(fsys, temporary, data, true)", "writeFile(fsys, temporary, data, false)"),
		caught: anything, because: "after a power loss there is an empty one",
	},
	// The controller.
	{
		name: "a reassignment moves the leadership out of the ISR", file: inController + "elect.go",
		edits:  always("	for _, id := range target {\n		if online(id) && slices.Contains(state.ISR, id) {\n", "	for _, id := range target {\n		if online(id) && (planted(BUG) || slices.Contains(state.ISR, id)) {\n"),
		caught: anything, because: "it lacks committed records",
	},
	{
		name: "a reassignment is completed with one new replica in sync", file: inController + "reassign.go",
		edits:  stmt("	for _, id := range p.assignment.Target() {\n		if !slices.Contains(p.state.ISR, id) {\n			return false\n		}\n	}\n	return p.known\n", "	return p.known && slices.ContainsFunc(p.assignment.Target(), func(id cluster.BrokerID) bool { return slices.Contains(p.state.ISR, id) })\n"),
		caught: anything, because: "the others count as assigned and old ones are deleted",
	},
	{
		name: "a controller's removal from the ISR keeps the epoch", file: inController + "elect.go",
		edits:  stmt("	if next.Leader == state.Leader && len(rest) == len(state.ISR) {\n		return *state, false\n	}\n	next.LeaderEpoch++\n", "	if next.Leader == state.Leader && len(rest) == len(state.ISR) {\n		return *state, false\n	}\n"),
		caught: anything, because: "the leader does not hear of it",
	},
	{
		name: "a broker that bounced is not noticed", file: inController + "brokers.go",
		edits:  when("there && now.Epoch <= b.Epoch", "there"),
		caught: anything, because: "it has lost its roles",
	},
	{
		name: "the nearest log is elected after unclean stops", file: inController + "uncleanstop.go",
		edits:  expr("cmp.Or(cmp.Compare(q.standing(other), q.standing(one)), cmp.Compare(other.epoch, one.epoch), cmp.Compare(other.offset, one.offset))", "cmp.Or(cmp.Compare(one.epoch, other.epoch), cmp.Compare(one.offset, other.offset))"),
		caught: anything, because: "the others cut theirs to match",
	},
	{
		name: "the longest log is elected after unclean stops", file: inController + "uncleanstop.go",
		edits:  expr("cmp.Or(cmp.Compare(q.standing(other), q.standing(one)), cmp.Compare(other.epoch, one.epoch), cmp.Compare(other.offset, one.offset))", "cmp.Compare(other.offset, one.offset)"),
		caught: anything, because: "length says nothing across epochs",
	},
	// Groups, sessions.
	{
		name: "the answer to a join has the generation before", file: inGroup + "classic/join.go",
		edits:  always("MemberID: m.id, Generation: g.generation, ", "MemberID: m.id, Generation: plantedOr(BUG, g.generation-1, g.generation), "),
		caught: anything, because: "the members are not in it",
	},
	{
		name: "an assignment counts in a later generation", file: inGroup + "classic/rebalance.go",
		edits:  when("g.state != CompletingRebalance || g.generation != generation", "g.state != CompletingRebalance"),
		caught: anything, because: "members get partitions of a generation that is over",
	},
	{
		name: "an assignment is given out before it is written", file: inGroup + "classic/rebalance.go",
		edits:  always("[]Record{g.metadataRecord(assignments)},\n		Acknowledged: true,", "[]Record{g.metadataRecord(assignments)},\n		Acknowledged: !planted(BUG),"),
		caught: anything, because: "",
	},
	{
		name: "a failed commit is answered as a good one", file: inGroup + "classic/offsets.go",
		edits:  always("	write.complete = func(_ time.Time, err error, out *Effects) {\n		code := commitWriteError(err)\n		for _, tp := range order {\n			if code == nil", "	write.complete = func(_ time.Time, err error, out *Effects) {\n		code := commitWriteError(err)\n		if planted(BUG) {\n			code = nil\n		}\n		for _, tp := range order {\n			if code == nil"),
		caught: anything, because: "it is nowhere",
	},
	{
		name: "a forgotten partition stays in its fetch session", file: "internal/streaming/broker/fetch_session.go",
		edits:  stmt("				s.drop(key, known)\n", "				_ = known\n"),
		caught: anything, because: "a follower is counted on for what it does not fetch any more",
	},
	{
		name: "heartbeats of another generation are taken", file: inGroup + "classic/member.go",
		edits:  when("r.Generation != g.generation", "false"),
		caught: anything, because: "the member goes on with partitions that are somebody else's",
	},
	{
		name: "a truncation does not lower what is synced", file: inLog + "flush.go",
		edits:  stmt("	l.synced.offset = min(l.synced.offset, end)\n", ""),
		caught: anything, because: "what is written there next counts as synced",
	},
}
