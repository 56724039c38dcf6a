// Package verify is what the judges of a running cluster share: the clock that a history is
// timed with, the file it is kept in, and the report of what was found in it.
//
// A history is everything that concurrent clients did to a cluster and were told by it: who
// asked what, when, and what came back, with an answer that never came left open. The packages
// verify/zookeeper and verify/kafka record one against any server that speaks the protocol,
// ours or Apache's, and check it afterwards. Recording and checking are separate: a checker is a
// function of the history alone, so that a kept history can be judged again, and a planted one
// tests the judge.
package verify
