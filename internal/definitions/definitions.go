package definitions

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/lifecycle"
	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/projections/definition"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
)

// Commands calls the services of the runtime, wherever their entities are. Request and reply are
// messages in wire form. Errors are *entities.Error.
type Commands interface {
	Call(ctx context.Context, service, method string, request []byte) (reply []byte, err error)
}

// Source tells the state of the entity.
type Source interface {
	// Next returns the state as soon as its revision is above the known one. One goroutine calls it.
	Next(ctx context.Context, known int64) (*definitionsv1.State, error)
}

// Options are what Definitions need.
type Options struct {
	Commands Commands
	// Schema returns what the functions serve now; an error while there is no function. Files are
	// checked against it.
	Schema func() (*definition.Schema, error)
	// Source tells what follows on the first answer of the entity. Nil means OfCommands.
	Source Source
	// Kinds are the kinds that can be applied; definition.Standard when nil.
	Kinds definition.Kinds
	// Ready reports whether the rows of a version are there, and else how far they are. Nil: a version
	// with rows is promoted by an operator only.
	Ready func(ctx context.Context, v *View) (ready bool, progress string)
	// Leads reports whether this process owns the entity's partition, and so rolls out. Nil: it does.
	// Two that do so for a while do no harm.
	Leads func() bool
	// Dev is the profile dev: see ApplyOptions.Dev.
	Dev bool
	// Dir is a folder for what is known of the last revision and for blobs; "" for none. It may be
	// deleted at any time while the process does not run.
	Dir string
	// Clock is for tests; nil means the machine's.
	Clock  clock.Clock
	Logger *slog.Logger
}

// Definitions is what a process knows of the app's definitions. Safe for concurrent use.
type Definitions struct {
	options Options
	cache   *cache

	// compiling is held while a revision is made.
	compiling sync.Mutex
	compiler  compiler

	// mu guards what follows. changed is closed when current changes.
	mu      sync.Mutex
	current *Revision
	changed chan struct{}
	// hint: current is from the cache, or nothing: the entity may have an older one.
	hint bool
	// progress says for each version that is built why it is not promoted yet.
	progress map[string]string
}

// New returns the definitions of an app. Current returns what the cache has, if anything; Run and
// Apply bring newer ones.
func New(o Options) *Definitions {
	if o.Clock == nil {
		o.Clock = clock.Wall{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Source == nil {
		o.Source = OfCommands(o.Commands, o.Clock)
	}
	if o.Kinds == nil {
		o.Kinds = definition.Standard()
	}
	d := &Definitions{options: o, cache: newCache(o.Dir), changed: make(chan struct{}), current: &Revision{}, hint: true}
	d.compiler = compiler{kinds: o.Kinds, blob: d.cached, done: map[string]*compiled{}}
	d.recall()
	d.compiler.blob = d.blob
	return d
}

// Current returns what is known now, and a channel that is closed when that has changed. Before
// anything is known the revision is empty, with the number 0.
func (d *Definitions) Current() (*Revision, <-chan struct{}) {
	r, changed, _ := d.latest()
	return r, changed
}

// latest is Current; hint: it is what the cache had, or nothing, and no one has answered yet.
func (d *Definitions) latest() (r *Revision, changed <-chan struct{}, hint bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current, d.changed, d.hint
}

// Known reports whether the present revision is one: what the cache had, or what the entity has
// answered, which may be that nothing is applied. When it becomes true, Current changes.
func (d *Definitions) Known() bool {
	r, _, hint := d.latest()
	return !hint || r.Number > 0
}

// Run follows the source and rolls versions out until ctx ends, whose cause it returns.
func (d *Definitions) Run(ctx context.Context) error {
	g := lifecycle.New(ctx, d.options.Clock)
	g.Start("follow definitions", d.follow)
	g.Start("roll out definitions", d.rollOut)
	return g.Wait() //nolint:wrapcheck // the cause of ctx
}

// retries are the pauses after a source or a blob could not be had.
var retries = backoff.Policy{ //nolint:gochecknoglobals // a constant
	First: 200 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.2,
}

// follow takes each state that the source tells.
func (d *Definitions) follow(ctx context.Context) error {
	failures := 0
	for {
		state, err := d.next(ctx)
		if err == nil {
			err = d.take(ctx, state)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			failures = 0
			continue
		}
		if failures++; failures == 1 {
			d.options.Logger.Warn(
				"changes of the definitions are not heard of: those known before stay in force, and it is tried again",
				"err", err)
		}
		if !d.pause(ctx, retries.Pause(failures)) {
			return context.Cause(ctx)
		}
	}
}

// next returns the next state. The first one is the entity's own answer: an image may be behind
// what the cache has, and the cache may be of another history. Without an owner of the entity
// anything newer will do.
func (d *Definitions) next(ctx context.Context) (*definitionsv1.State, error) {
	r, _, hint := d.latest()
	if !hint || mutation.On(mutation.Hint) {
		return d.options.Source.Next(ctx, r.Number) //nolint:wrapcheck // it is the source's
	}
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	state, err := d.Describe(asking)
	if err == nil {
		return state, nil
	}
	looking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if state, other := d.options.Source.Next(looking, r.Number); other == nil {
		return state, nil
	}
	return nil, err
}

// patience is how long the first state is waited for at one place.
const patience = 5 * time.Second

// pause waits, unless ctx ends before.
func (d *Definitions) pause(ctx context.Context, t time.Duration) bool {
	due, cancel := d.options.Clock.After(t)
	select {
	case <-due:
		return true
	case <-ctx.Done():
		cancel()
		return false
	}
}

// known is the revision above which states are news; -1: all are.
func (d *Definitions) known() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hint {
		return -1
	}
	return d.current.Number
}

// recall takes what the cache has, all of it. It is a hint: the entity is asked all the same.
func (d *Definitions) recall() {
	state, err := d.cache.state()
	if err == nil && state != nil {
		var r *Revision
		if r, err = d.compiler.compile(context.Background(), state); err == nil {
			d.publish(r, true)
		}
	}
	if err != nil {
		d.options.Logger.Info("what was known of the definitions cannot be used, and is asked for again", "err", err)
	}
}

// take compiles a state, if it is newer than what is known.
func (d *Definitions) take(ctx context.Context, state *definitionsv1.State) error {
	d.compiling.Lock()
	defer d.compiling.Unlock()
	if state.GetRevision() <= d.known() {
		return nil
	}
	r, err := d.compiler.compile(ctx, state)
	if err != nil {
		return err
	}
	d.publish(r, false)
	for _, u := range r.Unsupported {
		d.options.Logger.Warn("a definition is not supported by this version of millrace: it is left out here",
			"kind", u.Kind, "name", u.Name, "version", u.Version, "reason", u.Reason)
	}
	if r.Number == 0 { // an app without definitions leaves nothing on the disk
		return nil
	}
	if err := d.cache.keep(state); err != nil {
		d.options.Logger.Info("what is known of the definitions is not kept for the next start", "err", err)
	}
	return nil
}

func (d *Definitions) publish(r *Revision, hint bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current, d.hint = r, hint
	close(d.changed)
	d.changed = make(chan struct{})
}

// Await returns the first revision that is at least the given one.
func (d *Definitions) Await(ctx context.Context, number int64) (*Revision, error) {
	for {
		r, changed := d.Current()
		if r.Number >= number {
			return r, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// cached returns the content with a hash from the cache only.
func (d *Definitions) cached(_ context.Context, sha256 string) ([]byte, error) {
	if content := d.cache.blob(sha256); content != nil {
		return content, nil
	}
	return nil, errors.New("blob " + sha256 + " is not there")
}

// blob returns the content with a hash, from the cache or from its entity.
func (d *Definitions) blob(ctx context.Context, sha256 string) ([]byte, error) {
	if content := d.cache.blob(sha256); content != nil {
		return content, nil
	}
	reply := &definitionsv1.GetResponse{}
	if err := d.call(ctx, blobGet, &definitionsv1.GetRequest{Sha256: sha256}, reply); err != nil {
		return nil, err
	}
	if hashOf(reply.GetContent()) != sha256 {
		return nil, errors.New("the content of blob " + sha256 + " is damaged: its hash is another one")
	}
	d.cache.keepBlob(sha256, reply.GetContent())
	return reply.GetContent(), nil
}
