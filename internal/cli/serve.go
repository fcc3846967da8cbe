package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/internal/node"
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
			case local != nil && len(command) > 0:
				return usagef("this program hosts its own functions: it cannot start %q beside them", command[0])
			case len(command) > 0 && cmd.ArgsLenAtDash() != 0:
				return usagef("unknown argument %q: put the function's command behind --, as in `dev -- %s`", command[0], command[0])
			case local == nil && len(command) == 0:
				local = p.Examples
			}
			return serve(cmd, node.Options{Local: local, Command: command})
		},
	}
	addSettings(cmd.Flags())
	return cmd
}

// run is a worker beside a function.
func (p Program) run() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run a worker beside a user function",
		Long: `Run a worker beside the user function at --function (or USER_FUNCTION_HOST and USER_FUNCTION_PORT).

With --brokers the log is Kafka or Redpanda; without, it is the embedded one in --data. Ports are on loopback and in
plaintext unless told otherwise.`,
		Example: "  millrace run --brokers 127.0.0.1:9092\n  millrace run --data /var/lib/millrace --function 127.0.0.1:8080",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd, node.Options{Local: p.Local})
		},
	}
	addSettings(cmd.Flags())
	return cmd
}

// serve runs a node until the process is asked to stop.
func serve(cmd *cobra.Command, o node.Options) error {
	c, origin, err := loadSettings(cmd)
	if err != nil {
		return err
	}
	o.Config, o.Version = c, Version()
	o.PartitionsGiven = origin["partitions"] != "default"
	o.Logger = slog.New(logHandler(cmd.ErrOrStderr(), c))
	progress := newProgress(cmd.ErrOrStderr(), o.Logger)
	o.OnProgress = progress.report
	n, err := node.Start(cmd.Context(), o)
	if err != nil {
		return err
	}
	announce(cmd.Context(), cmd.OutOrStdout(), cmd.Name(), n)
	progress.end()
	<-n.Done()
	fmt.Fprintln(cmd.ErrOrStderr(), "stopping: waiting for calls to end")
	if err := n.Wait(); err != nil && context.Cause(cmd.Context()) == nil {
		return err
	}
	return nil
}

// announce prints the banner as soon as it is true.
func announce(ctx context.Context, w io.Writer, command string, n *node.Node) {
	select {
	case <-n.Ready():
		banner(ctx, w, command, n)
	case <-n.Done():
	case <-n.Waiting():
		// The function is not there yet: say what is, and what is waited for.
		banner(ctx, w, command, n)
		fmt.Fprintf(w, "\n%v\n", n.NotReady())
		select {
		case <-n.Ready():
			fmt.Fprintln(w, "ready")
			banner(ctx, w, command, n)
		case <-n.Done():
		}
	}
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
