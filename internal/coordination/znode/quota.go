package znode

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ZooKeeper keeps what a quota counts in a node beside its limit: while /zookeeper/quota/PATH/zookeeper_limits exists, the data
// of /zookeeper/quota/PATH/zookeeper_stats follows the number of nodes at and below PATH and the bytes of their data
// (DataTree, StatsTrack). Only that data changes: no version, no zxid, no event. What a limit says is not looked at, as in
// ZooKeeper without enforceQuota but for its log.
//
// Machine.quotas holds the PATHs with a limits node. It follows from the tree, and a Machine that is restored finds it there.
const (
	limitsName = "zookeeper_limits"
	statsName  = "zookeeper_stats"
)

// quotaNode tells whether a node is one of a quota's two, and of which path the quota is.
func quotaNode(parentPath, name string) (path string, is bool) {
	if name != limitsName && name != statsName {
		return "", false
	}
	return strings.CutPrefix(parentPath, systemQuotaPath)
}

// countCreated follows the create of a node whose parent is at parentPath.
func (m *Machine) countCreated(path, parentPath, name string, dataBytes int) {
	if quota, is := quotaNode(parentPath, name); is {
		if name == limitsName && quota != "" {
			m.quotas[quota] = struct{}{}
		} else if name == statsName {
			m.recount(quota)
		}
	}
	m.count(path, 1, dataBytes)
}

// countDeleted follows a delete.
func (m *Machine) countDeleted(path, parentPath, name string, dataBytes int) {
	if quota, is := quotaNode(parentPath, name); is && name == limitsName {
		delete(m.quotas, quota)
	}
	m.count(path, -1, -dataBytes)
}

// count adds to what the innermost quota around path has counted.
func (m *Machine) count(path string, nodes, dataBytes int) {
	if len(m.quotas) == 0 {
		return
	}
	for path != "" && path != "/" {
		if _, has := m.quotas[path]; has {
			m.updateStats(path, func(s *quotaStats) {
				s.set("count", s.get("count")+int64(nodes))
				s.set("bytes", s.get("bytes")+int64(dataBytes))
			})
			return
		}
		path = path[:strings.LastIndexByte(path, '/')]
	}
}

// recount counts all there is at and below path.
func (m *Machine) recount(path string) {
	nodes, dataBytes := int64(0), int64(0)
	if top := m.tree.lookup(path); top != 0 {
		for id := top; id != 0; id = m.tree.following(id, top) {
			n := m.tree.node(id)
			nodes++
			dataBytes += int64(len(n.data))
		}
	}
	m.updateStats(path, func(s *quotaStats) {
		*s = quotaStats{}
		s.set("count", nodes)
		s.set("bytes", dataBytes)
	})
}

// updateStats changes the data of a quota's stats node, if it is there and its data is of that kind. The size of the tree
// does not follow, as in ZooKeeper.
func (m *Machine) updateStats(path string, change func(*quotaStats)) {
	id := m.tree.lookup(systemQuotaPath + path + "/" + statsName)
	if id == 0 {
		return
	}
	n := m.tree.node(id)
	stats, ok := parseStats(n.data)
	if !ok {
		return // ZooKeeper's server ends here
	}
	change(&stats)
	n.data = stats.append(nil)
	m.tree.update(id, &n)
}

// findQuotas fills m.quotas from the tree.
func (m *Machine) findQuotas() {
	top := m.tree.lookup(systemQuotaPath)
	if top == 0 {
		return
	}
	for id := m.tree.following(top, top); id != 0; id = m.tree.following(id, top) {
		if recordName(m.tree.record(id)) != limitsName {
			continue
		}
		quota := strings.TrimSuffix(strings.TrimPrefix(m.tree.path(id), systemQuotaPath), "/"+limitsName)
		if quota != "" {
			m.quotas[quota] = struct{}{}
		}
	}
}

// quotaStats is the content of a stats node: count=N,bytes=N, and behind them what a limit may hold besides,
// =;name=N;name=N.
type quotaStats map[string]int64

func (s *quotaStats) get(name string) int64 {
	if v, has := (*s)[name]; has {
		return v
	}
	return -1
}

func (s *quotaStats) set(name string, v int64) {
	if *s == nil {
		*s = quotaStats{}
	}
	(*s)[name] = v
}

func parseStats(data []byte) (s quotaStats, ok bool) {
	s = quotaStats{}
	for pair := range bytes.FieldsFuncSeq(data, func(r rune) bool { return r == ',' || r == ';' }) {
		name, text, _ := strings.Cut(string(pair), "=")
		text, _, _ = strings.Cut(text, "=")
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, false
		}
		s[name] = v
	}
	return s, true
}

func (s *quotaStats) append(dst []byte) []byte {
	dst = fmt.Appendf(dst, "count=%d,bytes=%d", s.get("count"), s.get("bytes"))
	separator := "=;"
	for _, name := range slices.Sorted(maps.Keys(*s)) {
		if name != "count" && name != "bytes" {
			dst = fmt.Appendf(dst, "%s%s=%d", separator, name, (*s)[name])
			separator = ";"
		}
	}
	return dst
}
