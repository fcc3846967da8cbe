package cli

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/examples/counter/counter"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/internal/app/node"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/tests/kit"
)

// testdata is the path of a file of this package, wherever the test goes afterwards.
func testdata(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(source, "testdata", name)
}

// source is where this package lies; tests begin there.
var source, _ = os.Getwd()

func mustContain(t *testing.T, what, text string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", what, want, text)
		}
	}
}

func TestBannerSaysWhatThereIs(t *testing.T) {
	t.Chdir(t.TempDir())
	s := tool(t).serveIn(t, "dev", "--data", "here", "--app", "shop")
	s.connect(t)
	s.stdout.await(t, "log tail")
	mustContain(t, "the banner", s.stdout.String(),
		"millrace dev "+Version()+" · app shop · worker w-", "\nno authentication, plaintext, loopback only\n",
		"  public     http://127.0.0.1:", "  admin      http://127.0.0.1:", "  log        embedded\n",
		"  data       here\n", "  durability synced to disk before every answer",
		"  shop.v1.CartService        event sourced entity cart, in process\n",
		"  curl -H 'content-type: application/json' -d '{\"item_id\"", "/v1/carts/42/items\n",
		" get cart/42 --admin 127.0.0.1:")
	if code := s.stop(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, s.stderr)
	}
	mustContain(t, "standard error", s.stderr.String(),
		"shutting down: waiting for in-flight calls; press Ctrl-C again to force\n")
}

func TestBannerWarnsOfOpenPorts(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:9000": "no authentication, plaintext, loopback only",
		"[::1]:9000":     "no authentication, plaintext, loopback only",
		"0.0.0.0:9000":   "WARNING: no authentication, plaintext: anyone who can reach 0.0.0.0:9000 can read and change all data",
		"[::]:9000":      "WARNING: no authentication, plaintext: anyone who can reach [::]:9000 can read and change all data",
		"10.0.0.7:9000":  "WARNING: no authentication, plaintext: anyone who can reach 10.0.0.7:9000 can read and change all data",
	} {
		for _, s := range []*adminv1.StatusResponse{
			{PublicAddress: address, AdminAddress: "127.0.0.1:9001"}, {PublicAddress: "127.0.0.1:9000", AdminAddress: address},
		} {
			if got := profile(s); got != want {
				t.Errorf("%s: %q, want %q", address, got, want)
			}
		}
	}
}

// While the function is missing the banner says where everything is, and what is waited for; the
// rest comes with the function.
func TestBannerComesInTwoParts(t *testing.T) {
	t.Chdir(t.TempDir())
	address := kit.FreeAddress(t)
	s := Program{}.serveIn(t, "run", "--ephemeral", "--function", address)
	s.stdout.await(t, "(?s)millrace run.*public.*durability.*waiting for the user function at "+address+"(: dial tcp [^\n]*refused)?\n")
	if text := s.stdout.String(); strings.Contains(text, "serves:") {
		t.Errorf("it serves something already:\n%s", text)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- sdk.Serve(ctx, address, counter.Service) }() // ends with ctx; received below
	s.connect(t)
	s.stdout.await(t, "log tail")
	if text := s.stdout.String(); strings.Count(text, "public") != 1 ||
		!strings.Contains(text, "value entity counter, remote at "+address) {
		t.Errorf("the banner is:\n%s", text)
	}
	if code := s.stop(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, s.stderr)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A node that is stopped while it waits for its function ends in order.
func TestStopBeforeReady(t *testing.T) {
	t.Chdir(t.TempDir())
	s := Program{}.serveIn(t, "run", "--ephemeral", "--function", kit.FreeAddress(t))
	s.stdout.await(t, "waiting for the user function")
	if code := s.stop(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, s.stderr)
	}
}

// A program that hosts its own functions is dev without a command.
func TestDefaultCommand(t *testing.T) {
	t.Chdir(t.TempDir())
	p := Program{Name: "counter", Local: function(t, counter.Service), Default: "dev"}
	for _, args := range [][]string{{"--ephemeral"}, {"dev", "--ephemeral"}} {
		s := p.serveIn(t, args...)
		s.stdout.await(t, "counter.v1.CounterService  value entity counter, in process")
		if code := s.stop(t); code != exitOK {
			t.Errorf("%q: exit code %d: %s", args, code, s.stderr)
		}
	}
	for _, flag := range []string{"--help", "-h", "--version", "-v"} {
		if r := p.runIn(t, false, "", flag); r.code != exitOK || strings.Contains(r.stdout, "counter dev [flags]") {
			t.Errorf("%s is about the default command: %d\n%s%s", flag, r.code, r.stdout, r.stderr)
		}
	}
}

// TestHelpHasTheProgramsName: help and errors of a program are about that program, not about
// millrace, and tell what it does without a command.
func TestHelpHasTheProgramsName(t *testing.T) {
	p := Program{Name: "counter", Local: function(t, counter.Service), Default: "dev"}
	r := p.runIn(t, false, "", "--help")
	mustContain(t, "the help", r.stdout, "Without a command it runs `counter dev`.")
	if strings.Contains(r.stdout, "millrace") {
		t.Errorf("the help names millrace:\n%s", r.stdout)
	}
	for _, cmd := range p.root().Commands() {
		for _, cmd := range append(cmd.Commands(), cmd) {
			if strings.Contains(cmd.Example, "  millrace ") || strings.Contains(cmd.Long, "`millrace ") {
				t.Errorf("the help of %s names millrace:\n%s\n%s", cmd.CommandPath(), cmd.Long, cmd.Example)
			}
		}
	}
	mustContain(t, "the error", p.runIn(t, false, "", "status", "--admin", kit.FreeAddress(t)).stderr,
		"start it with `counter dev`")
}

// slowCounter is a counter whose Increment waits for the test.
func slowCounter(entered chan<- struct{}, open <-chan struct{}) *sdk.Service {
	return sdk.Value("counter",
		sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.IncrementRequest) (*counterv1.Counter, error) {
				entered <- struct{}{}
				<-open
				cmd.Update(&counterv1.State{Value: 1})
				return &counterv1.Counter{Value: 1}, nil
			}),
		sdk.HandleValue(counterv1.CounterService_Get_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.GetRequest) (*counterv1.Counter, error) {
				return &counterv1.Counter{Value: cmd.State().GetValue()}, nil
			}))
}

// The first interrupt lets calls end; the second does not wait for them.
func TestSecondInterruptEndsAtOnce(t *testing.T) {
	t.Chdir(t.TempDir())
	entered, open, insisted := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	p := Program{Local: function(t, slowCounter(entered, open)), insisted: insisted}
	s := p.serveIn(t, "dev", "--ephemeral")
	s.connect(t)
	call := make(chan result, 1)
	go func() { // ends with the call; received below
		call <- p.runIn(t, false, "", "call", "counter.v1.CounterService/Increment", "-d", `{"counter_id":"a"}`)
	}()
	<-entered
	s.interrupt()
	s.stderr.await(t, "press Ctrl-C again to force")
	close(insisted)
	if code := s.wait(t); code != exitError { // had it ended before, it would have ended well
		t.Errorf("exit code %d, want %d", code, exitError)
	}
	mustContain(t, "standard error", s.stderr.String(), "forced shutdown: in-flight calls were aborted")
	close(open) // here the process lives on, and so the node ends in order after all
	if r := <-call; r.code != exitOK {
		t.Errorf("the call: %d, %s", r.code, r.stderr)
	}
}

// TestSignals: an interrupt forces the shutdown when it comes more than a second after the first
// signal; before that it is the same one, sent to the process and to its group.
func TestSignals(t *testing.T) {
	for name, tc := range map[string]struct {
		first, then os.Signal
		after       time.Duration
		forces      bool
	}{
		"once more":        {os.Interrupt, os.Interrupt, samePress, true},
		"another one":      {syscall.SIGTERM, os.Interrupt, time.Minute, true},
		"after a hang-up":  {syscall.SIGHUP, syscall.SIGTERM, time.Minute, true},
		"to group as well": {os.Interrupt, os.Interrupt, time.Millisecond, false},
		"both":             {syscall.SIGTERM, os.Interrupt, samePress - 1, false},
		"terminal closed":  {os.Interrupt, syscall.SIGHUP, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := make(signals, 2)
				ctx, insisted, release := s.await()
				defer release()
				s <- tc.first
				<-ctx.Done()
				if got := context.Cause(ctx).Error(); got != tc.first.String() {
					t.Errorf("the cause is %q, want %q", got, tc.first)
				}
				<-time.After(tc.after)
				s <- tc.then
				synctest.Wait()
				select {
				case <-insisted:
					if !tc.forces {
						t.Error("the shutdown is forced")
					}
				default:
					if tc.forces {
						t.Error("the shutdown is not forced")
					}
				}
			})
		})
	}
}

func TestSignalsAreOptional(t *testing.T) {
	ctx, _, release := make(signals).await()
	release()
	if ctx.Err() == nil {
		t.Error("the context outlives its release")
	}
}

func TestServeRefusesWhatMakesNoSense(t *testing.T) {
	t.Chdir(t.TempDir())
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	own := Program{Name: "counter", Local: function(t, counter.Service), Default: "dev"}
	for _, tc := range []struct {
		program Program
		line    string
		code    int
		want    string
	}{
		{tool(t), "dev go run ./mycart", exitUsage, "unknown argument \"go\": put the function's command after --, as in `dev -- go`"},
		{tool(t), "dev x -- go", exitUsage, `unknown argument "x"`},
		{own, "dev -- go run ./mycart", exitUsage, `this program hosts its own functions: it cannot also start "go"`},
		{tool(t), "dev -- no-such-program-anywhere", exitError, "start the user function"},
		{tool(t), "run now", exitUsage, "expected no arguments, got: now"},
		{tool(t), "dev --partitions 3", exitUsage, "flag --partitions: setting partitions: 3 is not a power of two"},
		{tool(t), "dev --watch src", exitUsage, "--watch needs a command to restart"},
		{tool(t), "dev --watch src/[ --ephemeral -- sh", exitError, `watch pattern "src/["`},
		{tool(t), "log tail --limit -2", exitUsage, "--limit -2: must not be below zero"},
		{tool(t), "history a/b --limit -2", exitUsage, "--limit -2: must not be below zero"},
		{tool(t), "status --timeout=-1s", exitUsage, "--timeout -1s: must not be below zero"},
		{tool(t), "help nope", exitUsage, "no help about \"nope\""},
		{tool(t), "run --brokers=", exitUsage, "flag --brokers is empty"},
		{tool(t), "dev --colour", exitUsage, "unknown flag: --colour"},
		{tool(t), "dev --data " + file, exitError, "choose another with --data"},
		{tool(t), "dev --listen 256.0.0.1:1 --ephemeral", exitError, "choose another with --listen"},
	} {
		r := tc.program.runIn(t, false, "", strings.Fields(tc.line)...)
		if r.code != tc.code || !strings.Contains(r.stderr, tc.want) || r.stdout != "" {
			t.Errorf("%s: exit code %d, want %d\n%s%s", tc.line, r.code, tc.code, r.stdout, r.stderr)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("disk"), exitError},
		{errInsisted, exitError},
		{&unreachableError{address: "a:1"}, exitError},
		{usagef("what?"), exitUsage},
		{errors.New(`unknown command "x" for "millrace"`), exitUsage},
		{status.Error(codes.NotFound, ""), exitNotFound},
		{status.Error(codes.Unimplemented, ""), exitNotFound},
		{status.Error(codes.FailedPrecondition, ""), exitPrecondition},
		{status.Error(codes.InvalidArgument, ""), exitPrecondition},
		{&node.MissingTopicError{}, exitPrecondition},
		{status.Error(codes.DeadlineExceeded, ""), exitTimeout},
		{context.DeadlineExceeded, exitTimeout},
		{status.Error(codes.Unavailable, ""), exitError},
		{status.Error(codes.Internal, ""), exitError},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%v: exit code %d, want %d", tc.err, got, tc.want)
		}
	}
}

// TestHelpTopics: the exit codes are told, and help about anything has it.
func TestHelpTopics(t *testing.T) {
	for line, want := range map[string]string{
		"help": "Additional help topics:\n  millrace exit-codes", "help exit-codes": "  6  a comparison found differences",
		"help log tail": "millrace log tail [flags]", "help dev": "--watch",
	} {
		r := tool(t).runIn(t, false, "", strings.Fields(line)...)
		if r.code != exitOK || !strings.Contains(r.stdout, want) {
			t.Errorf("%s: exit code %d\n%s%s", line, r.code, r.stdout, r.stderr)
		}
	}
}

// TestWrongPortIsNamed: a public port for an admin port, and the other way round.
func TestWrongPortIsNamed(t *testing.T) {
	t.Chdir(t.TempDir())
	p := tool(t)
	s := p.serveIn(t, "dev", "--ephemeral")
	s.connect(t)
	public, admin := os.Getenv("MILLRACE_LISTEN"), os.Getenv("MILLRACE_ADMIN")
	for line, want := range map[string]string{
		"get cart/42 --admin " + public:                         public + " is not the admin port of a millrace process",
		"log tail --admin " + public:                            "give the admin address with --admin",
		"call counter.v1.CounterService/Get --address " + admin: admin + " does not serve counter.v1.CounterService: it is an admin port",
	} {
		if r := p.runIn(t, false, "", strings.Fields(line)...); r.code != exitUsage || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: exit code %d, %s", line, r.code, r.stderr)
		} else if strings.HasPrefix(line, "call ") && !strings.HasPrefix(r.stderr, "outcome not_applied\n") {
			t.Errorf("%s: %s", line, r.stderr)
		}
	}
	s.stop(t)
}

// TestUnknownVariableIsWarnedOf by every command.
func TestUnknownVariableIsWarnedOf(t *testing.T) {
	t.Setenv("MILLRACE_LISTN", "x")
	for _, line := range []string{"version", "config"} {
		r := tool(t).runIn(t, false, "", line)
		if r.code != exitOK || r.stderr != "warning: environment MILLRACE_LISTN is not a setting: did you mean MILLRACE_LISTEN?\n" {
			t.Errorf("%s: exit code %d, %q", line, r.code, r.stderr)
		}
	}
}

func TestMessages(t *testing.T) {
	for want, err := range map[string]error{
		"no space":                               errors.New("no space"),
		"cart 1 is closed (FAILED_PRECONDITION)": status.Error(codes.FailedPrecondition, "cart 1 is closed"),
	} {
		if got := message(err); got != want {
			t.Errorf("the message of %v is %q, want %q", err, got, want)
		}
	}
}

func TestInvocation(t *testing.T) {
	onPath := t.TempDir()
	if err := os.WriteFile(filepath.Join(onPath, "millrace"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", onPath)
	info := &debug.BuildInfo{Path: "example.org/shop/cmd/cart", Main: debug.Module{Path: "example.org/shop"}}
	top := &debug.BuildInfo{Path: "example.org/shop", Main: debug.Module{Path: "example.org/shop"}}
	for _, tc := range []struct {
		program string
		info    *debug.BuildInfo
		want    string
	}{
		{"/home/ann/.cache/go-build/ab/abcdef-d/cart", info, "go run ./cmd/cart"},
		{"/var/cache/go/3f/3f" + strings.Repeat("0a", 31) + "-d/cart", info, "go run ./cmd/cart"}, // GOCACHE
		{"/tmp/go-build123/b001/exe/cart", info, "go run ./cmd/cart"},
		{"/tmp/go-build123/b001/exe/shop", top, "go run ."},
		{"/tmp/go-build123/b001/exe/cart", nil, "cart"},
		{"millrace", info, "millrace"},
		{filepath.Join(onPath, "millrace"), info, "millrace"},
		{"bin/millrace", info, "bin/millrace"},
		{"/opt/of ann/millrace", info, "'/opt/of ann/millrace'"},
	} {
		if got := invocationOf(tc.program, tc.info); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.program, got, tc.want)
		}
	}
}

// What config prints in a pipe is a configuration that means the same.
func TestConfigReadsItself(t *testing.T) {
	t.Chdir(t.TempDir())
	p := tool(t)
	given := []string{
		"config", "--brokers", "a:1,b:2", "--max-key", "2KiB", "--app", "shop", "--log-format", "json", "--data",
		`odd "name" # 1`,
	}
	first := p.runIn(t, false, "", given...)
	if first.code != exitOK {
		t.Fatal(first.stderr)
	}
	if err := os.WriteFile("printed.yaml", []byte(first.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	second := p.runIn(t, false, "", "config", "--config", "printed.yaml")
	without := func(text string) string {
		var lines []string
		for line := range strings.Lines(text) {
			value, _, _ := strings.Cut(line, " # ")
			lines = append(lines, value)
		}
		return strings.Join(lines, "\n")
	}
	if second.code != exitOK || without(second.stdout) != without(first.stdout) {
		t.Errorf("exit code %d, %s\nprinted %s\nread    %s", second.code, second.stderr, first.stdout, second.stdout)
	}
	mustContain(t, "the second one", second.stdout, `app: "shop" # printed.yaml:`)
	terminal := p.runIn(t, true, "", given...)
	mustContain(t, "the table", terminal.stdout, "SETTING", "MEANING", "flag --app", "name of the app")
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if r := tool(t).runIn(t, false, "", "completion", shell); r.code != exitOK || len(r.stdout) < 1000 {
			t.Errorf("%s: exit code %d, %d bytes, %s", shell, r.code, len(r.stdout), r.stderr)
		}
	}
}

func TestNoProcess(t *testing.T) {
	t.Chdir(t.TempDir())
	address := kit.FreeAddress(t)
	for _, line := range []string{"get cart/42", "history cart/42", "status", "log tail", "call a.B/C"} {
		r := tool(t).runIn(t, false, "", append(strings.Fields(line), "--admin", address)...)
		if r.code != exitError ||
			!strings.Contains(r.stderr,
				"millrace: cannot connect to "+address+": is millrace running there? start it with `millrace dev`, or set the address (dial tcp "+address) {
			t.Errorf("%s: exit code %d, %s", line, r.code, r.stderr)
		}
	}
}

// A reader who has seen enough of the log ends its command with success.
func TestTailEndsWithItsReader(t *testing.T) {
	t.Chdir(t.TempDir())
	p := tool(t)
	s := p.serveIn(t, "dev", "--ephemeral")
	s.connect(t)
	ctx, enough := context.WithCancel(t.Context())
	out, code := newScreen(true), make(chan int, 1)
	go func() { // ends with ctx; received below
		code <- p.Run(ctx, []string{"log", "tail", "--from-start"}, strings.NewReader(""), out, newScreen(true))
	}()
	out.await(t, "claimed by w-")
	enough()
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d", got)
	}
	s.stop(t)
}

func TestTimeoutHasItsExitCode(t *testing.T) {
	t.Chdir(t.TempDir())
	entered, open := make(chan struct{}, 1), make(chan struct{})
	p := Program{Local: function(t, slowCounter(entered, open))}
	s := p.serveIn(t, "dev", "--ephemeral")
	s.connect(t)
	r := p.runIn(t, false, "", "call", "counter.v1.CounterService/Increment", "-d", `{"counter_id":"a"}`, "--timeout",
		"100ms")
	if r.code != exitTimeout {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
	close(open)
	s.stop(t)
}

func TestProgressIsShown(t *testing.T) {
	lines := newScreen(false)
	logger := slog.New(slog.NewTextHandler(lines, nil))
	short, bulk := node.Progress{Next: 5, Until: 10}, node.Progress{Next: 50, Until: 100, Bulk: true}

	piped := newProgress(newScreen(false), logger)
	piped.report(short)
	piped.report(bulk)
	if got := lines.String(); got != "" {
		t.Errorf("printed at once: %s", got)
	}
	piped.printed = time.Now().Add(-printEvery - time.Second)
	piped.report(bulk)
	piped.end()
	mustContain(t, "the log", lines.String(), "rebuilding from the log", "records=50", "of=100")

	terminal := newScreen(true)
	bar := newProgress(terminal, logger)
	bar.report(short)
	if got := terminal.String(); got != "" {
		t.Errorf("a bar for a short catch-up: %q", got)
	}
	bar.report(bulk)
	bar.end()
	mustContain(t, "the terminal", terminal.String(), "rebuilding from the log")
}

func TestLogFormats(t *testing.T) {
	for _, tc := range []struct {
		format   string
		terminal bool
		want     string
	}{{"auto", true, "msg=x"}, {"auto", false, `"msg":"x"`}, {"text", false, "msg=x"}, {"json", true, `"msg":"x"`}} {
		out := newScreen(tc.terminal)
		c := node.Defaults()
		c.LogFormat, c.LogLevel = tc.format, "warn"
		logger := slog.New(logHandler(out, c))
		logger.Info("y")
		logger.Warn("x")
		if got := out.String(); !strings.Contains(got, tc.want) || strings.Contains(got, "y\n") {
			t.Errorf("%s, terminal %v: %s", tc.format, tc.terminal, got)
		}
	}
}

// TestLogHasNames: what has a text for people is logged by it, also as JSON.
func TestLogHasNames(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		out := newScreen(false)
		c := node.Defaults()
		c.LogFormat = format
		slog.New(logHandler(out, c)).Warn("x", "took", 1500*time.Millisecond, "code", codes.NotFound,
			"error", status.Error(codes.NotFound, "gone"), "n", 3)
		want := `"level":"WARN","msg":"x","took":"1.5s","code":"NotFound","error":"rpc error: code = NotFound desc = gone","n":3}`
		if format == "text" {
			want = `level=WARN msg=x took=1.5s code=NotFound error="rpc error: code = NotFound desc = gone" n=3`
		}
		mustContain(t, "the log", out.String(), want)
	}
}
