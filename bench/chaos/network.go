package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"understudy/internal/fleet"
)

// network is a bridge with a network namespace for each server. The load stays in the namespace
// of this process, at the bridge's own address, and is never cut off itself.
//
// A packet filter (a classic BPF program of one instruction, "drop", at the host's end of the
// server's cable) cuts either direction. It needs no kernel module but cls_bpf, and drops
// silently, as a broken switch does: no side gets an error.
type network struct {
	bridge string
	subnet string
	ports  map[string]string // node name -> the host's end of its cable
	spaces []string
}

// direction of a cut, as seen by the server.
type direction int

const (
	inbound  direction = 1 << iota // it hears nobody
	outbound                       // nobody hears it
	wholly   = inbound | outbound
)

// privileged says why there can be no network faults, "" if there can.
func privileged() string {
	if os.Geteuid() != 0 {
		return "it needs root"
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "there is no program " + tool + " (Debian: iproute2)"
		}
	}
	return ""
}

func command(ctx context.Context, line string) error {
	words := strings.Fields(line)
	output, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(string(output)))
	}
	return nil
}

// openNetwork builds the bridge. Names and addresses come from the process id, so that two runs do
// not meet.
func openNetwork(ctx context.Context) (*network, error) {
	pid := os.Getpid()
	n := &network{bridge: fmt.Sprintf("uschaos%x", pid), subnet: fmt.Sprintf("10.%d.%d", 128+pid>>8&0x7f, pid&0xff), ports: map[string]string{}}
	for _, line := range []string{
		"ip link add " + n.bridge + " type bridge",
		"ip addr add " + n.subnet + ".254/24 dev " + n.bridge,
		"ip link set " + n.bridge + " up",
	} {
		if err := command(ctx, line); err != nil {
			n.close()
			return nil, err
		}
	}
	for id := 1; id <= 3; id++ {
		for _, role := range []string{"coordinator", "broker"} {
			if err := n.attach(ctx, role, id); err != nil {
				n.close()
				return nil, err
			}
		}
	}
	return n, nil
}

func (n *network) space(role string, id int) string {
	return fmt.Sprintf("%s-%s%d", n.bridge, role[:1], id)
}

// host is the address of a server.
func (n *network) host(role string, id int) string {
	if role == "broker" {
		id += 100
	}
	return fmt.Sprintf("%s.%d", n.subnet, id)
}

func (n *network) attach(ctx context.Context, role string, id int) error {
	space, port := n.space(role, id), fmt.Sprintf("us%x%s%d", os.Getpid(), role[:1], id)
	n.spaces = append(n.spaces, space)
	n.ports[fmt.Sprintf("%s %d", role, id)] = port
	for _, line := range []string{
		"ip netns add " + space,
		"ip link add " + port + " type veth peer name eth0 netns " + space,
		"ip link set " + port + " master " + n.bridge + " up",
		"tc qdisc add dev " + port + " clsact",
		"ip -n " + space + " addr add " + n.host(role, id) + "/24 dev eth0",
		"ip -n " + space + " link set eth0 up",
		"ip -n " + space + " link set lo up",
	} {
		if err := command(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

// inside has a server's command run in its namespace.
func (n *network) inside(role string, id int, command []string) []string {
	return append([]string{"ip", "netns", "exec", n.space(role, id)}, command...)
}

func (n *network) cut(ctx context.Context, node *fleet.Node, which direction) error {
	return n.each(which, func(hook string) error {
		return n.filter(ctx, "add", node, hook, " bpf direct-action bytecode", "1,6 0 0 2") // return TC_ACT_SHOT
	})
}

func (n *network) mend(ctx context.Context, node *fleet.Node, which direction) error {
	return n.each(which, func(hook string) error { return n.filter(ctx, "del", node, hook, "") })
}

// each names the hooks at the host's end: what the server sends comes in there.
func (n *network) each(which direction, do func(hook string) error) error {
	var errs []error
	if which&inbound != 0 {
		errs = append(errs, do("egress"))
	}
	if which&outbound != 0 {
		errs = append(errs, do("ingress"))
	}
	return errors.Join(errs...)
}

func (n *network) filter(ctx context.Context, verb string, node *fleet.Node, hook, rest string, last ...string) error {
	words := strings.Fields("filter " + verb + " dev " + n.ports[node.Name] + " " + hook + rest)
	output, err := exec.CommandContext(ctx, "tc", append(words, last...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("tc %s the filter of %s at %s: %w: %s", verb, node.Name, hook, err, strings.TrimSpace(string(output)))
	}
	return nil
}

// close removes everything; cables go with their namespaces.
func (n *network) close() {
	ctx := context.Background()
	for _, space := range n.spaces {
		_ = command(ctx, "ip netns del "+space) // what was not made cannot be removed
	}
	_ = command(ctx, "ip link del "+n.bridge) // as above
}
