package main

import (
	"context"

	"github.com/spf13/cobra"

	"understudy/internal/config"
	"understudy/internal/coordination/coordinator"
	"understudy/internal/server"
)

func coordinatorCommand() *cobra.Command {
	var options configured
	cmd := &cobra.Command{
		Use:   "coordinator --config zoo.cfg",
		Short: "One member of a coordinator ensemble: ZooKeeper's protocol and configuration keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runCoordinator(cmd.Context(), options)
		},
	}
	options.register(cmd, "a zoo.cfg, ZooKeeper's own")
	return cmd
}

func runCoordinator(ctx context.Context, options configured) error {
	stop := signals()
	logger, err := options.logger()
	if err != nil {
		return err
	}
	settings, warnings, err := config.LoadCoordinator(options.file, options.overrides, options.strict)
	if err != nil {
		return err
	}
	warn(logger, warnings)
	starting, stop, cancel := interruptible(ctx, stop)
	defer cancel()
	running, err := coordinator.Start(starting, server.Coordinator(settings, logger))
	if err != nil {
		return err
	}
	if err := running.AwaitServing(starting); err != nil {
		if starting.Err() == nil {
			return err
		}
	} else {
		ready("zookeeper=%s data=%s id=%d", running.Addr(), settings.DataDir, max(settings.MyID, 1))
	}
	return serve(logger, stop, running)
}
