package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/host"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
)

// countersFile defines the rows of the counters.
const countersFile = `apiVersion: millrace/v1
kind: Projection
metadata: {name: counters, version: 1}
spec:
  row: {counter_id: string, value: {type: int64, number: 2}}
  key: [counter_id]
  from:
    - entity: counter
      state: {type: State, set: {value: '${state.value}'}}
`

// define writes files of definitions into a directory, which it returns.
func define(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// incrementAt increments a counter, and returns the token of that.
func incrementAt(t *testing.T, address, id string) (value int64, token string) {
	t.Helper()
	var header metadata.MD
	res, err := counterv1.NewCounterServiceClient(dial(t, address)).Increment(t.Context(),
		&counterv1.IncrementRequest{CounterId: id}, grpc.Header(&header))
	if err != nil {
		t.Fatal(err)
	}
	return res.GetValue(), strings.Join(header.Get("millrace-token"), "")
}

// row is what the query service of the counters answers.
type row struct {
	Counters struct {
		CounterID string `json:"counterId"`
		Value     string
	}
	Token string
}

// getRow asks for the row of a counter over HTTP/JSON, with a token if that is not empty.
func getRow(t *testing.T, address, id, token string) (code int, got row, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		"http://"+address+"/v1/counters:get?counter_id="+url.QueryEscape(id), nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Millrace-Min-Token", token)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	_ = json.Unmarshal(b, &got)
	return answer.StatusCode, got, string(b)
}

// awaitQueries waits until the counters can be asked for.
func awaitQueries(t *testing.T, address string) {
	t.Helper()
	incrementAt(t, address, "first")
	eventually(t, "the rows of the counters", func() bool {
		code, _, _ := getRow(t, address, "first", "")
		return code == http.StatusOK
	})
}

// mustReadOwnWrites writes and asks with the token of the write, at two addresses.
func mustReadOwnWrites(t *testing.T, writeAt, readAt string, times int) {
	t.Helper()
	for i := range times {
		id := fmt.Sprint("c", i%7)
		value, token := incrementAt(t, writeAt, id)
		code, got, text := getRow(t, readAt, id, token)
		if code != http.StatusOK || got.Counters.CounterID != id || got.Counters.Value != fmt.Sprint(value) {
			t.Fatalf("the row of %s with the token of %d: %d %s", id, value, code, text)
		}
	}
}

// TestReadYourWrite: a file in the directory of definitions becomes rows and a service, and a
// caller with the token of a write gets a row that has it.
func TestReadYourWrite(t *testing.T) {
	c := testConfig(t)
	c.Definitions = t.TempDir()
	define(t, c.Definitions, map[string]string{"counters.yaml": countersFile})
	n := started(t, Options{Config: c, Local: local(t, "counter")})
	awaitQueries(t, n.PublicAddress())
	mustReadOwnWrites(t, n.PublicAddress(), n.PublicAddress(), 50)
}

// TestReadYourWriteOfSeveralWorkers: rows are where the partitions are; each worker and a gateway
// answers about all of them, and with the token of a write by what was written. So does a worker
// that comes later, and has no directory of definitions.
func TestReadYourWriteOfSeveralWorkers(t *testing.T) {
	dir := t.TempDir()
	define(t, dir, map[string]string{"counters.yaml": countersFile})
	a := &app{t: t, world: simlog.New(simlog.Options{}), definitions: dir}
	for range 3 {
		a.add()
	}
	a.balanced()
	for _, n := range a.workers {
		awaitQueries(t, n.PublicAddress())
	}
	for i := range a.workers {
		mustReadOwnWrites(t, a.workers[i].PublicAddress(), a.workers[(i+1)%3].PublicAddress(), 20)
	}
	a.definitions = ""
	last := a.add()
	a.balanced()
	awaitQueries(t, last.PublicAddress())
	mustReadOwnWrites(t, a.workers[0].PublicAddress(), last.PublicAddress(), 20)
	g := startGateway(t, a)
	awaitQueries(t, g.PublicAddress())
	mustReadOwnWrites(t, g.PublicAddress(), g.PublicAddress(), 20)
}

// TestQueriesAfterARestart: a worker that starts again serves the queries that it knew, before it
// says that it is ready; and a token of before counts.
func TestQueriesAfterARestart(t *testing.T) {
	c := testConfig(t)
	c.Definitions = t.TempDir()
	define(t, c.Definitions, map[string]string{"counters.yaml": countersFile})
	n := started(t, Options{Config: c, Local: local(t, "counter")})
	awaitQueries(t, n.PublicAddress())
	value, token := incrementAt(t, n.PublicAddress(), "a")
	end(t, n)
	again := *c
	again.Definitions = ""
	n = started(t, Options{Config: &again, Local: local(t, "counter")})
	code, _, text := getRow(t, n.PublicAddress(), "a", "")
	if code != http.StatusOK && code != http.StatusServiceUnavailable {
		t.Errorf("right after the start: %d %s", code, text)
	}
	eventually(t, "the row of before", func() bool {
		code, got, _ := getRow(t, n.PublicAddress(), "a", token)
		return code == http.StatusOK && got.Counters.Value == fmt.Sprint(value)
	})
	if !n.readSide.definitions.Known() || n.NotReady() != nil {
		t.Errorf("the definitions are known: %t; %v", n.readSide.definitions.Known(), n.NotReady())
	}
}

// TestFilesAreAppliedAgain: with dev, a changed file takes effect without another version; a wrong
// one changes nothing, and the status says why.
func TestFilesAreAppliedAgain(t *testing.T) {
	c := testConfig(t)
	c.Definitions = filepath.Join(t.TempDir(), "definitions") // it is not there yet
	n := started(t, Options{Config: c, Local: local(t, "counter"), Dev: true})
	if err := os.Mkdir(c.Definitions, 0o700); err != nil {
		t.Fatal(err)
	}
	define(t, c.Definitions, map[string]string{"counters.yaml": countersFile})
	awaitQueries(t, n.PublicAddress())
	change := func(to string) {
		define(t, c.Definitions, map[string]string{"counters.yaml": strings.Replace(countersFile, "state.value}", to, 1)})
	}
	change("state.absent}")
	eventually(t, "the trouble with the file", func() bool {
		return strings.Contains(taskOf(t, n, taskDefinitionFiles).GetLastError(), "absent")
	})
	mustReadOwnWrites(t, n.PublicAddress(), n.PublicAddress(), 5)
	change("state.value * 100}")
	eventually(t, "rows of the new fold", func() bool {
		value, token := incrementAt(t, n.PublicAddress(), "first")
		code, got, _ := getRow(t, n.PublicAddress(), "first", token)
		return code == http.StatusOK && got.Counters.Value == fmt.Sprint(100*value)
	})
	if got := taskOf(t, n, taskDefinitionFiles).GetLastError(); got != "" {
		t.Errorf("the trouble is over, and the status says %q", got)
	}
}

// TestMissingDirectoryOfDefinitions ends a worker that is not one of dev before it takes anything.
func TestMissingDirectoryOfDefinitions(t *testing.T) {
	c := testConfig(t)
	c.Definitions = filepath.Join(t.TempDir(), "absent")
	n, err := Start(t.Context(), Options{Config: c, Local: local(t, "counter")})
	if err == nil {
		end(t, n)
		t.Fatal("it has started")
	}
	mustContain(t, "the error", err.Error(), c.Definitions, "--definitions")
}

// TestCommandsGoOnWithoutViews: where rows cannot be written, queries say so; commands and the
// readiness of the worker do not depend on it.
func TestCommandsGoOnWithoutViews(t *testing.T) {
	c := testConfig(t)
	c.Definitions = t.TempDir()
	define(t, c.Definitions, map[string]string{"counters.yaml": countersFile})
	if err := os.WriteFile(filepath.Join(c.Data, loopViews), []byte("no directory"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := started(t, Options{Config: c, Local: local(t, "counter")})
	eventually(t, "the status to say why there are no rows", func() bool {
		return strings.Contains(taskOf(t, n, taskProjections).GetLastError(), loopViews)
	})
	for want := int64(1); want < 5; want++ {
		if got := increment(t, n, "a"); got != want {
			t.Errorf("the counter stands at %d, want %d", got, want)
		}
	}
	eventually(t, "the query to be refused", func() bool { // it is served a moment after the rows are wanted
		code, _, _ := getRow(t, n.PublicAddress(), "a", "")
		return code == http.StatusServiceUnavailable
	})
	if err := n.NotReady(); err != nil {
		t.Errorf("it is not ready: %v", err)
	}
}

// TestTheFunctionCounts: a function whose routes are those of the queries is served, and the
// queries are not.
func TestTheFunctionCounts(t *testing.T) {
	n := started(t, Options{Local: local(t, "counter")})
	serveOwn(t, n, ownerQueries, newQueries(t, "millrace.query.pricing"))
	if err := call(t, n.PublicAddress(), queryService+"/Quote"); err != nil {
		t.Fatal(err)
	}
	f, err := host.NewInProcess(local(t, "pricing"), n.hosting(), discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.attach(f); err != nil {
		t.Fatal(err)
	}
	if err := call(t, n.PublicAddress(), queryService+"/Quote"); status.Code(err) != codes.Unimplemented {
		t.Errorf("the query is served in spite of the function: %v", err)
	}
	err = call(t, n.PublicAddress(), "pricing.v1.PricingService/Quote")
	if status.Code(err) != codes.NotFound { // there is no price for an item without a name
		t.Errorf("the function is not served: %v", err)
	}
	mustContain(t, "the status", taskOf(t, n, taskDefinitions).GetLastError(), "the user function contradicts the queries")
}
