package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options describe a fleet. Zero values: three coordinators, three brokers.
type Options struct {
	Binary       string // the understudy program
	Dir          string // configuration, data and logs go below it
	Coordinators int
	Brokers      int
	// BrokerProperties and CoordinatorProperties are added to every server.properties and
	// zoo.cfg, over the defaults below.
	BrokerProperties      map[string]string
	CoordinatorProperties map[string]string
	LogLevel              string // "debug" adds the per-partition lines
	OnLog                 func(LogLine)
	StartTimeout          time.Duration // for one server; 0 = 30 s
	// CoordinatorProgram and BrokerProgram choose what runs each server; nil: understudy
	// runs all. Node.Use changes it between a stop and a start.
	CoordinatorProgram, BrokerProgram func(id int) *Program
	// CoordinatorHost and BrokerHost choose the address of each server, for those that run in
	// network namespaces; nil: 127.0.0.1. Ports are chosen to be free on 127.0.0.1.
	CoordinatorHost, BrokerHost func(id int) string
}

func hostOf(choose func(id int) string, id int) string {
	if choose == nil {
		return "127.0.0.1"
	}
	return choose(id)
}

// Node is one server of a fleet, running or not.
type Node struct {
	Name    string // "broker 2", "coordinator 1"
	ID      int
	Addr    string // its client address
	role    string
	config  string
	logFile string
	dir     string
	fleet   *Fleet

	mu struct {
		sync.Mutex
		program *Program
		process *Process // nil while it is not running
	}
}

// Fleet is a coordinator ensemble and a broker cluster on it.
type Fleet struct {
	Coordinators []*Node
	Brokers      []*Node
	options      Options
}

// New reserves ports and writes the configuration; nothing runs yet.
func New(options Options) (*Fleet, error) {
	if options.Coordinators == 0 {
		options.Coordinators = 3
	}
	if options.Brokers == 0 {
		options.Brokers = 3
	}
	if options.StartTimeout == 0 {
		options.StartTimeout = 30 * time.Second
	}
	f := &Fleet{options: options}
	ports, err := freePorts(3*options.Coordinators + options.Brokers)
	if err != nil {
		return nil, err
	}
	if err := f.configureCoordinators(ports[:3*options.Coordinators]); err != nil {
		return nil, err
	}
	if err := f.configureBrokers(ports[3*options.Coordinators:]); err != nil {
		return nil, err
	}
	return f, nil
}

// freePorts finds free loopback ports. All are held until the last is found, so that they differ.
func freePorts(count int) ([]int, error) {
	ports := make([]int, 0, count)
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("no free port: %w", err)
		}
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func (f *Fleet) configureCoordinators(ports []int) error {
	count := f.options.Coordinators
	common := map[string]string{
		"tickTime": "500", "initLimit": "10", "syncLimit": "5",
		"minSessionTimeout": "1000", "maxSessionTimeout": "60000", "maxClientCnxns": "0",
		"4lw.commands.whitelist": "*",
	}
	for i := range count {
		if count > 1 {
			common[fmt.Sprintf("server.%d", i+1)] = fmt.Sprintf("%s:%d:%d", hostOf(f.options.CoordinatorHost, i+1), ports[3*i+1], ports[3*i+2])
		}
	}
	for i := range count {
		id := i + 1
		dir := filepath.Join(f.options.Dir, fmt.Sprintf("coordinator-%d", id))
		data := filepath.Join(dir, "data")
		if err := os.MkdirAll(data, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(data, "myid"), fmt.Appendf(nil, "%d\n", id), 0o644); err != nil {
			return err
		}
		settings := maps.Clone(common)
		settings["dataDir"] = data
		settings["clientPort"] = fmt.Sprint(ports[3*i])
		host := hostOf(f.options.CoordinatorHost, id)
		settings["clientPortAddress"] = host
		maps.Copy(settings, f.options.CoordinatorProperties)
		file := filepath.Join(dir, "zoo.cfg")
		if err := writeProperties(file, settings); err != nil {
			return err
		}
		f.Coordinators = append(f.Coordinators, f.node("coordinator", id, fmt.Sprintf("%s:%d", host, ports[3*i]), dir, file, f.options.CoordinatorProgram))
	}
	return nil
}

func (f *Fleet) configureBrokers(ports []int) error {
	for i, port := range ports {
		id := i + 1
		dir := filepath.Join(f.options.Dir, fmt.Sprintf("broker-%d", id))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		listener := fmt.Sprintf("%s:%d", hostOf(f.options.BrokerHost, id), port)
		settings := map[string]string{
			"broker.id":                        fmt.Sprint(id),
			"listeners":                        "PLAINTEXT://" + listener,
			"advertised.listeners":             "PLAINTEXT://" + listener,
			"zookeeper.connect":                f.ZooKeeperConnect(),
			"log.dirs":                         filepath.Join(dir, "data"),
			"offsets.topic.replication.factor": fmt.Sprint(min(3, f.options.Brokers)),
			"offsets.topic.num.partitions":     "6",
			"group.initial.rebalance.delay.ms": "0",
		}
		maps.Copy(settings, f.options.BrokerProperties)
		file := filepath.Join(dir, "server.properties")
		if err := writeProperties(file, settings); err != nil {
			return err
		}
		f.Brokers = append(f.Brokers, f.node("broker", id, listener, dir, file, f.options.BrokerProgram))
	}
	return nil
}

func (f *Fleet) node(role string, id int, addr, dir, config string, choose func(id int) *Program) *Node {
	n := &Node{
		Name: fmt.Sprintf("%s %d", role, id), ID: id, Addr: addr,
		role: role, config: config, logFile: filepath.Join(dir, "log"), dir: dir, fleet: f,
	}
	n.mu.program = Understudy(f.options.Binary, f.options.LogLevel)
	if choose != nil {
		n.mu.program = choose(id)
	}
	return n
}

func writeProperties(path string, settings map[string]string) error {
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&text, "%s=%s\n", key, settings[key])
	}
	return os.WriteFile(path, []byte(text.String()), 0o644)
}

// ZooKeeperConnect lists the coordinators' client addresses.
func (f *Fleet) ZooKeeperConnect() string {
	addrs := make([]string, len(f.Coordinators))
	for i, node := range f.Coordinators {
		addrs[i] = node.Addr
	}
	return strings.Join(addrs, ",")
}

// Bootstrap lists the brokers' client addresses.
func (f *Fleet) Bootstrap() []string {
	addrs := make([]string, len(f.Brokers))
	for i, node := range f.Brokers {
		addrs[i] = node.Addr
	}
	return addrs
}

// Broker returns the node with a broker id.
func (f *Fleet) Broker(id int32) (*Node, bool) {
	for _, node := range f.Brokers {
		if int32(node.ID) == id {
			return node, true
		}
	}
	return nil, false
}

// Start starts all coordinators at once, then all brokers.
func (f *Fleet) Start(ctx context.Context) error {
	if err := f.startAll(ctx, f.Coordinators); err != nil {
		return err
	}
	return f.startAll(ctx, f.Brokers)
}

func (f *Fleet) startAll(ctx context.Context, nodes []*Node) error {
	errs := make([]error, len(nodes))
	var wait sync.WaitGroup
	for i, node := range nodes {
		wait.Go(func() { errs[i] = node.Start(ctx) })
	}
	wait.Wait()
	return errors.Join(errs...)
}

// Stop shuts everything down, brokers first, and waits; what does not end in time is killed.
func (f *Fleet) Stop(ctx context.Context) error {
	var errs []error
	for _, nodes := range [][]*Node{f.Brokers, f.Coordinators} {
		results := make([]error, len(nodes))
		var wait sync.WaitGroup
		for i, node := range nodes {
			wait.Go(func() { results[i] = node.Stop(ctx) })
		}
		wait.Wait()
		errs = append(errs, results...)
	}
	return errors.Join(errs...)
}

// KillAll ends every process with SIGKILL at the same moment.
func (f *Fleet) KillAll() {
	nodes := slices.Concat(f.Brokers, f.Coordinators)
	for _, node := range nodes {
		if process := node.Process(); process != nil {
			_ = process.KillAsync() // already gone is what we want
		}
	}
	for _, node := range nodes {
		node.Kill()
	}
}

// Start runs the node's process and waits until it is ready.
func (n *Node) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.fleet.options.StartTimeout)
	defer cancel()
	program := n.Program()
	spec := ProcessSpec{
		Name: n.Name, Command: program.Command(n.role, n.config), Dir: n.dir, LogFile: n.logFile,
		OnLog: n.fleet.options.OnLog, Terminated: program.Terminated,
	}
	if program.Await != nil {
		spec.Await = func(ctx context.Context) error { return program.Await(ctx, n.role, n.Addr) }
	}
	process, err := Start(ctx, spec)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.process = process
	return nil
}

// Process is the running process, or nil.
func (n *Node) Process() *Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.process
}

func (n *Node) take() *Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	process := n.mu.process
	n.mu.process = nil
	return process
}

// Kill ends the node's process with SIGKILL, if there is one, and waits until it is gone.
func (n *Node) Kill() {
	if process := n.take(); process != nil {
		process.Kill()
	}
}

// Stop shuts the node down cleanly.
func (n *Node) Stop(ctx context.Context) error {
	if process := n.take(); process != nil {
		return process.Stop(ctx)
	}
	return nil
}

// Dir holds the node's configuration, its log, and its data in a folder of that name.
func (n *Node) Dir() string { return n.dir }

// LogFile is where the node's stderr is kept.
func (n *Node) LogFile() string { return n.logFile }
