package znode

import (
	"crypto/sha1" //nolint:gosec // the hash that stored digest ACLs are made with
	"encoding/base64"
	"net/netip"
	"strconv"
	"strings"

	"understudy/internal/coordination/jute"
)

// The schemes of identities that are known without configuration.
const (
	SchemeWorld  = "world"
	SchemeAuth   = "auth"
	SchemeDigest = "digest"
	SchemeIP     = "ip"
	SchemeSuper  = "super"
)

// DigestID turns "user:password" from an auth packet into the identity it stands for, as
// DigestAuthenticationProvider.generateDigest does: user:base64(sha1(user:password)).
func DigestID(userPassword string) jute.ID {
	user, _, _ := strings.Cut(userPassword, ":")
	sum := sha1.Sum([]byte(userPassword)) //nolint:gosec // see the import
	return jute.ID{Scheme: SchemeDigest, ID: user + ":" + base64.StdEncoding.EncodeToString(sum[:])}
}

// Permitted reports whether a list lets one of the identities do what any of the bits of perm stands for. An empty list
// lets everybody (ZooKeeperServer.checkACL).
func Permitted(acl []jute.ACL, perm int32, auth []jute.ID) bool {
	if len(acl) == 0 {
		return true
	}
	for i := range acl {
		if acl[i].Perms&perm != 0 && acl[i].ID.Scheme == SchemeWorld && acl[i].ID.ID == "anyone" {
			return true
		}
	}
	for _, id := range auth {
		if id.Scheme == SchemeSuper {
			return true
		}
	}
	for i := range acl {
		if acl[i].Perms&perm != 0 && matchesAny(acl[i].ID, auth) {
			return true
		}
	}
	return false
}

func matchesAny(want jute.ID, auth []jute.ID) bool {
	for _, id := range auth {
		if id.Scheme != want.Scheme {
			continue
		}
		switch id.Scheme {
		case SchemeDigest:
			if id.ID == want.ID {
				return true
			}
		case SchemeIP:
			if ipMatches(id.ID, want.ID) {
				return true
			}
		}
	}
	return false
}

// resolveACL checks the list of a create or setACL and gives the one to store: duplicates removed, "auth" replaced by
// the identities of the connection (PrepRequestProcessor.fixupACL).
func resolveACL(list []jute.ACL, auth []jute.ID) ([]jute.ACL, jute.Code) {
	if len(list) == 1 && list[0] == jute.OpenACL[0] {
		return jute.OpenACL, jute.OK
	}
	stored := make([]jute.ACL, 0, len(list))
	for i, entry := range list {
		if duplicate(list[:i], entry) {
			continue
		}
		switch entry.ID.Scheme {
		case SchemeAuth:
			authenticated := false
			for _, id := range auth {
				if id.Scheme == SchemeDigest { // ip is known, but nobody authenticated by it
					authenticated = true
					stored = append(stored, jute.ACL{Perms: entry.Perms, ID: id})
				}
			}
			if !authenticated {
				return nil, jute.InvalidACL
			}
		default:
			if !validID(entry.ID) {
				return nil, jute.InvalidACL
			}
			stored = append(stored, entry)
		}
	}
	if len(stored) == 0 {
		return nil, jute.InvalidACL
	}
	return stored, jute.OK
}

func duplicate(before []jute.ACL, entry jute.ACL) bool {
	for _, e := range before {
		if e == entry {
			return true
		}
	}
	return false
}

func validID(id jute.ID) bool {
	switch id.Scheme {
	case SchemeWorld:
		return id.ID == "anyone"
	case SchemeDigest:
		return javaSplitCount(id.ID, ':') == 2
	case SchemeIP:
		_, _, ok := parseIPRange(id.ID)
		return ok
	}
	return false
}

// javaSplitCount is the length of String.split: trailing empty parts do not count.
func javaSplitCount(s string, separator byte) int {
	trimmed := strings.TrimRight(s, string(separator))
	if trimmed == "" {
		if s == "" {
			return 1
		}
		return 0
	}
	return strings.Count(trimmed, string(separator)) + 1
}

// parseIPRange reads "address" or "address/bits" as IPAuthenticationProvider does: it takes leading zeros, and no IPv4
// address within an IPv6 one.
func parseIPRange(s string) (addr netip.Addr, bits int, ok bool) {
	address, suffix, hasBits := strings.Cut(s, "/")
	if strings.Contains(address, ":") {
		addr, ok = parseIPv6(address)
	} else {
		addr, ok = parseIPv4(address)
	}
	if !ok {
		return addr, 0, false
	}
	bits = addr.BitLen()
	if hasBits {
		var err error
		if bits, err = strconv.Atoi(suffix); err != nil || bits < 0 || bits > addr.BitLen() {
			return addr, 0, false
		}
	}
	return addr, bits, true
}

func parseIPv4(s string) (netip.Addr, bool) {
	parts := strings.Split(s, ".")
	var address [4]byte
	if len(parts) != len(address) {
		return netip.Addr{}, false
	}
	for i, part := range parts {
		v, err := strconv.Atoi(part)
		if err != nil || v < 0 || v > 255 {
			return netip.Addr{}, false
		}
		address[i] = byte(v)
	}
	return netip.AddrFrom4(address), true
}

func parseIPv6(s string) (netip.Addr, bool) {
	const groups = 8
	var head, tail []string
	switch halves := strings.Split(s, "::"); len(halves) {
	case 1:
		if head = strings.Split(s, ":"); len(head) != groups {
			return netip.Addr{}, false
		}
	case 2:
		if halves[0] != "" {
			head = strings.Split(halves[0], ":")
		}
		if halves[1] != "" {
			tail = strings.Split(halves[1], ":")
		}
		if len(head)+len(tail) >= groups {
			return netip.Addr{}, false
		}
	default:
		return netip.Addr{}, false
	}
	var address [16]byte
	ok := putGroups(address[:], head) && putGroups(address[16-2*len(tail):], tail)
	return netip.AddrFrom16(address), ok
}

func putGroups(dst []byte, groups []string) bool {
	for i, group := range groups {
		v, err := strconv.ParseInt(group, 16, 32)
		if err != nil || len(group) > 4 {
			return false
		}
		dst[2*i], dst[2*i+1] = byte(v>>8), byte(v)
	}
	return true
}

func ipMatches(remote, expression string) bool {
	addr, bits, ok := parseIPRange(expression)
	if !ok {
		return false
	}
	peer, err := netip.ParseAddr(remote)
	if err != nil {
		return false
	}
	return netip.PrefixFrom(addr, bits).Contains(peer.WithZone(""))
}

// hidePasswords shows digest entries as "user:x", as getACL does to who has no ADMIN.
func hidePasswords(list []jute.ACL) []jute.ACL {
	shown := append([]jute.ACL(nil), list...)
	for i := range shown {
		if shown[i].ID.Scheme == SchemeDigest {
			if user, _, has := strings.Cut(shown[i].ID.ID, ":"); has {
				shown[i].ID.ID = user + ":x"
			}
		}
	}
	return shown
}
