package main

import (
	"context"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"understudy/internal/config"
	"understudy/internal/server"
	"understudy/internal/streaming/cluster"
)

func brokerCommand() *cobra.Command {
	var options configured
	cmd := &cobra.Command{
		Use:   "broker --config server.properties",
		Short: "One broker: Kafka's protocol and configuration keys",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runBroker(cmd.Context(), options) },
	}
	options.register(cmd, "a server.properties, Kafka's own (ZooKeeper mode)")
	return cmd
}

func runBroker(ctx context.Context, options configured) error {
	stop := signals()
	logger, err := options.logger()
	if err != nil {
		return err
	}
	settings, warnings, err := config.LoadBroker(options.file, options.overrides, options.strict)
	if err != nil {
		return err
	}
	warn(logger, warnings)
	starting, stop, cancel := interruptible(ctx, stop)
	defer cancel()
	running, err := server.StartBroker(starting, settings, logger)
	if err != nil {
		if starting.Err() != nil && ctx.Err() == nil {
			logger.Info("interrupted while starting")
			return nil
		}
		return err
	}
	ready("kafka=%s id=%d cluster=%s data=%s", addresses(running.Endpoints()), running.ID(), running.ClusterID(), strings.Join(settings.LogDirs, ","))
	return serve(logger, stop, running)
}

func addresses(endpoints []cluster.Endpoint) string {
	texts := make([]string, len(endpoints))
	for i, endpoint := range endpoints {
		texts[i] = net.JoinHostPort(endpoint.Host, strconv.Itoa(int(endpoint.Port)))
	}
	return strings.Join(texts, ",")
}
