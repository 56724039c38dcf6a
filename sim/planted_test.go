//go:build mutation

package main

// What a lost, doubled or misplaced record shows as, depending on who looks first.
var broken = []string{"ack-order", "committed-lost", "hw-beyond-isr", "log-matching", "order", "duplicate", "hw-beyond-commit", "ack-uncommitted", "commit-lost",
	"commit-unreplicated", "reader-goes-on", "epoch-cache", "producer-state", "latest-goes-back", "generation-goes-back", "poll-skip"}

// mutations are the bugs that are planted, by what they are in. The names say what is wrong.
var mutations = []mutation{
	// The high watermark and the in-sync set.
	{
		name: "high watermark one too high", file: inPartition + "replica.go",
		edits:  stmt("	r.highWatermark = candidate\n", "	r.highWatermark = min(candidate+1, r.logEnd)\n"),
		caught: broken, because: "a record counts as committed that a member of the ISR does not have",
	},
	{
		name: "high watermark of the leader alone", file: inPartition + "replica.go",
		edits:  when("slices.Contains(maximal, follower.id) || joining()", "false"),
		caught: broken, because: "acknowledged before it is replicated",
	},
	{
		name: "high watermark ignores members that seem dead", file: inPartition + "replica.go",
		edits:  when("slices.Contains(maximal, follower.id) || joining()", "slices.Contains(maximal, follower.id) && env.Alive(follower.id) || joining()"),
		caught: broken, because: "a member of the ISR may be elected, alive or not as this broker sees it",
	},
	{
		name: "high watermark moves back", file: inPartition + "replica.go",
		edits:  when("candidate <= r.highWatermark", "candidate == r.highWatermark"),
		caught: []string{"hw-goes-back", "latest-goes-back", "panic"}, because: "what was readable is not",
	},
	{
		name: "high watermark moves below min ISR", file: inPartition + "replica.go",
		edits:  when("r.role != Leader || len(r.isr.committed) < r.effectiveMinISR(env.MinISR)", "r.role != Leader"),
		caught: []string{"below-min-isr"}, because: "min.insync.replicas says how many must have what is acknowledged",
	},
	{
		name: "high watermark ignores who is about to join", file: inPartition + "isr.go",
		edits:  when("s.pending == expand", "false"),
		caught: broken, because: "the controller may count on the new member before the leader knows",
	},
	{
		name: "a shrink counts before the controller has it", file: inPartition + "isr.go",
		edits:  when("s.pending == expand", "s.pending != noChange"),
		caught: broken, because: "the controller may still elect who was to leave",
	},
	{
		name: "follower joins below the start of the epoch", file: inPartition + "isr.go",
		edits:  when("follower.logEnd < r.highWatermark || follower.logEnd < r.epochStartOffset || !env.Alive(follower.id)", "!env.Alive(follower.id)"),
		caught: broken, because: "it lacks committed records",
	},
	{
		name: "a change that was refused counts", file: inPartition + "isr.go",
		edits:  stmt("		r.isr.revert()\n		return r.advanceHighWatermark(env), nil\n", "		r.isr.commit(r.isr.proposed)\n		return r.advanceHighWatermark(env), nil\n"),
		caught: append([]string{"isr-by-controller"}, broken...), because: "only the controller changes the ISR",
	},
	{
		name: "acknowledgement across leaderships", file: inPartition + "acks.go",
		edits:  when("r.role != Leader || head.epoch < r.ledSince", "r.role != Leader && head.epoch < r.ledSince"),
		caught: broken, because: "the offset may stand for another record by then",
	},
	{
		name: "acknowledgement one too early", file: inPartition + "acks.go",
		edits:  when("r.highWatermark < head.required", "r.highWatermark+1 < head.required"),
		caught: broken, because: "the last record is not committed",
	},
	{
		name: "no divergence check", file: inPartition + "judge.go",
		edits:  when("lookup.Epoch < lastFetched || lookup.End < offset", "false"),
		caught: append([]string{"no-convergence"}, broken...), because: "a follower goes on behind records that its leader never had",
	},
	{
		name: "divergence by epoch alone", file: inPartition + "judge.go",
		edits:  when("lookup.Epoch < lastFetched || lookup.End < offset", "lookup.Epoch < lastFetched"),
		caught: append([]string{"no-convergence"}, broken...), because: "a follower may have more of an epoch than its leader",
	},
	{
		name: "fenced leader epochs are served", file: inPartition + "judge.go",
		edits:  when("requested == cluster.NoLeaderEpoch || requested == current", "requested == cluster.NoLeaderEpoch || requested <= current"),
		caught: append([]string{"epoch-fence"}, broken...), because: "who asks for an old leader must not be answered by a new one",
	},
	{
		name: "epochs to come are served", file: inPartition + "judge.go",
		edits:  when("requested == cluster.NoLeaderEpoch || requested == current", "requested == cluster.NoLeaderEpoch || requested >= current"),
		caught: append([]string{"epoch-fence"}, broken...), because: "a leader has not heard that it is replaced",
	},
	// Roles, fetching, the right to lead, fsync.
	{
		name: "truncation by high watermark instead of epoch", file: inReplication + "roles.go",
		edits:  when("h.log.LatestEpoch() == cluster.NoLeaderEpoch && h.log.EndOffset() > highWatermark", "h.log.EndOffset() > highWatermark"),
		caught: broken, because: "a follower's high watermark lags: it cuts off what is committed (KIP-101)",
	},
	{
		name: "truncation one too short", file: inReplication + "follower.go",
		edits:  expr("partition.EpochEnd{Epoch: cluster.LeaderEpoch(leaderEpoch), End: cluster.Offset(leaderEnd)}", "partition.EpochEnd{Epoch: cluster.LeaderEpoch(leaderEpoch), End: cluster.Offset(leaderEnd) + 1}"),
		caught: append([]string{"no-convergence"}, broken...), because: "one record of another history stays",
	},
	{
		name: "stale leader goes on acknowledging", file: inReplication + "right.go",
		edits:  when("(losses <= r.lossesOver.Load() || losses <= h.confirmedLoss.Load())", "losses >= 0"),
		caught: []string{"ack-without-right"}, because: "a broker whose session is gone may have been replaced",
	},
	{
		name: "paused leader goes on acknowledging", file: inReplication + "right.go",
		edits:  when("r.pauses.Load() <= r.pausesOver.Load()", "true"),
		caught: []string{"ack-without-right"}, because: "while it slept somebody else may have been elected",
	},
	{
		name: "an old LeaderAndIsr gives the right back", file: inReplication + "right.go",
		edits: when("brokerEpoch > m.right.brokerEpoch", "true"),
		because: "the few milliseconds between the loss of a session and the next registration are too rare for 1,000 seeds; " +
			"replication's TestLostSessionSuspendsLeadership catches it",
	},
	{
		name: "requests to an earlier incarnation are taken", file: inReplication + "roles.go",
		edits: when("brokerEpoch != cluster.UnknownBrokerEpoch && brokerEpoch < m.config.Epoch()", "false"),
		because: "a second line of defence since brokers keep a controller's connections in order; " +
			"replication's TestControlValidation catches it",
	},
	{
		name: "late fetch answer of an earlier epoch is appended", file: inReplication + "follower.go",
		edits:   when("h.replica.Role() != partition.Follower || h.replica.LeaderEpoch() != epoch", "h.replica.Role() != partition.Follower"),
		because: "a second line of defence: the fetcher drops the partition with the role",
	},
	{
		name: "no epoch noted by a new leader", file: inReplication + "roles.go",
		edits:  call("error", "h.log.AssignEpoch(t.assignment.LeaderEpoch, end)", "nil"),
		caught: []string{"epoch-cache"}, because: "without the start of an epoch that has no record a later leader cannot tell where logs part",
	},
	{
		name: "follower fetches before its fsync", file: inReplication + "durable.go",
		edits:  when("state.host.durable.Load() && state.host.log.SyncedOffset() < state.next.offset", "false"),
		caught: broken, because: "its fetch says that it has what goes with the power",
	},
	{
		name: "acknowledgement before the fsync", file: inPartition + "replica.go",
		edits:  expr("min(candidate, r.synced)", "candidate"),
		caught: broken, because: "with flush.messages=1 nothing that was acknowledged goes with the power",
	},
	// The log.
	{
		name: "lost producer snapshot", file: inLog + "load.go",
		edits:  stmt("					producers.adopt(known)\n", "					_ = known\n"),
		caught: append([]string{"producer-forgotten"}, broken...), because: "a retry is not recognised after a restart",
	},
	{
		name: "only a producer's last batch is known", file: inLog + "producers.go",
		edits:  when("earlier.lastSequence == batch.LastSequence() && earlier.firstSequence() == batch.BaseSequence()", "earlier.lastSequence == known.lastSequence() && earlier.lastSequence == batch.LastSequence() && earlier.firstSequence() == batch.BaseSequence()"),
		caught: append([]string{"producer-forgotten"}, broken...), because: "a producer has five batches in flight",
	},
	{
		name: "sequences are not checked", file: inLog + "producers.go",
		edits:  when("last == record.NoSequence && first == 0 || last != record.NoSequence && first == record.AddSequence(last, 1)", "true"),
		caught: broken, because: "a late batch is stored before an earlier one",
	},
	{
		name: "epochs survive a truncation", file: inLog + "epochs.go",
		edits:  when("keep > 0 && c.entries[keep-1].start >= end", "false"),
		caught: append([]string{"no-convergence", "panic", "read"}, broken...), because: "what an old epoch's end was is told of other records",
	},
	{
		name: "epochs are cut one too early", file: inLog + "epochs.go",
		edits:  when("keep > 0 && c.entries[keep-1].start >= end", "keep > 0 && c.entries[keep-1].start >= end-1"),
		caught: append([]string{"no-convergence", "panic", "read"}, broken...), because: "the last record's epoch is forgotten",
	},
	{
		name: "the end of an epoch is its start", file: inLog + "epochs.go",
		edits:  stmt("	return c.entries[above-1].epoch, c.entries[above].start\n", "	return c.entries[above-1].epoch, c.entries[above-1].start\n"),
		caught: append([]string{"no-convergence"}, broken...), because: "followers cut off what is committed",
	},
	{
		name: "flush without fsync", file: inLog + "flush.go",
		edits:  call("error", "syncCached(l.files, &s.log)", "nil"),
		caught: append([]string{"recovery", "read", "no-convergence", "disk", "panic"}, broken...), because: "the recovery point says that what is below it is on the disk",
	},
	{
		name: "a truncation leaves the producers", file: inLog + "truncate.go",
		edits:  stmt("	if err := l.reloadProducersLocked(end); err != nil {\n		return l.fail(err)\n	}\n	return nil\n", "	return nil\n"),
		caught: append([]string{"producer-forgotten"}, broken...), because: "a retry is answered with an offset that stands for another record",
	},
	// The controller.
	{
		name: "ISR change without its epoch check", file: inController + "alter.go",
		edits: []edit{
			{old: "r.expected < cached.PartitionEpoch", new: "false"},
			{old: "r.next.LeaderEpoch < cached.LeaderEpoch", new: "false"},
		},
		caught: append([]string{"state-node", "isr-by-controller", "no-convergence"}, broken...), because: "a late request puts back who has left the ISR, or an old leader",
	},
	{
		name: "ISR change without its partition epoch check", file: inController + "alter.go",
		edits:  when("r.expected < cached.PartitionEpoch", "false"),
		caught: append([]string{"state-node", "isr-by-controller", "no-convergence"}, broken...), because: "a late request puts back who has left the ISR since",
	},
	{
		name: "leader elected outside of the ISR", file: inController + "elect.go",
		edits: stmt("		if online(id) && slices.Contains(state.ISR, id) {\n			next.Leader = id\n			next.ISR = filter(state.ISR, online)\n			return next, false, true\n		}\n",
			"		if online(id) {\n			next.Leader = id\n			next.ISR = append(filter(state.ISR, func(member cluster.BrokerID) bool { return member != id && online(member) }), id)\n			return next, false, true\n		}\n"),
		caught: broken, because: "it lacks committed records",
	},
	{
		name: "an election keeps its epoch", file: inController + "elect.go",
		edits:  stmt("	next = *state\n	next.LeaderEpoch++\n", "	next = *state\n"),
		caught: append([]string{"state-node", "one-leader-per-epoch"}, broken...), because: "two leaders write in one epoch",
	},
	{
		name: "an emptied ISR loses its last members", file: inController + "elect.go",
		edits:  when("len(rest) == 0", "false"),
		caught: []string{"state-node", "panic"}, because: "nobody could ever lead again without losing records",
	},
	{
		name: "controller writes without its fence", file: "internal/streaming/registry/store.go",
		edits:  when("fence != nil && ops[i].IsWrite()", "false"),
		caught: []string{"isr-by-controller"}, because: "a controller that has been replaced changes the state",
	},
	{
		name: "bounced brokers are not noticed at a controller failover", file: inController + "failover.go",
		edits:  when("b != nil && b.Epoch > since", "false"),
		caught: broken, because: "a leader leads on in the same epoch with a shorter log; the first bug that this simulator found",
	},
	// Groups and fetch sessions.
	{
		name: "offset commit answered before it is replicated", file: inGroup + "shard.go",
		edits:  expr("config.CommitAcks", "int16(1)"),
		caught: []string{"commit-unreplicated", "commit-lost"}, because: "it is lost with the coordinator",
	},
	{
		name: "a commit of another generation is taken", file: inGroup + "classic/offsets.go",
		edits:  when("r.Generation != g.generation", "false"),
		caught: []string{"stale-commit"}, because: "its partitions may belong to somebody else",
	},
	{
		name: "a generation is not counted on", file: inGroup + "classic/rebalance.go",
		edits:  stmt("	g.generation++\n", ""),
		caught: []string{"double-owner", "stale-commit", "no-convergence"}, because: "two sets of members go by one generation",
	},
	{
		name: "offsets are not loaded", file: inGroup + "load.go",
		edits:  stmt("	g.offsets[tp] = *offset\n", "	_ = g\n"),
		caught: []string{"commit-lost"}, because: "a group begins anew after a change of coordinators",
	},
	{
		name: "loading ends before the end", file: inGroup + "load.go",
		edits:  when("after >= end", "true"),
		caught: []string{"commit-lost", "generation-goes-back", "double-owner", "stale-commit"}, because: "the latest commits are missing",
	},
	{
		name: "tombstones are not loaded", file: inGroup + "load.go",
		edits:  stmt("		delete(g.offsets, tp)\n		return\n", "		return\n"),
		caught: []string{"commit-lost"}, because: "a deleted offset comes back",
	},
	{
		name: "offsets come back with an expiry", file: inGroup + "classic/records.go",
		edits:  when("value.Version != offsetValueWithExpiry", "false"),
		caught: []string{"commit-lost"}, because: "a bug that this simulator found: they were dropped after a change of coordinators",
	},
	{
		name: "heartbeats do not count", file: inGroup + "classic/member.go",
		edits:  stmt("	g.extendSession(g.byID[r.MemberID], now)\n", ""),
		caught: []string{"member-expelled", "no-convergence"}, because: "members that are alive are expelled",
	},
	{
		name: "dead members are kept", file: inGroup + "classic/member.go",
		edits:  when("!due(m.deadline, now) || g.byID[m.id] != m", "true"),
		caught: []string{"no-progress"}, because: "the timer that has come to nothing is due again at once: the process spins, in one step of this world",
	},
	{
		name: "fetch sessions forget where their client is", file: "internal/streaming/broker/fetch_session.go",
		edits:  stmt("				known.set(asked)\n", "				_ = asked\n"),
		caught: append([]string{"no-convergence", "epoch-fence"}, broken...), because: "a follower is not counted on, a reader gets the same again and again",
	},
	{
		name: "fetch sessions keep the high watermark to themselves", file: "internal/streaming/broker/fetch_session.go",
		edits:  when("!c.incremental || hasData || changed || result.Diverging != nil", "!c.incremental || hasData || result.Diverging != nil"),
		caught: append([]string{"no-convergence"}, broken...), because: "followers learn it late, with the next records: their readers do not see the last ones",
	},
	// The coordinator's tree, as far as this world has it.
	{
		name: "session ends and its ephemerals stay", file: "internal/coordination/znode/apply_session.go",
		edits:  stmt("		m.performDelete(e.id, e.path)\n", "		_ = e\n"),
		caught: []string{"session-life", "panic"}, because: "a dead broker would stay registered for ever",
	},
}
