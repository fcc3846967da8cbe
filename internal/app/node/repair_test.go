package node

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/pebblestore"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/sdk"
)

// mirror is a counter whose every increment of a-x asks for the same of b-x, by an effect.
func mirror(t *testing.T) Local {
	t.Helper()
	f, err := inprocess.New(sdk.Value("counter",
		sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], in *counterv1.IncrementRequest) (*counterv1.Counter, error) {
				value := cmd.State().GetValue() + 1
				cmd.Update(&counterv1.State{Value: value})
				if name, is := strings.CutPrefix(in.GetCounterId(), "a-"); is {
					cmd.Effect(counterv1.CounterService_Increment_FullMethodName, &counterv1.IncrementRequest{CounterId: "b-" + name})
				}
				return &counterv1.Counter{Value: value}, nil
			}),
		sdk.HandleValue(counterv1.CounterService_Get_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.GetRequest) (*counterv1.Counter, error) {
				return &counterv1.Counter{Value: cmd.State().GetValue()}, nil
			}),
	))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func counterValue(t *testing.T, n *Node, id string) int64 {
	t.Helper()
	got, err := counterv1.NewCounterServiceClient(dial(t, n.PublicAddress())).Get(t.Context(),
		&counterv1.GetRequest{CounterId: id})
	if err != nil {
		t.Fatalf("get %s: %v", id, err)
	}
	return got.GetValue()
}

var mirrored = []string{"x", "y", "z"}

// older runs a worker, keeps a copy of its log, runs it once more, and puts the copy in the place
// of the log: as an operator does who restores a disk. The store has everything. Afterwards each
// a-x is 5, of which the log knows 2.
func older(t *testing.T, c *Config) {
	t.Helper()
	backup := filepath.Join(t.TempDir(), "backup")
	log := filepath.Join(c.Data, "log")
	for run, times := range []int{2, 3} {
		n := started(t, Options{Config: c, Local: mirror(t)})
		for range times {
			for _, name := range mirrored {
				increment(t, n, "a-"+name)
			}
		}
		if err := n.AwaitQuiet(t.Context()); err != nil {
			t.Fatal(err)
		}
		end(t, n)
		if run == 0 {
			if err := os.CopyFS(backup, os.DirFS(log)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(os.RemoveAll(log), os.CopyFS(log, os.DirFS(backup))); err != nil {
		t.Fatal(err)
	}
}

// repaired asks for a repair and returns its last response.
func repaired(t *testing.T, ask adminv1.AdminServiceClient, partition int32,
	choice adminv1.RepairChoice,
) *adminv1.RepairResponse {
	t.Helper()
	stream, err := ask.Repair(t.Context(), &adminv1.RepairRequest{Partition: partition, Choice: choice})
	if err != nil {
		t.Fatal(err)
	}
	said := all(t, stream.Recv)
	last := said[len(said)-1]
	if !last.GetDone() {
		t.Fatalf("the repair ended with %v", last)
	}
	return last
}

// TestRepairOfAnOlderLog: a log from a backup halts what has lost something, with the evidence;
// both choices bring it back, and effects arrive once afterwards.
func TestRepairOfAnOlderLog(t *testing.T) {
	for name, test := range map[string]struct {
		choice adminv1.RepairChoice
		want   int64
	}{
		"accept-loss":  {adminv1.RepairChoice_REPAIR_CHOICE_ACCEPT_LOSS, 2},
		"append-image": {adminv1.RepairChoice_REPAIR_CHOICE_APPEND_IMAGE, 5},
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t)
			older(t, c)
			n := launch(t, Options{Config: c, Local: mirror(t)})
			ask := adminOf(t, n)
			var halted []*adminv1.HaltedPartition
			eventually(t, "both partitions halt", func() bool {
				res, err := ask.ListHalted(t.Context(), &adminv1.ListHaltedRequest{})
				if err != nil {
					t.Fatal(err)
				}
				halted = res.GetPartitions()
				return len(halted) == 2
			})
			lost := int64(0)
			for _, p := range halted {
				if p.GetLogEnd() >= p.GetStoreNext() || p.GetStoreTopicId() != p.GetLogTopicId() || len(p.GetChoices()) != 3 ||
					p.GetChoices()[1].GetRefused() != "" {
					t.Errorf("evidence %v", p)
				}
				mustContain(t, "the cause", p.GetCause(), "log went backwards")
				lost += p.GetLostRecords()
			}
			if lost != 18 {
				t.Errorf("%d records are only in the store; want 3 increments of 6 counters", lost)
			}
			if _, body := page(t, n, "/status"); !strings.Contains(body, "log went backwards") {
				t.Errorf("the status page does not say why: %s", body)
			}
			eventually(t, "the worker to have its function, without which health is not served", func() bool {
				_, body := page(t, n, "/readyz")
				return strings.Contains(body, "is halted: ")
			})
			health := watchHealth(t, n)
			health.becomes(healthpb.HealthCheckResponse_NOT_SERVING, "is halted: ")
			_, err := counterv1.NewCounterServiceClient(dial(t, n.PublicAddress())).Increment(t.Context(),
				&counterv1.IncrementRequest{CounterId: "a-x"})
			if err == nil {
				t.Error("a halted partition takes commands")
			}
			for _, p := range halted {
				if last := repaired(t, ask, p.GetPartition(), test.choice); last.GetState() != "active" ||
					last.GetNextOffset() < p.GetPosition() {
					t.Errorf("after the repair: %v; want to be active behind offset %d", last, p.GetPosition())
				}
			}
			health.becomes(healthpb.HealthCheckResponse_SERVING, "ready")
			awaitReady(t, n)
			for range 2 {
				for _, name := range mirrored {
					increment(t, n, "a-"+name)
				}
			}
			if err := n.AwaitQuiet(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, name := range mirrored {
				if a, b := counterValue(t, n, "a-"+name), counterValue(t, n, "b-"+name); a != test.want+2 || b != a {
					t.Errorf("a-%s is %d and b-%s %d; want %d", name, a, name, b, test.want+2)
				}
			}
			verified(t, verification(t, n, true), 0)
			stream, err := ask.Repair(t.Context(), &adminv1.RepairRequest{Partition: 0, Choice: test.choice})
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.FailedPrecondition {
				t.Errorf("a repair of what works: %v", err)
			}
		})
	}
}

func verification(t *testing.T, n *Node, store bool) []*adminv1.VerifyResponse {
	t.Helper()
	stream, err := adminOf(t, n).Verify(t.Context(), &adminv1.VerifyRequest{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	return all(t, stream.Recv)
}

// verified checks the number of findings, and that each partition has a summary.
func verified(t *testing.T, said []*adminv1.VerifyResponse, findings int) (text string) {
	t.Helper()
	found, summaries := 0, 0
	for _, r := range said {
		if f := r.GetFinding(); f != nil {
			found++
			text += f.GetWhat() + "\n"
		}
		if s := r.GetSummary(); s != nil {
			summaries++
			text += s.GetUnreadable()
			if s.GetRecords() == 0 && s.GetUnreadable() == "" {
				t.Errorf("nothing was read: %v", s)
			}
		}
	}
	if found != findings || summaries != 2 {
		t.Errorf("%d findings in %d summaries; want %d in 2: %v", found, summaries, findings, said)
	}
	return text
}

// TestVerifyFindsWhatIsWrong: a store whose rows have changed, and a log whose files have.
func TestVerifyFindsWhatIsWrong(t *testing.T) {
	c := testConfig(t)
	n := started(t, Options{Config: c, Local: mirror(t)})
	for _, name := range mirrored {
		increment(t, n, "a-"+name)
	}
	if err := n.AwaitQuiet(t.Context()); err != nil {
		t.Fatal(err)
	}
	verified(t, verification(t, n, true), 0)
	offline := func(send func(*adminv1.VerifyResponse) error) error {
		return VerifyOffline(t.Context(), c, &adminv1.VerifyRequest{Store: true}, send)
	}
	if err := offline(func(*adminv1.VerifyResponse) error { return nil }); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("beside a running worker: %v; want to hear that the directory is in use", err)
	}
	end(t, n)

	store, err := pebblestore.Open(pebblestore.Options{Dir: filepath.Join(c.Data, "store")})
	if err != nil {
		t.Fatal(err)
	}
	var key, value []byte
	lower, upper := materializer.Address{Generation: 1, Partition: 0}.Range()
	if err := store.Scan(lower, upper, func(k, v []byte) bool {
		key, value = append(key[:0], k...), append(value[:0], v...)
		return k[4] != 'e' || k[len(k)-1] != 'h'
	}); err != nil {
		t.Fatal(err)
	}
	value[len(value)-1] ^= 1
	batch := store.NewBatch()
	if err := errors.Join(batch.Put(key, value), batch.Commit(), batch.Close(), store.Close()); err != nil {
		t.Fatal(err)
	}
	var said []*adminv1.VerifyResponse
	take := func(r *adminv1.VerifyResponse) error {
		said = append(said, r)
		return nil
	}
	if err := offline(take); err != nil {
		t.Fatal(err)
	}
	mustContain(t, "the findings", verified(t, said, 1), "store: counter/", "head differs from the one in the log")

	damage(t, filepath.Join(c.Data, "log"))
	said = nil
	err = VerifyOffline(t.Context(), c, &adminv1.VerifyRequest{}, take)
	var text string
	if err == nil {
		text = verified(t, said, 0)
	} else {
		text = err.Error()
	}
	mustContain(t, "what is said of a damaged log", text, "log is damaged", "file 00")
}

// damage flips a bit in every table.
func damage(t *testing.T, dir string) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables in %s: %v", dir, err)
	}
	for _, name := range tables {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		at := int64(100)
		if _, err := f.ReadAt(b[:], at); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := f.WriteAt(b[:], at); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

// TestVerifyOfNothing: where there is nothing, nothing is made.
func TestVerifyOfNothing(t *testing.T) {
	c := testConfig(t)
	err := VerifyOffline(t.Context(), c, &adminv1.VerifyRequest{}, func(*adminv1.VerifyResponse) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "nothing to verify") {
		t.Errorf("%v; want to hear that there is nothing", err)
	}
	if left, _ := os.ReadDir(c.Data); len(left) > 0 {
		t.Errorf("%d files were made", len(left))
	}
}
