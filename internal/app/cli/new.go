package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/internal/app/scaffold"
)

// newModule writes the module of a new service.
func (p Program) newModule() *cobra.Command {
	var list bool
	var from string
	m := scaffold.Module{}
	cmd := &cobra.Command{
		Use: "new TEMPLATE NAME", Short: "Write the module of a new service",
		Args: func(cmd *cobra.Command, args []string) error {
			if list {
				return exactly(0, "no arguments with --list")(cmd, args)
			}
			return exactly(2, "a template and a name, as in `millrace new go shop` (--list prints the templates)")(cmd, args)
		},
		Long: `Write the module of a new service into the folder NAME, which must not exist. The module builds and passes its tests
as it is; its README says how to go on. NAME is also the name of the program and of the app. Nothing is downloaded.

A millrace that was installed with ` + "`go install ...@VERSION`" + ` is required by that version. One that was built from source is
not published: --millrace names the folder with its source, and the module's go.mod gets a replace line.`,
		Example: "  millrace new go shop --module github.com/acme/shop\n  millrace new go shop --millrace ../millrace\n  millrace new --list",
		RunE: func(cmd *cobra.Command, args []string) error {
			if list {
				return listTemplates(cmd)
			}
			var err error
			if m.Template, m.Name = args[0], args[1]; from != "" {
				m.Millrace, err = scaffold.FromSource(from)
			} else {
				info, _ := debug.ReadBuildInfo()
				m.Millrace, err = scaffold.Published(info, p.Source)
			}
			if errors.Is(err, scaffold.ErrNotPublished) {
				return usagef("%w: name the folder of its source, as in `millrace new %s %s --millrace PATH`", err,
					m.Template, m.Name)
			} else if err != nil {
				return usageError{err}
			}
			folder, err := m.Write(".")
			if err != nil {
				return usageError{err}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n\n  cd %[1]s\n  make test\n  make run\n",
				filepath.Clean(folder))
			return err
		},
	}
	cmd.Flags().BoolVar(&list, "list", false, "print the templates")
	cmd.Flags().StringVar(&m.Path, "module", "", "module path (default: example.com/NAME)")
	cmd.Flags().StringVar(&from, "millrace", "", "folder with the source of millrace, for a replace line in go.mod")
	return cmd
}

func listTemplates(cmd *cobra.Command) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TEMPLATE\tWHAT")
	for _, t := range scaffold.Templates {
		fmt.Fprintf(w, "%s\t%s\n", t.Name, t.Is)
	}
	return w.Flush()
}
