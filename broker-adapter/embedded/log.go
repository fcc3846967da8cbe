package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/plural"
)

var _ broker.Log = (*Log)(nil)

// Log is the embedded log. Open makes one; all its methods may be called from many goroutines.
type Log struct {
	opts   Options
	lock   *pebble.Lock
	topics *topicTable
	queue  *queue
	stats  *stats

	creates chan createRequest
	// current is the database that readers may use, nil while there is none; back signals a new
	// one.
	current atomic.Pointer[database]
	back    notifier

	readersMu sync.Mutex
	readers   map[*reader]struct{}

	closeOnce sync.Once
	closing   chan struct{}
	committer sync.WaitGroup
	// closeErr is set before the committer ends.
	closeErr error

	// What follows belongs to the committer.
	db    *database
	batch *pebble.Batch
	// newest holds, while a group is staged, the newest record of each key that it touches.
	newest map[string]int64
	// failure is the error of appends while there is no database. attempts counts attempts to open
	// it again; the next is due when retry fires.
	failure   error
	attempts  int
	retry     <-chan time.Time
	stopRetry func()
	openedAt  time.Time
	// syncedAt is when the last sync ended, syncTook how long it took.
	syncedAt time.Time
	syncTook time.Duration
}

// Open opens the log in a directory, which it creates when it is missing, and locks it until Close.
// Errors: ErrLocked, ErrNotALog, ErrNewerFormat, ErrCorrupt, and those of the file system; all name
// the directory and what to do.
func Open(o Options) (*Log, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	lock, err := takeDirectory(o)
	if err != nil {
		return nil, err
	}
	l := &Log{
		opts: o, lock: lock,
		topics:  &topicTable{byName: map[string]*topic{}},
		queue:   newQueue(o.QueueBytes, o.QueueAppends),
		stats:   &stats{now: o.Clock.Now},
		creates: make(chan createRequest),
		readers: map[*reader]struct{}{},
		closing: make(chan struct{}),
		newest:  map[string]int64{},
	}
	db, err := openDatabase(o, lock, l.topics, l.stats)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := checkEnds(o.FS, o.Dir, l.topics); err != nil {
		return nil, errors.Join(err, db.Close(), lock.Close())
	}
	l.use(db)
	l.committer.Go(l.commitLoop) // Close stops it and waits for it
	return l, nil
}

// Append hands records to the committer; done gets the result from the committer's goroutine, or,
// when the log is closed already, from this one. It blocks only while the queue is full.
func (l *Log) Append(p broker.Partition, records []broker.Record, done func(broker.AppendResult)) {
	r := request{records: records, done: done, bytes: broker.Size(records)}
	part, err := l.topics.partition(p)
	switch {
	case err != nil:
		r.result.Err = fmt.Errorf("append: %w", err)
	case len(records) == 0:
		r.result.Err = fmt.Errorf("append to topic %s, partition %d: no records given", p.Topic, p.ID)
	case int64(r.bytes) > part.topic.limit.Load():
		r.result.Err = fmt.Errorf("append of %d bytes to topic %s, partition %d, which takes %d: %w",
			r.bytes, p.Topic, p.ID, part.topic.limit.Load(), broker.ErrTooLarge)
	case part.topic.Compacted && broker.LacksKey(records):
		r.result.Err = fmt.Errorf("append to topic %s, partition %d: %w", p.Topic, p.ID, broker.ErrNoKey)
	}
	if r.result.Err != nil {
		r.records, r.bytes = nil, 0 // it waits for its turn, to be reported in order
	}
	r.partition = part
	if !l.queue.put(r) {
		done(broker.AppendResult{Err: fmt.Errorf("append to log in %s: %w", l.opts.Dir, broker.ErrClosed)})
	}
}

// Start is always 0: nothing is removed from the front.
func (l *Log) Start(_ context.Context, p broker.Partition) (int64, error) {
	if l.isClosed() {
		return 0, fmt.Errorf("start of topic %s, partition %d: %w", p.Topic, p.ID, broker.ErrClosed)
	}
	if _, err := l.topics.partition(p); err != nil {
		return 0, fmt.Errorf("start: %w", err)
	}
	return 0, nil
}

// End returns the offset that the next record will get.
func (l *Log) End(_ context.Context, p broker.Partition) (int64, error) {
	if l.isClosed() {
		return 0, fmt.Errorf("end of topic %s, partition %d: %w", p.Topic, p.ID, broker.ErrClosed)
	}
	part, err := l.topics.partition(p)
	if err != nil {
		return 0, fmt.Errorf("end: %w", err)
	}
	return part.end.Load(), nil
}

// Describe returns what is stored about a topic. The contract of millrace holds by construction.
func (l *Log) Describe(_ context.Context, topic string) (broker.TopicInfo, error) {
	if l.isClosed() {
		return broker.TopicInfo{}, fmt.Errorf("describe topic %s: %w", topic, broker.ErrClosed)
	}
	t := l.topics.get(topic)
	if t == nil {
		return broker.TopicInfo{}, fmt.Errorf("describe topic %s: %w", topic, broker.ErrUnknownTopic)
	}
	durability := "synced to disk before every answer (one machine)"
	if l.opts.Ephemeral {
		durability = "in memory only: data is lost when this process exits"
	}
	return broker.TopicInfo{
		Name: t.Name, Partitions: t.Partitions, ID: t.ID, MaxAppendBytes: int(t.limit.Load()), Durability: durability,
	}, nil
}

// Create stores a topic, or raises the limit of one that is stored. When the disk fails meanwhile,
// the outcome is unknown; creating it again is harmless.
func (l *Log) Create(ctx context.Context, spec broker.TopicSpec) error {
	if spec.Name == "" || spec.Partitions < 1 || spec.MaxRecordBytes < 0 {
		return fmt.Errorf("create topic %q: a name, at least one partition and no negative size are needed, got %s and %d bytes",
			spec.Name, plural.Of(spec.Partitions, "partition"), spec.MaxRecordBytes)
	}
	closed := func() error { return fmt.Errorf("create topic %s: %w", spec.Name, broker.ErrClosed) }
	if l.isClosed() {
		return closed()
	}
	r := createRequest{spec: spec, reply: make(chan error, 1)}
	select {
	case l.creates <- r:
	case <-l.closing:
		return closed()
	case <-ctx.Done():
		return fmt.Errorf("create topic %s: %w", spec.Name, ctx.Err())
	}
	return <-r.reply // the committer always replies
}

// CreateCommand says that nothing needs to be done.
func (l *Log) CreateCommand(spec broker.TopicSpec) string {
	return fmt.Sprintf("# the embedded log creates topic %s with %s by itself in %s", spec.Name,
		plural.Of(spec.Partitions, "partition"), l.opts.Dir)
}

// Assignments assigns all partitions of the topic at once, to a group of one, and waits for the end
// of ctx.
func (l *Log) Assignments(ctx context.Context, m broker.Membership, on func(broker.AssignmentEvent)) error {
	if l.isClosed() {
		return fmt.Errorf("join group %s: %w", m.Group, broker.ErrClosed)
	}
	t := l.topics.get(m.Topic)
	if t == nil {
		return fmt.Errorf("join group %s: topic %s: %w", m.Group, m.Topic, broker.ErrUnknownTopic)
	}
	all := make([]int32, t.Partitions)
	for id := range t.Partitions {
		all[id] = id
	}
	on(broker.AssignmentEvent{Table: &broker.Table{
		Generation: 1,
		Members:    []broker.Member{m.Member()},
		Owners:     make([]int32, t.Partitions),
		Standbys:   make([][]int32, t.Partitions),
	}})
	on(broker.AssignmentEvent{Assigned: all})
	select {
	case <-ctx.Done():
		return nil
	case <-l.closing:
		return fmt.Errorf("member of group %s: %w", m.Group, broker.ErrClosed)
	}
}

// Expedite does nothing: readers get records at once.
func (l *Log) Expedite() (end func()) { return func() {} }

// SingleProcess is true: the directory lock admits one process.
func (l *Log) SingleProcess() bool { return true }

// Stats returns counters and state, for metrics and status.
func (l *Log) Stats() Stats {
	s := l.stats.snapshot()
	s.QueuedAppends, s.QueuedBytes = l.queue.depth()
	return s
}

// Dir returns the absolute path of the directory.
func (l *Log) Dir() string { return l.opts.Dir }

func (l *Log) isClosed() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}

// Close fails the open appends, stops the committer, closes the database and releases the
// directory. Later calls wait for the first and return the same.
func (l *Log) Close() error {
	l.closeOnce.Do(func() { close(l.closing) })
	l.committer.Wait()
	if l.closeErr != nil {
		return directoryError("close log in", l.opts.Dir, l.closeErr)
	}
	return nil
}
