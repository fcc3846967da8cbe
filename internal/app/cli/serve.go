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

// dev is one process for a developer.
func (p Program) dev() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dev [flags] [-- command…]",
		Short: "Run everything in one process: embedded log, worker, gateway",
		Long: `Run everything in one process: embedded log, store, worker, gateway.

Without a command it hosts the functions of this program in process. With one it starts that function and starts it again
when it ends or a file below the working directory changes; callers wait meanwhile. The function finds its address in HOST
and PORT and must serve there (--function).`,
		Example: "  millrace dev\n  millrace dev -- go run ./examples/shoppingcart -remote 127.0.0.1:8080\n  millrace dev --ephemeral -- node index.js",
		RunE: func(cmd *cobra.Command, command []string) error {
			local := p.Local
			switch {
			case len(command) > 0 && cmd.ArgsLenAtDash() != 0:
				return usagef("unknown argument %q: put the function's command behind --, as in `dev -- %s`", command[0], command[0])
			case local != nil && len(command) > 0:
				return usagef("this program hosts its own functions: it cannot start %q beside them", command[0])
			case local == nil && len(command) == 0:
				local = p.Examples
			}
			return p.serve(cmd, node.Options{Local: local, Command: command}, startWorker)
		},
	}
	addSettings(cmd.Flags(), node.Settings())
	return cmd
}

// run is a worker beside a function.
func (p Program) run() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a worker beside a user function",
		Long: `Run a worker beside the user function at --function (or USER_FUNCTION_HOST and USER_FUNCTION_PORT).

With --brokers the log is Kafka or Redpanda, and --app must say whose it is; without, it is the embedded one in --data. Ports are on loopback and in
plaintext unless told otherwise. With --create-topics=false it prints the commands that create missing topics, and stops.`,
		Example: "  millrace run --app shop --brokers 127.0.0.1:9092\n  millrace run --data /var/lib/millrace --function 127.0.0.1:8080",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.serve(cmd, node.Options{Local: p.Local}, startWorker)
		},
	}
	addSettings(cmd.Flags(), node.Settings())
	return cmd
}

// gateway is a process that only passes calls on.
func (p Program) gateway() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Run a gateway: it serves callers by way of the workers of an app",
		Long: `Run a gateway: it serves callers by way of the workers of an app, hosts no function, keeps no data and owns nothing, so
that there may be any number of them. It learns from the brokers who owns what, and from the workers what they serve.`,
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
	tune(o.Config.GCPercent, 2*int64(o.Config.ActiveMemory)+heapRoom)
	return started(node.Start(ctx, o))
}

func startGateway(ctx context.Context, o node.Options) (process, error) {
	tune(o.Config.GCPercent, gatewayHeap)
	return started(node.StartGateway(ctx, o))
}

// errInsisted is the end of a process that was not allowed to end in order.
var errInsisted = errors.New("forced shutdown: in-flight calls were aborted; acknowledged writes are safe")

// serve runs a process until the process is asked to stop, and then until it has ended in order, or the user insists.
func (p Program) serve(cmd *cobra.Command, o node.Options, start func(context.Context, node.Options) (process, error)) error {
	c, origin, err := p.loadSettings(cmd)
	if err != nil {
		return err
	}
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
	fmt.Fprintln(cmd.ErrOrStderr(), "shutting down: waiting for in-flight calls; press Ctrl-C again to force")
	ended := make(chan error, 1)
	go func() { ended <- n.Wait() }() // ends with the node, or with the process when the user insists
	select {
	case err := <-ended:
		return err
	case <-p.insisted:
		n.Abandon()
		return errInsisted
	}
}

// announce prints the banner as it becomes true. settled is called when no catch-up is going on any more.
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
		fmt.Fprintf(w, "\n%v\n", n.NotReady())
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
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" || (c.LogFormat == "auto" && !isTerminal(w)) {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}
