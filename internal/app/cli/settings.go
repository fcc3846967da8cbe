package cli

import (
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace-io/millrace/internal/app/node"
	"github.com/millrace-io/millrace/internal/settings"
)

// addSettings adds a flag for each setting.
func addSettings(flags *pflag.FlagSet, all []settings.Setting) {
	flags.String("config", "", "configuration file; "+node.DefaultFile+" is read when it is there")
	for _, s := range all {
		usage := s.Help + " [" + s.Env() + "]"
		if s.Bool {
			flags.Bool(s.Name, s.Default == "true", usage)
		} else {
			flags.String(s.Name, s.Default, usage)
		}
	}
}

// loadSettings reads the settings from flags, environment and file. Origin is where each comes
// from.
func (p Program) loadSettings(cmd *cobra.Command) (*node.Config, node.Origin, error) {
	given := map[string]string{}
	cmd.Flags().Visit(func(f *pflag.Flag) { given[f.Name] = f.Value.String() })
	return p.load(given, given["config"])
}

func (p Program) load(flags map[string]string, file string) (*node.Config, node.Origin, error) {
	c, origin, err := node.Load(node.Sources{Flags: flags, Env: os.LookupEnv, File: file, App: p.App})
	if err != nil {
		return nil, nil, usageError{err}
	}
	return c, origin, nil
}

// config prints the settings that would apply, and where each comes from.
func (p Program) config() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Print every setting, its value and where it comes from", Args: exactly(0, "no arguments"),
		Long: "Print every setting as dev and run would use it here. The output is a valid configuration file.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, origin, err := p.loadSettings(cmd)
			if err != nil {
				return err
			}
			if !isTerminal(cmd.OutOrStdout()) {
				for _, s := range node.Settings() {
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %q # %s\n", s.Name, s.Get(c), origin[s.Name]); err != nil {
						return err
					}
				}
				return nil
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "SETTING\tVALUE\tFROM\tMEANING")
			for _, s := range node.Settings() {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Name, s.Get(c), origin[s.Name], s.Help)
			}
			return w.Flush()
		},
	}
	addSettings(cmd.Flags(), node.Settings())
	return cmd
}
