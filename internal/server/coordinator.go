// Package server turns checked configuration, which speaks in Apache's keys, into the
// configuration of the servers, which never see a key. The command line and the embeddable
// cluster share it.
package server

import (
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"understudy/internal/config"
	"understudy/internal/coordination/coordinator"
	"understudy/internal/coordination/znode"
)

// Coordinator converts a zoo.cfg.
func Coordinator(settings *config.Coordinator, logger *slog.Logger) coordinator.Config {
	converted := coordinator.Config{
		ID: znode.MemberID(settings.MyID), DataDir: settings.DataDir,
		TickTime: settings.TickTime, InitLimit: settings.InitLimit, SyncLimit: settings.SyncLimit,
		MinSessionTimeout: settings.MinSessionTimeout, MaxSessionTimeout: settings.MaxSessionTimeout,
		MaxClientConnections: settings.MaxClientConnections, FourLetterWhitelist: settings.FourLetterWhitelist,
		SnapshotEntries: uint64(settings.SnapshotCount), ContainerCheckInterval: settings.ContainerCheck, SuperDigest: settings.SuperDigest,
		Logger: logger,
	}
	if settings.ClientPort >= 0 {
		converted.ClientAddr = net.JoinHostPort(settings.ClientHost, strconv.Itoa(settings.ClientPort))
	}
	if len(settings.Members) > 1 {
		converted.Members = map[znode.MemberID]string{}
		for id, member := range settings.Members {
			converted.Members[znode.MemberID(id)] = net.JoinHostPort(member.Host, fmt.Sprint(member.QuorumPort))
		}
	}
	return converted
}
