package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/internal/node"
)

// Exit codes.
const (
	exitOK           = 0
	exitError        = 1
	exitUsage        = 2
	exitNotFound     = 3
	exitPrecondition = 4
	exitTimeout      = 5
)

// Program is what a binary is made of.
type Program struct {
	// Local is the function that the binary hosts in process; nil for millrace itself.
	Local node.Local
	// Examples is hosted by `dev` when there is neither Local nor a command.
	Examples node.Local
	// Default is the command that runs when none is named; empty: the help.
	Default string
}

// Main runs the program with the process's arguments and ends the process.
func Main(p Program) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := p.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Run runs one command line and returns the exit code.
func (p Program) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := p.root()
	if p.Default != "" && (len(args) == 0 || strings.HasPrefix(args[0], "-") && !isHelp(args[0])) {
		args = append([]string{p.Default}, args...)
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "%s: %s\n", root.Name(), message(err))
	return exitCode(err)
}

func isHelp(arg string) bool { return arg == "-h" || arg == "--help" }

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// message is an error as a person should see it: without gRPC's decoration.
func message(err error) string {
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		text := s.Message()
		var wrapped interface{ GRPCStatus() *status.Status }
		if errors.As(err, &wrapped) && wrapped.GRPCStatus().Message() != text {
			text = err.Error()
		}
		return fmt.Sprintf("%s (%s)", text, strings.ToUpper(codeName(s.Code())))
	}
	return err.Error()
}

func codeName(c codes.Code) string {
	var b strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' && c != codes.OK {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return b.String()
}

func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "unknown flag"):
		return exitUsage
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	}
	switch status.Code(err) {
	case codes.NotFound, codes.Unimplemented:
		return exitNotFound
	case codes.FailedPrecondition, codes.InvalidArgument:
		return exitPrecondition
	case codes.DeadlineExceeded:
		return exitTimeout
	default:
		return exitError
	}
}

func (p Program) root() *cobra.Command {
	name := filepath.Base(os.Args[0])
	root := &cobra.Command{
		Use:           name,
		Short:         "Stateful services as easy as functions",
		Long:          "millrace runs stateful services on an event log: functions over entities, durable before anyone is answered.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       Version(),
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(p.dev(), p.run(), call(), get(), history(), logGroup(), statusCommand(), config(), version())
	return root
}

// version prints what is running.
func version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "millrace %s, Cloudstate protocol 0.2\n", Version())
			return err
		},
	}
}

// release is the version of this source; "dev" stands between releases.
const release = "0.1.0-dev"

// Version returns the release and the commit that it was built from, when that is known.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return release + "+" + s.Value[:12]
		}
	}
	return release
}

// invocation is how the reader of the banner can call this program again.
func invocation() string {
	if info, ok := debug.ReadBuildInfo(); ok && strings.Contains(os.Args[0], "go-build") && info.Main.Path != "" {
		if rest, inside := strings.CutPrefix(info.Path, info.Main.Path); inside {
			return "go run ." + rest
		}
	}
	return filepath.Base(os.Args[0])
}

// isTerminal says whether a person reads w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) //nolint:gosec // a file descriptor
}
