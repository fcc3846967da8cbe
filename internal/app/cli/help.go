package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace-io/millrace/internal/app/node"
)

// exitCodesHelp is `help exit-codes`.
const exitCodesHelp = `Exit codes of every command. They are stable: scripts may rely on them.

  0  success; of dev, run and gateway: a graceful shutdown
  1  any other error: no process at the address, a disk failure, a forced shutdown, INTERNAL, UNAVAILABLE
  2  a mistake in the command line, the environment or the configuration file: nothing was sent
  3  not found: entity, type, service or method (NOT_FOUND, UNIMPLEMENTED)
  4  refused: FAILED_PRECONDITION, INVALID_ARGUMENT, a missing topic, definitions with problems
  5  no answer in time: --timeout, DEADLINE_EXCEEDED; the command may have taken effect
  6  a comparison found differences: log verify, diff`

// exitCodes is a help topic.
func exitCodes() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "Exit codes of every command", Long: exitCodesHelp}
}

// helpCommand is `help`, which refuses what there is no help about.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [command]", Short: "Help about any command", Long: "Help about any command, or about exit-codes.",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, c := range root.Commands() {
				names = append(names, c.Name())
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			about, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("no help about %q: `%s help` lists the commands", strings.Join(args, " "), root.Name())
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// checkFlags refuses limits and times below zero.
func checkFlags(cmd *cobra.Command, _ []string) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		negative := false
		switch f.Value.Type() {
		case "int", "int32", "int64":
			n, _ := strconv.ParseInt(f.Value.String(), 10, 64)
			negative = n < 0
		case "duration":
			d, _ := time.ParseDuration(f.Value.String())
			negative = d < 0
		}
		if negative && err == nil {
			err = usagef("--%s %s: must not be below zero", f.Name, f.Value)
		}
	})
	return err
}

// warnOfVariables names variables that look like settings and are none.
func warnOfVariables(cmd *cobra.Command) {
	for _, text := range node.UnknownVariables(os.Environ()) {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", text)
	}
}
