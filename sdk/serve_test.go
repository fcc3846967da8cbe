package sdk_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	"github.com/millrace-io/millrace/proto/gen/cloudstate/eventsourced"
	"github.com/millrace-io/millrace/sdk"
)

// readyLog is a log that reports the address at which a function says that it is ready.
type readyLog struct {
	mu      sync.Mutex
	written bytes.Buffer
	address chan string
}

func (l *readyLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written.Write(line)
	if _, rest, ok := strings.Cut(string(line), `msg="function is ready" address=`); ok {
		address, _, _ := strings.Cut(rest, " ")
		l.address <- address
	}
	return len(line), nil
}

func (l *readyLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written.String()
}

// captureLog takes the default log over for one test.
func captureLog(t *testing.T) *readyLog {
	t.Helper()
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	log := &readyLog{address: make(chan string, 1)}
	slog.SetDefault(slog.New(slog.NewTextHandler(log, nil)))
	return log
}

// Serve answers until its context ends, then ends the stream of an idle entity and returns without
// an error. The address is that of the environment when none is given.
func TestServeUntilTheContextEnds(t *testing.T) {
	t.Setenv("HOST", "127.0.0.1")
	t.Setenv("PORT", "0")
	log := captureLog(t)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- sdk.Serve(ctx, "", journalService(), cellService(), flowService()) }()

	conn, err := grpc.NewClient(<-log.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := cloudstate.NewEntityDiscoveryClient(conn).Discover(t.Context(), &cloudstate.ProxyInfo{}); err != nil {
		t.Fatal(err)
	}
	idle := function{conn: conn}.journal(t).send(journalInit(nil)).send(journalCommand(t, 1)).
		expect(journalReply(&eventsourced.EventSourcedReply{CommandId: 1, ClientAction: replyAction(t, "")}))
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve returned %v", err)
	}
	if _, err := idle.stream.Recv(); err == nil {
		t.Error("the idle stream goes on")
	}
}

func TestServeNamesAnAddressThatIsTaken(t *testing.T) {
	var config net.ListenConfig
	taken, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := taken.Close(); err != nil {
			t.Error(err)
		}
	}()
	err = sdk.Serve(t.Context(), taken.Addr().String(), cellService())
	if err == nil || !strings.Contains(err.Error(), "sdk: listen on "+taken.Addr().String()) ||
		!strings.Contains(err.Error(), "set HOST and PORT") {
		t.Errorf("got %v", err)
	}
}

// The log has what the caller does not get: which command crashed, why, and where.
func TestACrashIsLoggedWithItsStack(t *testing.T) {
	log := captureLog(t)
	f := startAll(t)
	f.journal(t).send(journalInit(nil)).send(journalCommand(t, 1, panics("boom"))).
		expect(journalFailure(1, "script.v1.JournalService/Run of journal/e1: panic: boom")).expectEnd()
	for _, want := range []string{`msg="command crashed"`, "service=script.v1.JournalService", "method=Run", "entity=journal/e1", `error="panic: boom"`, "script_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %s:\n%s", want, log)
		}
	}
}
