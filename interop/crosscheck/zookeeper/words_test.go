package zookeeper

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"understudy/internal/fleet"
)

// words are the four-letter words that are asked, and what is compared of their answers.
var words = map[string]func(s *side, answer string) []string{
	"ruok": exactly, "isro": exactly, "gtmk": exactly, "crst": exactly, "srst": exactly, "wchs": watchSummary,
	"srvr": fieldNames(":"), "conf": fieldNames("="), "dirs": fieldNames(":"), "envi": fieldNames("="),
	"stat": fieldNames(":"), "mntr": monitored, "wchc": watches, "wchp": watches, "cons": connections, "dump": owners,
	// No words: the first four bytes of a frame that is far too long.
	"xyzt": exactly, "RUOK": exactly, "GET ": exactly,
}

// ask sends a word and shows what both servers must agree about.
func (s *side) ask(addr, word string) []string {
	answer, err := fleet.FourLetterWord(addr, word)
	if err != nil && answer == "" {
		return []string{"no answer"}
	}
	return words[word](s, nonASCII.ReplaceAllString(strings.ToValidUTF8(answer, "?"), "?"))
}

// nonASCII is what Java prints as its system's settings have it.
var nonASCII = regexp.MustCompile(`[^\x00-\x3e\x40-\x7f]+|\?+`)

func exactly(_ *side, answer string) []string { return []string{fmt.Sprintf("%q", answer)} }

// watchSummary shows wchs without the connections: Apache counts some that watch nothing any more.
func watchSummary(s *side, answer string) []string {
	_, paths, _ := strings.Cut(answer, "connections watching")
	return exactly(s, paths)
}

// fieldNames shows what stands before the separator of each line: the values are each server's own.
func fieldNames(separator string) func(*side, string) []string {
	return func(_ *side, answer string) (shown []string) {
		for line := range strings.Lines(answer) {
			name, _, _ := strings.Cut(strings.TrimRight(line, "\n"), separator)
			switch {
			case strings.HasPrefix(name, " /"): // a client of stat
				shown = append(shown, digits.ReplaceAllString(line, "N"))
			case name == "Node count":
				shown = append(shown, line)
			default:
				shown = append(shown, name)
			}
		}
		slices.Sort(shown)
		return slices.Compact(shown)
	}
}

var digits = regexp.MustCompile(`[0-9]+`)

// monitored shows what mntr counts of the tree, the sessions and the watches.
func monitored(_ *side, answer string) (shown []string) {
	for line := range strings.Lines(answer) {
		name, _, _ := strings.Cut(line, "\t")
		switch name {
		case "zk_znode_count", "zk_ephemerals_count", "zk_watch_count", "zk_approximate_data_size", "zk_global_sessions", "zk_local_sessions",
			"zk_num_alive_connections", "zk_outstanding_requests":
			shown = append(shown, line)
		}
	}
	slices.Sort(shown)
	return shown
}

// watches shows wchc and wchp with the sessions' names; neither has an order, and Apache's go on listing sessions that have
// none any more.
func watches(s *side, answer string) []string {
	var groups []string
	for line := range strings.Lines(s.named(answer)) {
		if !strings.HasPrefix(line, "\t") || len(groups) == 0 {
			groups = append(groups, line)
			continue
		}
		groups[len(groups)-1] += line
	}
	for i, group := range groups {
		lines := strings.Split(group, "\n")
		slices.Sort(lines[1:])
		groups[i] = strings.Join(lines, "\n")
	}
	slices.Sort(groups)
	return slices.DeleteFunc(groups, func(group string) bool { return !strings.Contains(group, "\t") })
}

var sessionText = regexp.MustCompile(`0x[0-9a-f]{3,}`)

// named replaces the sessions' ids by their names.
func (s *side) named(text string) string {
	byText := map[string]string{}
	for id, name := range s.sessions {
		byText[fmt.Sprintf("0x%x", uint64(id))] = name
	}
	return sessionText.ReplaceAllStringFunc(text, func(id string) string {
		if name, known := byText[id]; known {
			return name
		}
		return id
	})
}

// connections shows the fields of cons, by session.
func connections(s *side, answer string) (shown []string) {
	for line := range strings.Lines(s.named(answer)) {
		_, fields, _ := strings.Cut(line, "(")
		var names []string
		for field := range strings.SplitSeq(strings.TrimSuffix(strings.TrimSpace(fields), ")"), ",") {
			name, value, _ := strings.Cut(field, "=")
			switch name {
			case "sid", "to", "lcxid", "lop":
				name += "=" + value
			}
			names = append(names, name)
		}
		shown = append(shown, strings.Join(names, ","))
	}
	slices.Sort(shown)
	return shown
}

// owners shows what dump says of ephemerals; Apache's goes on listing sessions that have none any more.
func owners(s *side, answer string) []string {
	_, ephemerals, _ := strings.Cut(s.named(answer), "ephemeral nodes dump:\n")
	ephemerals, _, _ = strings.Cut(ephemerals, "Connections dump:")
	return watches(s, ephemerals)
}
