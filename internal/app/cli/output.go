package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/internal/plural"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// format is the form of a command's data, and the flag that chooses it; empty: not chosen.
type format string

// The forms of output.
const (
	formatTable format = "table"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
	formatName  format = "name"
)

var formats = []format{formatTable, formatJSON, formatYAML, formatName} //nolint:gochecknoglobals // a constant table

// String returns the name of the form.
func (f *format) String() string { return string(*f) }

// Set takes the name of a form.
func (f *format) Set(name string) error {
	if !slices.Contains(formats, format(name)) {
		return errors.New("use table, json, yaml or name")
	}
	*f = format(name)
	return nil
}

// Type describes the value in the help.
func (*format) Type() string { return "format" }

// addOutput adds the flag that chooses the form of a command's data.
func addOutput(cmd *cobra.Command) { addOutputWith(cmd, "table on a terminal, json in a pipe") }

// addOutputWith is addOutput for a command with another form unless one is chosen.
func addOutputWith(cmd *cobra.Command, unchosen string) {
	cmd.Flags().VarP(new(format), "output", "o", "table, json, yaml or name (default: "+unchosen+")")
	var names []string
	for _, f := range formats {
		names = append(names, string(f))
	}
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
}

// output is where a command prints its data, and in which form.
type output struct {
	w      io.Writer
	format format
	// indent: a JSON document has several lines.
	indent bool
}

// outputOf returns the output of a command that writes to w, which may be a page of its output.
func outputOf(cmd *cobra.Command, w io.Writer) output {
	o := output{w: w, indent: isTerminal(cmd.OutOrStdout())}
	if f := chosen(cmd); f != "" {
		o.format = f
	} else if o.format = formatJSON; o.indent {
		o.format = formatTable
	}
	return o
}

// chosen returns the form that the user has asked for; empty: none.
func chosen(cmd *cobra.Command) format {
	if f, ok := cmd.Flags().Lookup("output").Value.(*format); ok {
		return *f
	}
	return ""
}

// isTerminal reports whether w is a terminal, or says that it is one.
func isTerminal(w io.Writer) bool {
	switch w := w.(type) {
	case interface{ IsTerminal() bool }:
		return w.IsTerminal()
	case *os.File:
		return term.IsTerminal(int(w.Fd()))
	default:
		return false
	}
}

// document prints a single thing: v as JSON or YAML, its name, or what table writes.
func (o output) document(v any, name string, table func(io.Writer) error) error {
	var text []byte
	var err error
	switch o.format {
	case formatName:
		text = []byte(visible(name))
	case formatYAML:
		text, err = marshalYAML(v)
		text = trimNewline(text)
	case formatJSON:
		if text, err = marshalJSON(v); err == nil && o.indent {
			text, err = indentJSON(text)
		}
	default:
		return table(o.w)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(o.w, "%s\n", text)
	return err
}

// column is a column of a table. Its text may be that of others: the table shows it visibly.
type column[T any] struct {
	head string
	of   func(T) string
}

// kindOf says how one kind of rows is printed, in all forms.
type kindOf[T any] struct {
	columns []column[T]
	// name is by what other commands know it.
	name func(T) string
	// document is what is shown as JSON and YAML; nil: the row itself.
	document func(T) any
	// widths are the least widths of the columns, where rows are printed one by one.
	widths []int
}

// list prints rows of one kind: a table, one JSON document per line, a YAML sequence, or names.
type list[T any] struct {
	output
	kind  kindOf[T]
	table *table
	rows  int
}

func newList[T any](o output, kind kindOf[T]) *list[T] {
	l := &list[T]{output: o, kind: kind, table: newTable(o.w)}
	for _, c := range kind.columns {
		l.table.heads = append(l.table.heads, c.head)
	}
	l.table.widths = slices.Clone(kind.widths)
	return l
}

// add prints a row, or keeps it for the next flush of a table.
func (l *list[T]) add(row T) error {
	l.rows++
	switch l.format {
	case formatTable:
		cells := make([]string, 0, len(l.kind.columns))
		for _, c := range l.kind.columns {
			cells = append(cells, c.of(row))
		}
		return l.table.row(cells...)
	case formatName:
		_, err := fmt.Fprintln(l.w, visible(l.kind.name(row)))
		return err
	case formatJSON, formatYAML:
	}
	var v any = row
	if l.kind.document != nil {
		v = l.kind.document(row)
	}
	if l.format == formatYAML {
		text, err := marshalYAML([]any{v})
		if err == nil {
			_, err = l.w.Write(text)
		}
		return err
	}
	text, err := marshalJSON(v)
	if err == nil {
		_, err = fmt.Fprintf(l.w, "%s\n", text)
	}
	return err
}

// page prints a page of rows at once.
func (l *list[T]) page(rows []T) error {
	for _, row := range rows {
		if err := l.add(row); err != nil {
			return err
		}
	}
	return l.flush()
}

// flush prints the rows so far. Later ones have at least their widths.
func (l *list[T]) flush() error { return l.table.flush() }

// end prints what is left.
func (l *list[T]) end() error {
	if l.rows == 0 && l.format == formatYAML {
		_, err := fmt.Fprintln(l.w, "[]")
		return err
	}
	return l.flush()
}

// printAll prints a complete list.
func printAll[T any](o output, kind kindOf[T], rows []T) error {
	l := newList(o, kind)
	for _, row := range rows {
		if err := l.add(row); err != nil {
			return err
		}
	}
	return l.end()
}

// table aligns cells in columns. It shows every cell visibly, so that text of others cannot reach
// the terminal raw.
type table struct {
	w io.Writer
	// heads are printed before the first row; none: there is no such line.
	heads  []string
	widths []int
	block  [][]string
}

// blockRows bounds the rows that a table keeps before it prints them.
const blockRows = 1000

func newTable(w io.Writer) *table { return &table{w: w} }

func (t *table) row(cells ...string) error {
	for i := range cells {
		cells[i] = visible(cells[i])
	}
	if t.block = append(t.block, cells); len(t.block) >= blockRows {
		return t.flush()
	}
	return nil
}

// all prints lines and nothing after them.
func (t *table) all(rows [][]string) error {
	for _, cells := range rows {
		if err := t.row(cells...); err != nil {
			return err
		}
	}
	return t.flush()
}

func (t *table) flush() error {
	if len(t.block) == 0 {
		return nil
	}
	if len(t.heads) > 0 {
		t.block = slices.Insert(t.block, 0, t.heads)
		t.heads = nil
	}
	for _, cells := range t.block {
		for len(t.widths) < len(cells) {
			t.widths = append(t.widths, 0)
		}
		for i, cell := range cells {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
	var lines strings.Builder
	for _, cells := range t.block {
		for len(cells) > 0 && cells[len(cells)-1] == "" {
			cells = cells[:len(cells)-1]
		}
		for i, cell := range cells {
			lines.WriteString(cell)
			if i+1 < len(cells) {
				lines.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		lines.WriteByte('\n')
	}
	t.block = t.block[:0]
	_, err := io.WriteString(t.w, lines.String())
	return err
}

// show returns a stored message for a table: its type's short name and its content.
func show(c *adminv1.Content) string {
	if c == nil {
		return ""
	}
	name := c.GetTypeUrl()[strings.LastIndexByte(c.GetTypeUrl(), '/')+1:]
	if c.GetJson() == "" {
		return fmt.Sprintf("%s (%s)", name, plural.Of(len(c.GetValue()), "byte"))
	}
	body := []byte(c.GetJson())
	if b, err := compact(body); err == nil {
		body = b
	}
	return fmt.Sprintf("%s %s", name, body)
}

func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Local().Format("2006-01-02 15:04:05.000")
}

func ago(t *timestamppb.Timestamp) string {
	return time.Since(t.AsTime()).Round(time.Second).String()
}

// rawJSON is a document that is JSON already.
type rawJSON = json.RawMessage
