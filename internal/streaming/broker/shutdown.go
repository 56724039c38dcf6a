package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/wire"
)

// controlledShutdown asks the controller to move leadership away, as often as configured. It
// gives up early when ctx ends, or when there is nobody else to lead; then the controller will
// notice our death instead.
func (b *Broker) controlledShutdown(ctx context.Context) {
	for attempt := 1; ; attempt++ {
		image := b.metadata.Image()
		remaining, err := b.requestShutdown(ctx, image)
		if err == nil && remaining == 0 {
			b.logger.Info("controlled shutdown succeeded")
			return
		}
		alone := b.alone(b.metadata.Image())
		b.logger.Warn("controlled shutdown not complete", "attempt", attempt, "remaining", remaining, "alone", alone, "error", err)
		if attempt >= b.config.ControlledShutdownMaxRetries || alone {
			return
		}
		waiting, cancel := context.WithTimeout(ctx, b.config.ControlledShutdownRetryBackoff)
		_, _ = b.metadata.WaitFor(waiting, func(now *metadata.Image) bool {
			// The controller that did not answer has been replaced: ask the new one at once.
			return err != nil && now.ControllerEpoch() != image.ControllerEpoch() || b.alone(now)
		})
		cancel()
		if ctx.Err() != nil {
			return
		}
	}
}

// alone reports whether no other broker is alive.
func (b *Broker) alone(image *metadata.Image) bool {
	return len(image.Brokers()) == 1 && image.Alive(b.id)
}

// requestShutdown sends one ControlledShutdown and returns how many partitions are still
// led here.
func (b *Broker) requestShutdown(ctx context.Context, image *metadata.Image) (remaining int, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.config.ControllerSocketTimeout)
	defer cancel()
	client, err := b.dialControllerOf(ctx, image)
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
	return b.dialControllerOf(ctx, b.metadata.Image())
}

func (b *Broker) dialControllerOf(ctx context.Context, image *metadata.Image) (*wire.Client, error) {
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
