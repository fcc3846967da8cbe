package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/internal/app/node"
	"github.com/millrace-io/millrace/internal/app/scaffold"
)

// Program describes a millrace binary.
type Program struct {
	// Local is the function that the binary hosts in process; nil for millrace itself.
	Local node.Local
	// Examples is hosted by `dev` when there is neither Local nor a command.
	Examples node.Local
	// Default is the command that runs if none is named; empty: the help.
	Default string
	// App is the default name of the app; empty: none.
	App string
	// Source has the go.mod and go.sum that the program was built with; nil: it writes no modules.
	Source fs.FS
	// Name is the name of the program in its help; empty: the name under which it was started.
	Name string

	// signals are those of the process; nil: there are none.
	signals signals
	// insisted is closed when the user forces the shutdown.
	insisted <-chan struct{}
}

// Main runs the program with the process's arguments and ends the process. The first signal that
// asks it to end starts a graceful shutdown, an interrupt more than a second later forces it.
func Main(p Program) {
	signals := notify()
	ctx, insisted, release := signals.await()
	p.signals, p.insisted = signals, insisted
	code := p.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	release()
	os.Exit(code)
}

// Run runs one command line and returns the exit code.
func (p Program) Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := p.root()
	if p.Default != "" && (len(args) == 0 || strings.HasPrefix(args[0], "-") && !isRootFlag(args[0])) {
		args = append([]string{p.Default}, args...)
	}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %s\n", root.Name(), inOwnName(message(err), p.command()))
	}
	return exitCode(err)
}

// command is how this program is called.
func (p Program) command() string { return cmp.Or(p.Name, invocation()) }

// inOwnName returns a text whose commands are those of a program that is called in another way than
// millrace.
func inOwnName(text, command string) string {
	return strings.ReplaceAll(text, "`millrace ", "`"+command+" ")
}

// isRootFlag reports whether an argument is for the program as a whole, not for its default
// command.
func isRootFlag(arg string) bool {
	return slices.Contains([]string{"-h", "--help", "-v", "--version"}, arg)
}

func (p Program) root() *cobra.Command {
	root := &cobra.Command{
		Use:           cmp.Or(p.Name, filepath.Base(os.Args[0])),
		Short:         "Durable, stateful services on an event log",
		Long:          "Durable, stateful services on an event log: every change is persisted before the caller gets a response.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       Version(),
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			warnOfVariables(cmd)
			return checkFlags(cmd, args)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(p.dev(), p.run(), p.gateway(), call(), get(), listCommand(), timersCommand(), history(),
		p.logGroup(), parked(), repairCommand(),
		statusCommand(), clusterGroup(),
		partitionsCommand(), drainCommand(), p.check(), diffCommand(), applyCommand(), definitionsCommand(), p.gen(),
		projectionGroup(), queryCommand(), watchCommand(), p.config(), version())
	if p.Source != nil {
		root.AddCommand(p.newModule())
	}
	root.AddCommand(exitCodes())
	root.SetHelpCommand(helpCommand(root))
	if p.Default != "" {
		root.Long += fmt.Sprintf("\n\nWithout a command it runs `%s %s`.", root.Name(), p.Default)
	}
	ownExamples(root, root.Name())
	return root
}

// exampleOf matches a call of millrace in an example.
var exampleOf = regexp.MustCompile(`(?m)(^  |\| )millrace `)

// ownExamples gives the help of all commands the name of the program.
func ownExamples(cmd *cobra.Command, name string) {
	cmd.Example = exampleOf.ReplaceAllString(cmd.Example, "${1}"+name+" ")
	cmd.Long = inOwnName(cmd.Long, name)
	for _, below := range cmd.Commands() {
		ownExamples(below, name)
	}
}

// version prints the version.
func version() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			const protocol = "0.2"
			o := outputOf(cmd, cmd.OutOrStdout())
			if chosen(cmd) == "" {
				o.format = formatTable
			}
			about := struct {
				Version  string `json:"version"`
				Protocol string `json:"cloudstateProtocol"`
			}{Version(), protocol}
			return o.document(about, about.Version, func(w io.Writer) error {
				return printf(w, "millrace %s, Cloudstate protocol %s\n", about.Version, protocol)
			})
		},
	}
	addOutputWith(cmd, "text")
	return cmd
}

// release is the version of this source; it ends in "dev" between releases.
const release = "0.1.0-dev"

// Version returns the release and the commit that it was built from, when that is known.
func Version() string {
	info, _ := debug.ReadBuildInfo()
	return versionOf(info)
}

// revisionLength is how much of a commit is shown: as much as a version without a tag has.
const revisionLength = 12

// versionOf is Version. info may be nil. The commit in a program of another module is that
// module's; ours is at most in the version under which it depends on us.
func versionOf(info *debug.BuildInfo) string {
	revision := ""
	switch {
	case info == nil:
	case info.Main.Path == scaffold.ModulePath:
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	default:
		for _, d := range info.Deps {
			if d.Path == scaffold.ModulePath && d.Replace == nil {
				revision = d.Version[strings.LastIndexByte(d.Version, '-')+1:]
			}
		}
	}
	if len(revision) < revisionLength {
		return release
	}
	return release + "+" + revision[:revisionLength]
}

// invocation returns the command line prefix that runs this program again, from the same directory.
func invocation() string {
	info, _ := debug.ReadBuildInfo()
	return invocationOf(os.Args[0], info)
}

// builtByRun matches the path of a program that `go run` has built, in a temporary folder or in the
// build cache, whose name may be any.
var builtByRun = regexp.MustCompile(`/go-build\d*/|/[0-9a-f]{2}/[0-9a-f]{64}-d/`)

// invocationOf recognizes a program that `go run` has built. info may be nil. Another one is called
// as it was, and by its name alone where that is on PATH.
func invocationOf(program string, info *debug.BuildInfo) string {
	name := filepath.Base(program)
	if builtByRun.MatchString(filepath.ToSlash(program)) {
		if info != nil && info.Main.Path != "" {
			if below, inside := strings.CutPrefix(info.Path, info.Main.Path); inside {
				return "go run ." + below
			}
		}
		return name
	}
	if program == name {
		return name // the shell has found it on PATH
	}
	if found, err := exec.LookPath(name); err == nil && sameFile(found, program) {
		return name
	}
	if strings.ContainsAny(program, " \t'\"\\$`&;()<>|*?[]#~!{}") {
		return "'" + strings.ReplaceAll(program, "'", `'\''`) + "'"
	}
	return program
}

func sameFile(one, other string) bool {
	a, err := os.Stat(one)
	if err != nil {
		return false
	}
	b, err := os.Stat(other) //nolint:gosec // the program that runs
	return err == nil && os.SameFile(a, b)
}
