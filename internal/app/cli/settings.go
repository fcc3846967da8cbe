package cli

import (
	"fmt"
	"os"

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
	for _, s := range node.Settings() {
		if v, isGiven := given[s.Name]; isGiven && s.List && v == "" { // mostly a variable of a script that is not set
			return nil, nil, usagef("flag --%s is empty: give it a value, or leave the flag out", s.Name)
		}
	}
	return p.load(node.Sources{Flags: given, File: given["config"], Dev: cmd.Name() == "dev"})
}

func (p Program) load(from node.Sources) (*node.Config, node.Origin, error) {
	from.Env, from.App = os.LookupEnv, p.App
	c, origin, err := node.Load(from)
	if err != nil {
		return nil, nil, usageError{err}
	}
	return c, origin, nil
}

// config prints the settings that would apply, and where each comes from.
func (p Program) config() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Print every setting, its value and where it comes from", Args: exactly(0, "no arguments"),
		Long: "Print every setting as dev and run would use it here. In a pipe, and as YAML, the output is a valid configuration\nfile.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, origin, err := p.loadSettings(cmd)
			if err != nil {
				return err
			}
			o := outputOf(cmd, cmd.OutOrStdout())
			if o.format == formatYAML || chosen(cmd) == "" && o.format == formatJSON {
				for _, s := range node.Settings() {
					if _, err := fmt.Fprintf(o.w, "%s: %q # %s\n", s.Name, s.Get(c), origin[s.Name]); err != nil {
						return err
					}
				}
				return nil
			}
			return printAll(o, settingRows(c, origin), node.Settings())
		},
	}
	addSettings(cmd.Flags(), node.Settings())
	addOutputWith(cmd, "table on a terminal, yaml in a pipe")
	return cmd
}

// settingRows are settings with their values and where these come from.
func settingRows(c *node.Config, origin node.Origin) kindOf[settings.Setting] {
	name := func(s settings.Setting) string { return s.Name }
	return kindOf[settings.Setting]{
		columns: []column[settings.Setting]{
			{"SETTING", name},
			{"VALUE", func(s settings.Setting) string { return s.Get(c) }},
			{"FROM", func(s settings.Setting) string { return origin[s.Name] }},
			{"MEANING", func(s settings.Setting) string { return s.Help }},
		},
		name: name,
		document: func(s settings.Setting) any {
			return struct {
				Name    string `json:"name"`
				Value   string `json:"value"`
				From    string `json:"from"`
				Meaning string `json:"meaning"`
			}{s.Name, s.Get(c), origin[s.Name], s.Help}
		},
	}
}
