package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/internal/plural"
	projectionv1 "github.com/millrace-io/millrace/proto/gen/millrace/projection/v1"
)

// answers prints what a query returns: rows, groups or a number to standard output, and all else to
// standard error.
type answers struct {
	stderr io.Writer
	types  *functionTypes
	rows   *list[answerRow]
}

// answerRow are the fields of a row as JSON, by their JSON names.
type answerRow map[string]json.RawMessage

// cell is a field as a table shows it: text without quotes, anything else as JSON.
func (r answerRow) cell(f protoreflect.FieldDescriptor) string {
	var text string
	if value, there := r[f.JSONName()]; !there || json.Unmarshal(value, &text) != nil {
		return string(value)
	}
	return text
}

// newAnswers prints answers of a query, with those fields that a mask names; empty: all.
func newAnswers(o output, stderr io.Writer, types *functionTypes, m protoreflect.MethodDescriptor,
	mask string,
) *answers {
	var fields []protoreflect.FieldDescriptor
	if first := m.Output().Fields().ByNumber(1); first.Message() == nil {
		fields = append(fields, first)
	} else {
		shown := pathsOf(mask)
		for i := range first.Message().Fields().Len() {
			f := first.Message().Fields().Get(i)
			if len(shown) == 0 || slices.ContainsFunc(shown, func(path string) bool { return names(path, f) }) {
				fields = append(fields, f)
			}
		}
	}
	kind := kindOf[answerRow]{
		name: func(r answerRow) string {
			var key []string
			for _, f := range keyOf(m, fields) {
				key = append(key, r.cell(f))
			}
			return strings.Join(key, "/")
		},
		document: func(r answerRow) any { return r.document(fields) },
	}
	for _, f := range fields {
		kind.columns = append(kind.columns, column[answerRow]{
			strings.ToUpper(strings.ReplaceAll(string(f.Name()), "_", " ")),
			func(r answerRow) string { return r.cell(f) },
		})
	}
	return &answers{stderr: stderr, types: types, rows: newList(o, kind)}
}

// names reports whether a path of a mask is a field or in it.
func names(path string, f protoreflect.FieldDescriptor) bool {
	first, _, _ := strings.Cut(path, ".")
	return first == string(f.Name())
}

// keyOf returns the fields that name a row: the parameters of Get; of a group all but the count and
// the sums.
func keyOf(m protoreflect.MethodDescriptor, fields []protoreflect.FieldDescriptor) []protoreflect.FieldDescriptor {
	const firstOfGroup = 51 // count and sums
	isKey := func(f protoreflect.FieldDescriptor) bool { return f.Number() < firstOfGroup }
	service, _ := m.Parent().(protoreflect.ServiceDescriptor)
	if get := service.Methods().ByName("Get"); answerOf(m) != "groups" && get != nil {
		isKey = func(f protoreflect.FieldDescriptor) bool {
			p := get.Input().Fields().ByName(f.Name())
			return p != nil && p.Number() < firstCommon
		}
	}
	var key []protoreflect.FieldDescriptor
	for _, f := range fields {
		if isKey(f) {
			key = append(key, f)
		}
	}
	if len(key) == 0 { // a number, or the mask has no key
		return fields
	}
	return key
}

// document is a row as JSON, in the order of its fields.
func (r answerRow) document(fields []protoreflect.FieldDescriptor) rawJSON {
	text := []byte{'{'}
	for _, f := range fields {
		value, there := r[f.JSONName()]
		if !there {
			continue
		}
		if len(text) > 1 {
			text = append(text, ',')
		}
		text = append(append(appendText(text, f.JSONName()), ':'), value...)
	}
	return append(text, '}')
}

// print prints the rows of an answer.
func (a *answers) print(answer protoreflect.Message) error {
	first := answer.Descriptor().Fields().ByNumber(1)
	var rows []answerRow
	add := func(m protoreflect.Message) error {
		row, err := a.row(m)
		rows = append(rows, row)
		return err
	}
	switch {
	case first.IsList():
		items := answer.Get(first).List()
		for i := range items.Len() {
			if err := add(items.Get(i).Message()); err != nil {
				return err
			}
		}
	case first.Message() == nil:
		if err := add(answer); err != nil {
			return err
		}
	case answer.Has(first):
		if err := add(answer.Get(first).Message()); err != nil {
			return err
		}
	}
	return a.rows.page(rows)
}

// row reads a message as JSON.
func (a *answers) row(m protoreflect.Message) (answerRow, error) {
	encoded, err := proto.Marshal(m.Interface())
	if err != nil {
		return nil, err
	}
	text, warning := a.types.json(m.Descriptor(), encoded)
	if warning != "" {
		if err := printf(a.stderr, "warning: %s\n", warning); err != nil {
			return nil, err
		}
	}
	row := answerRow{}
	return row, json.Unmarshal(text, &row)
}

// end prints what stands beside the rows of the last answer, and how to go on.
func (a *answers) end(answer protoreflect.Message, next string) error {
	if err := a.rows.end(); err != nil {
		return err
	}
	if a.rows.rows == 0 && a.rows.format == formatTable {
		if err := printf(a.stderr, "no rows\n"); err != nil {
			return err
		}
	}
	if f := answer.Descriptor().Fields().ByName("explain"); f != nil && answer.Has(f) {
		if err := a.explain(answer.Get(f).Message()); err != nil {
			return err
		}
	}
	if f := answer.Descriptor().Fields().ByName("stale"); f != nil && answer.Get(f).Bool() {
		const text = "stale: rows may be older than the projection promises; --explain shows how old\n"
		if err := printf(a.stderr, text); err != nil {
			return err
		}
	}
	if token := textOf(answer, "token"); token != "" {
		if err := printf(a.stderr, "token %s\n", token); err != nil {
			return err
		}
	}
	if next != "" {
		return printf(a.stderr, "there are more: continue with --page-token %s, or use --all\n", next)
	}
	return nil
}

// explain prints how an answer came about.
func (a *answers) explain(m protoreflect.Message) error {
	encoded, err := proto.Marshal(m.Interface())
	if err != nil {
		return err
	}
	e := &projectionv1.Explain{}
	if err := proto.Unmarshal(encoded, e); err != nil {
		return err
	}
	rows := [][]string{
		{"index", e.GetIndex()},
		{"bounds", e.GetBounds()},
		{"residual", e.GetResidual()},
		{"examined", fmt.Sprintf("%s for %s", plural.Of(e.GetEntriesExamined(), "entry"), plural.Of(e.GetRows(), "row"))},
	}
	for _, p := range e.GetPartitions() {
		text := fmt.Sprintf("position %d, lag %d, age %s", p.GetPosition(), p.GetLag(), p.GetAge().AsDuration())
		if p.GetWorker() != "" {
			text = "worker " + p.GetWorker() + ", " + text
		}
		rows = append(rows, []string{fmt.Sprintf("partition %d", p.GetPartition()), text})
	}
	return newTable(a.stderr).all(slices.DeleteFunc(rows, func(r []string) bool { return r[1] == "" }))
}

// textOf returns a field of an answer, empty if the answer has none.
func textOf(answer protoreflect.Message, field protoreflect.Name) string {
	f := answer.Descriptor().Fields().ByName(field)
	if f == nil || f.Kind() != protoreflect.StringKind {
		return ""
	}
	return answer.Get(f).String()
}
