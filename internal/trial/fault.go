package trial

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/fleet"
)

// Outcome is what one fault did, as the producer saw it.
type Outcome struct {
	Fault      string        `json:"fault"`
	Struck     time.Time     `json:"struck"`
	Partitions []int32       `json:"partitions"` // those that were measured
	Gap        time.Duration `json:"gap_ns"`     // the longest time without an acknowledgement among them
	// The phases come from the servers' own time stamps; a phase that no server reported is
	// absent.
	Detection   *time.Duration `json:"detection_ns,omitempty"`   // fault to the controller's decision
	Election    *time.Duration `json:"election_ns,omitempty"`    // decision to the new leaders being in the coordinator
	Propagation *time.Duration `json:"propagation_ns,omitempty"` // from there to the last new leader having taken over
}

// Fault does the damage. It returns the instant at which it struck, and the instant after
// which a record must be sent for its acknowledgement to show that the partition is well
// again (the two are the same for a sudden death).
type Fault func() (struck, over time.Time, err error)

// Strike applies a fault and waits until each of the partitions acknowledges again.
func (l *Load) Strike(ctx context.Context, name string, partitions []int32, fault Fault) (Outcome, error) {
	return strike(ctx, l.marks, name, partitions, fault)
}

func strike(ctx context.Context, marks *marks, name string, partitions []int32, fault Fault) (Outcome, error) {
	outcome := Outcome{Fault: name, Partitions: partitions}
	// A gap is between two acknowledgements: there must be one before.
	if err := awaitAcknowledgements(ctx, marks, partitions, time.Now()); err != nil {
		return outcome, fmt.Errorf("before %s: %w", name, err)
	}
	marks.openWindow()
	struck, over, err := fault()
	if err != nil {
		marks.closeWindow(nil)
		return outcome, fmt.Errorf("%s: %w", name, err)
	}
	outcome.Struck = struck
	if err := awaitAcknowledgements(ctx, marks, partitions, over); err != nil {
		marks.closeWindow(nil)
		return outcome, fmt.Errorf("after %s: %w", name, err)
	}
	for _, gap := range marks.closeWindow(partitions) {
		outcome.Gap = max(outcome.Gap, gap)
	}
	return outcome, nil
}

// awaitAcknowledgements waits until each partition has acknowledged a record that was sent
// after an instant.
func awaitAcknowledgements(ctx context.Context, marks *marks, partitions []int32, after time.Time) error {
	for !marks.settled(partitions, after) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("not every partition acknowledges: %w", ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// LedBy returns the partitions of the load's topic that a broker leads now.
func (l *Load) LedBy(ctx context.Context, broker int32) ([]int32, error) {
	leaders, err := l.Leaders(ctx)
	if err != nil {
		return nil, err
	}
	var partitions []int32
	for partition, leader := range leaders {
		if leader == broker {
			partitions = append(partitions, partition)
		}
	}
	slices.Sort(partitions)
	return partitions, nil
}

// AwaitLedBy is LedBy for a broker that is about to lead: whoever is asked may not know yet.
func (l *Load) AwaitLedBy(ctx context.Context, broker int32) ([]int32, error) {
	return awaitLedBy(ctx, l.admin, l.config.Topic, broker)
}

// Leaders returns each partition's leader.
func (l *Load) Leaders(ctx context.Context) (map[int32]int32, error) {
	metadata, err := l.admin.Metadata(ctx, l.config.Topic)
	if err != nil {
		return nil, err
	}
	leaders := map[int32]int32{}
	for _, partition := range metadata.Topics[l.config.Topic].Partitions {
		leaders[partition.Partition] = partition.Leader
	}
	return leaders, nil
}

// Controller returns the active controller's broker id, -1 if none is known.
func (l *Load) Controller(ctx context.Context) (int32, error) {
	metadata, err := l.admin.BrokerMetadata(ctx)
	return metadata.Controller, err
}

// AwaitInSync waits until every partition has a leader and its full in-sync set, and, if
// preferred is set, is led by its preferred replica.
func (l *Load) AwaitInSync(ctx context.Context, preferred bool) error {
	for {
		waiting, err := l.notInSync(ctx, preferred)
		if err == nil && waiting == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not all replicas are in sync: %s: %w", waiting, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Settle waits until every replica is in sync and every partition is led by its preferred
// replica, asking for that as often as it takes: a replica that has just come back may have
// joined the in-sync set of some partitions only.
func (l *Load) Settle(ctx context.Context) error {
	for {
		if err := l.AwaitInSync(ctx, false); err != nil {
			return err
		}
		results, err := l.admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, nil) // of every topic
		if err != nil {
			return fmt.Errorf("elect the preferred leaders: %w", err)
		}
		var refused error
		for _, partitions := range results {
			for _, result := range partitions {
				if result.Err != nil && !errors.Is(result.Err, kerr.ElectionNotNeeded) {
					refused = fmt.Errorf("elect the preferred leader of %s-%d: %w %s", result.Topic, result.Partition, result.Err, result.ErrMessage)
				}
			}
		}
		if refused == nil {
			return l.AwaitInSync(ctx, true)
		}
		select {
		case <-ctx.Done():
			return errors.Join(refused, ctx.Err())
		case <-time.After(retryEvery):
		}
	}
}

func (l *Load) notInSync(ctx context.Context, preferred bool) (string, error) {
	metadata, err := l.admin.Metadata(ctx, l.config.Topic)
	if err != nil {
		return "", err
	}
	partitions := metadata.Topics[l.config.Topic].Partitions
	if len(partitions) != int(l.config.Partitions) {
		return fmt.Sprintf("%d of %d partitions are known", len(partitions), l.config.Partitions), nil
	}
	for _, partition := range partitions {
		if why := unsettled(partition, preferred); why != "" {
			return why, nil
		}
	}
	return "", nil
}

// unsettled says what a partition lacks, "" if nothing.
func unsettled(partition kadm.PartitionDetail, preferred bool) string {
	switch {
	case partition.Err != nil || len(partition.ISR) != len(partition.Replicas) || partition.Leader < 0:
		return fmt.Sprintf("partition %d has leader %d, in-sync %v of %v, %v", partition.Partition, partition.Leader, partition.ISR, partition.Replicas, partition.Err)
	case preferred && partition.Leader != partition.Replicas[0]:
		return fmt.Sprintf("partition %d is led by %d, not by its preferred replica %d", partition.Partition, partition.Leader, partition.Replicas[0])
	}
	return ""
}

// Events collects the servers' log lines that tell when something was noticed, decided and done.
// Its Add method is a fleet's OnLog.
type Events struct {
	mu    sync.Mutex
	lines []fleet.LogLine
}

// The messages that Events keeps.
const (
	brokerLost     = "broker lost"
	elected        = "partitions elected"
	becameLeader   = "became leader"
	sessionExpired = "session expired"
)

// Add keeps a line if it matters.
func (e *Events) Add(line fleet.LogLine) {
	switch line.Message {
	case brokerLost, elected, becameLeader, sessionExpired:
		e.mu.Lock()
		e.lines = append(e.lines, line)
		e.mu.Unlock()
	}
}

// Explain fills in the phases of an outcome from what the servers reported of the loss of a
// broker since the fault struck.
func (e *Events) Explain(outcome *Outcome, topic string, broker int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	victim := fmt.Sprint(broker)
	var lost, done, led time.Time
	for _, line := range e.lines {
		if line.Time.Before(outcome.Struck) {
			continue
		}
		switch {
		case line.Message == brokerLost && line.Text("broker") == victim && lost.IsZero():
			lost = line.Time
		case line.Message == elected && line.Text("broker") == victim && done.IsZero():
			done = line.Time
		case line.Message == becameLeader && line.Text("topic") == topic && measured(outcome, line.Text("partition")) && line.Time.After(led):
			led = line.Time
		}
	}
	outcome.Detection = between(outcome.Struck, lost)
	outcome.Election = between(lost, done)
	outcome.Propagation = between(done, led)
}

func measured(outcome *Outcome, partition string) bool {
	for _, number := range outcome.Partitions {
		if fmt.Sprint(number) == partition {
			return true
		}
	}
	return false
}

func between(from, to time.Time) *time.Duration {
	if from.IsZero() || to.IsZero() {
		return nil
	}
	length := to.Sub(from)
	return &length
}
