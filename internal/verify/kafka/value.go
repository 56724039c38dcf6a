package kafka

import (
	"fmt"
	"hash/crc32"
	"strings"
)

// A record's value is its name, a bar, and a filling that follows from the name: a record whose
// bytes were mixed up with another's is told from one that was never sent.
//
//	name '|' filling

// damaged begins, in a history, the value of a record that does not hold what was sent.
const damaged = "?"

// pack makes a record's value of about the given size.
func pack(name string, size int) []byte {
	value := append(make([]byte, 0, max(size, len(name)+1)), name...)
	value = append(value, '|')
	seed := crc32.ChecksumIEEE([]byte(name))
	for len(value) < size {
		seed = seed*1664525 + 1013904223
		value = append(value, 'a'+byte(seed>>24)%26)
	}
	return value
}

// unpack returns the name of an intact value, or what tells of a damaged one.
func unpack(value []byte) string {
	name, _, found := strings.Cut(string(value), "|")
	if found && name != "" && !strings.HasPrefix(name, damaged) && string(pack(name, len(value))) == string(value) {
		return name
	}
	return damaged + fmt.Sprintf("%.60q", value)
}
