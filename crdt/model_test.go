package crdt

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
)

// The model plays holders of one partition with one entity on the real fold, mirror, position,
// flight and covering, over a simulated log: pauses, appends that are lost, late or written twice,
// restarts with no, old or kept stores, snapshots and deletions by every holder at any time,
// compaction of any prefix, deleted records that come back, and new readers at any moment. Every
// holder that calls itself complete is compared with the oracle, which folds all that the log ever
// got; so is every answer, and what was adopted.
//
// Compaction spares a delta that the log has twice while it is not deleted: it stands for the
// snapshot that the owner writes at once in that case.

const (
	modelSteps = 600
	// modelLag is min.compaction.lag in steps: nothing younger is compacted away.
	modelLag = 80
)

var modelTopic = broker.Partition{Topic: "deltas"}

// TestModel plays as many runs as MILLRACE_DELTAS_RUNS says, from the seed of the flag on.
func TestModel(t *testing.T) {
	runs := 1000
	if testing.Short() {
		runs = 50
	}
	if text := os.Getenv("MILLRACE_DELTAS_RUNS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("MILLRACE_DELTAS_RUNS: %v", err)
		}
		runs = n
	}
	commands := 0
	for i := range runs {
		seed := *modelSeed + uint64(i)
		n, err := playModel(t.Context(), seed)
		if err != nil {
			t.Fatalf("seed %d, after %d runs: %v", seed, i+1, err)
		}
		commands += n
	}
	t.Logf("%d runs from seed %d, %d commands", runs, *modelSeed, commands)
}

var modelSeed = flag.Uint64("deltas-seed", 1, "first seed of TestModel")

// modelWorld is one run.
type modelWorld struct {
	ctx     context.Context
	r       *rand.Rand
	now     int64
	log     *simlog.World
	watch   *simlog.Client
	history *history
	options Options

	// values are what the values of records stand for: *Delta or *Part.
	values  []any
	records []modelRecord
	removed []int64

	oracle   *oracle
	rendered []renderedAt
	judged   map[Writer]map[uint64]judged
	owed     map[Owed]bool

	adopted int64
	taken   map[Owed]int

	procs    []*modelProc
	commands int
	err      error
}

type modelRecord struct {
	key    string
	value  any
	millis int64
	gone   bool
}

type renderedAt struct {
	offset int64
	value  string
}

type judged struct {
	offset int64
	void   Void
}

func playModel(ctx context.Context, seed uint64) (commands int, err error) {
	r := rand.New(rand.NewPCG(seed, 1))
	w := &modelWorld{
		ctx: ctx, r: r, options: testOptions, judged: map[Writer]map[uint64]judged{},
		owed: map[Owed]bool{}, taken: map[Owed]int{},
	}
	w.log = simlog.New(simlog.Options{Manual: true})
	w.watch = w.log.Client("watch")
	if err := w.watch.Create(w.ctx, broker.TopicSpec{
		Name: modelTopic.Topic, Partitions: 1, Compacted: true,
	}); err != nil {
		return 0, err
	}
	types := []Type{PNCounter, ORSet, ORMap, ORMap, ORMap, LWWRegister, Vote}
	w.history = &history{r: r, typ: types[r.IntN(len(types))]}
	w.oracle = newOracle(w.options)
	for i := range 2 + r.IntN(3) {
		w.procs = append(w.procs, newModelProc(w, string(rune('A'+i))))
	}
	for range modelSteps {
		if w.step(); w.err != nil {
			return w.commands, fmt.Errorf("step %d, %s: %w", w.now, w.history.typ, w.err)
		}
	}
	w.finish()
	return w.commands, w.err
}

func (w *modelWorld) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

func (w *modelWorld) end() int64 { return int64(len(w.records)) }

// step does one thing.
func (w *modelWorld) step() {
	w.now++
	p := w.procs[w.r.IntN(len(w.procs))]
	x := w.r.Float64()
	if x < .25 {
		w.network()
		return
	}
	if x < .29 {
		w.compact()
		return
	}
	if x < .30 && len(w.removed) > 0 {
		w.restore(w.removed[w.r.IntN(len(w.removed))])
		return
	}
	if p.paused > w.now {
		return
	}
	switch {
	case x < .55:
		p.read(1 + w.r.IntN(8))
		p.check("holder")
	case x < .75:
		p.change()
	case x < .85:
		p.send()
	case x < .90:
		p.snapshot()
	case x < .93:
		p.clean()
	case x < .945:
		w.adopt(p)
	case x < .96:
		p.paused = w.now + []int64{5 + w.r.Int64N(55), 60 + w.r.Int64N(440)}[w.r.IntN(2)]
	case x < .965:
		p.old = p.store()
	case x < .985:
		p.restart()
	default:
		w.newReader("new reader")
	}
}

// network moves one append: mostly the oldest.
func (w *modelWorld) network() {
	ops := w.log.Pending()
	if len(ops) == 0 {
		return
	}
	o := ops[0]
	if w.r.IntN(6) == 0 {
		o = ops[w.r.IntN(len(ops))]
	}
	switch x := w.r.IntN(40); {
	case o.Answered && (o.Applied > 0 || x < 20):
		w.log.Discard(o.ID)
	case o.Applied > 0 && x < 4, o.Applied == 0 && x < 30:
		w.write(o)
	case o.Applied > 0:
		w.log.Answer(o.ID)
	case x < 37:
		w.write(o)
		w.log.Answer(o.ID)
	case !o.Answered:
		w.log.Fail(o.ID, broker.ErrUnreachable)
	}
}

// write makes the log write an append, and the oracle fold it.
func (w *modelWorld) write(o simlog.Op) {
	w.log.Apply(o.ID)
	for i := range o.Records {
		record := modelRecord{key: string(o.Records[i].Key), millis: w.now}
		if len(o.Records[i].Value) > 0 {
			record.value = w.values[binary.BigEndian.Uint64(o.Records[i].Value)]
		}
		offset := w.end()
		w.records = append(w.records, record)
		if d, ok := record.value.(*Delta); ok {
			w.truth(offset, d)
		}
	}
}

func (w *modelWorld) truth(offset int64, d *Delta) {
	for i, void := range w.oracle.apply(offset, w.now, d) {
		c := &d.Commands[i]
		if w.judged[d.Writer] == nil {
			w.judged[d.Writer] = map[uint64]judged{}
		}
		if _, again := w.judged[d.Writer][c.N]; again {
			continue
		}
		w.judged[d.Writer][c.N] = judged{offset, void}
		if void == Effective && c.Owes {
			w.owed[Owed{Writer: d.Writer, N: c.N}] = true
		}
	}
	w.rendered = append(w.rendered, renderedAt{offset, w.oracle.render()})
}

// want is the value of all deltas below next.
func (w *modelWorld) want(next int64) string {
	i, _ := slices.BinarySearchFunc(w.rendered, next, func(r renderedAt, next int64) int {
		return cmp.Compare(r.offset, next)
	})
	if i == 0 {
		return newOracle(w.options).render()
	}
	return w.rendered[i-1].value
}

// compact does what a broker may: of a prefix that is old enough, the newest record of each key
// stays, and a deletion may go as well.
func (w *modelWorld) compact() {
	if w.end() < 6 {
		return
	}
	end := w.r.Int64N(w.end() - 3)
	newest := map[string]int64{}
	for o := range end {
		if w.now-w.records[o].millis < modelLag {
			end = o
			break
		}
		if !w.records[o].gone {
			newest[w.records[o].key] = o
		}
	}
	for o := range end {
		r := &w.records[o]
		if r.gone {
			continue
		}
		_, isDelta := w.records[newest[r.key]].value.(*Delta)
		superseded := newest[r.key] != o && !isDelta
		if superseded || newest[r.key] == o && r.value == nil && w.r.IntN(2) == 0 {
			r.gone = true
			w.log.Remove(modelTopic, o, o+1)
			w.removed = append(w.removed, o)
		}
	}
}

func (w *modelWorld) restore(offset int64) {
	if w.records[offset].value != nil {
		w.records[offset].gone = false
		w.log.Restore(modelTopic, offset)
	}
}

// adopt is the owner of the journal's partition: any process, one at a time, by the journal.
func (w *modelWorld) adopt(p *modelProc) {
	if !p.position.Complete(w.now) || p.position.Next() < w.adopted {
		return
	}
	owed, err := p.mirror.Owes(w.adopted)
	if err != nil {
		w.fail("%s adopts: %v", p.name, err)
	}
	for _, o := range owed {
		w.taken[Owed{Writer: o.Writer, N: o.N}]++
	}
	w.adopted = p.position.Next()
}

func (w *modelWorld) newReader(who string) {
	q := newModelProc(w, "reader")
	q.read(1 << 20)
	q.check(who)
	q.client.Crash()
}

// finish lets everything arrive and compares all holders, then a new reader behind a compaction.
func (w *modelWorld) finish() {
	for _, p := range w.procs {
		for len(p.outbox) > 0 {
			p.send()
		}
	}
	for _, o := range w.log.Pending() {
		if o.Applied == 0 {
			w.write(o)
		}
		if !o.Answered {
			w.log.Answer(o.ID)
		}
	}
	for _, p := range w.procs {
		p.read(1 << 20)
		if !p.position.Complete(w.now) {
			w.fail("%s is not complete at the end", p.name)
		}
		p.check("at the end")
	}
	for range 3 {
		w.compact()
	}
	w.newReader("reader after all")
	w.adopt(w.procs[0])
	for o := range w.owed {
		if w.taken[o] != 1 {
			w.fail("effects of command %d of %v were adopted %d times", o.N, o.Writer, w.taken[o])
		}
	}
	if len(w.taken) != len(w.owed) {
		w.fail("effects of %d commands were adopted, and %d owe some", len(w.taken), len(w.owed))
	}
}

// modelProc is one holder.
type modelProc struct {
	w        *modelWorld
	name     string
	client   *simlog.Client
	writer   Writer
	n        uint64
	mirror   *Mirror
	position Position
	flight   Flight
	covering Covering
	batch    []broker.Record
	next     int64
	end      int64
	fetched  int64
	outbox   []outgoing
	paused   int64
	old      *modelStore
}

// outgoing is a record that waits to be sent; commands are the numbers of a delta's.
type outgoing struct {
	key      string
	value    any
	commands []uint64
}

// modelStore is what a store has on disk.
type modelStore struct {
	mirror *Mirror
	next   int64
}

func newModelProc(w *modelWorld, name string) *modelProc {
	p := &modelProc{w: w, name: name, mirror: NewMirror(w.options), position: Position{Lag: modelLag}}
	p.begin(0)
	return p
}

// begin is the start of a process with the mirror that it has.
func (p *modelProc) begin(next int64) {
	if p.client != nil {
		p.client.Crash()
	}
	p.client = p.w.log.Client(p.name)
	p.position.Start(next)
	p.batch, p.outbox, p.covering, p.paused = nil, nil, Covering{}, 0
	p.incarnate()
}

// incarnate makes another writer of the process.
func (p *modelProc) incarnate() {
	p.writer, p.n, p.flight = Writer{Name: p.name, Incarnation: p.w.r.Uint64()}, 0, Flight{}
	p.outbox = slices.DeleteFunc(p.outbox, func(o outgoing) bool { return o.commands != nil })
}

func (p *modelProc) store() *modelStore {
	m := *p.mirror
	m.now, m.deltas, m.parts = m.now.Clone(), slices.Clone(m.deltas), map[snapshotKey]map[int]*Part{}
	for key, parts := range p.mirror.parts {
		m.parts[key] = maps.Clone(parts)
	}
	return &modelStore{&m, p.position.Next()}
}

func (p *modelProc) restart() {
	s := p.store()
	switch x := p.w.r.IntN(10); {
	case x < 3:
		s = &modelStore{mirror: NewMirror(p.w.options)}
	case x < 5 && p.old != nil:
		s = p.old
		p.old = nil
	}
	p.mirror = s.mirror
	p.begin(s.next)
}

// read takes some records; the batch that they come in may have been fetched long ago.
func (p *modelProc) read(count int) {
	for range count {
		if len(p.batch) == 0 && !p.fetch() {
			return
		}
		if len(p.batch) > 0 {
			p.take(&p.batch[0])
			p.batch = p.batch[1:]
		}
		if len(p.batch) == 0 {
			p.fetchEnds()
		}
	}
}

// fetch gets the next batch; false when there is nothing more.
func (p *modelProc) fetch() bool {
	p.fetched = p.w.now
	p.next, p.end = p.position.Next(), p.w.end()
	if p.next >= p.end {
		p.fetchEnds()
		return false
	}
	reader, err := p.client.Read(modelTopic, p.next)
	if err != nil {
		p.w.fail("read: %v", err)
		return false
	}
	batch, err := reader.Next(p.w.ctx)
	if err != nil {
		p.w.fail("read: %v", err)
		return false
	}
	p.batch, p.next, p.end = batch.Records, batch.Next, batch.End // lent until a next call, and there is none
	if most := 1 + p.w.r.IntN(12); len(p.batch) > most {
		p.batch = p.batch[:most]
		p.next = p.batch[most-1].Offset + 1
	}
	return true
}

func (p *modelProc) fetchEnds() {
	p.position.Pass(p.next)
	if err := p.position.Fetched(p.end, p.fetched); err != nil {
		p.w.fail("%s: %v", p.name, err)
	}
	p.lapsed()
}

// lapsed gives the incarnation up when the holder is not complete, or a command is missing.
func (p *modelProc) lapsed() {
	if p.flight.Open() > 0 && !p.position.Complete(p.w.now) {
		p.answered(p.flight.End())
	} else {
		p.answered(p.flight.Passed(p.position.Next()))
	}
	if p.flight.Ended() {
		p.incarnate()
	}
}

func (p *modelProc) take(r *broker.Record) {
	millis := p.w.records[r.Offset].millis
	p.position.Read(r.Offset, millis)
	if len(r.Value) > 0 {
		switch v := p.w.values[binary.BigEndian.Uint64(r.Value)].(type) {
		case *Delta:
			p.takeDelta(r.Offset, millis, v)
		case *Part:
			p.covering.Read(v)
			if err := p.mirror.TakePart(v); err != nil {
				p.w.fail("%s: %v", p.name, err)
			}
		}
	}
	p.lapsed()
}

func (p *modelProc) takeDelta(offset, millis int64, d *Delta) {
	voids, err := p.mirror.Take(offset, millis, d)
	if err != nil {
		p.w.fail("%s: %v", p.name, err)
	}
	if d.Writer != p.writer || !p.position.Complete(p.w.now) {
		return
	}
	for i, void := range voids {
		p.answered(p.flight.Folded(d.Commands[i].N, void))
	}
}

// answered checks what callers are told.
func (p *modelProc) answered(answers []Answer) {
	for _, a := range answers {
		if a.Unknown {
			continue
		}
		truth, written := p.w.judged[p.writer][a.N]
		switch {
		case !written:
			p.w.fail("%s answers command %d, which the log does not have", p.name, a.N)
		case a.Void != truth.void:
			p.w.fail("%s answers command %d as %s, and it is %s", p.name, a.N, a.Void, truth.void)
		case truth.offset >= p.position.Next():
			p.w.fail("%s answers command %d and has not read it", p.name, a.N)
		}
	}
}

// change decides one or two commands.
func (p *modelProc) change() {
	if !p.position.Complete(p.w.now) || len(p.outbox) > 6 {
		return
	}
	w := p.w
	d := &Delta{Version: 1, Type: w.history.typ, Writer: p.writer}
	var numbers []uint64
	for range 1 + w.r.IntN(2) {
		p.n++
		c := Command{N: p.n, Seen: max(0, p.position.Next()-w.r.Int64N(4)), Owes: w.r.IntN(3) == 0}
		if w.r.IntN(3) == 0 {
			c.ID = ID{Principal: "p", ID: strconv.Itoa(w.r.IntN(4))}
		}
		for range 1 + w.r.IntN(2) {
			c.Changes = append(c.Changes, w.history.change(d.Type, 0))
		}
		numbers = append(numbers, p.n)
		d.Commands = append(d.Commands, c)
		w.commands++
	}
	key := fmt.Sprintf("d %s %d %d", p.name, p.writer.Incarnation, numbers[0])
	p.outbox = append(p.outbox, outgoing{key, d, numbers})
}

// snapshot writes a snapshot of what the holder has.
func (p *modelProc) snapshot() {
	if !p.position.Complete(p.w.now) || len(p.outbox) > 6 {
		return
	}
	through := p.mirror.Covers(p.position.Next(), p.w.adopted)
	if through <= p.mirror.Through() {
		return
	}
	nonce := p.w.r.Uint64()
	parts, err := p.mirror.Snapshot(through, nonce, 20+p.w.r.IntN(800))
	if err != nil {
		p.w.fail("%s: %v", p.name, err)
		return
	}
	p.covering.Wrote(parts)
	for _, part := range parts {
		key := fmt.Sprintf("s %d %d %d", through, nonce, part.Index)
		p.outbox = append(p.outbox, outgoing{key: key, value: part})
	}
}

// clean deletes some of what a snapshot covers that was read back.
func (p *modelProc) clean() {
	through, ok := p.covering.Through()
	if !ok || !p.position.Complete(p.w.now) || len(p.outbox) > 12 {
		return
	}
	for o := range p.position.Next() {
		r := &p.w.records[o]
		covered := false
		switch v := r.value.(type) {
		case *Delta:
			covered = o <= through
		case *Part:
			covered = v.Through < through
		}
		if covered && !r.gone && p.w.r.IntN(10) < 7 {
			p.outbox = append(p.outbox, outgoing{key: r.key})
		}
	}
}

// send gives the next records to the log.
func (p *modelProc) send() {
	for range min(len(p.outbox), 1+p.w.r.IntN(3)) {
		o := p.outbox[0]
		p.outbox = p.outbox[1:]
		record := broker.Record{Key: []byte(o.key)}
		if o.value != nil {
			record.Value = binary.BigEndian.AppendUint64(nil, uint64(len(p.w.values)))
			p.w.values = append(p.w.values, o.value)
		}
		for _, n := range o.commands {
			p.flight.Sent(n)
		}
		writer := p.writer
		p.client.Append(modelTopic, []broker.Record{record}, func(result broker.AppendResult) {
			if p.writer == writer && o.commands != nil {
				p.result(o.commands, result)
			}
		})
		if p.w.r.IntN(3) > 0 {
			return
		}
	}
}

func (p *modelProc) result(commands []uint64, result broker.AppendResult) {
	switch {
	case errors.Is(result.Err, broker.ErrUnreachable):
		p.answered(p.flight.End())
		p.incarnate()
	case result.Err != nil:
		p.w.fail("append: %v", result.Err)
	default:
		for _, n := range commands {
			p.answered(p.flight.Acked(n, result.Base))
		}
	}
}

// check compares a holder that calls itself complete with the oracle.
func (p *modelProc) check(who string) {
	if !p.position.Complete(p.w.now) {
		return
	}
	got, want := renderView(p.mirror.Now().Root()), p.w.want(p.position.Next())
	if got != want {
		p.w.fail("%s %s has %s, want %s; snapshot through %d, read up to %d", who, p.name, got, want,
			p.mirror.Through(), p.position.Next())
	}
}
