package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// text returns a key's value or default; given is false where neither exists.
func (s *settings) text(name string) (value string, given bool) {
	if value, found := s.values[name]; found {
		return value, true
	}
	k := s.table.byName[name]
	if k == nil {
		panic(fmt.Sprintf("config: %s is asked for but not in the table", name))
	}
	if k.fallback == unset {
		return "", false
	}
	return k.fallback, true
}

// str returns "" where a key has no value.
func (s *settings) str(name string) string {
	value, _ := s.text(name)
	return value
}

func (s *settings) list(name string) []string { return list(s.str(name)) }

func (s *settings) bool(name string) bool { return strings.EqualFold(s.str(name), "true") }

// whole returns 0 where a key has no value.
func (s *settings) whole(name string) int64 {
	value, _ := strconv.ParseInt(s.str(name), 10, 64)
	return value
}

func (s *settings) int(name string) int     { return int(s.whole(name)) }
func (s *settings) int32(name string) int32 { return int32(s.whole(name)) }
func (s *settings) int16(name string) int16 { return int16(s.whole(name)) }

// ms returns a key in milliseconds as a duration.
func (s *settings) ms(name string) time.Duration { return duration(s.whole(name), time.Millisecond) }

// duration converts without overflow: what is too long becomes the longest.
func duration(count int64, unit time.Duration) time.Duration {
	if count > int64(math.MaxInt64/unit) {
		return math.MaxInt64
	}
	if count < int64(math.MinInt64/unit) {
		return math.MinInt64
	}
	return time.Duration(count) * unit
}

// require reports a problem with a key's present value unless ok.
func (s *settings) require(ok bool, name, reason, remedy string) {
	if !ok {
		s.problems.add(name, s.str(name), reason, remedy)
	}
}
