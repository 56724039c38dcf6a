package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"

	"understudy/internal/fleet"
	"understudy/internal/streaming/record"
)

// streamOptions are what produce and consume have in common.
type streamOptions struct {
	sizes    []int
	codecs   []string
	replicas []int
	volume   int64 // MiB of record values per row
	batch    int   // bytes
	peer     bool
	profile  string
	pace     int // records per second of the acknowledgement test; 0 leaves it out
	during   time.Duration
	repeat   int
	// A producer is a connection to each leader.
	producers, inFlight int
	fsync               bool
}

const (
	streamPartitions = 6
	// warmUp goes before each measurement: virtual machines compile, caches fill.
	warmUp = 128 << 20
)

func (o *streamOptions) register(cmd *cobra.Command) {
	cmd.Flags().IntSliceVar(&o.sizes, "size", []int{1024, 100}, "bytes of a record's value")
	cmd.Flags().StringSliceVar(&o.codecs, "codec", []string{"none", "lz4"}, "none, gzip, snappy, lz4 or zstd")
	cmd.Flags().IntSliceVar(&o.replicas, "replicas", []int{1, 3}, "replication factors; as many brokers and coordinators are started")
	cmd.Flags().Int64Var(&o.volume, "volume", 512, "MiB of record values per measurement")
	cmd.Flags().IntVar(&o.batch, "batch", 1_000_000, "bytes of a batch before compression")
	cmd.Flags().BoolVar(&o.peer, "peer", false, "measure Apache's servers, too (needs java and mvn)")
	cmd.Flags().IntVar(&o.producers, "producers", 2, "producers, each with a connection to every leader")
	cmd.Flags().IntVar(&o.inFlight, "in-flight", 5, "requests in flight per connection (the Java client's default is 5)")
	cmd.Flags().IntVar(&o.repeat, "repeat", 3, "how often each row's cost is measured")
	cmd.Flags().StringVar(&o.profile, "profile", "", "write understudy's processor profiles into this folder")
}

func produceCommand() *cobra.Command {
	var options streamOptions
	cmd := &cobra.Command{
		Use:   "produce",
		Short: "Measure what it costs the servers to take records, and how soon they acknowledge",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return stream(cmd.Context(), &options, "produce")
		},
	}
	options.register(cmd)
	cmd.Flags().IntVar(&options.pace, "pace", 2000, "records per second of the acknowledgement test; 0 leaves it out")
	cmd.Flags().BoolVar(&options.fsync, "fsync", false, "measure with flush.messages=1, too: an acknowledgement means fsynced on every in-sync replica")
	cmd.Flags().DurationVar(&options.during, "during", 10*time.Second, "how long the acknowledgement test lasts")
	return cmd
}

func consumeCommand() *cobra.Command {
	var options streamOptions
	cmd := &cobra.Command{
		Use:   "consume",
		Short: "Measure what it costs the servers to hand records out",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return stream(cmd.Context(), &options, "consume")
		},
	}
	options.register(cmd)
	return cmd
}

func codecNamed(name string) (record.Codec, error) {
	if name == "none" {
		return record.None, nil
	}
	return record.ParseCodec(name)
}

// stream runs one benchmark: a fleet per replication factor and program, a topic per row.
func stream(ctx context.Context, options *streamOptions, what string) error {
	r, err := openRun(ctx, options.peer, options.profile)
	if err != nil {
		return err
	}
	defer r.close()
	fmt.Printf("%d partitions, acks=all, min.insync.replicas 2 with 3 replicas, batches of %d bytes before compression, %d MiB of values per measurement, median of %d (lowest-highest);\n",
		streamPartitions, options.batch, options.volume, options.repeat)
	fmt.Printf("%d connections per leader with %d requests in flight; requests encoded beforehand; CPU is user and system time of all brokers and coordinators;\n", options.producers, options.inFlight)
	fmt.Printf("durability: records in the page cache of every in-sync replica (Kafka's default)")
	if options.fsync {
		fmt.Printf("; rows with fsync: fsynced by every in-sync replica (flush.messages=1)")
	}
	fmt.Print("\n\n")
	columns := fmt.Sprintf("%-42s %20s %10s", what, "CPU s per GiB", "MB/s")
	if options.pace > 0 {
		columns += fmt.Sprintf(" %26s", fmt.Sprintf("ms to ack at %d/s: p50, p99", options.pace))
	}
	fmt.Println(columns)
	if what == "produce" {
		var costs, rates []float64
		for range options.repeat {
			cost, rate, err := measureFloor(ctx, r.dir, options.volume<<20)
			if err != nil {
				return err
			}
			costs, rates = append(costs, cost), append(rates, rate)
		}
		slices.Sort(costs)
		slices.Sort(rates)
		fmt.Printf("%-42s %20s %10.0f\n", "socket, CRC and file alone", spread(costs), rates[len(rates)/2])
		if options.fsync {
			if err := printDisk(r.dir, options); err != nil {
				return err
			}
		}
	}
	for _, replicas := range options.replicas {
		err := r.each(what, func(dir string, program *fleet.Program) error {
			return streamOn(ctx, options, what, dir, program, replicas)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// printDisk says how much of the fsync rows is the disk's: with a batch each, and with all
// that the producers have in flight.
func printDisk(dir string, options *streamOptions) error {
	all := max(1, options.producers*options.inFlight/streamPartitions) * options.batch
	for _, size := range []int{options.batch, all} {
		syncs, rate, err := measureDisk(dir, streamPartitions, size, 3*time.Second)
		if err != nil {
			return err
		}
		fmt.Printf("%-42s %20s %10.0f\n", fmt.Sprintf("fdatasync alone, %d files, %d KiB each", streamPartitions, size>>10), fmt.Sprintf("%.0f fsyncs/s", syncs), rate)
	}
	return nil
}

func streamOn(ctx context.Context, options *streamOptions, what, dir string, program *fleet.Program, replicas int) error {
	f, err := newFleet(dir, program, replicas, replicas)
	if err != nil {
		return err
	}
	defer f.KillAll()
	if err := f.Start(ctx); err != nil {
		return err
	}
	for _, size := range options.sizes {
		for _, codec := range options.codecs {
			row := &streamRow{options: options, fleet: f, size: size, codecName: codec, replicas: replicas, topic: fmt.Sprintf("%s-%d-%s", what, size, codec)}
			if err := row.measure(ctx, what, program); err != nil {
				return err
			}
			if !options.fsync {
				continue
			}
			synced := &streamRow{options: options, fleet: f, size: size, codecName: codec, replicas: replicas, topic: row.topic + "-fsync", fsync: true}
			if err := synced.measure(ctx, what, program); err != nil {
				return err
			}
			fmt.Printf("%-42s %20s %10.2f\n", "  rate with fsync over rate without", "", synced.rate/row.rate)
		}
	}
	bounded, cancel := stopping(ctx)
	defer cancel()
	return errors.Join(f.Stop(bounded), os.RemoveAll(dir)) // gigabytes
}

// streamRow is one line of the table.
type streamRow struct {
	options   *streamOptions
	fleet     *fleet.Fleet
	size      int
	codecName string
	replicas  int
	topic     string
	fsync     bool

	rate    float64 // measured: MB/s, the median
	client  *kgo.Client
	leaders map[int32][]int32 // partitions by leader
	frames  map[int32][][]byte
	records int // per frame
}

func (r *streamRow) measure(ctx context.Context, what string, program *fleet.Program) error {
	codec, err := codecNamed(r.codecName)
	if err != nil {
		return err
	}
	if err := r.createTopic(ctx); err != nil {
		return err
	}
	defer r.client.Close()
	if err := r.prepare(codec); err != nil {
		return err
	}
	perFrame := int64(r.records * r.size)
	frames := max(1, r.options.volume<<20/perFrame)
	volume := frames * perFrame
	if err := r.produce(ctx, max(1, warmUp/perFrame)); err != nil {
		return err
	}
	work := func() error { return r.produce(ctx, frames) }
	if what == "consume" {
		if err := r.produce(ctx, frames); err != nil {
			return err
		}
		volume = (frames + max(1, warmUp/perFrame)) * perFrame // all of it is read
		work = func() error { return r.consume(ctx) }
		if err := r.consume(ctx); err != nil { // warms up
			return err
		}
	}
	acknowledged := ""
	if r.options.pace > 0 {
		unix.Sync() // what the rows before have written must not compete
		took, err := r.paced(ctx)
		if err != nil {
			return err
		}
		q := summarise(took)
		acknowledged = fmt.Sprintf(" %26s", ms2(q.median)+"  "+ms2(q.p99))
	}
	var costs, rates []float64
	for range r.options.repeat {
		if err := settleMachine(volume * int64(r.replicas)); err != nil {
			return err
		}
		cpu, wall, err := costOf(r.fleet, work)
		if err != nil {
			return err
		}
		costs, rates = append(costs, perGiB(cpu, volume)), append(rates, megabytesPerSecond(volume, wall))
	}
	slices.Sort(costs)
	slices.Sort(rates)
	r.rate = rates[len(rates)/2]
	name, _, _ := strings.Cut(program.Name, ",")
	if r.fsync {
		name += ", fsync"
	}
	fmt.Printf("%-42s %20s %10.0f%s\n", fmt.Sprintf("%d B %s RF %d %s", r.size, r.codecName, r.replicas, name), spread(costs), r.rate, acknowledged)
	_, err = kadm.NewClient(r.client).DeleteTopic(ctx, r.topic)
	return err
}

// spread is the median of sorted figures, with the smallest and the largest.
func spread(sorted []float64) string {
	return fmt.Sprintf("%.2f (%.2f-%.2f)", sorted[len(sorted)/2], sorted[0], sorted[len(sorted)-1])
}

func ms2(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }

// createTopic makes the row's topic and learns its leaders.
func (r *streamRow) createTopic(ctx context.Context) error {
	var err error
	r.client, err = kgo.NewClient(kgo.SeedBrokers(r.fleet.Bootstrap()...), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
		kgo.DefaultProduceTopic(r.topic), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return err
	}
	admin := kadm.NewClient(r.client)
	configs := map[string]*string{}
	if r.fsync {
		configs["flush.messages"] = kadm.StringPtr("1")
	}
	created, err := admin.CreateTopic(ctx, streamPartitions, int16(r.replicas), configs, r.topic)
	if err = errors.Join(err, created.Err); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		topics, err := admin.ListTopics(bounded, r.topic)
		if err != nil {
			return err
		}
		r.leaders = map[int32][]int32{}
		ready := 0
		for _, partition := range topics[r.topic].Partitions {
			if partition.Err == nil && partition.Leader >= 0 && len(partition.ISR) == r.replicas {
				r.leaders[partition.Leader] = append(r.leaders[partition.Leader], partition.Partition)
				ready++
			}
		}
		if ready == streamPartitions {
			// The controller may be ahead of the leaders, which must know, too.
			if ends, err := admin.ListEndOffsets(bounded, r.topic); err == nil && ends.Error() == nil {
				return nil
			}
		}
		select {
		case <-bounded.Done():
			return fmt.Errorf("topic %s is not ready: %w", r.topic, bounded.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// prepare encodes a request for each partition.
func (r *streamRow) prepare(codec record.Codec) error {
	random := rand.New(rand.NewPCG(1, uint64(r.size)))
	r.frames = map[int32][][]byte{}
	for leader, partitions := range r.leaders {
		for _, number := range partitions {
			batch, records, err := batchOf(random, r.size, r.options.batch, codec)
			if err != nil {
				return err
			}
			r.records = records
			request := kmsg.NewPtrProduceRequest()
			request.SetVersion(rawProduceVersion)
			request.Acks, request.TimeoutMillis = -1, 30000
			partition := kmsg.NewProduceRequestTopicPartition()
			partition.Partition, partition.Records = number, batch
			request.Topics = []kmsg.ProduceRequestTopic{{Topic: r.topic, Partitions: []kmsg.ProduceRequestTopicPartition{partition}}}
			r.frames[leader] = append(r.frames[leader], frame(request))
		}
	}
	return nil
}

// everyLeader runs f for each broker that leads partitions, and waits for all.
func (r *streamRow) everyLeader(connections int, f func(addr string, leader int32) error) error {
	var wait sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for leader := range r.leaders {
		node, ok := r.fleet.Broker(leader)
		if !ok {
			return fmt.Errorf("broker %d leads partitions and is not of this fleet", leader)
		}
		for range connections {
			wait.Go(func() {
				if err := f(node.Addr, leader); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, err)
				}
			})
		}
	}
	wait.Wait()
	return errors.Join(errs...)
}

func (r *streamRow) produce(ctx context.Context, frames int64) error {
	load := &producing{inFlight: r.options.inFlight, total: frames}
	return r.everyLeader(r.options.producers, func(addr string, leader int32) error { return load.run(ctx, addr, r.frames[leader]) })
}

func (r *streamRow) consume(ctx context.Context) error {
	ends, err := kadm.NewClient(r.client).ListEndOffsets(ctx, r.topic)
	if err != nil {
		return err
	}
	return r.everyLeader(1, func(addr string, leader int32) error {
		c := consuming{topic: r.topic, partitionMax: 1 << 20, partitions: r.leaders[leader]}
		for _, partition := range c.partitions {
			end, ok := ends.Lookup(r.topic, partition)
			if !ok || end.Err != nil {
				return fmt.Errorf("end of %s-%d: %w", r.topic, partition, end.Err)
			}
			c.next, c.end = append(c.next, 0), append(c.end, end.Offset)
		}
		return c.run(ctx, addr)
	})
}

// paced sends records by franz-go, without linger, at an even pace, and returns how long
// each took to be acknowledged.
func (r *streamRow) paced(ctx context.Context) ([]time.Duration, error) {
	const settling = 3 * time.Second // not counted
	value := make([]byte, r.size)
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	began := time.Now()
	interval := time.Second / time.Duration(r.options.pace)
	for i := 0; ; i++ {
		due := began.Add(time.Duration(i) * interval)
		if due.Sub(began) > settling+r.options.during || ctx.Err() != nil {
			break
		}
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		sent := time.Now()
		r.client.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			elapsed := time.Since(sent)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
			} else if sent.Sub(began) > settling {
				took = append(took, elapsed)
			}
		})
	}
	if err := r.client.Flush(ctx); err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	return took, failed
}
