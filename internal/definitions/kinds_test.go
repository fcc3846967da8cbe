package definitions_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/tests/kit"
)

// note is a kind of definitions without rows.
type note struct {
	head definition.Head
	text string
}

func (note) Name() string { return "Note" }
func (note) Limit() int   { return 4 }
func (note) Spec() *definition.Object {
	return &definition.Object{Name: "a note", Fields: []definition.Field{{Name: "text", Type: "a text", Required: true}}}
}

func (note) Read(s *definition.Scope, d *definition.Document) definition.Definition {
	return note{head: d.Head, text: s.Text(d.Spec.Get("text"))}
}

func (n note) Head() definition.Head                { return n.head }
func (note) Link(*definition.Scope)                 {}
func (note) API() *descriptorpb.FileDescriptorProto { return nil }

func (n note) Differences(applied definition.Definition) []string {
	if before, ok := applied.(note); !ok || before.text != n.text {
		return []string{"the text is another one"}
	}
	return nil
}

func noteFile(version int, text string) []definition.Source {
	return []definition.Source{{Name: "note.yaml", Text: fmt.Appendf(nil,
		"apiVersion: millrace/v1\nkind: Note\nmetadata: {name: first, version: %d}\nspec: {text: %s}\n", version, text)}}
}

// wide is a schema whose descriptors are longer than a blob.
func wide() (*definition.Schema, error) {
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("wide.proto"), Package: proto.String("wide"), Syntax: proto.String("proto3"),
	}
	for i := range 600 {
		file.MessageType = append(file.MessageType, &descriptorpb.DescriptorProto{
			Name: proto.String(fmt.Sprintf("M%d%s", i, strings.Repeat("x", 1000))),
		})
	}
	return definition.NewSchema(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}}, nil)
}

// TestAnotherKind: whatever kinds there are use the same entity, checks and roll-out. One without
// rows is in force at once. What it was checked against is stored in pieces.
func TestAnotherKind(t *testing.T) {
	kinds := func(o *definitions.Options) {
		o.Kinds, o.Schema = append(definition.Standard(), note{}), wide
	}
	p := rollOut(t, kinds)
	apply(t, p.Definitions, noteFile(1, "one"), definitions.ApplyOptions{})
	stages := func() string {
		r, _ := p.Current()
		var text string
		for _, def := range r.State().GetDefinitions() {
			for _, v := range def.GetVersions() {
				text += fmt.Sprintf("%s %s %s %v, dataset %d; ", def.GetKind(), def.GetName(),
					definitions.VersionText(v.GetApplied().GetVersion()), v.GetStage(), v.GetApplied().GetDataset())
			}
		}
		return text
	}
	p.pass(time.Second)
	const want = "Note first 1 STAGE_PROMOTED, dataset 0; "
	kit.Await(t, want, func() bool { return stages() == want })
	out := apply(t, p.Definitions, noteFile(2, "two"), definitions.ApplyOptions{DryRun: true}).Outcomes[0]
	if len(out.Differences) != 1 || out.Before != "1" {
		t.Errorf("outcome %+v, want one difference", out)
	}
	r, _ := p.Current()
	if n := len(r.State().GetDefinitions()[0].GetVersions()[0].GetApplied().GetCaptured()); n != 2 {
		t.Errorf("the descriptors are in %d blobs, want 2", n)
	}
	other := newDefinitions(p.runtime, kinds)
	running(t, other)
	awaitKnown(t, other, "revision 3:")
	now, _ := other.Current()
	if len(now.Definitions) != 1 || len(now.Unsupported) != 0 {
		t.Errorf("elsewhere: %d definitions, %s", len(now.Definitions), shown(now))
	}
	// A process that has no such kind leaves it out.
	old := newDefinitions(p.runtime)
	running(t, old)
	kit.Await(t, "it is left out", func() bool {
		now, _ := old.Current()
		return len(now.Unsupported) == 1
	})
}

// TestProjectionsThatUseEachOther are checked together, here and elsewhere, and wait for one
// another only as long as one of them is not ready.
func TestProjectionsThatUseEachOther(t *testing.T) {
	const one = `apiVersion: millrace/v1
kind: Projection
metadata: {name: %s, version: 1}
spec:
  row: {id: string, other: string, mine: string, theirs: string}
  key: [id]
  from:
    - entity: customer
      state: {set: {other: '${state.city}', mine: '${state.name}'}}
  lookup: [{projection: %s, by: other, fields: {theirs: mine}}]
  indexes: [{name: by_mine, fields: [mine]}]
  queries:
    ListByMine: {params: {mine: string}, where: row.mine == params.mine}
`
	p := rollOut(t)
	apply(t, p.Definitions, []definition.Source{
		{Name: "a.yaml", Text: fmt.Appendf(nil, one, "a", "b")}, {Name: "b.yaml", Text: fmt.Appendf(nil, one, "b", "a")},
	}, definitions.ApplyOptions{})
	other := newDefinitions(p.runtime)
	running(t, other)
	const want = "revision 3: a 1 dataset 1 indexes [1] aggregates [] STAGE_BUILDING;" +
		" b 1 dataset 2 indexes [1] aggregates [] STAGE_BUILDING;"
	awaitKnown(t, other, want)
	p.isReady("a 1", true)
	p.pass(time.Second)
	mustKnow(t, p.Definitions, want)
	p.isReady("b 1", true)
	p.pass(time.Second)
	awaitKnown(t, p.Definitions, strings.NewReplacer("revision 3", "revision 5", "BUILDING", "PROMOTED").Replace(want))
}
