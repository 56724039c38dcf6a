package broker

import (
	"context"
	"regexp"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// ApiVersions (key 18), versions 0 to 4: what this broker serves, straight from what was
// registered. v3 the client's name and version (KIP-511), v4 as v3. A newer version is
// answered by package wire.

func (b *Broker) registerApiVersions() { b.server.Handle(18, 0, 4, b.handleApiVersions) }

// featuresEpoch remembers the version of /feature, which clients are told. The active
// controller makes the node, so that it may be missing at the first request; nothing changes
// it in a ZooKeeper-mode cluster.
type featuresEpoch struct {
	known   atomic.Int64 // version + 1; 0: not read yet
	reading atomic.Bool
}

// epochNow is the version, or -1 as long as it is unknown; it never waits.
func (f *featuresEpoch) epochNow(b *Broker) int64 {
	if known := f.known.Load(); known > 0 {
		return known - 1
	}
	if f.reading.CompareAndSwap(false, true) {
		go func() {
			defer f.reading.Store(false)
			ctx, cancel := context.WithTimeout(context.Background(), configReadTimeout)
			defer cancel()
			if feature, version, err := b.registry.Feature(ctx, false); err == nil && feature.Enabled {
				f.known.Store(int64(version) + 1)
			}
		}()
	}
	return -1
}

// softwareName is what a client may call itself (ApiVersionsRequest.java).
var softwareName = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

func (b *Broker) handleApiVersions(request *wire.Request) {
	body := request.Body.(*kmsg.ApiVersionsRequest)
	response := respond[*kmsg.ApiVersionsResponse](request)
	response.FinalizedFeaturesEpoch = -1
	if request.Version >= 3 && !(softwareName.MatchString(body.ClientSoftwareName) && softwareName.MatchString(body.ClientSoftwareVersion)) {
		response.ErrorCode = kerr.InvalidRequest.Code
		request.Reply(response)
		return
	}
	response.FinalizedFeaturesEpoch = b.features.epochNow(b)
	for _, api := range b.server.APIs() {
		key := kmsg.NewApiVersionsResponseApiKey()
		key.ApiKey, key.MinVersion, key.MaxVersion = api.Key, api.Min, api.Max
		response.ApiKeys = append(response.ApiKeys, key)
	}
	request.Reply(response)
}
