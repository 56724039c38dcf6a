// Package kafka judges a Kafka cluster, ours or Apache's, by what its clients saw.
//
// A run creates topics of its own. Producers send records whose values are unique; consumers
// read them, some with assigned partitions, some as a group that commits. Everything asked and
// answered goes into a history: Check says what in it must not be. At the end each partition
// gets one last record; once that is acknowledged, all before it is settled, and the partition
// is read from its start to there.
//
// A run may be cut in two: one process writes, keeps the history in a file and ends, the
// cluster suffers whatever it suffers, and another process goes on with the file.
//
// The clients are franz-go's, not this project's: a judge that shares the code of the judged
// would share its misunderstandings. One kind of producer sends its requests through it one by
// one, each exactly once, so that what it is told is what the broker said.
package kafka
