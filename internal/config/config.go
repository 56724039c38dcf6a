// Package config knows every configuration key: Kafka's for a broker (server.properties)
// and a topic, ZooKeeper's for a coordinator (zoo.cfg). Each key stands once, as data: name,
// type, default, bounds, whether it may change at run time, whether understudy honours it,
// and a line of text. Parsing, checking, DescribeConfigs and a topic's effective settings
// all derive from these tables (keys_broker.go, keys_topic.go, keys_coordinator.go).
//
// Checking finds every fault at once (Problems), each with the key, the value, what is wrong
// and what to do. A security setting that is not enforced is a fault: starting without it
// would be worse than not starting. A key that Apache's server knows and we do not honour is
// a Warning that says what it would have done; a key nobody knows is a Warning with the
// nearest known name, or a fault with strict.
//
// The results, Broker and Coordinator, are plain values; the rest of the program never sees
// a key.
package config

import (
	"fmt"
	"strings"
)

// Type is a key's type; the numbers are those of DescribeConfigs.
type Type int8

const (
	Bool     Type = 1
	String   Type = 2
	Int      Type = 3
	Short    Type = 4
	Long     Type = 5
	Double   Type = 6
	List     Type = 7
	Class    Type = 8
	Password Type = 9
)

// dynamic says where a key may be changed at run time.
type dynamic uint8

const (
	readOnly    dynamic = iota // a restart is needed
	clusterWide                // for all brokers or one
	perBroker                  // for one broker alone
)

// support says what becomes of a key that is set.
type support uint8

const (
	supported support = iota
	noEffect          // Apache knows it; we do nothing: a warning
	security          // Apache protects something by it; we do not: no start
)

// key is one configuration key.
type key struct {
	name     string
	typ      Type
	fallback string // the default as text; unset if there is none
	check    *bounds
	dynamic  dynamic
	support  support
	text     string
}

// Defaults that are no ordinary text.
const (
	unset     = "\x00"
	intMax    = "2147483647"
	longMax   = "9223372036854775807"
	doubleMax = "1.7976931348623157E308"
)

// table is a set of keys, in order and by name.
type table struct {
	ordered []key
	byName  map[string]*key
}

func index(keys []key) table {
	t := table{ordered: keys, byName: make(map[string]*key, len(keys))}
	for i := range keys {
		t.byName[keys[i].name] = &keys[i]
	}
	return t
}

// Problem is one fault of a configuration.
type Problem struct {
	Key    string
	Value  string // hidden for passwords
	Reason string
	Remedy string
}

func (p Problem) String() string {
	var text strings.Builder
	text.WriteString(p.Key)
	if p.Value != "" {
		text.WriteString("=" + p.Value)
	}
	text.WriteString(": " + p.Reason)
	if p.Remedy != "" {
		text.WriteString("; " + p.Remedy)
	}
	return text.String()
}

// Problems is every fault found, as one error of one line.
type Problems []Problem

func (p Problems) Error() string {
	if len(p) == 1 {
		return "configuration: " + p[0].String()
	}
	texts := make([]string, len(p))
	for i, problem := range p {
		texts[i] = fmt.Sprintf("(%d) %s", i+1, problem)
	}
	return fmt.Sprintf("configuration has %d problems: %s", len(p), strings.Join(texts, " "))
}

func (p *Problems) add(key, value, reason, remedy string) {
	*p = append(*p, Problem{Key: key, Value: value, Reason: reason, Remedy: remedy})
}

// err returns nil for no problems.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// Warning is a setting that is taken but does nothing, or is not known.
type Warning struct {
	Key     string
	Value   string
	Message string
}

func (w Warning) String() string { return w.Key + "=" + w.Value + ": " + w.Message }
