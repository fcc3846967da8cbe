package definitions

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/projections/definition"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
)

// Stage says what becomes of a version.
type Stage = definitionsv1.Stage

// The stages.
const (
	// Building: it waits for its promotion.
	Building = definitionsv1.Stage_STAGE_BUILDING
	// Promoted: it is in force.
	Promoted = definitionsv1.Stage_STAGE_PROMOTED
	// Kept: it was in force, and is kept for a rollback.
	Kept = definitionsv1.Stage_STAGE_KEPT
)

// Revision is what is applied, compiled. It never changes.
type Revision struct {
	// Number counts the events of the entity.
	Number int64
	// Views are the versions of projections that are not dropped, by name and in the order in which
	// they were applied.
	Views []*View
	// Rebuilding are versions whose rows are built again, with the dataset that is to take the place
	// of the present one.
	Rebuilding []*View
	// Definitions are those that files are checked against: of each name the version in force or,
	// without one, the newest.
	Definitions []definition.Definition
	// Unsupported are the versions that this process cannot compile.
	Unsupported []Unsupported
	// PageKey seals page tokens: 32 bytes, the same in all processes; nil before the first apply.
	PageKey []byte

	state *definitionsv1.State
}

// State returns what the revision was compiled from. It must not be changed.
func (r *Revision) State() *definitionsv1.State { return r.state }

// View is one version of a projection.
type View struct {
	// Projection is the same in all revisions.
	Projection *definition.Projection
	Name       string
	// Version is as people write it: 4, or 4-dev.2.
	Version string
	// Dataset is the number of its rows: versions with the same fold share it.
	Dataset uint32
	// Indexes and Aggregates are the durable numbers, from 1, in the order of Projection.Indexes and
	// Projection.Aggregates.
	Indexes, Aggregates []uint16
	Stage               Stage
	// Paused: nothing is folded into the rows. Skips are the records that are left out of them.
	Paused bool
	Skips  []*definitionsv1.Skip

	version *definitionsv1.Version
}

// Live reports whether the version is in force, or kept for a rollback.
func (v *View) Live() bool { return v.Stage == Promoted || v.Stage == Kept }

// Unsupported is a version that this process cannot compile: it was applied by a newer one.
type Unsupported struct {
	Kind, Name, Version string
	Reason              string
}

// promoted returns the version of a projection that is in force, nil for none.
func (r *Revision) promoted(name string) *View {
	for _, v := range r.Views {
		if v.Name == name && v.Stage == Promoted {
			return v
		}
	}
	return nil
}

// compiler makes revisions. What it has compiled once it does not compile again. It belongs to one
// goroutine at a time.
type compiler struct {
	kinds definition.Kinds
	blob  func(ctx context.Context, sha256 string) ([]byte, error)
	done  map[string]*compiled
}

// compiled is one version: a definition, or why it is unsupported.
type compiled struct {
	live *definitionsv1.Live
	// text is the document, schema what it is checked against.
	text       []byte
	schema     *definition.Schema
	definition definition.Definition
	err        error
}

// key names what is compiled. A version never changes, but another app may have the same one.
func key(v *definitionsv1.Applied) string {
	return strings.Join(append([]string{v.GetKind(), v.GetName(), VersionText(v.GetVersion()), v.GetDocument()},
		v.GetCaptured()...), " ")
}

// compile makes a revision of a state. The error says that a blob could not be had.
func (c *compiler) compile(ctx context.Context, state *definitionsv1.State) (*Revision, error) {
	before := c.done
	c.done = map[string]*compiled{}
	var all []*compiled
	for _, def := range state.GetDefinitions() {
		for _, live := range def.GetVersions() {
			now := before[key(live.GetApplied())]
			if now == nil {
				var err error
				if now, err = c.load(ctx, live); err != nil {
					c.done = before
					return nil, err
				}
			}
			now.live = live
			c.done[key(live.GetApplied())] = now
			all = append(all, now)
		}
	}
	c.link(all)
	r := &Revision{Number: state.GetRevision(), PageKey: state.GetPageKey(), state: state}
	for _, def := range state.GetDefinitions() {
		r.add(c, def)
	}
	return r, nil
}

// load gets what a version is compiled from.
func (c *compiler) load(ctx context.Context, live *definitionsv1.Live) (*compiled, error) {
	v := live.GetApplied()
	name := v.GetName() + " version " + VersionText(v.GetVersion())
	text, err := c.blob(ctx, v.GetDocument())
	if err != nil {
		return nil, fmt.Errorf("get the text of %s: %w", name, err)
	}
	var encoded []byte
	for _, hash := range v.GetCaptured() {
		piece, err := c.blob(ctx, hash)
		if err != nil {
			return nil, fmt.Errorf("get the descriptors of %s: %w", name, err)
		}
		encoded = append(encoded, piece...)
	}
	now := &compiled{text: text}
	captured := &definitionsv1.Captured{}
	if err := proto.Unmarshal(encoded, captured); err != nil {
		now.err = fmt.Errorf("the descriptors of %s cannot be read: %w", name, err)
		return now, nil // it is a property of the version: waiting does not change it
	}
	now.schema, now.err = schemaOf(captured)
	return now, nil
}

// schemaOf makes a schema of what was captured.
func schemaOf(c *definitionsv1.Captured) (*definition.Schema, error) {
	var types []definition.EntityType
	for _, t := range c.GetEntityTypes() {
		types = append(types, definition.EntityType{Name: t.GetName(), Service: t.GetService(), Events: t.GetEvents()})
	}
	return definition.NewSchema(c.GetFiles(), types) //nolint:wrapcheck // it names the file
}

// capturedOf is what is stored of a schema.
func capturedOf(c definition.Captured) *definitionsv1.Captured {
	m := &definitionsv1.Captured{Files: c.Files}
	for _, t := range c.Entities {
		m.EntityTypes = append(m.EntityTypes, &definitionsv1.EntityType{Name: t.Name, Service: t.Service, Events: t.Events})
	}
	return m
}

// link compiles all that is not compiled yet, each version after those that it uses. Versions that
// use each other are checked together.
func (c *compiler) link(all []*compiled) {
	waiting := slices.DeleteFunc(slices.Clone(all), (*compiled).isDone)
	for len(waiting) > 0 {
		ready := slices.DeleteFunc(slices.Clone(waiting), func(v *compiled) bool { return v.waits(waiting) })
		if len(ready) == 0 {
			ready = waiting // they use each other
		}
		for _, v := range ready {
			c.check(v, all)
		}
		waiting = slices.DeleteFunc(waiting, (*compiled).isDone)
	}
}

func (v *compiled) isDone() bool { return v.definition != nil || v.err != nil }

// is reports whether it is a version of what another one uses.
func (v *compiled) isUsedBy(user *compiled) bool {
	a, b := v.live.GetApplied(), user.live.GetApplied()
	return v != user && a.GetKind() == b.GetKind() && slices.Contains(b.GetUses(), a.GetName())
}

// waits reports whether a version uses one that is not compiled yet.
func (v *compiled) waits(waiting []*compiled) bool {
	return slices.ContainsFunc(waiting, func(o *compiled) bool { return o.isUsedBy(v) })
}

// check compiles one version. What it uses may have several versions, of which one must do: they
// are tried from the newest to the oldest, and the first error counts.
func (c *compiler) check(v *compiled, all []*compiled) {
	var first error
	for _, depth := range depths(v, all) {
		var applied []definition.Definition
		files := []definition.Source{v.source()}
		for _, name := range v.live.GetApplied().GetUses() {
			if o := usedVersion(v, all, name, depth); o == nil {
				continue
			} else if o.definition != nil {
				applied = append(applied, o.definition)
			} else if o.err == nil {
				files = append(files, o.source())
			}
		}
		set := definition.Check(files, definition.Options{
			Schema: v.schema, Kinds: c.kinds, Applied: applied, BreakAPI: true,
		})
		err := set.Report.Err()
		if err == nil {
			for _, d := range set.Definitions {
				if h := d.Head(); h.Kind == v.live.GetApplied().GetKind() && h.Name == v.live.GetApplied().GetName() {
					v.definition = d
					return
				}
			}
			err = fmt.Errorf("%s has no definition of %s", v.live.GetApplied().GetFile(), v.live.GetApplied().GetName())
		}
		if first == nil {
			first = err
		}
	}
	v.err = first
}

func (v *compiled) source() definition.Source {
	return definition.Source{Name: v.live.GetApplied().GetFile(), Text: v.text}
}

// depths are 0 for the newest version of each used definition, 1 for the ones before, and so on.
func depths(v *compiled, all []*compiled) []int {
	most := 1
	for _, name := range v.live.GetApplied().GetUses() {
		n := 0
		for _, o := range all {
			if o.isUsedBy(v) && o.live.GetApplied().GetName() == name {
				n++
			}
		}
		most = max(most, n)
	}
	list := make([]int, most)
	for i := range list {
		list[i] = i
	}
	return list
}

// usedVersion returns a version of a used definition, the oldest if there are not as many.
func usedVersion(v *compiled, all []*compiled, name string, depth int) *compiled {
	var found *compiled
	for _, o := range slices.Backward(all) {
		if o.isUsedBy(v) && o.live.GetApplied().GetName() == name {
			found = o
			if depth--; depth < 0 {
				break
			}
		}
	}
	return found
}

// add enters the versions of one definition.
func (r *Revision) add(c *compiler, def *definitionsv1.Definition) {
	var inForce definition.Definition
	for _, live := range def.GetVersions() {
		v := live.GetApplied()
		now := c.done[key(v)]
		if now.err != nil {
			r.Unsupported = append(r.Unsupported, Unsupported{
				Kind: v.GetKind(), Name: v.GetName(), Version: VersionText(v.GetVersion()), Reason: now.err.Error(),
			})
			continue
		}
		if p, ok := now.definition.(*definition.Projection); ok {
			r.addView(viewOf(p, live))
		}
		if promotedOf(def) == nil || live.GetStage() == Promoted {
			inForce = now.definition
		}
	}
	if inForce != nil {
		r.Definitions = append(r.Definitions, inForce)
	}
}

// addView enters a version of a projection, and the rows that are built in place of its rows.
func (r *Revision) addView(v *View) {
	d := datasetOf(r.state, v.Dataset)
	v.Paused, v.Skips = d.GetPaused(), d.GetSkips()
	r.Views = append(r.Views, v)
	if next := d.GetRebuild(); next != 0 {
		again := *v
		again.Dataset, again.Stage = next, Building
		r.Rebuilding = append(r.Rebuilding, &again)
	}
}

func viewOf(p *definition.Projection, live *definitionsv1.Live) *View {
	a := live.GetApplied()
	v := &View{
		Projection: p, Name: a.GetName(), Version: VersionText(a.GetVersion()), Dataset: a.GetDataset(),
		Stage: live.GetStage(), version: a.GetVersion(),
	}
	for _, x := range p.Indexes {
		v.Indexes = append(v.Indexes, numberOf(a.GetIndexes(), x.Name))
	}
	for _, x := range p.Aggregates {
		v.Aggregates = append(v.Aggregates, numberOf(a.GetAggregates(), x.Name))
	}
	return v
}

// numberOf returns a durable number: the entity gave one to each index and aggregate.
func numberOf(list []*definitionsv1.Number, name string) uint16 {
	for _, n := range list {
		if n.GetName() == name {
			return uint16(n.GetNumber()) //nolint:gosec // the entity gives no higher ones
		}
	}
	return 0
}
