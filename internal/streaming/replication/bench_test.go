package replication

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/record"
)

// kilobyteBatches returns a batch of count records of 1 KiB.
func kilobyteBatch(b *testing.B, count int) []byte {
	b.Helper()
	builder := record.NewBuilder(record.DefaultOptions())
	value := make([]byte, 1024)
	for range count {
		builder.Append(time.Now().UnixMilli(), nil, value)
	}
	batch, err := builder.Build()
	if err != nil {
		b.Fatal(err)
	}
	return batch
}

// BenchmarkAppend is the produce path without the wire: replication factor 1 to 3, batches of
// 16 KiB as a producer with defaults sends them, several requests in flight.
func BenchmarkAppend(b *testing.B) {
	for _, replicas := range []int{1, 3} {
		for _, acks := range []int16{AcksLeader, AcksAll} {
			b.Run(fmt.Sprintf("rf=%d/acks=%d", replicas, acks), func(b *testing.B) {
				c := newTestCluster(b, replicas, nil)
				isr := ids(1, 2, 3)[:replicas]
				c.elect(t0, 1, isr)
				batch := kilobyteBatch(b, 16)
				const inFlight = 5
				slots := make(chan []byte, inFlight)
				for range inFlight {
					slots <- append([]byte(nil), batch...)
				}
				b.SetBytes(int64(len(batch)))
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					data := <-slots
					copy(data, batch[:16]) // a client's batches begin at offset 0
					c.brokers[1].manager.Append(AppendRequest{
						Parts: []AppendPart{{t0, data}}, Acks: acks, Timeout: 30 * time.Second, Origin: commitlog.Client,
					}, func(results []AppendResult) {
						if results[0].Err != nil {
							b.Error(results[0].Err)
						}
						slots <- data
					})
				}
				for range inFlight {
					<-slots
				}
			})
		}
	}
}

// BenchmarkAcksAllLatency is one append at a time over three brokers: what replication adds.
func BenchmarkAcksAllLatency(b *testing.B) {
	c := newTestCluster(b, 3, nil)
	c.elect(t0, 1, ids(1, 2, 3))
	batch := kilobyteBatch(b, 1)
	done := make(chan struct{})
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		data := append([]byte(nil), batch...)
		c.brokers[1].manager.Append(AppendRequest{
			Parts: []AppendPart{{t0, data}}, Acks: AcksAll, Timeout: 30 * time.Second, Origin: commitlog.Client,
		}, func([]AppendResult) { done <- struct{}{} })
		<-done
	}
}

// BenchmarkIdleFollowerFetch is a follower's fetch over partitions of which none, or one, has
// something: the cost of a session that names them all.
func BenchmarkIdleFollowerFetch(b *testing.B) {
	for _, count := range []int{1, 100, 5000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			c := newTestCluster(b, 1, nil)
			parts := make([]FetchPart, count)
			var tps []cluster.TopicPartition
			for i := range parts {
				tp := cluster.TopicPartition{Topic: "t", Partition: int32(i)}
				c.states[tp] = &cluster.PartitionState{Leader: 1, ISR: ids(1, 2)}
				c.replicas[tp] = ids(1, 2)
				tps = append(tps, tp)
				parts[i] = FetchPart{TP: tp, TopicID: testTopicID, LastFetchedEpoch: 0, MaxBytes: 1 << 20}
			}
			c.tell(1, tps...)
			batch := kilobyteBatch(b, 1)
			var wait sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for n := range b.N {
				wait.Add(1)
				c.brokers[1].manager.Fetch(FetchRequest{
					Replica: 2, ReplicaEpoch: 1, MaxWait: time.Hour, MinBytes: 1, MaxBytes: 1 << 20, LeaderOnly: true, Parts: parts,
				}, func(results []FetchResult) {
					for i := range results {
						if results[i].Slice != nil {
							parts[i].FetchOffset = results[i].Slice.NextOffset()
							_ = results[i].Slice.Close()
						}
					}
					wait.Done()
				})
				c.brokers[1].manager.Append(AppendRequest{
					Parts: []AppendPart{{parts[n%count].TP, append([]byte(nil), batch...)}}, Acks: AcksLeader, Origin: commitlog.Client,
				}, func([]AppendResult) {})
				wait.Wait()
			}
		})
	}
}

// BenchmarkTakeOver is a LeaderAndIsr that makes a broker the leader of 2,000 partitions: what
// stands in a failover's way besides the network.
func BenchmarkTakeOver(b *testing.B) {
	c := newTestCluster(b, 1, nil)
	var tps []cluster.TopicPartition
	for i := range 2000 {
		tp := cluster.TopicPartition{Topic: "t", Partition: int32(i)}
		c.states[tp] = &cluster.PartitionState{Leader: 1, ISR: ids(1, 2)}
		c.replicas[tp] = ids(1, 2)
		tps = append(tps, tp)
	}
	c.tell(1, tps...)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for _, tp := range tps {
			c.states[tp].LeaderEpoch++
		}
		c.tell(1, tps...)
	}
}
