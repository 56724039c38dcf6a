package kafka

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// class is a kind of value that each run decides for itself.
type class string

const (
	topicID     class = "topic id"
	memberID    class = "member id"
	sessionID   class = "fetch session"
	clusterID   class = "cluster id"
	port        class = "port"
	brokerEpoch class = "broker epoch"
	producerID  class = "producer id"
	logDir      class = "log directory"
	volume      class = "bytes of a volume" // not bound, but both must be about the same
	moment      class = "time"              // not bound, but both must be about now
)

// classes say which fields, by name, hold such values, in requests and in answers.
var classes = map[string]class{
	"TopicID":       topicID,
	"TopidID":       topicID, // AlterPartition's answer in kmsg
	"MemberID":      memberID,
	"SessionID":     sessionID,
	"ClusterID":     clusterID,
	"Port":          port,
	"BrokerEpoch":   brokerEpoch,
	"ProducerID":    producerID,
	"Dir":           logDir,
	"TotalBytes":    volume,
	"UsableBytes":   volume,
	"LogAppendTime": moment,
	"Timestamp":     moment, // ListOffsets; what the generator produces has times of its own
	"LastTimestamp": moment,
}

// classesAt override them at one place.
var classesAt = map[string]class{
	"JoinGroup.LeaderID":            memberID,
	"AllocateProducerIDs.BrokerID":  "",
	"ControllerEpoch.ControllerID":  "",
	"Produce.Topics.Partitions.Log": "",
}

// sentinel reports whether a value stands for itself whatever its class.
func sentinel(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int() <= 0
	}
	return v.IsZero()
}

// bindings pairs the two runs' values of each class.
type bindings struct {
	forward, backward map[class]map[string]any // reference's text to candidate's value and back
}

func newBindings() *bindings {
	return &bindings{forward: map[class]map[string]any{}, backward: map[class]map[string]any{}}
}

// bind reports whether two values may stand for each other, and remembers that they do.
func (b *bindings) bind(c class, reference, candidate any) bool {
	if b.forward[c] == nil {
		b.forward[c], b.backward[c] = map[string]any{}, map[string]any{}
	}
	there, back := fmt.Sprint(reference), fmt.Sprint(candidate)
	known, found := b.forward[c][there]
	if found {
		return fmt.Sprint(known) == back
	}
	if _, taken := b.backward[c][back]; taken {
		return false
	}
	b.forward[c][there], b.backward[c][back] = candidate, reference
	return true
}

// translate replaces the reference's values in a request by the candidate's.
func (b *bindings) translate(v reflect.Value, field, path string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			b.translate(v.Elem(), field, path)
		}
		return
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; v.Field(i).CanSet() && name != "UnknownTags" {
				b.translate(v.Field(i), name, path+"."+name)
			}
		}
		return
	}
	c := classOf(field, path)
	if v.Kind() == reflect.Slice && c == "" {
		for i := range v.Len() {
			b.translate(v.Index(i), field, path)
		}
		return
	}
	if known, found := b.forward[c][fmt.Sprint(v.Interface())]; found {
		v.Set(reflect.ValueOf(known))
	}
}

func classOf(field, path string) class {
	if c, found := classesAt[path]; found {
		return c
	}
	return classes[field]
}

// comparison is the comparison of two answers.
type comparison struct {
	bindings *bindings
	request  kmsg.Request
	// places give each side's directories and addresses names.
	places   *[2]*strings.Replacer
	found    []difference
	internal bool // the topic at hand is the coordinator's, whose size is not compared
	// loose are topics whose leader epochs are not the same on both sides (docs/compatibility.md, "leader epochs");
	// inLoose says that one is at hand.
	loose   map[string]bool
	inLoose bool
	// uneven says that something of other length was bound or accepted, so that the answers'
	// sizes mean nothing.
	uneven bool
}

// difference is one field that differs.
type difference struct {
	path                 string // with indexes
	reference, candidate string
}

func (d difference) String() string {
	return fmt.Sprintf("%s: Apache %s, understudy %s", d.path, d.reference, d.candidate)
}

var indexes = regexp.MustCompile(`\[\d+\]`)

// place is the path without indexes.
func (d difference) place() string { return indexes.ReplaceAllString(d.path, "") }

func (c *comparison) differ(path string, reference, candidate any) {
	c.found = append(c.found, difference{path: path, reference: clip(show(reference), 700), candidate: clip(show(candidate), 700)})
}

// outcomes compares all that came of a request.
func (c *comparison) outcomes(name string, reference, candidate outcome) {
	switch {
	case reference.kind != candidate.kind:
		c.differ(name, describe(reference), describe(candidate))
	case reference.kind != answered:
	case reference.err != nil || candidate.err != nil:
		if fmt.Sprint(reference.err) != fmt.Sprint(candidate.err) || !bytes.Equal(reference.body, candidate.body) {
			c.differ(name, describe(reference), describe(candidate))
		}
	case reference.response == nil:
		if !bytes.Equal(reference.body, candidate.body) {
			c.differ(name, reference.body, candidate.body)
		}
	default:
		c.values(name, "", reflect.ValueOf(reference.response), reflect.ValueOf(candidate.response))
		if len(c.found) == 0 && !c.uneven && len(reference.body) != len(candidate.body) {
			c.differ(name+": the answers' sizes", len(reference.body), len(candidate.body))
		}
	}
}

func describe(o outcome) string {
	switch {
	case o.kind == answered && o.err != nil:
		return fmt.Sprintf("answered % x: %v", o.body[:min(len(o.body), 64)], o.err)
	case o.kind == answered:
		return "answered " + show(o.response)
	}
	return o.kind
}

// values compares two values of one type at a place.
func (c *comparison) values(path, field string, reference, candidate reflect.Value) {
	if reference.Kind() == reflect.Pointer && reference.IsNil() != candidate.IsNil() {
		c.differ(path, reference.Interface(), candidate.Interface())
		return
	}
	switch reference.Kind() {
	case reflect.Pointer:
		if !reference.IsNil() {
			c.values(path, field, reference.Elem(), candidate.Elem())
		}
	case reflect.Struct:
		if tags, ok := reference.Interface().(kmsg.Tags); ok {
			theirs := candidate.Interface().(kmsg.Tags)
			if !bytes.Equal(tags.AppendEach(nil), theirs.AppendEach(nil)) {
				c.differ(path, tags, theirs)
			}
			return
		}
		if dir, ok := reference.Interface().(kmsg.DescribeLogDirsResponseDirTopic); ok {
			c.internal = dir.Topic == "__consumer_offsets"
		}
		if name, ok := topicOf(reference); ok {
			c.inLoose = c.loose[name]
		}
		for i := range reference.NumField() {
			name := reference.Type().Field(i).Name
			if name == "Size" && c.internal || name == "LeaderEpoch" && c.inLoose {
				continue
			}
			if name != "Version" {
				c.values(path+"."+name, name, reference.Field(i), candidate.Field(i))
			}
		}
	case reflect.Slice:
		c.lists(path, field, reference, candidate)
	default:
		c.leaves(path, field, reference, candidate)
	}
}

// topicOf is the name of the topic that a part of an answer is about, if it has one.
func topicOf(v reflect.Value) (string, bool) {
	field := v.FieldByName("Topic")
	if field.Kind() == reflect.Pointer {
		field = field.Elem()
	}
	if field.Kind() != reflect.String {
		return "", false
	}
	return field.String(), true
}

func (c *comparison) leaves(path, field string, reference, candidate reflect.Value) {
	a, b := reference.Interface(), candidate.Interface()
	kind := classOf(field, indexes.ReplaceAllString(path, ""))
	switch {
	case kind == "" || sentinel(reference) || sentinel(candidate):
		if a == b {
			return
		}
		if field == "PreferredReadReplica" && sameRack(reference.Int(), candidate.Int()) {
			return // the one that caught up last
		}
		if text, ok := a.(string); ok && c.places != nil && c.places[0].Replace(text) == c.places[1].Replace(b.(string)) {
			c.uneven = true
			return
		}
	case kind == volume:
		c.uneven = true
		if apart := reference.Int() - candidate.Int(); max(apart, -apart) < 1<<30 {
			return
		}
	case kind == moment:
		if apart := reference.Int() - candidate.Int(); a == b || reference.Int() > 1_600_000_000_000 && max(apart, -apart) < 60_000 {
			return
		}
	case c.bindings.bind(kind, a, b):
		if reference.Kind() == reflect.String && reference.Len() != candidate.Len() {
			c.uneven = true
		}
		return
	}
	c.differ(path, a, b)
}

func sameRack(a, b int64) bool { return a > 0 && b > 0 && racks[a-1] == racks[b-1] }

func (c *comparison) lists(path, field string, reference, candidate reflect.Value) {
	if reference.IsNil() != candidate.IsNil() {
		c.differ(path, reference.Interface(), candidate.Interface())
		return
	}
	if records, ok := reference.Interface().([]byte); ok {
		c.blobs(path, field, records, candidate.Interface().([]byte))
		return
	}
	if path := indexes.ReplaceAllString(path, ""); path == "Metadata.Topics.Partitions.ISR" { // who catches up first comes first
		reference, candidate = ascending(reference), ascending(candidate)
	}
	if key, found := unordered[indexes.ReplaceAllString(path, "")]; found {
		reference, candidate = c.sorted(reference, key, false), c.sorted(candidate, key, true)
	}
	if reference.Len() != candidate.Len() {
		c.lengths(path, reference, candidate)
		return
	}
	for i := range reference.Len() {
		c.values(fmt.Sprintf("%s[%d]", path, i), field, reference.Index(i), candidate.Index(i))
	}
}

func ascending(list reflect.Value) reflect.Value {
	out := slices.Clone(list.Interface().([]int32))
	slices.Sort(out)
	return reflect.ValueOf(out)
}

// lengths tells of lists of different length, by what is missing if the elements have names.
func (c *comparison) lengths(path string, reference, candidate reflect.Value) {
	names := func(list reflect.Value) (out []string) {
		for i := range list.Len() {
			element := list.Index(i)
			if element.Kind() != reflect.Struct {
				return nil
			}
			for _, field := range []string{"Name", "ApiKey", "Topic", "Group", "Partition", "MemberID", "LogDir"} {
				if value := element.FieldByName(field); value.IsValid() {
					out = append(out, show(value.Interface()))
					break
				}
			}
		}
		return out
	}
	left, right := names(reference), names(candidate)
	only := func(a, b []string) []string {
		return slices.DeleteFunc(slices.Clone(a), func(name string) bool { return slices.Contains(b, name) })
	}
	if missing, more := only(left, right), only(right, left); len(missing)+len(more) > 0 {
		c.differ(path, fmt.Sprintf("%d, only here %v", reference.Len(), missing), fmt.Sprintf("%d, only here %v", candidate.Len(), more))
		return
	}
	c.differ(path, reference.Interface(), candidate.Interface())
}

// unordered names the lists whose order Apache leaves to a hash table, and the fields by which
// they are sorted before they are compared.
var unordered = map[string]string{
	"ApiVersions.ApiKeys":                                 "ApiKey",
	"CreateTopics.Topics":                                 "Topic",
	"CreateTopics.Topics.Configs":                         "Name",
	"DescribeConfigs.Resources.Configs":                   "Name",
	"DescribeGroups.Groups":                               "Group",
	"ListGroups.Groups":                                   "Group",
	"Metadata.Brokers":                                    "NodeID",
	"DescribeCluster.Brokers":                             "NodeID",
	"Metadata.Topics":                                     "Topic,TopicID",
	"Metadata.Topics.Partitions":                          "Partition",
	"OffsetCommit.Topics":                                 "Topic",
	"OffsetCommit.Topics.Partitions":                      "Partition",
	"DescribeLogDirs.Dirs.Topics":                         "Topic",
	"DescribeLogDirs.Dirs.Topics.Partitions":              "Partition",
	"DescribeProducers.Topics":                            "Topic",
	"DescribeProducers.Topics.Partitions":                 "Partition",
	"DescribeProducers.Topics.Partitions.ActiveProducers": "ProducerID",
	"DeleteRecords.Topics":                                "Topic",
	"DeleteRecords.Topics.Partitions":                     "Partition",
	"AlterReplicaLogDirs.Topics":                          "Topic",
	"AlterReplicaLogDirs.Topics.Partitions":               "Partition",
	"OffsetDelete.Topics":                                 "Topic",
	"OffsetDelete.Topics.Partitions":                      "Partition",
	"ListPartitionReassignments.Topics":                   "Topic",
	"Produce.Topics":                                      "Topic",
	"Produce.Topics.Partitions":                           "Partition",
	"Produce.Brokers":                                     "NodeID",
	"Fetch.Brokers":                                       "NodeID",
	"Fetch.Topics":                                        "Topic,TopicID",
	"Fetch.Topics.Partitions":                             "Partition",
	"StopReplica.Partitions":                              "Topic,Partition",
	"DescribeGroups.Groups.Members":                       "MemberID",
	"JoinGroup.Members":                                   "MemberID",
	"DeleteGroups.Groups":                                 "Group",
	"LeaderAndISR.Partitions":                             "Topic,Partition",
	"LeaderAndISR.Topics.Partitions":                      "Partition",
	"LeaderAndISR.Topics":                                 "TopicID",
	"OffsetFetch.Topics":                                  "Topic",
	"OffsetFetch.Topics.Partitions":                       "Partition",
	"OffsetFetch.Groups.Topics":                           "Topic",
	"OffsetFetch.Groups.Topics.Partitions":                "Partition",
	"ListOffsets.Topics":                                  "Topic",
	"ListOffsets.Topics.Partitions":                       "Partition",
	"OffsetForLeaderEpoch.Topics":                         "Topic",
	"OffsetForLeaderEpoch.Topics.Partitions":              "Partition",
	"ElectLeaders.Topics":                                 "Topic",
	"ElectLeaders.Topics.Partitions":                      "Partition",
	"DeleteTopics.Topics":                                 "Topic,TopicID,ErrorCode",
	"CreatePartitions.Topics":                             "Topic",
	"AlterPartition.Topics":                               "Topic,TopidID",
	"AlterPartition.Topics.Partitions":                    "Partition",
	"AlterPartitionAssignments.Topics":                    "Topic",
	"AlterPartitionAssignments.Topics.Partitions":         "Partition",
	"AlterConfigs.Resources":                              "ResourceType,ResourceName",
	"IncrementalAlterConfigs.Resources":                   "ResourceType,ResourceName",
}

// sorted is a list in the order of its elements' identities; the candidate's ids count as
// what they are bound to.
func (c *comparison) sorted(list reflect.Value, fields string, candidate bool) reflect.Value {
	key := func(element reflect.Value) string {
		var text strings.Builder
		for _, field := range strings.Split(fields, ",") {
			value := reflect.Indirect(element.FieldByName(field))
			if value.IsValid() && candidate {
				if bound, found := c.bindings.backward[classOf(field, "")][fmt.Sprint(value)]; found {
					value = reflect.ValueOf(bound)
				}
			}
			fmt.Fprintf(&text, "%012v,", value)
		}
		return text.String()
	}
	order := make([]reflect.Value, list.Len())
	for i := range order {
		order[i] = list.Index(i)
	}
	sort.SliceStable(order, func(i, j int) bool { return key(order[i]) < key(order[j]) })
	result := reflect.MakeSlice(list.Type(), 0, list.Len())
	for i, element := range order {
		if last := result.Len() - 1; i > 0 && key(order[i-1]) == key(element) && joinable(element) {
			parts := result.Index(last).FieldByName("Partitions") // one topic in two places is one topic
			parts.Set(reflect.AppendSlice(parts, element.FieldByName("Partitions")))
			c.uneven = true
			continue
		}
		result = reflect.Append(result, element)
	}
	return result
}

func joinable(topic reflect.Value) bool {
	parts := topic.FieldByName("Partitions")
	return parts.IsValid() && parts.Kind() == reflect.Slice
}

// blobs compares bytes: record batches by their fields, everything else as it is.
func (c *comparison) blobs(path, field string, reference, candidate []byte) {
	if field != "RecordBatches" {
		if !bytes.Equal(reference, candidate) {
			c.differ(path, fmt.Sprintf("% x", reference), fmt.Sprintf("% x", candidate))
		}
		return
	}
	if whole := candidate; len(reference) > len(candidate) && endsWithPart(reference, len(candidate)) {
		reference, candidate, c.uneven = reference[:len(whole)], whole, true // Apache adds the beginning of the next batch
	}
	if len(reference) != len(candidate) {
		c.differ(path, fmt.Sprintf("%d bytes: %s", len(reference), show(batches(reference))), fmt.Sprintf("%d bytes: %s", len(candidate), show(batches(candidate))))
		return
	}
	if bytes.Equal(reference, candidate) {
		return
	}
	left, right := batches(reference), batches(candidate)
	for i := range left {
		at := fmt.Sprintf("%s[%d]", path, i)
		if i >= len(right) {
			c.differ(at, left[i], "nothing")
			return
		}
		c.batch(at, &left[i], &right[i])
	}
}
