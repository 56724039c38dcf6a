package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"understudy"
)

func startCommand() *cobra.Command {
	var log logging
	var options understudy.Config
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Everything in one process, with no configuration: a coordinator and a broker",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runStart(cmd.Context(), options, log)
		},
	}
	log.register(cmd)
	cmd.Flags().StringVar(&options.Kafka, "kafka", "127.0.0.1:9092", "address of the first broker; brokers 2..N take the next ports; port 0 takes free ones")
	cmd.Flags().StringVar(&options.ZooKeeper, "zookeeper", "127.0.0.1:2181", "address of the coordinator; port 0 takes a free one")
	cmd.Flags().StringVar(&options.Data, "data", "understudy-data", "directory that everything is kept in")
	cmd.Flags().IntVar(&options.Brokers, "brokers", 1, "how many brokers")
	return cmd
}

func runStart(ctx context.Context, options understudy.Config, log logging) error {
	stop := signals()
	logger, err := log.logger()
	if err != nil {
		return err
	}
	options.Logger = logger
	if options.Brokers < 1 {
		return fmt.Errorf("--brokers %d: give 1 or more", options.Brokers)
	}
	starting, stop, cancel := interruptible(ctx, stop)
	defer cancel()
	cluster, err := understudy.Start(starting, options)
	if err != nil {
		if starting.Err() != nil && ctx.Err() == nil {
			logger.Info("interrupted while starting")
			return nil
		}
		return err
	}
	addrs := cluster.Kafka()
	ready("kafka=%s zookeeper=%s data=%s  try: kcat -b %s -P -t hello", strings.Join(addrs, ","), cluster.ZooKeeper(), options.Data, addrs[0])
	return serve(logger, stop, cluster)
}
