// Command bench measures understudy and prints tables for docs/performance.md:
//
//	go run ./bench failover [--peer] [--count 100] [--only leader,controller,…] [--cast …]
//	go run ./bench start    [--peer] [--count 20]
//	go run ./bench soak     [--for 5m] [--seed N]
//	go run ./bench produce  [--peer] [--size 1024,100] [--codec none,lz4] [--replicas 1,3]
//	go run ./bench consume  [--peer] …
//	go run ./bench coordinator [--peer] [--members 1,3] [--sessions 1,64]
//	go run ./bench partitions  [--peer] [--count 10000] [--brokers 1]
//
// Every table says on what it was measured and with which durability settings. Servers are
// processes of their own on loopback; the clients are franz-go's.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	root := &cobra.Command{Use: "bench", Short: "Measure understudy", SilenceUsage: true}
	root.AddCommand(failoverCommand(), startCommand(), soakCommand(), produceCommand(), consumeCommand(), coordinatorCommand(), partitionsCommand(), floorCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		os.Exit(1)
	}
}

// machine describes what the figures were measured on.
func machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				model = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(name), ":"))
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d CPUs (%s), %s, understudy %s, franz-go %s", runtime.GOOS, runtime.NumCPU(), model,
		runtime.Version(), revision(), moduleVersion("github.com/twmb/franz-go"))
}

func revision() string {
	output, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "of an unknown revision"
	}
	text := strings.TrimSpace(string(output))
	if exec.Command("git", "diff", "--quiet", "HEAD").Run() != nil {
		text += " with changes"
	}
	return text
}

func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "?"
	}
	for _, dependency := range info.Deps {
		if dependency.Path == path {
			return dependency.Version
		}
	}
	return "?"
}

// quantiles are of a sorted copy: the smallest value that at least that share does not exceed.
type quantiles struct{ minimum, median, p99, maximum time.Duration }

func summarise(values []time.Duration) quantiles {
	if len(values) == 0 {
		return quantiles{}
	}
	sorted := slices.Sorted(slices.Values(values))
	at := func(share float64) time.Duration {
		index := int(share*float64(len(sorted))+0.999999) - 1
		return sorted[min(max(index, 0), len(sorted)-1)]
	}
	return quantiles{sorted[0], at(0.5), at(0.99), sorted[len(sorted)-1]}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }
