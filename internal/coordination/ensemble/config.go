package ensemble

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sort"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
	"understudy/internal/vfs"
)

// Config says who a member is and where it keeps its state. The zero value of every
// optional field means the default given beside it.
type Config struct {
	// ID is this member's number (myid); 0 means 1.
	ID znode.MemberID
	// Peers maps every member, this one included, to its raft address (host:port). Empty, or
	// this member alone, is standalone: no listener is opened.
	Peers map[znode.MemberID]string
	// Dir is the data directory; it is created if missing, and locked.
	Dir string
	// FS is the file system; nil is the operating system's.
	FS vfs.FS
	// Listener, if given, is the pre-bound raft listener (the member closes it); otherwise
	// the member listens on its own address in Peers.
	Listener net.Listener

	// TickTime is ZooKeeper's tick: the unit of expiry and of liveness reports (2 s).
	TickTime time.Duration
	// InitLimit and SyncLimit, in ticks, bound a snapshot transfer and a silent member.
	InitLimit, SyncLimit int

	// SnapshotEntries and SnapshotBytes are the amount of log after which a snapshot is
	// taken (20,000 entries, 64 MiB); KeepEntries are kept below it for slow followers (5,000).
	SnapshotEntries uint64
	SnapshotBytes   int64
	KeepEntries     uint64
	// CacheBytes bounds the entries kept in memory (8 MiB).
	CacheBytes int64
	// ContainerCheckInterval is how often the leader looks for empty containers and expired
	// TTL nodes (60 s); ContainerMaxPerCheck bounds what it deletes then (10,000).
	ContainerCheckInterval time.Duration
	ContainerMaxPerCheck   int

	Logger *slog.Logger
	// Observer may also be set later by SetObserver.
	Observer Observer

	seam seam // tests
	// stalledAfter is when requests that were sent to the leader and do not come back applied
	// are sent again (1 s).
	stalledAfter time.Duration
	// now is the clock; its differences do not follow changes of the wall clock. wall reads the
	// wall clock at a time that now gave. nil are the machine's.
	now          func() time.Time
	wall         func(now time.Time) time.Time
	segmentBytes int64 // of the log; 0 is its default
	// stepped: no goroutine is started, see Stepped.
	stepped bool
}

// Observer hears what was applied. Applied and Reset are called by the apply loop under the
// tree's write lock, so they must be quick, must not call View or Submit, and must not wait.
type Observer interface {
	// Applied is called in log order, once per request that counted (duplicates that apply
	// skipped are not reported). done is the token given to Submit if this member submitted
	// the request in its present life, else nil. req and res are valid during the call only;
	// res.Reply and res.Password may be kept and must not be changed.
	Applied(req *znode.Request, res *znode.Result, done any)
	// Reset says that the state was replaced by a snapshot: nothing is known of what
	// happened in between. Connections must compare and re-register, or be closed.
	Reset()
	// Dropped says that the outcome of a submitted request will never be known here: the
	// connection must be closed, never answered with a code. It may be called from any
	// goroutine, without the tree's lock.
	Dropped(done any)
}

// Mode is what a member says it is, in ZooKeeper's words.
type Mode string

// The modes.
const (
	ModeStandalone Mode = "standalone"
	ModeLeader     Mode = "leader"
	ModeFollower   Mode = "follower"
	ModeLooking    Mode = "looking"
)

// Status is a picture of the member for srvr, mntr and tests.
type Status struct {
	Mode    Mode
	ID      znode.MemberID
	Leader  znode.MemberID // 0: none known
	Term    uint64
	Members int
	// Followers are the other members with a live stream, SyncedFollowers those that
	// replicate without a gap. Known on the leader only.
	Followers, SyncedFollowers int
	// Peers are the other members this one is connected to.
	Peers []znode.MemberID

	CommittedIndex, AppliedIndex uint64
	AppliedZxid                  jute.Zxid
	FirstIndex, LastIndex        uint64
	SnapshotIndex                uint64
	LogBytes                     int64

	// Pending counts requests submitted here and not yet applied here.
	Pending int
	// Entries, Requests and Syncs count since start: raft entries and requests applied, and
	// fsyncs of the log. Syncs far below Requests is group commit at work.
	Entries, Requests, Syncs uint64
}

// ErrStopped is what a stopped member answers.
var ErrStopped = errors.New("ensemble: the member is stopped")

const (
	raftTick          = 50 * time.Millisecond
	electionTicks     = 10 // raft randomises to [10, 20) ticks: 500 to 1,000 ms
	heartbeatTicks    = 1
	servingPatience   = 1500 * time.Millisecond // leaderless for so long: stop serving
	pendingBytesMax   = 64 << 20                // Submit waits beyond
	batchBytesMax     = 1 << 20                 // requests of one raft entry, unless a single one is larger
	batchRequestsMax  = 1024
	uncommittedMax    = 64 << 20
	frameBytesMax     = 64 << 20
	reportIntervalMax = 250 * time.Millisecond
	expiryBucketMax   = 100 * time.Millisecond
	memberDeathGrace  = 300 * time.Millisecond
)

func (c *Config) complete() error {
	if c.ID == 0 {
		c.ID = 1
	}
	if c.Dir == "" {
		return errors.New("ensemble: no data directory given")
	}
	if c.FS == nil {
		c.FS = vfs.OS()
	}
	if len(c.Peers) == 0 {
		c.Peers = map[znode.MemberID]string{c.ID: ""}
	}
	if _, ok := c.Peers[c.ID]; !ok {
		return fmt.Errorf("ensemble: member %d is not in the list of members %v; check myid against the server.N lines", c.ID, memberIDs(c.Peers))
	}
	setDefault(&c.TickTime, 2*time.Second)
	setDefault(&c.InitLimit, 10)
	setDefault(&c.SyncLimit, 5)
	setDefault(&c.SnapshotEntries, 20_000)
	setDefault(&c.SnapshotBytes, 64<<20)
	setDefault(&c.KeepEntries, 5_000)
	setDefault(&c.CacheBytes, 8<<20)
	setDefault(&c.ContainerCheckInterval, time.Minute)
	setDefault(&c.ContainerMaxPerCheck, 10_000)
	setDefault(&c.stalledAfter, time.Second)
	if c.now == nil {
		c.now = time.Now
	}
	if c.wall == nil {
		c.wall = func(now time.Time) time.Time { return now }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func memberIDs(peers map[znode.MemberID]string) []znode.MemberID {
	ids := make([]znode.MemberID, 0, len(peers))
	for id := range peers {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	return ids
}
