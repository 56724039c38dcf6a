package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/coordination/zkclient"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/wire"
)

// ensembleAbsenceMax is how long a broker that wants to stop puts up with an ensemble that does
// not answer. Another raft leader is there sooner; when the whole cluster is being stopped
// nobody will answer, and no controller can move a leadership.
const ensembleAbsenceMax = 2 * time.Second

var errEnsembleGone = fmt.Errorf("no zookeeper server has answered for %v", ensembleAbsenceMax)

// controlledShutdown asks the controller to move leadership away, as often as configured. It
// gives up early when ctx ends, or when there is nobody else to lead; then the controller will
// notice our death instead.
func (b *Broker) controlledShutdown(ctx context.Context) {
	ctx, cancel := b.whileEnsembleAnswers(ctx)
	defer cancel()
	b.replicas.Leave()
	for attempt := 1; ; attempt++ {
		image := b.metadata.Image()
		remaining, err := b.requestShutdown(ctx, image)
		if err == nil && len(remaining) == 0 {
			b.logger.Info("controlled shutdown succeeded")
			return
		}
		hopeless := func(now *metadata.Image) bool { return b.alone(now) || err == nil && b.irreplaceable(now, remaining) }
		last := attempt >= b.config.ControlledShutdownMaxRetries || hopeless(b.metadata.Image()) || ctx.Err() != nil
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		b.logger.Warn("controlled shutdown not complete", "attempt", attempt, "remaining", len(remaining), "last", last, "error", err)
		if last {
			return
		}
		waiting, cancel := context.WithTimeout(ctx, b.config.ControlledShutdownRetryBackoff)
		_, _ = b.metadata.WaitFor(waiting, func(now *metadata.Image) bool {
			// The controller that did not answer has been replaced: ask the new one at once.
			return err != nil && now.ControllerEpoch() != image.ControllerEpoch() || hopeless(now)
		})
		cancel()
		if ctx.Err() != nil || hopeless(b.metadata.Image()) {
			return
		}
	}
}

// whileEnsembleAnswers returns a context that ends when the ensemble has not been there for
// ensembleAbsenceMax.
func (b *Broker) whileEnsembleAnswers(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if b.session == nil || b.session.current() == nil {
		return ctx, func() { cancel(nil) }
	}
	go func() {
		ticker := time.NewTicker(ensembleAbsenceMax / 20)
		defer ticker.Stop()
		seen := time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-ticker.C:
				if b.session.current().State() == zkclient.Connected {
					seen = now
				} else if now.Sub(seen) >= ensembleAbsenceMax {
					cancel(errEnsembleGone)
					return
				}
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// irreplaceable reports whether no other broker could take any of the partitions over: those
// that hold a replica are gone or, what the controller tells by listing them as offline, leaving
// too.
func (b *Broker) irreplaceable(image *metadata.Image, partitions []cluster.TopicPartition) bool {
	for _, tp := range partitions {
		state, found := image.Partition(tp)
		if found && slices.ContainsFunc(state.Replicas, func(id cluster.BrokerID) bool {
			return id != b.id && image.Alive(id) && !slices.Contains(state.Offline, id)
		}) {
			return false
		}
	}
	return true
}

// alone reports whether no other broker is alive.
func (b *Broker) alone(image *metadata.Image) bool {
	return len(image.Brokers()) == 1 && image.Alive(b.id)
}

// requestShutdown sends one ControlledShutdown and returns the partitions that are still led
// here.
func (b *Broker) requestShutdown(ctx context.Context, image *metadata.Image) (remaining []cluster.TopicPartition, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.config.ControllerSocketTimeout)
	defer cancel()
	client, err := b.dialControllerOf(ctx, image)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	request := kmsg.NewPtrControlledShutdownRequest()
	request.SetVersion(3)
	request.BrokerID, request.BrokerEpoch = int32(b.id), int64(b.Epoch())
	response, err := client.Do(ctx, request)
	if err != nil {
		return nil, err
	}
	answer := response.(*kmsg.ControlledShutdownResponse)
	for _, partition := range answer.PartitionsRemaining {
		remaining = append(remaining, cluster.TopicPartition{Topic: partition.Topic, Partition: partition.Partition})
	}
	return remaining, kerr.ErrorForCode(answer.ErrorCode)
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
