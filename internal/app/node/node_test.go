package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// page asks the admin port for a page.
func page(t *testing.T, n *Node, path string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.AdminAddress()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(content)
}

func addItem(t *testing.T, n *Node, cart, item string) {
	t.Helper()
	client := shopv1.NewCartServiceClient(dial(t, n.PublicAddress()))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := client.AddItem(ctx, &shopv1.AddItemRequest{CartId: cart, ItemId: item, Quantity: 1}); err != nil {
		t.Fatalf("add %s to cart %s: %v", item, cart, err)
	}
}

func increment(t *testing.T, n *Node, id string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := counterv1.NewCounterServiceClient(dial(t, n.PublicAddress())).Increment(ctx,
		&counterv1.IncrementRequest{CounterId: id})
	if err != nil {
		t.Fatalf("increment %s: %v", id, err)
	}
	return got.GetValue()
}

// read reads a counter with headers.
func read(t *testing.T, n *Node, id string, headers ...string) {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(), headers...)
	if _, err := counterv1.NewCounterServiceClient(dial(t, n.PublicAddress())).Get(ctx,
		&counterv1.GetRequest{CounterId: id}); err != nil {
		t.Fatalf("read %s with %v: %v", id, headers, err)
	}
}

// taskOf finds a task, or a loop below the tasks, in the status.
func taskOf(t *testing.T, n *Node, name string) *adminv1.TaskStatus {
	t.Helper()
	tasks := n.Status(t.Context()).GetTasks()
	i := slices.IndexFunc(tasks, func(s *adminv1.TaskStatus) bool { return s.GetName() == name })
	if i < 0 {
		t.Fatalf("the status has no task %s: %v", name, tasks)
	}
	return tasks[i]
}

func TestStatusShowsEverything(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart pricing"), Version: "1.2.3"})
	eventually(t, "the function's task to end: it is attached a moment before", func() bool { return taskOf(t, n, "function").GetState() == "done" })
	s := n.Status(t.Context())
	if s.GetVersion() != "1.2.3" || s.GetApp() != "millrace" || !s.GetReady() || s.GetLog() != "embedded" ||
		s.GetDataDirectory() != n.config.Data || s.GetDurability() == "" || s.GetStarted().AsTime().IsZero() {
		t.Errorf("status %v", s)
	}
	var services, tasks []string
	for _, service := range s.GetServices() {
		services = append(services,
			fmt.Sprintf("%s (%s %s, %s)", service.GetName(), service.GetKind(), service.GetEntityType(), service.GetHosting()))
	}
	for _, task := range s.GetTasks() {
		tasks = append(tasks, task.GetName()+" "+task.GetState())
	}
	if want := []string{"pricing.v1.PricingService (action , in process)", "shop.v1.CartService (event sourced cart, in process)"}; !slices.Equal(services, want) {
		t.Errorf("services %q, want %q", services, want)
	}
	want := []string{
		"shutdown running", "flush running", "partitions running", "projections running", "definitions running",
		"function done", "gateway running", "health running", "admin running", "log running", "store running",
	}
	if !slices.Equal(tasks, want) {
		t.Errorf("tasks %q, want %q", tasks, want)
	}
	for _, p := range s.GetPartitions() {
		if p.GetState() != "active" || p.GetLagRecords() != 0 || p.GetLastError() != "" {
			t.Errorf("partition %v", p)
		}
	}
	if len(s.GetPartitions()) != 2 {
		t.Errorf("%d partitions, want 2", len(s.GetPartitions()))
	}
}

func TestEphemeralNodeSaysThatItPromisesNothing(t *testing.T) {
	c := testConfig(t)
	c.Ephemeral = true
	s := started(t, Options{Config: c, Local: local(t, "counter")}).Status(t.Context())
	if s.GetDataDirectory() != "" || !strings.Contains(s.GetDurability(), "lost when this process exits") {
		t.Errorf("data %q, promise %q", s.GetDataDirectory(), s.GetDurability())
	}
}

func TestPagesOfTheAdminPort(t *testing.T) {
	n := started(t, Options{Local: local(t, "counter")})
	increment(t, n, "a")
	for path, want := range map[string]string{
		"/":       "millrace admin: /status",
		"/livez":  "ok\n",
		"/readyz": "ready\n",
		"/status": `"app": "millrace"`,
	} {
		if code, body := page(t, n, path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, %s", path, code, body)
		}
	}
	for _, path := range []string{"/debug/pprof/", "/absent"} {
		if code, _ := page(t, n, path); code != http.StatusNotFound {
			t.Errorf("%s: %d, want it not to be there", path, code)
		}
	}
}

func TestProfilesAreServedOnRequest(t *testing.T) {
	c := testConfig(t)
	c.DebugEndpoints = true
	n := started(t, Options{Config: c, Local: local(t, "counter")})
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/cmdline"} {
		if code, body := page(t, n, path); code != http.StatusOK || body == "" {
			t.Errorf("%s: %d, %.100s", path, code, body)
		}
	}
}

// A scrape shows every task, loop and partition, and every metric is well formed.
func TestMetricsShowEveryLoop(t *testing.T) {
	n := started(t, Options{Local: local(t, "counter")})
	increment(t, n, "a")
	for _, header := range [][]string{{"millrace-consistency", "eventual"}, {"millrace-max-staleness", "500ms"}} {
		read(t, n, "a", header...)
	}
	code, body := page(t, n, "/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d: %s", code, body)
	}
	line := regexp.MustCompile(`^(# (HELP|TYPE) .*|[a-z_0-9]+(\{[^{}]*\})? \S+)$`)
	for text := bufio.NewScanner(strings.NewReader(body)); text.Scan(); {
		if !line.MatchString(text.Text()) {
			t.Errorf("not a line of a scrape: %s", text.Text())
		}
	}
	wanted := []string{
		"millrace_node_ready_state 1", `millrace_node_loop_healthy{loop="log"} 1`, `millrace_node_loop_healthy{loop="store"} 1`,
		"millrace_host_commands_total 3", "millrace_host_open_sessions 1", "millrace_log_commits_total", "millrace_pebblestore_compactions_total",
		`millrace_partitions_staleness_seconds_count{by="owner",consistency="eventual",type="counter"} 1`,
		`millrace_partitions_largest_staleness_seconds{by="owner",consistency="bounded",type="counter"} 0`,
		`millrace_partitions_promised_staleness_seconds{by="owner",consistency="bounded",type="counter"} 0.5`,
		"millrace_gateway_", "millrace_materializer_remaining_records", "go_goroutines",
	}
	for _, task := range n.group.Status() {
		wanted = append(wanted, fmt.Sprintf("millrace_node_task_running{task=%q}", task.Name), fmt.Sprintf("millrace_node_task_errors_total{task=%q} 0", task.Name))
	}
	for p := range n.config.Partitions {
		wanted = append(wanted, fmt.Sprintf("millrace_partitions_state_code{partition=\"%d\"} 3", p))
	}
	mustContain(t, "the scrape", body, wanted...)
}

// Before the function is there, and while the node ends, readyz says why callers should wait.
func TestReadyzBeforeAndAfter(t *testing.T) {
	c := testConfig(t)
	c.Function = freeAddress(t)
	n := launch(t, Options{Config: c})
	select {
	case <-n.Waiting():
	case <-time.After(patience):
		t.Fatalf("never waited for the function alone: %v", n.NotReady())
	}
	if code, body := page(t, n, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "waiting for the user function at "+c.Function) {
		t.Errorf("%d: %s", code, body)
	}
	if _, err := adminv1.NewAdminServiceClient(dial(t, n.AdminAddress())).Descriptors(t.Context(),
		&adminv1.DescriptorsRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("descriptors of a function that is not there: %v", err)
	}
	if lines := n.Try("millrace"); lines != nil {
		t.Errorf("it proposes %q, and nothing is served", lines)
	}
	eventually(t, "the function's trouble in the status", func() bool {
		return strings.Contains(taskOf(t, n, taskFunction).GetLastError(), "connection refused")
	})
	n.Stop()
	if err := n.NotReady(); !errors.Is(err, errStopping) {
		t.Errorf("while it ends it is not ready because: %v", err)
	}
}

// What was answered is there again after a stop in order, and after the store was deleted or
// damaged.
func TestStateSurvives(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, store string)
		noted string
	}{
		{name: "a stop"},
		{name: "a deleted store", spoil: func(t *testing.T, store string) {
			if err := os.RemoveAll(store); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a damaged store", noted: "it was damaged and is rebuilt from the log", spoil: func(t *testing.T, store string) {
			manifests, err := filepath.Glob(filepath.Join(store, "MANIFEST-*"))
			if err != nil || len(manifests) == 0 {
				t.Fatalf("manifests of %s: %v, %v", store, manifests, err)
			}
			for _, m := range manifests {
				if err := os.WriteFile(m, []byte("not what it was"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := testConfig(t)
			n := started(t, Options{Config: c, Local: local(t, "counter")})
			increment(t, n, "a")
			end(t, n)
			if tc.spoil != nil {
				tc.spoil(t, n.storeDirectory())
			}
			n = started(t, Options{Config: c, Local: local(t, "counter")})
			if got := increment(t, n, "a"); got != 2 {
				t.Errorf("the counter stands at %d, want 2", got)
			}
			if got := taskOf(t, n, loopStore).GetLastError(); !strings.Contains(got, tc.noted) ||
				(got == "") != (tc.noted == "") {
				t.Errorf("the status says %q of the store, want %q", got, tc.noted)
			}
		})
	}
}

func TestSecondNodeIsRefused(t *testing.T) {
	c := testConfig(t)
	n := started(t, Options{Config: c, Local: local(t, "counter")})
	_, err := Start(t.Context(), Options{Config: c, Local: local(t, "counter")})
	if err == nil {
		t.Fatal("a second node started on the same directory")
	}
	mustContain(t, "the error", err.Error(), "the data directory "+c.Data+" is in use by another process: stop that one, or choose another directory with --data")
	if got := increment(t, n, "a"); got != 1 {
		t.Errorf("the first node counts %d", got)
	}
}

func TestTakenPortNamesItsSetting(t *testing.T) {
	n := started(t, Options{Local: local(t, "counter")})
	for setting, take := range map[string]func(*Config){
		"listen": func(c *Config) { c.Listen = n.PublicAddress() },
		"admin":  func(c *Config) { c.Admin = n.AdminAddress() },
	} {
		c := testConfig(t)
		take(c)
		_, err := Start(t.Context(), Options{Config: c, Local: local(t, "counter")})
		if err == nil {
			t.Fatalf("a second node took the port of --%s", setting)
		}
		mustContain(t, "the error", err.Error(), "open port 127.0.0.1:",
			"address already in use; choose another with --"+setting)
	}
}

func TestServicesThatCannotBeServedEndTheNode(t *testing.T) {
	n := launchFailing(t, Options{Local: specOnly{}})
	if err := n.Wait(); err == nil || !strings.Contains(err.Error(), "task function") || !strings.Contains(err.Error(), "service t.Missing is not in the descriptors") {
		t.Errorf("the node ended with %v", err)
	}
}

// launchFailing starts a node of which nothing good is expected.
func launchFailing(t *testing.T, o Options) *Node {
	t.Helper()
	o.Config = testConfig(t)
	n, err := Start(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A call that has begun is answered before the node is gone.
func TestStopLetsCallsEnd(t *testing.T) {
	gate := newGate(t)
	n := started(t, Options{Local: gate})
	answered := make(chan error, 1)
	go func() { // ends with the call; received below
		_, err := counterv1.NewCounterServiceClient(dial(t, n.PublicAddress())).Increment(t.Context(),
			&counterv1.IncrementRequest{CounterId: "a"})
		answered <- err
	}()
	receive(t, "the call to reach the function", gate.entered)
	n.Stop()
	<-n.Done()
	close(gate.open)
	if err := receive(t, "the call to end", answered); err != nil {
		t.Errorf("the call ended with %v, want its answer", err)
	}
	if err := n.Wait(); err != nil {
		t.Error(err)
	}
}

// A call that does not end is cut after drain-timeout, and the node ends all the same.
func TestStopDoesNotWaitForEver(t *testing.T) {
	gate := newGate(t)
	c := testConfig(t)
	c.DrainTimeout = 50 * time.Millisecond
	n := started(t, Options{Config: c, Local: gate})
	answered := make(chan error, 1)
	go func() { // ends with the call; received below
		_, err := counterv1.NewCounterServiceClient(dial(t, n.PublicAddress())).Increment(t.Context(),
			&counterv1.IncrementRequest{CounterId: "a"})
		answered <- err
	}()
	receive(t, "the call to reach the function", gate.entered)
	n.Stop()
	if err := receive(t, "the call to end", answered); err == nil {
		t.Error("the call succeeded, though its function never answered")
	}
	close(gate.open) // a function in this process cannot be cut off
	if err := n.Wait(); err != nil {
		t.Error(err)
	}
}

func TestStopRightAfterStart(t *testing.T) {
	for range 20 {
		end(t, launch(t, Options{Local: local(t, "counter")}))
	}
}

// A partition that is to be this worker's and is not yet is behind the log by records, and by the
// age of the first that it has not read. One that is another worker's is not behind anything.
func TestLagOfAPartitionThatIsNotOwned(t *testing.T) {
	clk := clocktest.NewManual(time.Unix(1700000000, 0))
	world := simlog.New(simlog.Options{ManualAssignments: true, Clock: clk})
	c := testConfig(t)
	c.Ephemeral = true
	n := launch(t, Options{Config: c, Local: local(t, "counter"), Log: world.Client("w"), Clock: clk})
	eventually(t, "to be no member yet", func() bool {
		err := n.NotReady()
		return err != nil && err.Error() == "not a member of the group yet"
	})
	if err := world.AwaitMember(t.Context(), c.App, n.identity.Worker); err != nil {
		t.Fatal(err)
	}
	world.Assign(c.App, n.identity.Worker, broker.AssignmentEvent{Table: &broker.Table{
		Members: []broker.Member{{Name: "another"}, {Name: n.identity.Worker}}, Owners: []int32{0, 1},
		Standbys: [][]int32{nil, nil},
	}})
	eventually(t, "the table", func() bool { return n.routes.Current() != nil })
	for range 3 {
		world.Inject(broker.Partition{Topic: n.journal(), ID: 0}, broker.Record{Value: []byte("x")})
		world.Inject(broker.Partition{Topic: n.journal(), ID: 1}, broker.Record{Value: []byte("x")})
	}
	clk.Advance(90 * time.Second)
	partitions := n.Status(t.Context()).GetPartitions()
	if p := partitions[0]; p.GetLagRecords() != 0 || p.GetLagSeconds() != 0 {
		t.Errorf("the other worker's partition: %v", p)
	}
	if p := partitions[1]; p.GetState() != "standby" || p.GetEndOffset() != 3 || p.GetLagRecords() != 3 ||
		p.GetLagSeconds() != 90 {
		t.Errorf("the partition with records: %v", p)
	}
	eventually(t, "the partition to be the reason why the node is not ready", func() bool {
		err := n.NotReady()
		return err != nil && err.Error() == "partition 1 is standby"
	})
}

// The store is flushed when something was written, and not otherwise.
func TestStoreIsFlushedNowAndThen(t *testing.T) {
	clk := clocktest.NewManual(time.Unix(0, 0))
	n := &Node{process: newProcess(Options{Clock: clk})}
	written, flushed, results := uint64(1), make(chan struct{}), make(chan error)
	n.written = func() uint64 { return written }
	n.store = flushable{flush: func() error {
		flushed <- struct{}{}
		return <-results
	}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.flushStore(ctx) }() // ends with ctx; received below
	tick := func() {
		eventually(t, "the task to wait", func() bool { return clk.Waiting() == 1 })
		clk.Advance(flushEvery)
	}
	tick()
	<-flushed
	results <- errors.New("no space left on device")
	eventually(t, "the trouble", func() bool { return n.troubles.of(taskFlush).counted == 1 })
	tick() // what could not be flushed is tried again
	<-flushed
	results <- nil
	tick() // nothing was written since
	eventually(t, "the task to wait", func() bool { return clk.Waiting() == 1 })
	if got := n.troubles.of(taskFlush); got.err != nil || got.counted != 1 {
		t.Errorf("trouble %+v, want one that is over", got)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
