package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"understudy/internal/verify"
)

// Options of a recording.
type Options struct {
	Bootstrap         []string
	Duration          time.Duration
	Settle            time.Duration // bounds the end: last records, reading back, catching up
	Topics            int
	Partitions        int // of each topic
	ReplicationFactor int // 0: 3, or the number of brokers if there are fewer
	MinInsync         int // 0: the cluster's default
	Idempotent        int // producers that retry without doubling
	Single            int // producers that send each record once, one at a time
	Consumers         int // with all partitions assigned
	Members           int // of the group
	Seed              uint64
	Every             time.Duration // the mean pause of a producer between two records
	RecordBytes       int
	Say               func(format string, args ...any)
}

// retryEvery is how soon the clients try again: a run should see the outage, not sleep in it.
const retryEvery = 20 * time.Millisecond

// Run is a recording under way. Its consumers work from its beginning to Close.
type Run struct {
	options Options
	history *History
	recorder
	client  *kgo.Client // for questions and for reading back
	admin   *kadm.Client
	prefix  string // of this run's clients
	sending []*idempotent

	stop      context.CancelFunc
	consuming sync.WaitGroup
	progress  progress
	closing   sync.Once
}

// Start begins a history and creates its topics.
func Start(ctx context.Context, options Options) (*Run, error) {
	began := time.Now()
	name := fmt.Sprintf("understudy-verify-%x", began.UnixNano())
	h := &History{
		Header:  verify.Header{History: "kafka", Began: began, Servers: options.Bootstrap, Seed: options.Seed},
		Setting: Setting{Partitions: options.Partitions, Group: name, RecordBytes: options.RecordBytes},
	}
	for i := range options.Topics {
		h.Setting.Topics = append(h.Setting.Topics, fmt.Sprintf("%s-%d", name, i))
	}
	r, err := open(h, options)
	if err != nil {
		return nil, err
	}
	if err := r.createTopics(ctx); err != nil {
		r.client.Close()
		return nil, err
	}
	r.consume()
	return r, nil
}

// Continue goes on with a history that another process has kept.
func Continue(h *History, options Options) (*Run, error) {
	options.RecordBytes = h.Setting.RecordBytes
	r, err := open(h, options)
	if err != nil {
		return nil, err
	}
	r.consume()
	return r, nil
}

func open(h *History, options Options) (*Run, error) {
	h.Setting.Runs++
	base := int64(time.Since(h.Header.Began))
	for i := range h.Entries { // later than all before, whatever the wall clock says
		base = max(base, h.Entries[i].At+1, h.Entries[i].Return+1)
	}
	r := &Run{options: options, history: h, prefix: fmt.Sprintf("%d/", h.Setting.Runs)}
	r.clock = verify.NewClock(base)
	r.mu.next = map[string]int{}
	r.progress.init()
	var err error
	if r.client, err = kgo.NewClient(append(r.common("admin"), kgo.RetryTimeout(options.Settle))...); err != nil {
		return nil, err
	}
	r.admin = kadm.NewClient(r.client)
	return r, nil
}

// common are the settings of every client.
func (r *Run) common(name string) []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(r.options.Bootstrap...),
		kgo.ClientID("understudy-verify-" + name),
		kgo.RetryBackoffFn(func(int) time.Duration { return retryEvery }),
		kgo.MetadataMinAge(retryEvery),
		kgo.RequestRetries(math.MaxInt32),
		kgo.DialTimeout(time.Second),
		kgo.RequestTimeoutOverhead(3 * time.Second),
		kgo.DisableClientMetrics(),
		kgo.AlwaysRetryEOF(), // a broker that is killed as one connects to it
	}
}

// startPatience bounds the creation of the topics, and brokerPatience the wait for as many
// brokers as there are to be replicas.
const (
	startPatience  = time.Minute
	brokerPatience = 10 * time.Second
)

func (r *Run) createTopics(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	brokers, err := r.admin.ListBrokers(ctx)
	if err != nil {
		return fmt.Errorf("no broker of %v answers: %w", r.options.Bootstrap, err)
	}
	replication := r.options.ReplicationFactor
	if replication == 0 {
		replication = min(3, len(brokers))
	}
	configs := map[string]*string{"retention.ms": kadm.StringPtr("-1"), "retention.bytes": kadm.StringPtr("-1")}
	if r.options.MinInsync > 0 {
		configs["min.insync.replicas"] = kadm.StringPtr(fmt.Sprint(r.options.MinInsync))
	}
	for began := time.Now(); ; {
		err := r.tryCreate(ctx, replication, configs)
		if err == nil {
			break
		}
		// A broker that is away just now may be what is missing.
		away := errors.Is(err, kerr.InvalidReplicationFactor) && time.Since(began) < brokerPatience
		if !away && !kerr.IsRetriable(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryEvery):
		}
	}
	r.options.Say("%d topics %s-…, %d partitions each, replication factor %d", r.options.Topics, r.history.Setting.Group, r.options.Partitions, replication)
	return nil
}

func (r *Run) tryCreate(ctx context.Context, replication int, configs map[string]*string) error {
	created, err := r.admin.CreateTopics(ctx, int32(r.options.Partitions), int16(replication), configs, r.history.Setting.Topics...)
	if err != nil {
		return fmt.Errorf("create the topics: %w", err)
	}
	for _, topic := range created {
		if topic.Err != nil && !errors.Is(topic.Err, kerr.TopicAlreadyExists) { // by a request that was repeated
			return fmt.Errorf("create topic %s: %w %s", topic.Topic, topic.Err, topic.ErrMessage)
		}
	}
	return nil
}

// Write has the producers work for the duration.
func (r *Run) Write(ctx context.Context) error {
	producing, cancel := context.WithTimeout(ctx, r.options.Duration)
	defer cancel()
	var wait sync.WaitGroup
	for i := range r.options.Idempotent {
		p, err := r.newIdempotent(fmt.Sprintf("idempotent-%d", i))
		if err != nil {
			return err
		}
		r.sending = append(r.sending, p)
		wait.Go(func() { r.produce(producing, p, rand.New(rand.NewPCG(r.options.Seed, uint64(i)))) })
	}
	for i := range r.options.Single {
		p, err := r.newSingle(fmt.Sprintf("single-%d", i))
		if err != nil {
			return err
		}
		wait.Go(func() {
			r.produce(producing, p, rand.New(rand.NewPCG(r.options.Seed, uint64(1000+i))))
			p.client.Close()
		})
	}
	r.options.Say("%d producers at work for %v", r.options.Idempotent+r.options.Single, r.options.Duration)
	wait.Wait()
	flushing, stop := context.WithTimeout(context.WithoutCancel(ctx), r.options.Settle)
	defer stop()
	for _, p := range r.sending {
		if p.client.Flush(flushing) != nil {
			r.options.Say("%s still has records that were not answered; they stay open", p.name)
		}
		p.client.Close()
	}
	r.sending = nil
	return nil
}

// History is what was recorded so far, with all that was before.
func (r *Run) History() *History {
	h := *r.history
	h.Entries = append(h.Entries[:len(h.Entries):len(h.Entries)], r.taken()...)
	return &h
}

// Close ends the consumers. Closing again does nothing.
func (r *Run) Close() {
	r.closing.Do(func() {
		r.stop()
		r.consuming.Wait()
		r.client.Close()
	})
}

// deletePatience bounds the cleaning up.
const deletePatience = 15 * time.Second

// Delete removes the topics and the group.
func (r *Run) Delete(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deletePatience)
	defer cancel()
	client, err := kgo.NewClient(r.common("cleaner")...)
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	deleted, err := admin.DeleteTopics(ctx, r.history.Setting.Topics...)
	if err == nil {
		err = deleted.Error()
	}
	_, groupErr := admin.DeleteGroups(ctx, r.history.Setting.Group)
	return errors.Join(err, groupErr)
}

// atMost39 keeps a client to the versions of requests in which topics go by their names.
func atMost39() kgo.Opt { return kgo.MaxVersions(kversion.V3_9_0()) }

func partitionName(topic string, partition int32) string {
	return fmt.Sprintf("%s-%d", topic, partition)
}
