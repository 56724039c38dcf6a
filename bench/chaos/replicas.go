package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"understudy/internal/fleet"
)

// compareLogs compares the replicas of a topic's partitions on stopped brokers byte by byte.
// Segments may be cut differently; their contents one after the other may not differ.
func compareLogs(brokers []*fleet.Node, topic string, partitions int) (differences []string, err error) {
	for partition := range partitions {
		var first []byte
		for i, node := range brokers {
			content, err := logContent(filepath.Join(node.Dir(), "data", fmt.Sprintf("%s-%d", topic, partition)))
			if err != nil {
				return differences, err
			}
			if i == 0 {
				first = content
			} else if !bytes.Equal(first, content) {
				differences = append(differences, fmt.Sprintf("the replicas of %s-%d at %s (%d bytes) and %s (%d bytes) differ from byte %d",
					topic, partition, brokers[0].Name, len(first), node.Name, len(content), differAt(first, content)))
			}
		}
	}
	return differences, nil
}

// alikeBound is how long replicas may take to mend damage from each other.
const alikeBound = 8 * time.Second

// awaitAlike waits until the replicas of the load's topic, to which nobody writes any more, are
// the same; in vain is no error, the comparison of the stopped brokers tells.
func awaitAlike(ctx context.Context, brokers []*fleet.Node) {
	ctx, cancel := context.WithTimeout(ctx, alikeBound)
	defer cancel()
	for {
		differences, err := compareLogs(brokers, loadTopic, loadPartitions)
		if err == nil && len(differences) == 0 || sleep(ctx, 100*time.Millisecond) != nil {
			return
		}
	}
}

func logContent(dir string) ([]byte, error) {
	segments, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return nil, err
	}
	slices.Sort(segments) // names are offsets with leading zeros
	var content []byte
	for _, segment := range segments {
		part, err := os.ReadFile(segment)
		if err != nil {
			return nil, err
		}
		content = append(content, part...)
	}
	return content, nil
}

func differAt(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
