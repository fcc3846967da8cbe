package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/sdk"
)

// serveRemote serves a function behind the protocol until the test ends.
func serveRemote(t *testing.T, address string, served ...*sdk.Service) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- sdk.Serve(ctx, address, served...) }() // ends with ctx; received below
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestRemoteFunctionMayComeLate(t *testing.T) {
	c := testConfig(t)
	c.Function = freeAddress(t)
	n := launch(t, Options{Config: c})
	receive(t, "the node to wait for its function", n.Waiting())
	serveRemote(t, c.Function, services("counter")...)
	awaitReady(t, n)
	if got := increment(t, n, "a"); got != 1 {
		t.Errorf("the counter stands at %d", got)
	}
	if got := n.Status(t.Context()).GetServices()[0].GetHosting(); got != "remote at "+c.Function {
		t.Errorf("the status says it is hosted %q", got)
	}
	if got := taskOf(t, n, taskFunction); got.GetState() != "running" || got.GetLastError() != "" {
		t.Errorf("task %v, want it to have no trouble any more", got)
	}
}

// Timers go over the protocol to a worker, which keeps them: the counter that was incremented
// forgets that an hour later.
func TestTimersOfARemoteFunction(t *testing.T) {
	clk := clocktest.NewManual(time.Unix(1700000000, 0))
	c := testConfig(t)
	c.Function, c.Ephemeral = freeAddress(t), true
	serveRemote(t, c.Function, sdk.Value("counter",
		sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], in *counterv1.IncrementRequest) (*counterv1.Counter, error) {
				if in.GetBy() < 0 {
					cmd.Delete()
					return nil, nil
				}
				cmd.After(time.Hour, "forget", counterv1.CounterService_Increment_FullMethodName,
					&counterv1.IncrementRequest{CounterId: cmd.EntityID(), By: -1})
				next := &counterv1.State{Value: cmd.State().GetValue() + 1}
				cmd.Update(next)
				return &counterv1.Counter{Value: next.GetValue()}, nil
			}),
		sdk.HandleValue(counterv1.CounterService_Get_FullMethodName,
			func(*sdk.ValueCommand[*counterv1.State], *counterv1.GetRequest) (*counterv1.Counter, error) {
				return nil, nil
			}),
	))
	world := simlog.New(simlog.Options{SingleProcess: true, Clock: clk})
	n := started(t, Options{Config: c, Log: world.Client("w"), Clock: clk})
	for i, want := range []int64{1, 2, 1} {
		if got := increment(t, n, "a"); got != want {
			t.Errorf("increment %d: the counter stands at %d, want %d", i+1, got, want)
		}
		// Half an hour, and then an hour: each increment sets the timer anew.
		clk.Advance(time.Duration(i+1) * 30 * time.Minute)
		if err := n.AwaitQuiet(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// rejectable is a function whose answer to discovery is rejected.
type rejectable struct {
	cloudstate.UnimplementedEntityDiscoveryServer
	told chan string
}

// Discover declares a service without descriptors.
func (rejectable) Discover(context.Context, *cloudstate.ProxyInfo) (*cloudstate.EntitySpec, error) {
	return &cloudstate.EntitySpec{ServiceInfo: &cloudstate.ServiceInfo{}}, nil
}

// ReportError receives the proxy's report of that.
func (r rejectable) ReportError(_ context.Context, e *cloudstate.UserFunctionError) (*emptypb.Empty, error) {
	r.told <- e.GetMessage()
	return &emptypb.Empty{}, nil
}

// A function that cannot be served gets the reason, and so does the operator; the node goes on.
func TestRejectedFunctionIsTold(t *testing.T) {
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, function := grpc.NewServer(), rejectable{told: make(chan string, 1)}
	cloudstate.RegisterEntityDiscoveryServer(server, function)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }() // ended by Stop
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c := testConfig(t)
	c.Function = l.Addr().String()
	n := launch(t, Options{Config: c})
	mustContain(t, "the report", receive(t, "the report", function.told), "it speaks Cloudstate protocol 0.0")
	eventually(t, "the trouble in the status", func() bool {
		return strings.Contains(taskOf(t, n, taskFunction).GetLastError(), "it speaks Cloudstate protocol 0.0")
	})
	mustContain(t, "the reason why it is not ready", n.NotReady().Error(),
		"waiting for the user function at "+c.Function, "it speaks Cloudstate protocol 0.0")
}

// supervised starts a node that runs this test binary as its function. The file says what it
// serves.
func supervised(t *testing.T, names string) (n *Node, file string) {
	t.Helper()
	c := testConfig(t)
	c.Function = freeAddress(t)
	dir := t.TempDir()
	file = filepath.Join(dir, "services")
	write(t, file, names)
	t.Setenv(functionVariable, file)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return started(t, Options{Config: c, Command: []string{program}, Dir: dir, Watch: []string{"services"}}), file
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// pid is the process of the supervised function, 0 while there is none.
func pid(n *Node) int {
	n.command.mu.Lock()
	defer n.command.mu.Unlock()
	if n.command.running == nil {
		return 0
	}
	return n.command.running.Process.Pid
}

func TestSupervisorRestartsWhatDies(t *testing.T) {
	n, _ := supervised(t, "counter")
	if got := increment(t, n, "a"); got != 1 {
		t.Fatalf("the counter stands at %d", got)
	}
	for round := int64(2); round < 4; round++ {
		before := pid(n)
		n.command.mu.Lock()
		killGroup(n.command.running)
		n.command.mu.Unlock()
		eventually(t, "another process", func() bool { return pid(n) != 0 && pid(n) != before })
		if got := increment(t, n, "a"); got != round { // it waits for the function
			t.Errorf("the counter stands at %d, want %d", got, round)
		}
	}
	if got := taskOf(t, n, taskSupervisor); got.GetState() != "running" || !strings.Contains(got.GetLastError(), "the user function ended: signal: killed") || got.GetLastErrorTime() == nil {
		t.Errorf("the status says %v of the supervisor", got)
	}
}

// A change of a file restarts the function; when it serves something else then, so does the node.
func TestSupervisorRestartsWhatChanged(t *testing.T) {
	n, file := supervised(t, "counter")
	increment(t, n, "a")
	carts := shopv1.NewCartServiceClient(dial(t, n.PublicAddress()))
	if _, err := carts.GetCart(t.Context(),
		&shopv1.GetCartRequest{CartId: "42"}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a service that is not served: %v", err)
	}
	write(t, file, "counter cart")
	eventually(t, "the cart to be served", func() bool { return n.host.Catalog().Service("shop.v1.CartService") != nil })
	addItem(t, n, "42", "apple")
	if got := increment(t, n, "a"); got != 2 {
		t.Errorf("the counter stands at %d, want 2", got)
	}
}

// The end of a node ends what it has started.
func TestSupervisedFunctionEndsWithTheNode(t *testing.T) {
	n, _ := supervised(t, "counter")
	address := n.config.Function
	end(t, n)
	if pid(n) != 0 {
		t.Error("the process is still there")
	}
	var dialer net.Dialer
	if conn, err := dialer.DialContext(t.Context(), "tcp", address); err == nil {
		_ = conn.Close()
		t.Error("a process still listens where the function was")
	}
}

func TestAbandonEndsTheFunctionAtOnce(t *testing.T) {
	n, _ := supervised(t, "counter")
	n.Abandon()
	eventually(t, "the process to be gone", func() bool { return pid(n) == 0 })
	if err := n.command.start(nil); err == nil {
		t.Error("another process was started")
	}
}

func TestCommandThatDoesNotExist(t *testing.T) {
	_, err := Start(t.Context(), Options{Config: testConfig(t), Command: []string{"no-such-program-anywhere"}})
	if err == nil {
		t.Fatal("the node started")
	}
	mustContain(t, "the error", err.Error(), "start the user function", "no-such-program-anywhere", "check the command")
}

func TestCommandWhoseAddressIsTaken(t *testing.T) {
	c := testConfig(t)
	other, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	c.Function = other.Addr().String()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err = Start(t.Context(), Options{Config: c, Command: []string{program}}); err == nil {
		t.Fatal("the node started")
	}
	mustContain(t, "the error", err.Error(), "start the user function", c.Function, "choose another address with --function")
}

func TestPausesOfTheSupervisorAreBounded(t *testing.T) {
	for attempt := 1; attempt < 1000; attempt++ {
		if p := restartPause.Pause(attempt); p <= 0 || p > restartPause.Max+restartPause.Max/2 {
			t.Fatalf("the pause after attempt %d is %v", attempt, p)
		}
	}
}

// TestWatchSeesSourcesOnly: what people write, and the program itself, but nothing that programs
// write.
func TestWatchSeesSourcesOnly(t *testing.T) {
	for file, seen := range map[string]bool{
		"main.go": true, "go.mod": true, "src/a.proto": true, "src/index.mjs": true, "package.json": true,
		"shop.py": true, "src/Shop.java": true, "Cargo.toml": true, "src/Shop.cs": true,
		"fn": true, "target/shop.jar": true, // the command runs them
		"nohup.out": false, "data.db": false, "items.csv": false, "notes.txt": false, "core": false, "other": false,
		"server.log": false, "src/.hidden.go": false, "src/a.go~": false, "target/other.jar": false,
		"data/a.go": false, ".git/a.go": false, "node_modules/x.js": false, "dist/x.js": false,
		"__pycache__/x.py": false, "output.json": false,
	} {
		w, dir := newTestWatch(t, nil, "./fn", "-jar", "target/shop.jar", "--out", "data.db")
		write(t, filepath.Join(dir, file), "x")
		if got := len(w.changed()) > 0; got != seen {
			t.Errorf("%s: seen %v, want %v", file, got, seen)
		}
	}
	w, dir := newTestWatch(t, nil)
	if err := os.Remove(filepath.Join(dir, "there.go")); err != nil {
		t.Fatal(err)
	}
	if got := w.changed(); !slices.Equal(got, []string{filepath.Join(dir, "there.go")}) {
		t.Errorf("a file that is gone was not noticed: %q", got)
	}
}

// TestWatchTakesGlobs: those that the user names replace the sources.
func TestWatchTakesGlobs(t *testing.T) {
	for _, tc := range []struct {
		pattern, file string
		seen          bool
	}{
		{"*.tmpl", "src/a.tmpl", true},
		{"*.tmpl", "main.go", false},
		{"src", "src/deep/a.txt", true},
		{"src/", "src/a.txt", true},
		{"./src/**", "src/deep/a.txt", true},
		{"src/*", "src/a.txt", true},
		{"/src/*.txt", "src/a.txt", true},
		{"src/*.txt", "src/deep/a.txt", false},
		{"src/**/*.txt", "src/a.txt", true},
		{"src/**/*.txt", "src/deep/a.txt", true},
		{"src/**/*.txt", "src/deep/a.go", false},
		{"**", "notes.txt", true},
		{"dist/**", "dist/x.js", true},
		{"*", "node_modules/x.js", false},
		{"*", "data/x", false},
		{"*", ".git/x", false},
		{"*", ".a.go.swp", false},
		{".env", ".env", true},
		{"", "main.go", false},
		{"nothing", "main.go", false},
	} {
		w, dir := newTestWatch(t, []string{"neither", tc.pattern})
		write(t, filepath.Join(dir, tc.file), "x")
		if got := len(w.changed()) > 0; got != tc.seen {
			t.Errorf("%q, %s: seen %v, want %v", tc.pattern, tc.file, got, tc.seen)
		}
	}
	if err := checkPatterns([]string{"*.go", "src/["}); err == nil || !strings.Contains(err.Error(), `"src/["`) {
		t.Errorf("a pattern that is none: %v", err)
	}
}

// newTestWatch watches a directory with some directories and one source.
func newTestWatch(t *testing.T, patterns []string, command ...string) (*watch, string) {
	t.Helper()
	dir := t.TempDir()
	for _, below := range []string{"data", "src/deep", ".git", "node_modules", "target", "dist", "__pycache__"} {
		if err := os.MkdirAll(filepath.Join(dir, below), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "there.go"), "x")
	return newWatch(dir, filepath.Join(dir, "data"), patterns, command), dir
}

func TestWatchLooksNowAndThen(t *testing.T) {
	dir := t.TempDir()
	clk := clocktest.NewManual(time.Unix(0, 0))
	w := newWatch(dir, "data", nil, nil)
	changed := make(chan []string, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { changed <- w.await(ctx, clk) }() // ends with the change; received below
	for range 2 {
		eventually(t, "the watch to wait", func() bool { return clk.Waiting() == 1 })
		clk.Advance(watchEvery)
	}
	eventually(t, "the watch to wait", func() bool { return clk.Waiting() == 1 })
	write(t, filepath.Join(dir, "main.go"), "x")
	clk.Advance(watchEvery)
	if files := <-changed; !slices.Equal(files, []string{filepath.Join(dir, "main.go")}) {
		t.Errorf("the change is of %q", files)
	}
	go func() { changed <- newWatch(dir, "data", nil, nil).await(ctx, clk) }() // ends with ctx; received below
	cancel()
	if <-changed != nil {
		t.Error("a change was seen where there was none")
	}
}

// TestBrake: one file that changes before each of six starts within a minute is written by the
// function; what a person does is not.
func TestBrake(t *testing.T) {
	at := time.Unix(1000, 0)
	for name, tc := range map[string]struct {
		every time.Duration
		files func(i int) []string
		want  int // the restart at which it blocks, 0 for never
	}{
		"one file":            {time.Second, func(int) []string { return []string{"gen.py"} }, brakeAfter},
		"with others":         {time.Second, func(i int) []string { return []string{fmt.Sprint(i), "gen.py"} }, brakeAfter},
		"slowly":              {13 * time.Second, func(int) []string { return []string{"main.go"} }, 0},
		"different files":     {time.Second, func(i int) []string { return []string{fmt.Sprint(i)} }, 0},
		"others in the midst": {time.Second, func(i int) []string { return []string{fmt.Sprint(i / 5)} }, 0},
	} {
		var b brake
		got := 0
		for i := range 20 {
			if err := b.blocks(tc.files(i), at.Add(time.Duration(i)*tc.every)); err != nil {
				mustContain(t, name, err.Error(), "gen.py changed before each of 6 starts in 5s", "--watch")
				got = i + 1
				break
			}
		}
		if got != tc.want {
			t.Errorf("%s: blocks restart %d, want %d", name, got, tc.want)
		}
	}
}

// TestSupervisorStopsRestartingWhatChangesItself: a function that writes a source of its own is
// left alone after some starts, and the status says why.
func TestSupervisorStopsRestartingWhatChangesItself(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.Function = freeAddress(t)
	dir := t.TempDir()
	n := launch(t, Options{
		Config: c, Command: []string{"sh", "-c", "echo $$ >> gen.py; sleep 1000 & wait"}, Dir: dir,
	})
	eventually(t, "the brake", func() bool {
		return strings.Contains(taskOf(t, n, taskSupervisor).GetLastError(), "gen.py changed before each of 6 starts")
	})
	eventually(t, "the last start", func() bool {
		content, err := os.ReadFile(filepath.Join(dir, "gen.py"))
		return err == nil && strings.Count(string(content), "\n") == brakeAfter+1
	})
}
