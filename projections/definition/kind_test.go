package definition

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/descriptorpb"
)

// note is a kind as another package would register it: it has one expression and names a
// projection.
type note struct {
	head Head
	of   *Node
	text *Expression
}

type noteKind struct{}

func (noteKind) Name() string { return "Note" }
func (noteKind) Limit() int   { return 2 }
func (noteKind) Spec() *Object {
	return &Object{Name: "the spec of a note", Fields: []Field{
		{Name: "of", Type: "a projection", Required: true}, {Name: "text", Type: "CEL"},
	}}
}

func (noteKind) Read(s *Scope, d *Document) Definition {
	n := &note{head: d.Head, of: d.Spec.Get("of")}
	env, err := s.Environment("shop.v1", nil, Variable{Name: "who", Type: singleType(field(s.Schema.message("shop.v1.Id", ""), "id"))})
	if err != nil {
		return nil
	}
	if at := d.Spec.Get("text"); at != nil {
		n.text = s.Expression(at, 0, s.Text(at), env)
	}
	return n
}

func (n *note) Head() Head                             { return n.head }
func (n *note) API() *descriptorpb.FileDescriptorProto { return nil }
func (n *note) Differences(Definition) []string        { return nil }
func (n *note) Link(s *Scope) {
	if s.Find("Projection", n.of.Text) == nil {
		s.Add(n.of, unknownProjection, n.of.Text, nearest(n.of.Text, "projections", s.Names("Projection")))
	}
}

// TestRegisteredKind checks documents of a kind that this package does not know: it has the
// head, the limits, the fields, the expressions and the links of the others.
func TestRegisteredKind(t *testing.T) {
	file := func(specs ...string) Source {
		text := specOf("")
		for i, spec := range specs {
			text += "---\napiVersion: millrace/v1\nkind: Note\nmetadata: {name: n" + itoa(i) + ", version: 1}\nspec: " + spec + "\n"
		}
		return Source{"f.yaml", []byte(text)}
	}
	opts := Options{Schema: shopSchema(t), Kinds: append(Standard(), noteKind{})}
	for name, c := range map[string]struct {
		file Source
		want string
	}{
		"good":       {file("{of: orders, text: who + 'x'}"), ""},
		"expression": {file("{of: orders, text: whom + 'x'}"), "f.yaml:12:26: D303 spec.text: undeclared reference to 'whom': did you mean who?"},
		"link":       {file("{of: order}"), "f.yaml:12:12: P302 spec.of: there is no projection order: did you mean orders?"},
		"field":      {file("{of: orders, txt: x}"), "f.yaml:12:20: D202 spec.txt: unknown key txt: did you mean text?"},
		"limit":      {file("{of: orders}", "{of: orders}", "{of: orders}"), "f.yaml:19:1: D211: there are more than 2 definitions of kind Note: drop some first"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, p := range Check([]Source{c.file}, opts).Report.Problems() {
				got = append(got, p.String())
			}
			if strings.Join(got, "\n") != c.want {
				t.Errorf("problems %q, want %q", got, c.want)
			}
		})
	}
	set := Check([]Source{file("{of: orders}")}, Options{Schema: opts.Schema})
	if err := set.Report.Err(); err == nil || !strings.Contains(err.Error(), "D209 kind: kind Note is not known: the kinds are Projection") {
		t.Errorf("without the kind: %v", err)
	}
}
