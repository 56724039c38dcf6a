// Command understudy is Apache Kafka and Apache ZooKeeper in one program: see README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"understudy/internal/fleet"
)

func main() {
	stop, err := profile()
	if err == nil {
		err = errors.Join(command().ExecuteContext(context.Background()), stop())
	}
	if err != nil {
		var done exitStatus
		if errors.As(err, &done) {
			os.Exit(int(done))
		}
		fmt.Fprintln(os.Stderr, "understudy:", oneLine(err))
		os.Exit(1)
	}
}

// exitStatus ends the program with a status when everything there was to say has been said.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "understudy",
		Short:         "Apache Kafka and Apache ZooKeeper, spoken from one program",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(startCommand(), coordinatorCommand(), brokerCommand(), demoCommand(), verifyCommand())
	return root
}

// version is what the module's build information tells.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "development"
	}
	return info.Main.Version
}

// ready prints the one line on stdout that says a server is serving.
func ready(format string, args ...any) {
	fmt.Printf("%s %s\n", fleet.ReadyPrefix, fmt.Sprintf(format, args...))
}
