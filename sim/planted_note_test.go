//go:build mutation

package main

// noteMutations forget where leaders began, which were killed before they appended anything.
var noteMutations = []mutation{
	{
		name: "nobody asks where leaders began", file: inController + "uncleanstop.go",
		edits:  when("begin.within(end)", "false"),
		caught: broken, because: "a log with a newer record that nobody else has is elected over what the last leader committed",
	},
	{
		name: "leaders do not note where they began", file: inReplication + "leadership.go",
		edits:  call("error", "h.log.NoteEpochBegin(l.begin, h.durable.Load())", "nil"),
		caught: broken, because: "a bug that this simulator found: what they committed without a record of their own is lost",
	},
	{
		name: "a later epoch's note stands for every log", file: inController + "uncleanstop.go",
		edits:  when("end.epoch == b.before && end.offset >= b.start", "true"),
		caught: broken, because: "a longer log of another history, or one that ends before, is taken for the last leader's",
	},
}
