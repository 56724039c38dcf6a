package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// bounds limits a value beyond its type.
type bounds struct {
	low, high float64 // for numbers; inclusive
	allowed   []string
	custom    func(text string) string // a reason, or ""
	hint      string                   // what to do instead
}

func atLeast(low float64) *bounds {
	return &bounds{low: low, high: math.Inf(1), hint: "give " + number(low) + " or more"}
}

func between(low, high float64) *bounds {
	return &bounds{low: low, high: high, hint: "give a value from " + number(low) + " to " + number(high)}
}

func oneOf(allowed ...string) *bounds {
	return &bounds{allowed: allowed, hint: "give " + alternatives(allowed)}
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func alternatives(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

var (
	gzipLevel = &bounds{hint: "give 1 to 9, or -1 for the usual level", custom: func(text string) string {
		level, _ := strconv.Atoi(text)
		if level == -1 || level >= 1 && level <= 9 {
			return ""
		}
		return "no gzip level"
	}}
	aVersion = &bounds{hint: "give a Kafka version such as 3.9", custom: func(text string) string {
		parts := strings.Split(strings.TrimSuffix(strings.SplitN(text, "-IV", 2)[0], "."), ".")
		for _, part := range parts {
			if _, err := strconv.ParseUint(part, 10, 8); err != nil || len(parts) < 2 {
				return "no version of Kafka"
			}
		}
		return ""
	}}
	throttled = &bounds{hint: "give * or partition:broker,partition:broker", custom: func(text string) string {
		if text == "*" || text == "" {
			return ""
		}
		for _, item := range list(text) {
			partition, broker, found := strings.Cut(item, ":")
			_, errPartition := strconv.ParseUint(partition, 10, 31)
			_, errBroker := strconv.ParseUint(broker, 10, 31)
			if !found || errPartition != nil || errBroker != nil {
				return "not a list of replicas"
			}
		}
		return ""
	}}
)

// list splits as Kafka does: at commas, spaces around them dropped; empty text is no items.
func list(text string) []string {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

// examine checks a value's type and bounds. It returns what is wrong and what to do, or two
// empty strings. Like Kafka (ConfigDef.parseType) it trims every type but passwords.
func (k *key) examine(text string) (reason, remedy string) {
	text = strings.TrimSpace(text)
	value, reason, remedy := k.parseNumber(text)
	if reason != "" {
		return reason, remedy
	}
	if k.check == nil {
		return "", ""
	}
	switch {
	case k.check.custom != nil:
		reason = k.check.custom(text)
	case k.check.allowed != nil:
		reason = k.check.refuses(k.typ, text)
	case value < k.check.low:
		reason = "must be at least " + number(k.check.low)
	case value > k.check.high:
		reason = "must be at most " + number(k.check.high)
	}
	if reason == "" {
		return "", ""
	}
	return reason, k.check.hint
}

func (b *bounds) refuses(typ Type, text string) string {
	items := []string{text}
	if typ == List {
		items = list(text)
	}
	for _, item := range items {
		if !contains(b.allowed, item) {
			return fmt.Sprintf("%q is not known", item)
		}
	}
	return ""
}

func contains(words []string, word string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}

// parseNumber checks the type; the number is 0 for types that are none.
func (k *key) parseNumber(text string) (value float64, reason, remedy string) {
	var bits int
	switch k.typ {
	case Bool:
		if !strings.EqualFold(text, "true") && !strings.EqualFold(text, "false") {
			return 0, "neither true nor false", "give true or false"
		}
		return 0, "", ""
	case Double:
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || strings.ContainsRune(text, '_') {
			return 0, "not a number", "give a number such as 0.5"
		}
		return value, "", ""
	case Short:
		bits = 16
	case Int:
		bits = 32
	case Long:
		bits = 64
	default:
		return 0, "", ""
	}
	whole, err := strconv.ParseInt(text, 10, bits)
	if err == nil {
		return float64(whole), "", ""
	}
	if errors.Is(err, strconv.ErrRange) {
		limit := int64(math.MaxInt64) >> (64 - bits)
		return 0, fmt.Sprintf("outside the range of %d bits", bits),
			fmt.Sprintf("give a whole number of at most %d", limit)
	}
	return 0, "not a whole number", "give digits only, without a unit"
}

// nearest returns the known name closest to a mistaken one, "" if none is close.
func nearest(name string, known func(yield func(string))) string {
	best, bestDistance := "", len(name)/3+1
	known(func(candidate string) {
		if d := distance(name, candidate, bestDistance); d < bestDistance {
			best, bestDistance = candidate, d
		}
	})
	return best
}

// distance is the edit distance (insert, delete, replace, swap of neighbours), or limit if
// it is not smaller than that.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	before, previous, current := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			current[j] = min(previous[j]+1, current[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, previous, current = previous, current, before
	}
	return min(previous[len(b)], limit)
}
