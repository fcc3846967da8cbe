package definitions_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
	"github.com/millrace-io/millrace/tests/kit"
)

// running runs the definitions of a process until the test, or stop, ends it.
func running(t *testing.T, d *definitions.Definitions) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stop = func() {
		cancel()
		<-ended
		ended <- nil
	}
	t.Cleanup(stop)
	return stop
}

// awaitKnown waits until a process knows a revision.
func awaitKnown(t *testing.T, d *definitions.Definitions, want string) {
	t.Helper()
	kit.Await(t, want, func() bool {
		r, _ := d.Current()
		return shown(r) == want
	})
}

// scripted is a source that answers what the test says.
type scripted struct {
	asked  chan int64
	answer chan *definitionsv1.State
}

func newScripted() *scripted {
	return &scripted{asked: make(chan int64, 8), answer: make(chan *definitionsv1.State)}
}

func (s *scripted) Next(ctx context.Context, known int64) (*definitionsv1.State, error) {
	s.asked <- known
	select {
	case state := <-s.answer:
		return state, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// TestTheLastRevisionIsAHint: a process that begins knows what it knew, before any other process
// answers; then what is answered counts, even if it is older. A damaged file is as good as none.
func TestTheLastRevisionIsAHint(t *testing.T) {
	r, dir := newRuntime(t), filepath.Join(t.TempDir(), "definitions")
	within := func(o *definitions.Options) { o.Dir = dir }
	apply(t, newDefinitions(r, within), files(t), definitions.ApplyOptions{})

	gone := newRuntime(t)
	source, release := newScripted(), make(chan struct{})
	asked := make(chan struct{})
	gone.before["Describe"] = func() {
		close(asked)
		<-release
	}
	again := newDefinitions(gone, within, func(o *definitions.Options) { o.Source = source })
	mustKnow(t, again, first)
	if !again.Known() || newDefinitions(gone).Known() {
		t.Error("Known must be true of what the folder has, and of nothing else before an answer")
	}
	stop := running(t, again)
	select {
	case <-asked:
	case known := <-source.asked:
		t.Fatalf("the source was asked for what follows on revision %d, and the entity was not asked", known)
	}
	mustKnow(t, again, first)
	if n := gone.count("Get"); n != 0 {
		t.Errorf("%d blobs were asked for, and all are in the folder", n)
	}
	close(release) // the entity is that of another app, or of one that begins again
	if known := kit.Receive(t, "what follows", source.asked); known != 0 {
		t.Errorf("the source was asked for what follows on revision %d, want 0", known)
	}
	mustKnow(t, again, "revision 0:")
	stop()

	for _, name := range []string{"state.binpb", "state.binpb.new"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("\x08"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damaged := newDefinitions(r, within)
	running(t, damaged)
	awaitKnown(t, damaged, first)
}

// TestADamagedBlobIsAskedForAgain: the name of a blob is its hash.
func TestADamagedBlobIsAskedForAgain(t *testing.T) {
	r, dir := newRuntime(t), t.TempDir()
	within := func(o *definitions.Options) { o.Dir = dir }
	apply(t, newDefinitions(r, within), files(t), definitions.ApplyOptions{})
	blobs, err := filepath.Glob(filepath.Join(dir, "*.blob"))
	if err != nil || len(blobs) != 4 {
		t.Fatalf("blobs %q (%v), want 4", blobs, err)
	}
	if err := os.WriteFile(blobs[0], []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := newDefinitions(r, within)
	running(t, again)
	awaitKnown(t, again, first)
	if n := r.count("Get"); n != 1 {
		t.Errorf("%d blobs were asked for, want the damaged one", n)
	}
	// What no version needs any more goes.
	if err := again.Drop(t.Context(), definitions.ID{Name: "orders", Version: "1"}); err != nil {
		t.Fatal(err)
	}
	if blobs, err = filepath.Glob(filepath.Join(dir, "*.blob")); err != nil || len(blobs) != 2 {
		t.Errorf("blobs %q (%v), want the 2 of customers", blobs, err)
	}
}

// TestASourceThatFails is asked again, and what is known stays.
func TestASourceThatFails(t *testing.T) {
	r := newRuntime(t)
	apply(t, newDefinitions(r), files(t), definitions.ApplyOptions{})
	unavailable := entities.Errorf(entities.Unavailable, entities.NotApplied, "no owner")
	r.fail["Describe"], r.fail["Get"] = unavailable, unavailable
	clk := clocktest.NewManual(at)
	d := newDefinitions(r, func(o *definitions.Options) { o.Clock = clk })
	running(t, d)
	for range 2 { // first the entity, then a blob
		kit.Await(t, "the pause", func() bool { return clk.Waiting() == 2 })
		clk.Advance(time.Second)
	}
	awaitKnown(t, d, first)
}

// TestUnsupported: what this process cannot compile is left out with the reason, and the rest is
// there.
func TestUnsupported(t *testing.T) {
	r := newRuntime(t)
	d := newDefinitions(r)
	apply(t, d, files(t)[:1], definitions.ApplyOptions{})
	text := []byte("apiVersion: millrace/v1\nkind: Projection\nmetadata: {name: newer, version: 1}\nspec: {later: true}\n")
	sha := put(t, r, text)
	_, err := r.Call(t.Context(), "millrace.definitions.v1.DefinitionsService", "Apply", encoded(t,
		&definitionsv1.ApplyRequest{App: definitions.EntityID, Drafts: []*definitionsv1.Draft{{
			Kind: "Projection", Name: "newer", Number: 1, Document: sha, File: "newer.yaml", Content: "x", FoldHash: "y",
		}}}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Promote(t.Context(), definitions.ID{Name: "newer", Version: "1"}, false)
	if err == nil {
		t.Error("a version that is not supported was promoted")
	}
	now, _ := d.Current()
	if len(now.Views) != 1 || len(now.Unsupported) != 1 || now.Unsupported[0].Name != "newer" {
		t.Errorf("known: %s, want customers, and newer as unsupported", shown(now))
	}
}

func put(t *testing.T, r *runtime, content []byte) (sha string) {
	t.Helper()
	sha = definitions.HashOf(content)
	_, err := r.Call(t.Context(), "millrace.definitions.v1.BlobService", "Put",
		encoded(t, &definitionsv1.PutRequest{Sha256: sha, Content: content}))
	if err != nil {
		t.Fatal(err)
	}
	return sha
}

func encoded(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPeers: a process without an image follows another one, also after that one has gone.
func TestPeers(t *testing.T) {
	r := newRuntime(t)
	d := newDefinitions(r)
	apply(t, d, files(t), definitions.ApplyOptions{})

	serve := func() (*grpc.Server, string) {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		definitionsv1.RegisterRevisionServiceServer(s, definitions.NewServer(d))
		go s.Serve(listener) //nolint:errcheck // it is stopped
		t.Cleanup(s.Stop)
		return s, listener.Addr().String()
	}
	one, address := serve()
	var conns []*grpc.ClientConn
	t.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
	})
	addresses := make(chan string, 2)
	addresses <- address
	gateway := newDefinitions(r, func(o *definitions.Options) {
		o.Leads = func() bool { return false }
		o.Source = definitions.OfPeers(func(ctx context.Context) (grpc.ClientConnInterface, error) {
			select {
			case a := <-addresses:
				c, err := grpc.NewClient("passthrough:///"+a, grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithNoProxy())
				if err == nil {
					conns = append(conns, c)
				}
				return c, err
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		})
	})
	stop := running(t, gateway)
	awaitKnown(t, gateway, first)
	asked := r.count("Describe")
	if _, err := d.Promote(t.Context(), definitions.ID{Name: "customers", Version: "1"}, true); err != nil {
		t.Fatal(err)
	}
	kit.Await(t, "the promotion", func() bool { now, _ := gateway.Current(); return now.Number == 4 })
	one.Stop()
	_, next := serve()
	addresses <- next
	if err := d.Drop(t.Context(), definitions.ID{Name: "orders", Version: "1"}); err != nil {
		t.Fatal(err)
	}
	kit.Await(t, "the drop", func() bool { now, _ := gateway.Current(); return now.Number == 5 })
	stop()
	if n := r.count("Describe") - asked; n != 3 { // of Promote, before and after it, and of Drop
		t.Errorf("the entity was asked %d times, want 3: by the process that changed it", n)
	}
}

// image is the entity's partition on a worker.
type image struct {
	t *testing.T

	store materializer.Store
	at    materializer.Address
	feed  *materializer.Feed
	fold  *materializer.Fold
	tap   *materializer.Tap
	meta  materializer.Meta
	done  int
}

func newImage(t *testing.T) *image {
	t.Helper()
	i := &image{t: t, store: memstore.New(), at: materializer.Address{Generation: 1}}
	t.Cleanup(func() { _ = i.store.Close() })
	of := &materializer.Image{TopicID: "topic", Store: i.store, Address: i.at}
	i.feed = materializer.NewFeeds(1 << 20).Feed(of)
	i.meta = materializer.MetaFrom("topic", 0)
	i.meta.Owner = record.Owner{Epoch: 1, Nonce: 1}
	i.fold = materializer.NewFold(i.at, "topic", i.meta)
	return i
}

func (i *image) Feed() *materializer.Feed { return i.feed }
func (i *image) View() materializer.Partition {
	return materializer.Partition{Rows: i.store, Address: i.at}
}

// take folds the entity's events that are not folded yet.
func (i *image) take(r *runtime) {
	i.t.Helper()
	r.mu.Lock()
	events := r.events[definitions.EntityID]
	r.mu.Unlock()
	batch := i.store.NewBatch()
	for ; i.done < len(events); i.done++ {
		e := &materializer.Entry{
			Offset: int64(i.done), Key: []byte(definitions.EntityType + "/" + definitions.EntityID),
			Value: events[i.done].Value,
			Envelope: record.Envelope{
				Kind: record.Event, Epoch: 1, Nonce: 1, Ordinal: uint64(i.done + 1), Sequence: uint64(i.done + 1),
				TypeURL: events[i.done].TypeURL,
			},
		}
		if v, err := i.fold.Step(batch, e); err != nil {
			i.t.Fatal(v, err)
		}
	}
	if err := errors.Join(i.fold.WriteMeta(batch), batch.Commit()); err != nil {
		i.t.Fatal(err)
	}
	i.tap.Publish()
}

// TestImage: a worker with an image of the entity's partition takes the state from there, and asks
// no one; without a role it asks the other source.
func TestImage(t *testing.T) {
	r := newRuntime(t)
	owner := newDefinitions(r)
	apply(t, owner, files(t), definitions.ApplyOptions{})
	i := newImage(t)
	d := newDefinitions(r, func(o *definitions.Options) {
		o.Leads = func() bool { return false }
		o.Source = definitions.OfImage(i, definitions.OfCommands(r, clocktest.NewManual(at)), clock.Wall{})
	})
	i.tap = i.feed.Open(i.fold, materializer.Following)
	i.take(r)
	running(t, d)
	awaitKnown(t, d, first)
	asked := r.count("Describe")
	if err := owner.Drop(t.Context(), definitions.ID{Name: "orders", Version: "1"}); err != nil {
		t.Fatal(err)
	}
	i.take(r)
	awaitKnown(t, d, "revision 4: customers 1 dataset 1 indexes [1] aggregates [] STAGE_BUILDING;")
	if n := r.count("Describe") - asked; n != 1 {
		t.Errorf("the entity was asked %d times, want once: by the process that changed it", n)
	}
}
