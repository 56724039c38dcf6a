package broker

import (
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// DeleteGroups (key 42), versions 0 to 2.

func (b *Broker) registerDeleteGroups() { b.server.Handle(42, 0, 2, b.handleDeleteGroups) }

func (b *Broker) handleDeleteGroups(request *wire.Request) {
	body := request.Body.(*kmsg.DeleteGroupsRequest)
	response := respond[*kmsg.DeleteGroupsResponse](request)
	named := map[string]bool{} // one answer for each name, as in Kafka
	body.Groups = slices.DeleteFunc(body.Groups, func(id string) bool {
		again := named[id]
		named[id] = true
		return again
	})
	if len(body.Groups) == 0 {
		request.Reply(response)
		return
	}
	response.Groups = make([]kmsg.DeleteGroupsResponseGroup, len(body.Groups))
	var left atomic.Int64
	left.Store(int64(len(body.Groups)))
	for i, id := range body.Groups {
		response.Groups[i].Group = id
		b.groups.Delete(id, func(err *kerr.Error) {
			response.Groups[i].ErrorCode = codeOf(err)
			if left.Add(-1) == 0 {
				request.Reply(response)
			}
		})
	}
}
