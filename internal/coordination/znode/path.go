package znode

import (
	"strings"
	"unicode/utf8"
)

// The nodes that are always there.
const (
	systemPath       = "/zookeeper"
	systemConfigPath = "/zookeeper/config"
	systemQuotaPath  = "/zookeeper/quota"
)

// ValidPath checks a path as ZooKeeper's PathUtils.validatePath does: it begins with "/", does not end with one, has no
// empty, "." or ".." component, and none of the characters that Java strings and XML do not agree about.
func ValidPath(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	if path == "/" {
		return true
	}
	begin := 1 // of the component
	for i := 1; i < len(path); {
		c := path[i]
		switch {
		case c == '/':
			if !validComponent(path[begin:i]) {
				return false
			}
			i++
			begin = i
		case c < 0x20 || c == 0x7f:
			return false
		case c < utf8.RuneSelf:
			i++
		default:
			r, size := utf8.DecodeRuneInString(path[i:]) // bytes that are not UTF-8 become U+FFFD, as in Java
			if r <= 0x9f || r >= 0xd800 && r <= 0xf8ff || r >= 0xfff0 {
				return false
			}
			i += size
		}
	}
	return validComponent(path[begin:])
}

// textUnits is the length of a path in Java's characters, which are what ZooKeeper's sizes count. A valid path has none that
// Java would need two for.
func textUnits(path string) int { return utf8.RuneCountInString(path) }

func validComponent(name string) bool { return name != "" && name != "." && name != ".." }

// splitPath cuts a path at its last slash; the parent of "/a" is "". ok is false for a path that no create or delete
// looks at any further: one without a slash or with a NUL.
func splitPath(path string) (parent, name string, ok bool) {
	slash := strings.LastIndexByte(path, '/')
	if slash < 0 || strings.IndexByte(path, 0) >= 0 {
		return "", "", false
	}
	return path[:slash], path[slash+1:], true
}

// canonical gives the root one name.
func canonical(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

func isSystemPath(path string) bool {
	switch path {
	case "/", systemPath, systemConfigPath, systemQuotaPath:
		return true
	}
	return false
}
