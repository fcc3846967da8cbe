package query

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/plural"
	projectionv1 "github.com/millrace-io/millrace/proto/gen/millrace/projection/v1"
)

// A watch sends the rows of a list, and then what changes of them. Each partition is read by a
// goroutine of its own, which asks for changes again and again; it has nothing in memory but what
// the caller takes next, so a slow caller costs nothing and gets each row as it is by then.
//
//	F1  A row is sent as of a position, and changes are asked for from that position: nothing
//	    lies between the two.
//	F2  A token has the positions of what was sent before it, and no later ones.
//	F3  Where the changes since a position are not kept, or the rows are of another dataset, the
//	    caller is told to forget what it has.

const (
	// bookmarkEvery is how often a caller hears of a watch on which nothing changes.
	bookmarkEvery = 5 * time.Second
	// watchPatience is how long a partition of a watch may have no worker that answers.
	watchPatience = 10 * time.Second
	// watchPause is the pause before it is asked again.
	watchPause = 100 * time.Millisecond
	// resetWithin spreads the watches that begin again after a promotion.
	resetWithin = time.Second
	// watchRows is how many rows a partition hands over at a time.
	watchRows = 256
	// tokenEvery is the least time between two tokens on rows that change: what was sent since the
	// last one may be sent again without harm.
	tokenEvery = 100 * time.Millisecond
)

// headerLastEvent is what browsers send when they connect again.
const headerLastEvent = "last-event-id"

// resetError: the watch begins again, because the caller's rows do not go on here.
type resetError struct {
	reason string
	// byPromotion: many watches begin again.
	byPromotion bool
}

func (e *resetError) Error() string { return e.reason }

// HandleStream answers a watch of a generated service, until ctx ends or send returns an error. The
// error is an *entities.Error, or that of send.
func (s *Service) HandleStream(ctx context.Context, cmd *entities.Command, send func(*entities.Reply) error) error {
	select {
	case s.watching <- struct{}{}:
		defer func() { <-s.watching }()
	default:
		return entities.Overload("%s.%s: %s are served by this process", cmd.Service, cmd.Method,
			plural.Of(s.o.Watches, "watch"))
	}
	resume := true
	for {
		serves := s.serves.Load()
		m := serves.methods[cmd.Service+"/"+cmd.Method]
		if m == nil || m.form != watchForm {
			return entities.Errorf(entities.UnknownMethod, entities.NotApplied,
				"%s/%s is not a watch of this app", cmd.Service, cmd.Method)
		}
		w := &watch{call: &call{service: s, served: serves, method: m}, send: send, command: cmd, mayResume: resume}
		err := w.run(ctx)
		reset, again := errors.AsType[*resetError](err)
		if !again {
			return w.asError(ctx, err)
		}
		if err := w.reset(ctx, reset); err != nil {
			return w.asError(ctx, err)
		}
		resume = false
	}
}

// watch is a watch between two resets.
type watch struct {
	*call

	command   *entities.Command
	send      func(*entities.Reply) error
	mayResume bool
	// failed is the error of send.
	failed error

	arguments [sha256.Size]byte
	scans     []*Scan
	// from are the offsets from which the changes of each scan are asked for next; -1: not all of its
	// rows were sent yet. missing is how many of them there are.
	from    []int64
	missing int
	// ages are those of the rows of each scan.
	ages []time.Duration
	// unsynced: frames were sent since the last synced.
	unsynced bool
	// sent is when the last frame was sent, tokened when the last token.
	sent, tokened time.Time
}

// piece is what the reader of a scan hands over.
type piece struct {
	scan int
	rows []Change
	at   At
	// through is the offset up to which everything was handed over; -1: there is more of the rows.
	through int64
	err     error
}

// asError is the caller's error. That of send passes.
func (w *watch) asError(ctx context.Context, err error) error {
	if w.failed != nil {
		return w.failed
	}
	return asError(ctx, w.method.name, err)
}

// reset tells the caller to forget its rows.
func (w *watch) reset(ctx context.Context, why *resetError) error {
	if w.onGapFail() {
		return refused(codes.OutOfRange,
			"%s: the watch cannot go on where it was (%s): begin again, without `resume`", w.method.name, why.reason)
	}
	if why.byPromotion {
		over, stop := w.service.o.Clock.After(time.Duration(rand.Int64N(int64(resetWithin)))) //nolint:gosec // a jitter
		defer stop()
		select {
		case <-over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return w.sendFrame(frameReset, appendText(nil, 1, why.reason), "", false)
}

func (w *watch) onGapFail() bool {
	return w.request != nil && w.request.has("on_gap") &&
		projectionv1.OnGap(w.request.get("on_gap").Enum()) == projectionv1.OnGap_ON_GAP_FAIL
}

// run sends frames until something ends the watch.
func (w *watch) run(ctx context.Context) error {
	defined := w.service.defined()
	if err := w.begin(); err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer end()
	pieces := make(chan piece)
	for i := range w.scans {
		readers.Go(func() { w.read(ctx, i, pieces) }) // ends with ctx
	}
	if err := w.synced(); err != nil {
		return err
	}
	over, stop := w.service.o.Clock.After(bookmarkEvery)
	defer func() { stop() }()
	for {
		var err error
		select {
		case p := <-pieces:
			err = w.take(ctx, &p)
		case <-defined:
			defined = w.service.defined()
			err = w.sameView()
		case <-over:
			err = w.bookmark()
			over, stop = w.service.o.Clock.After(bookmarkEvery)
		case <-w.service.ending:
			err = unavailable("%s: the process ends; another one goes on from the last token", w.method.name)
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// begin finds what is watched, and from which positions.
func (w *watch) begin() error {
	if err := w.prepare(w.command); err != nil {
		return err
	}
	if err := w.planList(); err != nil {
		return err
	}
	var err error
	if w.arguments, err = w.request.arguments(); err != nil {
		return err
	}
	if !w.plan.span.none {
		for _, partition := range w.partitions() {
			w.scans = append(w.scans, &Scan{
				Dataset: w.method.p.view.Dataset, Partition: partition, Table: w.plan.table, Number: w.plan.number,
				Lower: w.plan.span.lower, Upper: w.plan.span.upper, Limit: watchRows,
			})
		}
	}
	w.from, w.ages = make([]int64, len(w.scans)), make([]time.Duration, len(w.scans))
	for i := range w.from {
		w.from[i] = -1
	}
	w.missing, w.unsynced = len(w.scans), true
	return w.resume()
}

// resume goes on at the positions of a token.
func (w *watch) resume() error {
	text := w.command.Metadata.Get(headerLastEvent)
	if text == "" {
		text = w.request.text("resume")
	}
	if text == "" || !w.mayResume {
		return nil
	}
	p, err := w.served.sealer.open(resumeVersion, text)
	if err != nil {
		return invalid("%s: the token in `resume` is not valid (%w): send the token of the last frame that has one",
			w.method.name, err)
	}
	switch {
	case p.method != w.method.fullName || p.arguments != w.arguments:
		return &resetError{reason: "the token is of a watch with other arguments"}
	case p.dataset != w.method.p.view.Dataset || p.table != w.plan.tableID():
		return &resetError{reason: "another version of the projection was promoted"}
	}
	for i, scan := range w.scans {
		for _, at := range p.positions {
			if at.Partition == scan.Partition {
				w.from[i] = at.Next
				w.missing--
			}
		}
		if w.from[i] < 0 {
			return &resetError{reason: "the token does not have the positions of all partitions"}
		}
	}
	return nil
}

// sameView looks at what is served since the definitions have changed.
func (w *watch) sameView() error {
	now := w.service.serves.Load().methods[w.command.Service+"/"+w.command.Method]
	switch {
	case now == nil || now.form != watchForm || !now.p.view.Promoted:
		return entities.Errorf(entities.UnknownMethod, entities.NotApplied,
			"%s is not served any more: a version of the projection without it was promoted", w.method.name)
	case now.p.definition == w.method.p.definition && now.p.view.Dataset == w.method.p.view.Dataset:
		return nil
	default:
		return &resetError{reason: "version " + now.p.view.Version + " of the projection was promoted", byPromotion: true}
	}
}

// read hands over the rows of a scan, and then what changes, until ctx ends or there is an error.
func (w *watch) read(ctx context.Context, i int, out chan<- piece) {
	hand := func(p piece) bool {
		p.scan = i
		select {
		case out <- p:
			return p.err == nil
		case <-ctx.Done():
			return false
		}
	}
	from := w.from[i]
	if from < 0 {
		var err error
		if from, err = w.readRows(ctx, i, hand); err != nil {
			hand(piece{err: err})
			return
		}
	}
	var failing time.Time
	for ctx.Err() == nil {
		changes, err := w.service.o.Executor.Changes(ctx, w.scans[i], from, bookmarkEvery)
		_, gap := errors.AsType[*GapError](err)
		switch {
		case err == nil:
			failing = time.Time{}
			if from = changes.Through; !hand(piece{rows: changes.Rows, at: changes.At, through: from}) {
				return
			}
			continue
		case gap:
			err = &resetError{reason: err.Error()}
		case failing.IsZero():
			failing = w.service.o.Clock.Now()
			err = nil
		case w.service.o.Clock.Now().Sub(failing) < watchPatience:
			err = nil
		}
		if err != nil {
			hand(piece{err: err})
			return
		}
		w.pause(ctx)
	}
}

func (w *watch) pause(ctx context.Context) {
	over, stop := w.service.o.Clock.After(watchPause)
	defer stop()
	select {
	case <-over:
	case <-ctx.Done():
	}
}

// readRows hands over the rows of a scan as of one moment, and returns the offset of that.
func (w *watch) readRows(ctx context.Context, i int, hand func(piece) bool) (from int64, err error) {
	rows, _, err := w.openOne(ctx, w.scans[i])
	if err != nil {
		return 0, err
	}
	// They may be those of another replica by the time, at no earlier moment: what a later moment has
	// is told as a change again.
	at := rows.At()
	s := &source{call: &call{service: w.service, method: w.method, demand: w.demand}, scan: w.scans[i], rows: &rows}
	defer func() { rows.Close() }()
	for {
		p := piece{at: at, through: -1}
		for len(p.rows) < watchRows {
			entry, err := s.next(ctx)
			if err != nil {
				return 0, err
			}
			if entry == nil {
				p.through = at.Position
				break
			}
			p.rows = append(p.rows, Change{Row: bytes.Clone(entry.Row), Stale: entry.Stale})
		}
		if !hand(p) {
			return 0, ctx.Err()
		}
		if p.through >= 0 {
			return p.through, nil
		}
	}
}

// take sends what a reader has handed over.
func (w *watch) take(ctx context.Context, p *piece) error {
	if p.err != nil {
		return p.err
	}
	w.ages[p.scan] = p.at.Age
	if err := w.sendRows(ctx, p.rows); err != nil {
		return err
	}
	if p.through < 0 {
		return nil
	}
	if w.from[p.scan] < 0 {
		w.missing--
	}
	w.from[p.scan] = p.through
	return w.synced()
}

// sendRows sends rows that are wanted, and the keys of those that are not any more.
func (w *watch) sendRows(ctx context.Context, changes []Change) error {
	var rows [][]byte
	var stale []bool
	for i := range changes {
		c := &changes[i]
		wanted := false
		if c.Row != nil {
			var err error
			if wanted, err = w.plan.wanted(c.Row); err != nil {
				return err
			}
		}
		switch {
		case wanted:
			rows, stale = append(rows, c.Row), append(stale, c.Stale)
		case c.Key != nil: // the first rows are new to the caller
			key, err := w.encodeKey(c.Key)
			if err == nil {
				err = w.sendFrame(frameDelete, key, "", false)
			}
			if err != nil {
				return err
			}
		}
	}
	if err := w.lookUp(ctx, rows); err != nil {
		return err
	}
	for i, row := range rows {
		row, err := masked(nil, row, w.request.mask)
		if err == nil {
			err = w.sendFrame(frameUpsert, row, "", stale[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// encodeKey writes a key as the message of its fields, numbered from 1.
func (w *watch) encodeKey(tuple []byte) ([]byte, error) {
	key := w.method.p.key
	values, rest, err := key.shape.Decode(nil, tuple)
	if err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("the key of a row is damaged: %w", err)
	}
	var buf []byte
	for i, f := range key.fields {
		if buf, err = appendField(buf, protowire.Number(i+1), f, values[i]); err != nil {
			return nil, err
		}
	}
	return buf, nil
}

// synced tells that what was sent is one state, if it is.
func (w *watch) synced() error {
	if w.missing > 0 || !w.unsynced {
		return nil
	}
	token := ""
	if now := w.service.o.Clock.Now(); now.Sub(w.tokened) >= tokenEvery {
		var err error
		if token, err = w.resumeToken(); err != nil {
			return err
		}
		w.tokened = now
	}
	if err := w.sendFrame(frameSynced, nil, token, w.old()); err != nil {
		return err
	}
	w.unsynced = false
	return nil
}

// bookmark tells a caller that has heard nothing for a while how far the watch is.
func (w *watch) bookmark() error {
	now := w.service.o.Clock.Now()
	if w.missing > 0 || now.Sub(w.sent) < bookmarkEvery/2 && w.tokened == w.sent {
		return nil
	}
	token, err := w.resumeToken()
	if err != nil {
		return err
	}
	w.tokened = now
	return w.sendFrame(frameBookmark, appendDuration(nil, 1, w.age()), token, w.old())
}

// age is that of the oldest rows.
func (w *watch) age() (oldest time.Duration) {
	for _, age := range w.ages {
		oldest = max(oldest, age)
	}
	return oldest
}

func (w *watch) old() bool { return w.age() > w.method.p.definition.Consistency.MaxStaleness }

// resumeToken seals the positions of what was sent.
func (w *watch) resumeToken() (string, error) {
	p := &page{
		dataset: w.method.p.view.Dataset, table: w.plan.tableID(), method: w.method.fullName, arguments: w.arguments,
	}
	for i, scan := range w.scans {
		p.positions = append(p.positions, entities.Position{Partition: scan.Partition, Next: w.from[i]})
	}
	nonce, err := newNonce()
	if err != nil {
		return "", err
	}
	return w.served.sealer.seal(resumeVersion, p, nonce), nil
}

// sendFrame sends a frame. The token is the id of the event, too.
func (w *watch) sendFrame(frame protowire.Number, content []byte, token string, stale bool) error {
	reply := &entities.Reply{Payload: entities.Payload{TypeURL: w.method.outputType}}
	value := appendMessage(nil, frame, content)
	if value = appendText(value, tokenField, token); stale {
		value = appendWhole(value, staleField, 1)
	}
	reply.Payload.Value = value
	if token != "" {
		reply.Metadata = entities.Metadata{{Key: entities.EventID, Text: token}}
	}
	w.sent = w.service.o.Clock.Now()
	if token != "" {
		w.tokened = w.sent
	}
	w.unsynced = w.unsynced || frame == frameUpsert || frame == frameDelete
	w.failed = w.send(reply)
	return w.failed
}
