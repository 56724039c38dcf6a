package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// ConsumerGroupHeartbeat and ConsumerGroupDescribe (keys 68 and 69), version 0 (KIP-848): in
// ZooKeeper mode the new group protocol does not exist. Apache's broker advertises both and
// says so when asked, and clients tell their users in those words.

func (b *Broker) registerConsumerGroupHeartbeat() {
	b.server.Handle(68, 0, 0, b.handleConsumerGroupHeartbeat)
}

func (b *Broker) registerConsumerGroupDescribe() {
	b.server.Handle(69, 0, 0, b.handleConsumerGroupDescribe)
}

func (b *Broker) handleConsumerGroupHeartbeat(request *wire.Request) {
	response := respond[*kmsg.ConsumerGroupHeartbeatResponse](request)
	response.ErrorCode = kerr.UnsupportedVersion.Code
	request.Reply(response)
}

func (b *Broker) handleConsumerGroupDescribe(request *wire.Request) {
	body := request.Body.(*kmsg.ConsumerGroupDescribeRequest)
	response := respond[*kmsg.ConsumerGroupDescribeResponse](request)
	for _, id := range body.Groups {
		group := kmsg.NewConsumerGroupDescribeResponseGroup()
		group.Group, group.ErrorCode = id, kerr.UnsupportedVersion.Code
		response.Groups = append(response.Groups, group)
	}
	request.Reply(response)
}
