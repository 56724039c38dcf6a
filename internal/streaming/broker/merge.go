package broker

// merged joins the entries of a request that are about one topic, leaves out topics without
// partitions, and lets the last of several entries for one partition stand, in the first's
// place: Apache's broker reads such requests into a map. The common request, in which nothing
// is repeated, is returned as it is.
func merged[T, P any, K comparable](topics []T, parts func(*T) (K, *[]P), number func(*P) int32) []T {
	if tidy(topics, parts, number) {
		return topics
	}
	type place struct {
		topic  K
		number int32
	}
	var out []T
	topicAt, partitionAt := map[K]int{}, map[place]int{}
	for i := range topics {
		key, partitions := parts(&topics[i])
		if len(*partitions) == 0 {
			continue
		}
		at, known := topicAt[key]
		if !known {
			at = len(out)
			topicAt[key] = at
			one := topics[i]
			_, list := parts(&one)
			*list = nil
			out = append(out, one)
		}
		_, list := parts(&out[at])
		for j := range *partitions {
			partition := place{key, number(&(*partitions)[j])}
			if index, twice := partitionAt[partition]; twice {
				(*list)[index] = (*partitions)[j]
				continue
			}
			partitionAt[partition] = len(*list)
			*list = append(*list, (*partitions)[j])
		}
	}
	return out
}

// tidy reports whether no topic and no partition is repeated and no topic is empty. Requests
// have few of both, or are sorted by topic.
func tidy[T, P any, K comparable](topics []T, parts func(*T) (K, *[]P), number func(*P) int32) bool {
	var seenTopics map[K]bool
	if len(topics) > 1 {
		seenTopics = make(map[K]bool, len(topics))
	}
	for i := range topics {
		key, partitions := parts(&topics[i])
		if len(*partitions) == 0 || seenTopics[key] {
			return false
		}
		if seenTopics != nil {
			seenTopics[key] = true
		}
		if !distinct(*partitions, number) {
			return false
		}
	}
	return true
}

func distinct[P any](partitions []P, number func(*P) int32) bool {
	const few = 8
	if len(partitions) <= few {
		for i := range partitions {
			for j := range partitions[:i] {
				if number(&partitions[i]) == number(&partitions[j]) {
					return false
				}
			}
		}
		return true
	}
	seen := make(map[int32]bool, len(partitions))
	for i := range partitions {
		if seen[number(&partitions[i])] {
			return false
		}
		seen[number(&partitions[i])] = true
	}
	return true
}

// topicKey names a topic in requests that know it by name or by id.
type topicKey struct {
	name string
	id   [16]byte
}
