package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/wire"
)

// controlledShutdown asks the controller to move leadership away, as often as configured. It
// gives up early when ctx ends; then the controller will notice our death instead.
func (b *Broker) controlledShutdown(ctx context.Context) {
	for attempt := 0; ; attempt++ {
		remaining, err := b.requestShutdown(ctx)
		if err == nil && remaining == 0 {
			b.logger.Info("controlled shutdown succeeded")
			return
		}
		b.logger.Warn("controlled shutdown not complete", "attempt", attempt+1, "remaining", remaining, "error", err)
		if attempt+1 >= b.config.ControlledShutdownMaxRetries {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(b.config.ControlledShutdownRetryBackoff):
		}
	}
}

// requestShutdown sends one ControlledShutdown and returns how many partitions are still
// led here.
func (b *Broker) requestShutdown(ctx context.Context) (remaining int, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.config.ControllerSocketTimeout)
	defer cancel()
	client, err := b.dialController(ctx)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	request := kmsg.NewPtrControlledShutdownRequest()
	request.SetVersion(3)
	request.BrokerID, request.BrokerEpoch = int32(b.id), int64(b.Epoch())
	response, err := client.Do(ctx, request)
	if err != nil {
		return 0, err
	}
	answer := response.(*kmsg.ControlledShutdownResponse)
	return len(answer.PartitionsRemaining), kerr.ErrorForCode(answer.ErrorCode)
}

// dialController connects to the controller that the metadata cache names.
func (b *Broker) dialController(ctx context.Context) (*wire.Client, error) {
	image := b.metadata.Image()
	id := image.ControllerID()
	if id == cluster.NoBroker {
		return nil, errors.New("no controller is known")
	}
	endpoint, found := image.Endpoint(id, b.config.InterBrokerListener)
	if !found {
		return nil, fmt.Errorf("controller %d has no listener %s", id, b.config.InterBrokerListener)
	}
	return wire.Dial(ctx, net.JoinHostPort(endpoint.Host, strconv.Itoa(int(endpoint.Port))), wire.ClientOptions{ClientID: strconv.Itoa(int(b.id))})
}
