package controller

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/wire"
)

// How a lost connection is dialled again. Two refusals within some 10 ms are evidence that
// the process is gone: a listener that lives refuses nobody, and a kernel refuses for a
// dead one at once. A dial that times out proves nothing, and nor do refusals of a broker
// that this channel has never reached: Apache's broker registers before it opens its port.
// Those must go on for unopenedPatience.
const (
	refusalsNeeded  = 2
	refusalInterval = 10 * time.Millisecond
	redialInterval  = 50 * time.Millisecond
	// unopenedPatience is several times what a JVM needs from its registration to its port.
	unopenedPatience = 5 * time.Second
)

type channelConfig struct {
	self        cluster.BrokerID
	broker      cluster.BrokerID
	brokerEpoch cluster.BrokerEpoch
	endpoint    cluster.Endpoint
	dial        func(ctx context.Context, network, address string) (net.Conn, error)
	settings    Settings
	logger      *slog.Logger
	post        func(Event)
}

// channel is the controller's way to one incarnation of a broker: one connection, one
// request at a time, in order. A request that gets no answer is sent again until the
// channel is closed, so a broker may see it twice. The queue has no bound of its own: it
// grows only while the broker is registered and does not answer, by what changes in the
// cluster meanwhile (as in Kafka).
type channel struct {
	channelConfig
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{} // capacity 1
	mu     struct {
		sync.Mutex
		queue []kmsg.Request
		empty chan struct{} // closed when the queue has become empty; nil if nobody waits for it
	}

	// Owned by run.
	reported bool // brokerRefused has been posted and not yet taken back
	reached  bool // there has been a connection
}

func newChannel(config channelConfig) *channel {
	ch := &channel{channelConfig: config, wake: make(chan struct{}, 1)}
	ch.ctx, ch.cancel = context.WithCancel(context.Background())
	return ch
}

func (ch *channel) close() { ch.cancel() }

func (ch *channel) send(request kmsg.Request) {
	ch.mu.Lock()
	ch.mu.queue = append(ch.mu.queue, request)
	ch.mu.Unlock()
	select {
	case ch.wake <- struct{}{}:
	default:
	}
}

func (ch *channel) head() kmsg.Request {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if len(ch.mu.queue) == 0 {
		return nil
	}
	return ch.mu.queue[0]
}

func (ch *channel) dropHead() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.mu.queue[0] = nil
	ch.mu.queue = ch.mu.queue[1:]
	if len(ch.mu.queue) == 0 && ch.mu.empty != nil {
		close(ch.mu.empty)
		ch.mu.empty = nil
	}
}

// awaitAnswers returns when the broker has answered everything queued, the channel is closed,
// or the context ends.
func (ch *channel) awaitAnswers(ctx context.Context) {
	ch.mu.Lock()
	if len(ch.mu.queue) == 0 {
		ch.mu.Unlock()
		return
	}
	if ch.mu.empty == nil {
		ch.mu.empty = make(chan struct{})
	}
	empty := ch.mu.empty
	ch.mu.Unlock()
	select {
	case <-empty:
	case <-ch.ctx.Done():
	case <-ctx.Done():
	}
}

func (ch *channel) run() {
	for ch.ctx.Err() == nil {
		client := ch.connect()
		if client == nil {
			return
		}
		err := ch.serve(client)
		client.Close()
		if ch.ctx.Err() == nil {
			ch.logger.Debug("connection to broker lost", "broker", ch.broker, "error", err)
		}
	}
}

// connect dials until it succeeds or the channel is closed, and reports evidence.
func (ch *channel) connect() *wire.Client {
	address := net.JoinHostPort(ch.endpoint.Host, strconv.Itoa(int(ch.endpoint.Port)))
	options := wire.ClientOptions{ClientID: strconv.Itoa(int(ch.self)), DialContext: ch.dial}
	refusals := 0
	var since time.Time // of the first of them
	for ch.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(ch.ctx, ch.settings.SocketTimeout)
		client, err := wire.Dial(ctx, address, options)
		cancel()
		if err == nil {
			ch.reached = true
			return client
		}
		pause := redialInterval
		if errors.Is(err, syscall.ECONNREFUSED) {
			refusals++
			if refusals == 1 {
				since = time.Now()
			}
			if refusals < refusalsNeeded {
				pause = refusalInterval
			} else if !ch.reported && (ch.reached || time.Since(since) > unopenedPatience) {
				ch.reported = true
				ch.post(brokerRefused{ch.broker, ch.brokerEpoch})
			}
		} else {
			refusals = 0
		}
		ch.sleep(pause)
	}
	return nil
}

func (ch *channel) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ch.ctx.Done():
	}
}

// serve sends what is queued until the connection ends.
func (ch *channel) serve(client *wire.Client) error {
	for {
		request := ch.head()
		if request == nil {
			select {
			case <-ch.wake:
				continue
			case <-client.Closed():
				return client.Err()
			case <-ch.ctx.Done():
				return ch.ctx.Err()
			}
		}
		ctx, cancel := context.WithTimeout(ch.ctx, ch.settings.RequestTimeout)
		response, err := client.Do(ctx, request)
		cancel()
		if err != nil {
			return err
		}
		ch.dropHead()
		ch.answered(request, response)
	}
}

// answered passes on what the core has to know of a response. Any answer but
// STALE_BROKER_EPOCH, which a later incarnation gives, proves that the broker is there.
func (ch *channel) answered(request kmsg.Request, response kmsg.Response) {
	var code int16
	switch response := response.(type) {
	case *kmsg.LeaderAndISRResponse:
		code = response.ErrorCode
	case *kmsg.UpdateMetadataResponse:
		code = response.ErrorCode
	case *kmsg.StopReplicaResponse:
		code = response.ErrorCode
	}
	if event := Answered(ch.broker, ch.brokerEpoch, request, response); event != nil {
		ch.post(event)
	}
	if code != 0 {
		ch.logger.Warn("broker refused a request of the controller", "broker", ch.broker, "brokerEpoch", ch.brokerEpoch,
			"request", kmsg.NameForKey(request.Key()), "error", kerr.ErrorForCode(code))
	}
	if ch.reported && code != kerr.StaleBrokerEpoch.Code {
		ch.reported = false
		ch.post(brokerAnswered{ch.broker, ch.brokerEpoch})
	}
}
