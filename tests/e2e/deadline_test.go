package e2e_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kafkaserver"
	"github.com/millrace-io/millrace/tests/kit"
)

const (
	// callerDeadline is the deadline of callers whose function is stopped, letGoWithin the time in
	// which they must be answered.
	callerDeadline = 300 * time.Millisecond
	letGoWithin    = 600 * time.Millisecond
)

// door is one protocol: a request with a deadline, and what the answer says of a passed one.
type door struct {
	name        string
	contentType string
	deadline    [2]string // a header; long has a minute
	long        string
	framed      bool // the body is a gRPC frame
	json        bool
	status      int
	says        string
}

var doors = []door{
	{
		name: "gRPC", contentType: "application/grpc", deadline: [2]string{"Grpc-Timeout", "300m"}, long: "1M",
		framed: true, status: http.StatusOK, says: "grpc-status: 4",
	},
	{
		name: "gRPC-Web", contentType: "application/grpc-web+proto",
		deadline: [2]string{"Grpc-Timeout", "300m"}, long: "1M",
		framed: true, status: http.StatusOK, says: "grpc-status: 4",
	},
	{
		name: "Connect", contentType: "application/proto", deadline: [2]string{"Connect-Timeout-Ms", "300"}, long: "60000",
		status: http.StatusGatewayTimeout, says: "deadline_exceeded",
	},
	{
		name: "HTTP/JSON", contentType: "application/json", deadline: [2]string{"X-Server-Timeout", "0.3"}, long: "60",
		json: true, status: http.StatusGatewayTimeout, says: `"code":4`,
	},
}

// increment calls Increment by a door, and returns the status, everything else that the answer has,
// in lower case, and how long it took.
func (d *door) increment(
	t *testing.T, address, id string, withDeadline bool,
) (status int, all string, took time.Duration) {
	t.Helper()
	body, err := proto.Marshal(&counterv1.IncrementRequest{CounterId: id, By: 1})
	if err != nil {
		t.Fatal(err)
	}
	if d.json {
		body = fmt.Appendf(nil, `{"counter_id":%q,"by":1}`, id)
	}
	if d.framed {
		body = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	}
	url := "http://" + address + counterv1.CounterService_Increment_FullMethodName
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", d.contentType)
	transport := &http.Transport{}
	if d.name == "gRPC" {
		req.Header.Set("Te", "trailers")
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	if withDeadline {
		req.Header.Set(d.deadline[0], d.deadline[1])
	}
	defer transport.CloseIdleConnections()
	began := time.Now()
	res, err := (&http.Client{Transport: transport, Timeout: kit.Patience}).Do(req)
	if err != nil {
		t.Fatalf("%s at %s: %v", d.name, address, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	took = time.Since(began)
	if err != nil {
		t.Fatalf("%s at %s: %v", d.name, address, err)
	}
	var text strings.Builder
	for _, header := range []http.Header{res.Header, res.Trailer} {
		for name, values := range header {
			fmt.Fprintf(&text, "%s: %s\n", name, strings.Join(values, ", "))
		}
	}
	text.Write(answer)
	return res.StatusCode, strings.ToLower(text.String()), took
}

// isLetGo calls by a door while the function is stopped, and reports whether the call was denied:
// it ended before the function had the command, as when the partition of the entity moves.
func (d *door) isLetGo(t *testing.T, place, address, id string) (denied bool) {
	t.Helper()
	if d.name == "gRPC" && d.deadline[1] != d.long && d.deadline[0] == "Grpc-Timeout" {
		// The client's own clock ends the call, and grpc-go resets the stream: no trailer tells the
		// outcome.
		ctx, cancel := context.WithTimeout(t.Context(), callerDeadline)
		defer cancel()
		began := time.Now()
		_, err := counterv1.NewCounterServiceClient(kit.Dial(t, address)).
			Increment(ctx, &counterv1.IncrementRequest{CounterId: id, By: 1})
		says(t, err, codes.DeadlineExceeded)
		if took := time.Since(began); took > letGoWithin {
			t.Errorf("gRPC at the %s: answered after %v", place, took)
		}
		return false
	}
	status, all, took := d.increment(t, address, id, true)
	denied = strings.Contains(all, "millrace-outcome: not_applied")
	if status != d.status || !strings.Contains(all, d.says) ||
		!denied && !strings.Contains(all, "millrace-outcome: unknown") {
		t.Errorf("%s at the %s: status %d, want %d with %q, and the outcome:\n%s",
			d.name, place, status, d.status, d.says, all)
	}
	if took < callerDeadline-50*time.Millisecond || took > letGoWithin {
		t.Errorf("%s at the %s: answered after %v", d.name, place, took)
	}
	return denied
}

// TestDeadlinesLetCallersGo: while the function is stopped, callers are answered at their deadline,
// by each protocol, at two workers, one of which owns the entity, and at a gateway, for entities in
// memory and for those whose session has to be opened. What the function had is decided when it
// goes on, unless its partition moves, and every entity answers.
func TestDeadlinesLetCallersGo(t *testing.T) {
	broker := kafkaserver.Start(t, kafkaserver.Options{}).Addr()
	function := harness.StartRemote(t, harness.Counter)
	run := func(command string, more ...string) *harness.Process {
		return harness.Start(t, harness.Options{
			Command: command, Args: append([]string{"--app", "counters", "--brokers", broker}, more...),
		})
	}
	places := map[string]*harness.Process{
		"first worker":  run("run", "--worker", "first", "--function", function.Address()),
		"second worker": run("run", "--worker", "second", "--function", function.Address()),
		"gateway":       run("gateway"),
	}
	each := func(do func(place, address, id string, d *door)) {
		for place, p := range places {
			for i := range doors {
				for _, kind := range []string{"active", "passive"} {
					id := strings.ReplaceAll(strings.Join([]string{kind, place, doors[i].name}, "-"), " ", "-")
					do(place, p.Public(), id, &doors[i])
				}
			}
		}
	}
	kit.AwaitWithin(t, time.Minute, "all to answer", func() bool {
		ok := true
		for _, p := range places {
			status, _, _ := doors[3].increment(t, p.Public(), "warm", false)
			ok = ok && status == http.StatusOK
		}
		return ok
	})
	each(func(_, address, id string, d *door) {
		if strings.HasPrefix(id, "active") {
			if status, all, _ := d.increment(t, address, id, false); status != http.StatusOK {
				t.Fatalf("%s of %s: %d\n%s", d.name, id, status, all)
			}
		}
	})
	function.Pause(t)
	denied := map[string]bool{}
	each(func(place, address, id string, d *door) { denied[id] = d.isLetGo(t, place, address, id) })
	function.Resume(t)
	decided := 0
	each(func(_, address, id string, _ *door) {
		withdrawn, applied := `"value":"1"`, `"value":"2"`
		if strings.HasPrefix(id, "active") {
			withdrawn, applied = applied, `"value":"3"`
		}
		switch status, all, _ := doors[3].increment(t, address, id, false); {
		case strings.Contains(all, applied) && !denied[id]:
			decided++
		case status != http.StatusOK || !strings.Contains(all, withdrawn):
			t.Errorf("%s: after the caller left, the next command is answered %d\n%s", id, status, all)
		}
	})
	t.Logf("of %d commands whose callers left, %d were decided later", 2*len(places)*len(doors), decided)
	if decided == 0 {
		t.Error("no command of a caller that left was decided")
	}
}

// TestDeadlinesEndTheWaitForAnOwner: callers at a gateway whose only worker was killed are answered
// at their deadline, and told that nothing was applied. Then the gateway, whose terminal is closed,
// ends in order.
func TestDeadlinesEndTheWaitForAnOwner(t *testing.T) {
	broker := kafkaserver.Start(t, kafkaserver.Options{}).Addr()
	function := harness.StartRemote(t, harness.Counter)
	app := []string{"--app", "counters", "--brokers", broker}
	worker := harness.Start(t, harness.Options{Command: "run", Args: append(app, "--function", function.Address())})
	gateway := harness.Start(t, harness.Options{Command: "gateway", Args: app})
	kit.AwaitWithin(t, time.Minute, "the gateway to reach the worker", func() bool {
		status, _, _ := doors[3].increment(t, gateway.Public(), "warm", false)
		return status == http.StatusOK
	})
	worker.Kill(t)
	for _, d := range doors {
		native := d.name == "gRPC" // its client ends the call and gets no outcome
		if denied := d.isLetGo(t, "gateway", gateway.Public(), d.name); !denied && !native {
			t.Errorf("%s: the caller is not told that nothing was applied", d.name)
		}
	}
	gateway.Signal(t, syscall.SIGHUP)
	if code := gateway.AwaitExit(t); code != 0 || !strings.Contains(gateway.Output(t), "shutting down (hangup)") {
		t.Errorf("exit code %d\n%s", code, gateway.Output(t))
	}
}

// TestDeadlinesEndTheWaitForAFunction: callers of a worker that has not found its function yet.
func TestDeadlinesEndTheWaitForAFunction(t *testing.T) {
	worker := harness.Launch(t, harness.Options{Command: "run", Args: []string{"--function", kit.FreeAddress(t)}})
	kit.Await(t, "the worker to listen", func() bool {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", worker.Public())
		if err == nil {
			err = conn.Close()
		}
		return err == nil
	})
	for _, d := range doors {
		if denied := d.isLetGo(t, "worker", worker.Public(), d.name); !denied && d.name != "gRPC" {
			t.Errorf("%s: the caller is not told that nothing was applied", d.name)
		}
	}
}

// TestCallTimeoutIsACap: calls without a deadline, or with a longer one, end at call-timeout.
func TestCallTimeoutIsACap(t *testing.T) {
	function := harness.StartRemote(t, harness.Counter)
	worker := harness.Start(t, harness.Options{
		Command: "run", Args: []string{"--function", function.Address(), "--call-timeout", "300ms"},
	})
	for _, d := range doors {
		if status, all, _ := d.increment(t, worker.Public(), d.name, false); status != http.StatusOK {
			t.Fatalf("%s: %d\n%s", d.name, status, all)
		}
	}
	function.Pause(t)
	defer function.Resume(t)
	for _, d := range doors {
		for _, header := range [][2]string{{"X-Unused", "1"}, {d.deadline[0], d.long}} {
			d.deadline = header
			if d.isLetGo(t, "worker", worker.Public(), d.name+header[0]) {
				t.Errorf("%s: denied, and the function had it", d.name)
			}
		}
	}
}
