package broker

import (
	"regexp"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// ApiVersions (key 18), versions 0 to 4: what this broker serves, straight from what was
// registered. v3 the client's name and version (KIP-511), v4 as v3. A newer version is
// answered by package wire.

func (b *Broker) registerApiVersions() { b.server.Handle(18, 0, 4, b.handleApiVersions) }

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
	for _, api := range b.server.APIs() {
		key := kmsg.NewApiVersionsResponseApiKey()
		key.ApiKey, key.MinVersion, key.MaxVersion = api.Key, api.Min, api.Max
		response.ApiKeys = append(response.ApiKeys, key)
	}
	request.Reply(response)
}
