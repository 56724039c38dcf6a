package server

import (
	"context"
	"log/slog"

	"understudy/internal/config"
	"understudy/internal/streaming/broker"
)

// Broker is a running broker in the shape that the command line waits for.
type Broker struct {
	*broker.Broker
	done chan struct{}
	err  error
	stop chan struct{}
}

// StartBroker starts a broker from a server.properties.
func StartBroker(ctx context.Context, settings *config.Broker, logger *slog.Logger) (*Broker, error) {
	b := &Broker{
		Broker: broker.New(broker.Config{Broker: settings, Logger: logger}),
		done:   make(chan struct{}), stop: make(chan struct{}),
	}
	if err := b.Start(ctx); err != nil {
		return nil, err
	}
	go func() {
		select {
		case b.err = <-b.Fatal():
			close(b.done)
		case <-b.stop:
		}
	}()
	return b, nil
}

// Done is closed when the broker cannot go on; Err then tells why.
func (b *Broker) Done() <-chan struct{} { return b.done }

// Err is the reason, once Done is closed.
func (b *Broker) Err() error { return b.err }

// Stop shuts the broker down.
func (b *Broker) Stop(ctx context.Context) error {
	close(b.stop)
	return b.Shutdown(ctx)
}
