package zkclient

import (
	"fmt"
	"net"
	"strings"
)

const defaultPort = "2181"

// parseServers reads a connection string: addresses by commas, then an optional chroot
// without a trailing slash.
func parseServers(text string) (servers []string, chroot string, err error) {
	list := text
	if slash := strings.IndexByte(text, '/'); slash >= 0 {
		list, chroot = text[:slash], strings.TrimRight(text[slash:], "/")
	}
	if strings.Contains(chroot, "//") {
		return nil, "", fmt.Errorf("zookeeper connection string %q: the chroot has an empty component", text)
	}
	for server := range strings.SplitSeq(list, ",") {
		if server = strings.TrimSpace(server); server == "" {
			continue
		}
		addr, err := withPort(server)
		if err != nil {
			return nil, "", fmt.Errorf("zookeeper connection string %q: %w", text, err)
		}
		servers = append(servers, addr)
	}
	if len(servers) == 0 {
		return nil, "", fmt.Errorf("zookeeper connection string %q names no server; it should look like host:2181,host:2181/chroot", text)
	}
	return servers, chroot, nil
}

func withPort(server string) (string, error) {
	if strings.Count(server, ":") > 1 && !strings.HasPrefix(server, "[") {
		return net.JoinHostPort(server, defaultPort), nil // a bare IPv6 address
	}
	if !strings.Contains(strings.TrimLeft(server, "[0123456789abcdefABCDEF:.%"), ":") && strings.HasSuffix(server, "]") {
		return server + ":" + defaultPort, nil
	}
	if !strings.Contains(server, ":") {
		return server + ":" + defaultPort, nil
	}
	if _, _, err := net.SplitHostPort(server); err != nil {
		return "", err
	}
	return server, nil
}

// fullPath is what the server calls path.
func fullPath(chroot, path string) string {
	switch {
	case chroot == "":
		return path
	case path == "/":
		return chroot
	}
	return chroot + path
}

// stripChroot is fullPath's inverse.
func stripChroot(chroot, path string) (string, error) {
	rest, ok := strings.CutPrefix(path, chroot)
	switch {
	case ok && rest == "" && chroot != "":
		return "/", nil
	case ok && (chroot == "" || rest[0] == '/'):
		return rest, nil
	}
	return "", fmt.Errorf("the server names the path %q, which is outside of the chroot %q", path, chroot)
}
