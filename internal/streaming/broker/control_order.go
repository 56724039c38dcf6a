package broker

import (
	"sync"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/wire"
)

// controlOrder keeps the controller's requests in order across its connections. It has one at a
// time; what it sent on one that it has given up may be read after what came on the next, and
// nothing in an UpdateMetadata, in the deletion of a replica or in a LeaderAndIsr of a topic that
// is deleted by then says that it is old. (Apache's brokers take what comes.)
type controlOrder struct {
	mu         sync.Mutex
	epoch      cluster.ControllerEpoch
	connection uint64 // the newest on which that controller has sent something
}

// late says whether a request of a controller came on a connection that it has replaced since.
// Whether the controller itself has been replaced is for others to say.
func (o *controlOrder) late(epoch int32, connection uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	controller := cluster.ControllerEpoch(epoch)
	switch {
	case controller < o.epoch:
		return false
	case controller == o.epoch && connection < o.connection:
		return true
	}
	o.epoch, o.connection = controller, connection
	return false
}

// tooLate drops a request that is late. Nobody waits for its answer. One whose epochs are wrong is
// refused for that by its handler, and says nothing about the controller's connections.
func (b *Broker) tooLate(request *wire.Request, brokerEpoch int64, controllerEpoch int32) bool {
	if b.replicas.CheckControl(cluster.BrokerEpoch(brokerEpoch), cluster.ControllerEpoch(controllerEpoch)) != nil {
		return false
	}
	if !b.control.late(controllerEpoch, request.Connection) {
		return false
	}
	b.logger.Debug("a request of the controller came late, on a connection that it has given up", "api", request.Key, "controllerEpoch", controllerEpoch)
	request.CloseConnection()
	return true
}
