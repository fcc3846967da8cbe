package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/internal/app/node"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// dev runs everything in one process.
func (p Program) dev() *cobra.Command {
	var watch []string
	cmd := &cobra.Command{
		Use:   "dev [flags] [-- command…]",
		Short: "Run everything in one process: embedded log, worker, gateway",
		Long: `Run everything in one process: embedded log, store, worker, gateway.

Without a command it hosts the functions of this program in process. With one it starts that function, and restarts it
when it ends or one of its sources changes; callers wait meanwhile. The function must serve at the address in HOST and
PORT (--function).

Sources are, below the working directory, the files from which programs in any common language are built or run (*.go,
*.py, *.js, *.ts, *.java, *.rs, *.cs, *.proto, go.mod, package.json, …), and the program that the command names.
--watch names others: a name or glob in any directory, a directory, or a path with ** for any directories. The data
directory, hidden directories and node_modules are never watched.`,
		Example: "  millrace dev\n  millrace dev -- go run ./examples/shoppingcart -remote 127.0.0.1:8080\n  millrace dev --ephemeral --watch src --watch '*.tmpl' -- node index.js",
		RunE: func(cmd *cobra.Command, command []string) error {
			local := p.Local
			switch {
			case len(command) > 0 && cmd.ArgsLenAtDash() != 0:
				return usagef("unknown argument %q: put the function's command after --, as in `dev -- %s`", command[0],
					command[0])
			case local != nil && len(command) > 0:
				return usagef("this program hosts its own functions: it cannot also start %q", command[0])
			case len(watch) > 0 && len(command) == 0:
				return usagef("--watch needs a command to restart, as in `dev --watch src -- node index.js`")
			case local == nil && len(command) == 0:
				local = p.Examples
			}
			return p.serve(cmd, node.Options{Local: local, Command: command, Watch: watch, Dev: true}, startWorker)
		},
	}
	cmd.Flags().StringArrayVar(&watch, "watch", nil,
		"file, directory or glob whose change restarts the command; repeatable (default: sources of all languages; '': none)")
	addSettings(cmd.Flags(), node.Settings())
	return cmd
}

// run runs a worker.
func (p Program) run() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a worker for a user function",
		Long: `Run a worker for the user function at --function (or USER_FUNCTION_HOST and USER_FUNCTION_PORT).

With --brokers the log is Kafka or Redpanda, and --app is required; otherwise it is the embedded log in --data. By
default ports are on loopback and plaintext. With --create-topics=false it prints the commands that create missing
topics, and stops.`,
		Example: "  millrace run --app shop --brokers 127.0.0.1:9092\n  millrace run --data /var/lib/millrace --function 127.0.0.1:8080",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.serve(cmd, node.Options{Local: p.Local}, startWorker)
		},
	}
	addSettings(cmd.Flags(), node.Settings())
	return cmd
}

// gateway runs a process that only forwards calls.
func (p Program) gateway() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Run a gateway that forwards calls to the workers of an app",
		Long: `Run a gateway that forwards calls to the workers of an app. It hosts no function, keeps no data and owns no
partitions, so there may be any number of gateways. It gets the routing table from the brokers, and the services from
the workers.`,
		Example: "  millrace gateway --app shop --brokers 127.0.0.1:9092 --listen 0.0.0.0:9000",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.serve(cmd, node.Options{}, startGateway)
		},
	}
	addSettings(cmd.Flags(), node.GatewaySettings())
	return cmd
}

// process is a worker or a gateway.
type process interface {
	Ready() <-chan struct{}
	Waiting() <-chan struct{}
	Done() <-chan struct{}
	NotReady() error
	Status(ctx context.Context) *adminv1.StatusResponse
	Try(program string) []string
	Wait() error
	Abandon()
}

// started keeps a nil pointer from becoming a process.
func started[P process](p P, err error) (process, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

func startWorker(ctx context.Context, o node.Options) (process, error) {
	tune(o.Config.GCPercent, 2*int64(o.Config.ActiveMemory)+heapSlack)
	return started(node.Start(ctx, o))
}

func startGateway(ctx context.Context, o node.Options) (process, error) {
	tune(o.Config.GCPercent, gatewayHeap)
	return started(node.StartGateway(ctx, o))
}

// errInsisted is the error of a forced shutdown.
var errInsisted = errors.New("forced shutdown: in-flight calls were aborted; acknowledged writes are safe")

// serve runs a process until it is asked to stop, and then until it has shut down, or the user
// forces it.
func (p Program) serve(cmd *cobra.Command, o node.Options,
	start func(context.Context, node.Options) (process, error),
) error {
	c, origin, err := p.loadSettings(cmd)
	if err != nil {
		return err
	}
	outliveOutput()
	o.Config, o.Version = c, Version()
	o.PartitionsGiven = origin["partitions"] != "default"
	o.Logger = slog.New(logHandler(cmd.ErrOrStderr(), c))
	progress := newProgress(cmd.ErrOrStderr(), o.Logger)
	o.OnProgress = progress.report
	n, err := start(cmd.Context(), o)
	if missing, ok := errors.AsType[*node.MissingTopicError](err); ok {
		fmt.Fprintln(cmd.OutOrStdout(), missing.Command)
	}
	if err != nil {
		return err
	}
	announce(cmd.Context(), cmd.OutOrStdout(), cmd.Name(), n, progress.end)
	<-n.Done()
	fmt.Fprintf(cmd.ErrOrStderr(), "shutting down%s: waiting for in-flight calls; press Ctrl-C again to force\n",
		reason(cmd.Context()))
	ended := make(chan error, 1)
	go func() { ended <- n.Wait() }() // ends with the node, or with the process if the user forces it
	select {
	case err := <-ended:
		return err
	case <-p.insisted:
		n.Abandon()
		return errInsisted
	}
}

// reason names the signal that ended ctx.
func reason(ctx context.Context) string {
	if signal, ok := errors.AsType[signalError](context.Cause(ctx)); ok {
		return " (" + signal.String() + ")"
	}
	return ""
}

// announce prints the banner in parts, as soon as each is known. settled is called when all
// catch-ups are over.
func announce(ctx context.Context, w io.Writer, command string, n process, settled func()) {
	defer settled()
	b := &banner{w: w, command: command, node: n}
	select {
	case <-n.Done():
		return
	case <-n.Ready():
	case <-n.Waiting():
		settled()
		b.place(ctx)
		if why := n.NotReady(); why != nil { // it may have become ready since
			fmt.Fprintf(w, "\n%s\n", inOwnName(why.Error(), invocation()))
		}
		select {
		case <-n.Done():
			return
		case <-n.Ready():
		}
	}
	settled()
	b.place(ctx)
	b.services(ctx)
}

func logHandler(w io.Writer, c *node.Config) slog.Handler {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // checked by Validate
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: asText}
	if c.LogFormat == "json" || (c.LogFormat == "auto" && !isTerminal(w)) {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// asText gives a value the text that it has for people, in JSON too: the name of a state instead of
// its number, 1.5s instead of nanoseconds.
func asText(_ []string, a slog.Attr) slog.Attr {
	if kind := a.Value.Kind(); kind != slog.KindAny && kind != slog.KindDuration {
		return a
	}
	v, hasText := a.Value.Any().(fmt.Stringer)
	if _, isError := a.Value.Any().(error); hasText && !isError {
		a.Value = slog.StringValue(v.String())
	}
	return a
}
