package classic

import (
	"bytes"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// State is a group's state.
type State uint8

const (
	Empty State = iota
	PreparingRebalance
	CompletingRebalance
	Stable
	Dead
)

var stateNames = [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"}

// String is the name that clients see.
func (s State) String() string { return stateNames[s] }

// Settings are the limits of all groups.
type Settings struct {
	MinSessionTimeout     time.Duration // group.min.session.timeout.ms
	MaxSessionTimeout     time.Duration // group.max.session.timeout.ms
	InitialRebalanceDelay time.Duration // group.initial.rebalance.delay.ms
	MaxSize               int           // group.max.size
	MaxOffsetMetadata     int           // offset.metadata.max.bytes
	OffsetsRetention      time.Duration // offsets.retention.minutes
}

// newMemberJoinTimeout limits how long a member waits in its first join phase, where its
// session timeout does not count yet (GroupCoordinator.NewMemberJoinTimeoutMs).
const newMemberJoinTimeout = 5 * time.Minute

// ConsumerProtocolType is the protocol type of consumers; its metadata tells the topics.
const ConsumerProtocolType = "consumer"

// Protocol is one protocol that a member supports, with its metadata for it.
type Protocol struct {
	Name     string
	Metadata []byte
}

// Group is one group. Its owner calls it from one goroutine at a time.
type Group struct {
	id       string
	settings *Settings

	state        State
	stateSince   time.Time
	generation   int32 // grows with every rebalance
	protocolType string
	protocol     string // selected; "" while there are no members
	leader       string // member id; "" exactly when there are no members

	members []*member          // in order of joining
	byID    map[string]*member // the same
	static  map[string]*member // by instance id
	pending map[string]time.Time
	// pending holds ids given out with MEMBER_ID_REQUIRED and not used yet, with their end.

	// The join phase: ends at joinDeadline. While initial, it ends only then, and is
	// extended by what is left of extension when members have come meanwhile.
	joinDeadline time.Time
	initial      bool
	extension    time.Duration
	newMember    bool

	// The sync phase: members in unsynced have not sent Sync in this generation.
	syncDeadline time.Time
	unsynced     map[string]bool

	offsets map[TopicPartition]*Offset
	commits map[TopicPartition]int // commits being written
	// voided: those up to this one must not be taken over, their partition was deleted.
	voided  map[TopicPartition]uint64
	nextSeq uint64

	wake time.Time
}

// New makes an empty group.
func New(id string, settings *Settings, now time.Time) *Group {
	return &Group{
		id: id, settings: settings, stateSince: now,
		byID: map[string]*member{}, static: map[string]*member{}, pending: map[string]time.Time{}, unsynced: map[string]bool{},
		offsets: map[TopicPartition]*Offset{}, commits: map[TopicPartition]int{}, voided: map[TopicPartition]uint64{},
	}
}

// Restore makes a group from what its partition of __consumer_offsets holds: the last
// metadata, nil if there is none, and the last offsets. Members get a fresh session.
func Restore(id string, settings *Settings, metadata *kmsg.GroupMetadataValue, offsets map[TopicPartition]Offset, now time.Time) *Group {
	g := New(id, settings, now)
	for tp, offset := range offsets {
		g.offsets[tp] = &offset
	}
	if metadata == nil {
		return g
	}
	g.generation = metadata.Generation
	g.protocolType = metadata.ProtocolType
	if metadata.CurrentStateTimestamp >= 0 {
		g.stateSince = time.UnixMilli(metadata.CurrentStateTimestamp)
	} else {
		g.stateSince = time.Time{}
	}
	if len(metadata.Members) == 0 {
		return g
	}
	g.state = Stable
	g.protocol = text(metadata.Protocol)
	for i := range metadata.Members {
		if g.byID[metadata.Members[i].MemberID] != nil {
			continue // never written; a member cannot be there twice
		}
		g.add(restoreMember(&metadata.Members[i], g.protocol))
	}
	if leader := text(metadata.Leader); g.byID[leader] != nil {
		g.leader = leader
	}
	for _, m := range g.members {
		g.extendSession(m, now)
	}
	return g
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// ID is the group's id.
func (g *Group) ID() string { return g.id }

// State is the group's state.
func (g *Group) State() State { return g.state }

// Generation is the group's generation.
func (g *Group) Generation() int32 { return g.generation }

// ProtocolType is the group's protocol type, "" if only offsets have been committed.
func (g *Group) ProtocolType() string { return g.protocolType }

// transition changes the state. Illegal ones are bugs.
func (g *Group) transition(to State, now time.Time) {
	legal := map[State][]State{
		Empty:               {PreparingRebalance},
		PreparingRebalance:  {Stable, CompletingRebalance, Empty},
		CompletingRebalance: {PreparingRebalance},
		Stable:              {CompletingRebalance},
		Dead:                {Empty, PreparingRebalance, CompletingRebalance, Stable, Dead},
	}
	if !slices.Contains(legal[to], g.state) {
		panic("classic: group " + g.id + " cannot go from " + g.state.String() + " to " + to.String())
	}
	g.state, g.stateSince = to, now
}

// Wake is when Tick wants to be called; zero for never. It may be earlier than the earliest
// deadline, because deadlines move back cheaply.
func (g *Group) Wake() time.Time { return g.wake }

// schedule makes sure that Tick is called at or before a deadline.
func (g *Group) schedule(deadline time.Time) {
	if !deadline.IsZero() && (g.wake.IsZero() || deadline.Before(g.wake)) {
		g.wake = deadline
	}
}

// Tick carries out what is due and computes the next wake anew.
func (g *Group) Tick(now time.Time, out *Effects) {
	g.expirePending(now, out)
	g.expireMembers(now, out)
	if g.state == PreparingRebalance && due(g.joinDeadline, now) {
		g.joinPhaseOver(now, out)
	}
	if (g.state == CompletingRebalance || g.state == Stable) && due(g.syncDeadline, now) {
		g.syncPhaseOver(now, out)
	}
	g.wake = time.Time{}
	for _, id := range sortedKeys(g.pending) {
		g.schedule(g.pending[id])
	}
	for _, m := range g.members {
		g.schedule(m.deadline)
	}
	if g.state == PreparingRebalance {
		g.schedule(g.joinDeadline)
	}
	if g.state == CompletingRebalance || g.state == Stable {
		g.schedule(g.syncDeadline)
	}
}

// Postpone moves all deadlines back: this process was paused, and so could not hear from the
// members. Nobody is to be expired for that.
func (g *Group) Postpone(d time.Duration) {
	move := func(deadline *time.Time) {
		if !deadline.IsZero() {
			*deadline = deadline.Add(d)
		}
	}
	for _, m := range g.members {
		move(&m.deadline)
	}
	for id, deadline := range g.pending {
		g.pending[id] = deadline.Add(d)
	}
	move(&g.joinDeadline)
	move(&g.syncDeadline)
	move(&g.wake)
}

func due(deadline, now time.Time) bool { return !deadline.IsZero() && !deadline.After(now) }

// metadataRecord is the group as it is persisted, with the assignments given (nil: none).
func (g *Group) metadataRecord(assignments map[string][]byte) Record {
	value := kmsg.GroupMetadataValue{
		Version: groupValueVersion, ProtocolType: g.protocolType, Generation: g.generation,
		CurrentStateTimestamp: g.stateSince.UnixMilli(),
	}
	if len(g.members) > 0 {
		protocol, leader := g.protocol, g.leader
		value.Protocol, value.Leader = &protocol, &leader
	}
	for _, m := range g.members {
		value.Members = append(value.Members, kmsg.GroupMetadataValueMember{
			MemberID: m.id, InstanceID: m.instanceID, ClientID: m.clientID, ClientHost: m.clientHost,
			RebalanceTimeoutMillis: milliseconds(m.rebalanceTimeout), SessionTimeoutMillis: milliseconds(m.sessionTimeout),
			Subscription: m.metadata(g.protocol), Assignment: bytes.Clone(assignments[m.id]),
		})
	}
	return Record{Key: encodeGroupKey(g.id), Value: value.AppendTo(nil)}
}

func milliseconds(d time.Duration) int32 { return int32(d / time.Millisecond) }

// validateMember checks that a member exists and that its instance id is its own.
func (g *Group) validateMember(memberID string, instanceID *string) *kerr.Error {
	if instanceID != nil {
		m := g.static[*instanceID]
		switch {
		case m == nil:
			return kerr.UnknownMemberID
		case m.id != memberID:
			return kerr.FencedInstanceID
		}
	}
	if g.byID[memberID] == nil {
		return kerr.UnknownMemberID
	}
	return nil
}
