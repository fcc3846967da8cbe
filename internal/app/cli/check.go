package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/internal/plural"
	"github.com/millrace-io/millrace/projections/definition"
)

// maxFiles bounds the files of definitions in a folder.
const maxFiles = 1000

// problemsError says that definitions have problems, which were printed before.
type problemsError struct {
	problems, files int
	// applying: they were to be applied.
	applying bool
}

func (e *problemsError) Error() string {
	text := fmt.Sprintf("%s in %s", plural.Of(e.problems, "problem"), plural.Of(e.files, "file"))
	if e.applying {
		return "nothing was applied: " + text
	}
	return text
}

// check checks definitions without applying them.
func (p Program) check() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check DIR", Short: "Check the definitions of projections in a folder",
		Long: `Check the definitions of projections in a folder: the YAML files in DIR, or one file. Nothing is applied. Each problem
is printed with file, line and column, the rule that it breaks, and what to do. The exit code is 4 if there are
problems; warnings do not count.

` + servedByHelp,
		Example: "  millrace check projections\n" +
			"  millrace check projections --function 127.0.0.1:8080\n" +
			"  millrace check projections --descriptors shop.binpb --entity order=shop.v1.OrderService:event-sourced",
		Args: exactly(1, "a folder with definitions, as in `millrace check projections`"),
	}
	served := p.addServedBy(cmd)
	addOutputWith(cmd, "text")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := checkFolder(cmd, served, args[0])
		if err != nil {
			return err
		}
		o := outputOf(cmd, cmd.OutOrStdout())
		if chosen(cmd) == "" {
			o.format = formatTable
		}
		if err := c.print(o, cmd.ErrOrStderr()); err != nil {
			return err
		}
		if err := c.failed(); err != nil || o.format != formatTable {
			return err
		}
		return printf(o.w, "%s in %s: no problems\n", plural.Of(len(c.set.Definitions), "definition"),
			plural.Of(c.files, "file"))
	}
	return cmd
}

// gen has commands that generate source code.
func (p Program) gen() *cobra.Command {
	cmd := &cobra.Command{Use: "gen", Short: "Generate source code from definitions"}
	cmd.AddCommand(p.genProto())
	return cmd
}

// genProto prints the proto file of a projection's service.
func (p Program) genProto() *cobra.Command {
	cmd := &cobra.Command{
		Use: "proto NAME DIR", Short: "Print the proto file of the service of a projection",
		Long: `Print the proto file of the service that is generated for the projection NAME of the definitions in DIR, for clients.
Save it as NAME.proto in the folder millrace/query. It imports google/api/annotations.proto, and query.proto of
millrace.projection.v1, which is among the proto files of millrace.

` + servedByHelp,
		Example: "  millrace gen proto orders projections",
		Args:    exactly(2, "a projection and a folder with definitions, as in `millrace gen proto orders projections`"),
	}
	served := p.addServedBy(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := checkFolder(cmd, served, args[1])
		if err != nil {
			return err
		}
		if err := c.print(output{w: cmd.ErrOrStderr(), format: formatTable}, cmd.ErrOrStderr()); err != nil {
			return err
		}
		if err := c.failed(); err != nil {
			return err
		}
		var names []string
		for _, d := range c.set.Definitions {
			if d.API() == nil {
				continue
			}
			if d.Head().Name == args[0] {
				_, err := io.WriteString(cmd.OutOrStdout(), definition.ProtoSource(d.API()))
				return err
			}
			names = append(names, d.Head().Name)
		}
		return status.Errorf(codes.NotFound, "%s has no definition %s with a service; it has %s", args[1], args[0],
			cmp.Or(strings.Join(names, ", "), "none"))
	}
	return cmd
}

// checked are definitions of a folder, and what is wrong with them.
type checked struct {
	folder string
	files  int
	set    *definition.Set
}

// checkFolder checks the definitions of a folder against what is served.
func checkFolder(cmd *cobra.Command, served *servedBy, folder string) (*checked, error) {
	folder, files, err := readDefinitions(folder)
	if err != nil {
		return nil, usageError{err}
	}
	catalog, err := served.catalog(cmd)
	if err != nil {
		return nil, err
	}
	schema, err := definition.SchemaOf(catalog)
	if err != nil {
		return nil, err
	}
	set := definition.Check(files, definition.Options{Schema: schema})
	return &checked{folder: folder, files: len(files), set: set}, nil
}

// readDefinitions reads the files of definitions in a folder, or one file, and returns the folder
// that they are in. A file that is too large is read as far as a check needs to say so.
func readDefinitions(folder string) (string, []definition.Source, error) {
	entries, err := os.ReadDir(folder)
	if info, failed := os.Stat(folder); failed == nil && !info.IsDir() {
		folder, entries, err = filepath.Dir(folder), []fs.DirEntry{fs.FileInfoToDirEntry(info)}, nil
	}
	if err != nil {
		return "", nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	names = definition.Files(names)
	switch {
	case len(names) == 0:
		return "", nil, fmt.Errorf("no definitions in %s: they are in files whose names end in .yaml or .yml", folder)
	case len(names) > maxFiles:
		return "", nil, fmt.Errorf("%s has more than %d files of definitions: put several into one, with --- between them",
			folder, maxFiles)
	}
	files := make([]definition.Source, len(names))
	for i, name := range names {
		text, err := readFile(filepath.Join(folder, name), definition.MaxFileBytes)
		if err != nil && len(text) <= definition.MaxFileBytes {
			return "", nil, err
		}
		files[i] = definition.Source{Name: name, Text: text}
	}
	return folder, files, nil
}

// problemRow is a problem as JSON and YAML show it.
type problemRow struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Rule    string `json:"rule"`
	Where   string `json:"where"`
	Message string `json:"message"`
	Fix     string `json:"fix"`
	Warning bool   `json:"warning"`
}

// place is file:line:column, as editors read it.
func (r *problemRow) place() string {
	if r.Line == 0 {
		return r.File
	}
	return fmt.Sprintf("%s:%d:%d", r.File, r.Line, r.Column)
}

// rows are the problems, with files as they can be opened from here.
func (c *checked) rows() []*problemRow {
	var rows []*problemRow
	for _, p := range c.set.Report.Problems() {
		rows = append(rows, &problemRow{
			File: filepath.Join(c.folder, p.File), Line: p.Line, Column: p.Column, Rule: string(p.Rule), Where: p.Where,
			Message: p.Message, Fix: p.Fix, Warning: p.Warning,
		})
	}
	return rows
}

// print prints the problems and warnings; as text, each on a line that begins with its place, and
// what to do below it.
func (c *checked) print(o output, stderr io.Writer) error {
	rows := c.rows()
	if o.format != formatTable {
		return printAll(o, kindOf[*problemRow]{name: (*problemRow).place}, rows)
	}
	for _, r := range rows {
		if err := r.print(o.w); err != nil {
			return err
		}
	}
	if more := c.more(); more > 0 {
		return printf(stderr, "and %d more: fix these first\n", more)
	}
	return nil
}

func (r *problemRow) print(w io.Writer) error {
	rule := r.Rule
	if r.Warning {
		rule = "warning " + rule
	}
	if r.Where != "" {
		rule += " " + r.Where
	}
	err := printf(w, "%s: %s: %s\n", r.place(), rule, r.Message)
	if err == nil && r.Fix != "" {
		err = printf(w, "  fix: %s\n", r.Fix)
	}
	return err
}

// more is how many problems were left out.
func (c *checked) more() int {
	invalid, _ := errors.AsType[*definition.InvalidError](c.set.Report.Err())
	if invalid == nil {
		return 0
	}
	return invalid.More
}

// failed returns an error if the definitions cannot be applied.
func (c *checked) failed() error {
	invalid, is := errors.AsType[*definition.InvalidError](c.set.Report.Err())
	if !is {
		return nil
	}
	return &problemsError{problems: len(invalid.Problems) + invalid.More, files: c.files}
}
