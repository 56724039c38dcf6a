package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"understudy/internal/config"
)

// configured holds the flags of the commands that read one of Apache's configuration files.
type configured struct {
	logging
	file      string
	overrides []string
	strict    bool
}

func (c *configured) register(cmd *cobra.Command, file string) {
	c.logging.register(cmd)
	cmd.Flags().StringVar(&c.file, "config", "", file)
	cmd.Flags().StringArrayVar(&c.overrides, "override", nil, "key=value, over the file; may be given several times")
	cmd.Flags().BoolVar(&c.strict, "strict", false, "a key that nobody knows is an error")
}

// warn reports settings that are taken but have no effect, one line each.
func warn(logger *slog.Logger, warnings []config.Warning) {
	for _, warning := range warnings {
		logger.Warn("configuration", "key", warning.Key, "value", warning.Value, "effect", warning.Message)
	}
}
