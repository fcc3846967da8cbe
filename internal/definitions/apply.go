package definitions

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/millrace-io/millrace/projections/definition"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
	"github.com/millrace-io/millrace/sdk"
)

// ApplyOptions say how files are applied.
type ApplyOptions struct {
	// DryRun: nothing is applied; the result says what would be.
	DryRun bool
	// BreakAPI allows a generated API that callers of the applied one cannot use.
	BreakAPI bool
	// Dev: other content under the number of an applied version becomes the next version for
	// development of that number, and the one before is dropped when that takes over. It implies
	// BreakAPI.
	Dev bool
	// Lenient: lower and dropped versions are left out with a warning; without it they are errors.
	Lenient bool
}

// Result is what became of a version.
type Result = definitionsv1.Result

// The results.
const (
	Applied   = definitionsv1.Result_RESULT_APPLIED
	Unchanged = definitionsv1.Result_RESULT_UNCHANGED
	Skipped   = definitionsv1.Result_RESULT_SKIPPED
)

// Outcome says what became of one definition of the files.
type Outcome struct {
	Kind, Name, Version string
	Result              Result
	// Warning says why it was skipped.
	Warning string
	// Before is the version that it was compared with, "" for a new definition. Differences say in
	// words what is otherwise.
	Before      string
	Differences []string
	// Dataset is the number of its rows. Shares: they are those of a version that is applied already;
	// else they are built.
	Dataset uint32
	Shares  bool
}

// ApplyResult is what an apply did, or would do.
type ApplyResult struct {
	// Revision is the one that has it.
	Revision int64
	Outcomes []Outcome
	// Warnings are those of the check, a line for each.
	Warnings []string
}

// attempts bounds how often files are checked again because others were applied meanwhile.
const attempts = 5

// Apply checks files against what is served and what is applied, and applies all of their
// definitions or none. An error is a *definition.InvalidError of the check, or an *entities.Error.
// The result is known in this process when Apply returns.
func (d *Definitions) Apply(ctx context.Context, files []definition.Source, o ApplyOptions) (*ApplyResult, error) {
	o.Dev = o.Dev || d.options.Dev
	schema, err := d.options.Schema()
	if err != nil {
		return nil, fmt.Errorf("the definitions cannot be checked: %w", err)
	}
	for attempt := 1; ; attempt++ {
		now, err := d.refresh(ctx)
		if err != nil {
			return nil, err
		}
		result, err := d.applyTo(ctx, now, schema, files, o)
		if err == nil || attempt == attempts || !refusedWith(err, codes.Aborted) {
			return result, err
		}
		if again, failed := d.refresh(ctx); failed != nil || again.Number == now.Number {
			return nil, err
		}
	}
}

// applyTo applies files to a revision.
func (d *Definitions) applyTo(ctx context.Context, now *Revision, schema *definition.Schema, files []definition.Source,
	o ApplyOptions,
) (*ApplyResult, error) {
	set := definition.Check(files, definition.Options{
		Schema: schema, Kinds: d.options.Kinds, Applied: now.Definitions, BreakAPI: o.BreakAPI || o.Dev,
	})
	if err := set.Report.Err(); err != nil {
		return nil, err //nolint:wrapcheck // the report
	}
	result := &ApplyResult{}
	for _, p := range set.Report.Problems() {
		result.Warnings = append(result.Warnings, p.String())
	}
	request := &definitionsv1.ApplyRequest{
		App: EntityID, Expected: now.Number, Lenient: o.Lenient, Dev: o.Dev, PageKey: make([]byte, pageKeyBytes),
	}
	_, _ = rand.Read(request.GetPageKey()) // it never fails
	var blobs []blob
	for _, def := range set.Definitions {
		draft, needed, err := d.draft(now, schema, files, set, def)
		if err != nil {
			return nil, err
		}
		request.Drafts = append(request.GetDrafts(), draft)
		blobs = append(blobs, needed...)
	}
	// The entity's own code says what will happen: only then what is new is stored.
	expected, err := simulate(ctx, now.state, request)
	if err != nil {
		return nil, err
	}
	for i, out := range expected.GetOutcomes() {
		result.Outcomes = append(result.Outcomes, outcome(out))
		result.Outcomes[i].compare(d, now, set.Definitions[i])
	}
	result.Revision = expected.GetRevision()
	isNew := func(out Outcome) bool { return out.Result == Applied }
	if o.DryRun || !slices.ContainsFunc(result.Outcomes, isNew) {
		return result, nil
	}
	if err := d.store(ctx, blobs); err != nil {
		return nil, err
	}
	reply := &definitionsv1.ApplyResponse{}
	if err := d.change(ctx, definitionsApply, request, reply); err != nil {
		return nil, err
	}
	result.Revision = reply.GetRevision()
	return result, nil
}

// pageKeyBytes is the length of the key that page tokens are sealed with.
const pageKeyBytes = 32

// blob is content with its hash.
type blob struct {
	sha256  string
	content []byte
}

// draft describes a checked definition for the entity, and returns the blobs that it names.
func (d *Definitions) draft(now *Revision, schema *definition.Schema, files []definition.Source, set *definition.Set,
	def definition.Definition,
) (*definitionsv1.Draft, []blob, error) {
	h := def.Head()
	file, text := document(files, h)
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(d.capture(schema, now, set, def, file, text))
	if err != nil {
		return nil, nil, fmt.Errorf("encode the descriptors of %s: %w", h.Name, err)
	}
	draft := &definitionsv1.Draft{
		Kind: h.Kind, Name: h.Name, Number: int32(h.Version), //nolint:gosec // the check bounds it
		Document: hashOf(text), File: file,
	}
	blobs := []blob{{draft.GetDocument(), text}}
	for piece := range slices.Chunk(encoded, MaxBlobBytes) {
		blobs = append(blobs, blob{hashOf(piece), piece})
		draft.Captured = append(draft.GetCaptured(), hashOf(piece))
	}
	if p, ok := def.(*definition.Projection); ok {
		describe(draft, p)
	}
	draft.Content = hashOf([]byte(draft.GetDocument() + draft.GetFoldHash()))
	// Another notation of the same is the same.
	if same := d.sameNumber(now, h); same != nil {
		if was := d.compiledOf(same); was != nil && means(def, was) {
			draft.Content = same.GetApplied().GetContent()
		}
	}
	return draft, blobs, nil
}

// describe enters what a projection has.
func describe(draft *definitionsv1.Draft, p *definition.Projection) {
	draft.FoldHash = p.FoldHash()
	for _, x := range p.Indexes {
		draft.Indexes = append(draft.GetIndexes(), &definitionsv1.Number{Name: x.Name, Form: form(x.String())})
	}
	for _, x := range p.Aggregates {
		draft.Aggregates = append(draft.GetAggregates(), &definitionsv1.Number{Name: x.Name, Form: form(x.String())})
	}
	for _, l := range p.Lookups {
		if l.Projection != draft.GetName() && !slices.Contains(draft.GetUses(), l.Projection) {
			draft.Uses = append(draft.GetUses(), l.Projection)
		}
	}
	slices.Sort(draft.GetUses())
	draft.Manual = p.Rollout.Promote == "manual"
	draft.KeepPrevious = durationpb.New(p.Rollout.KeepPrevious)
}

// form names what an index or an aggregate is made of.
func form(text string) string { return hashOf([]byte(text))[:32] }

// means reports whether two definitions are the same in other words.
func means(def, was definition.Definition) bool {
	if p, ok := def.(*definition.Projection); ok {
		before, same := was.(*definition.Projection)
		if !same || p.FoldHash() != before.FoldHash() {
			return false
		}
	}
	return len(def.Differences(was)) == 0
}

// sameNumber returns the newest live version with the number of a head, or nil.
func (d *Definitions) sameNumber(now *Revision, h definition.Head) *definitionsv1.Live {
	return newestOf(find(now.state, h.Kind, h.Name), int32(h.Version)) //nolint:gosec // the check bounds it
}

// compiledOf returns the definition of a live version; nil if this process cannot compile it.
func (d *Definitions) compiledOf(live *definitionsv1.Live) definition.Definition {
	d.compiling.Lock()
	defer d.compiling.Unlock()
	if c := d.compiler.done[key(live.GetApplied())]; c != nil {
		return c.definition
	}
	return nil
}

// capture returns the part of the schema by which a definition can be compiled again, to the same.
func (d *Definitions) capture(schema *definition.Schema, now *Revision, set *definition.Set, def definition.Definition,
	file string, text []byte,
) *definitionsv1.Captured {
	part := capturedOf(schema.Capture(def))
	partial, err := schemaOf(part)
	if err != nil {
		return capturedOf(schema.All())
	}
	applied := slices.Concat(set.Definitions, now.Definitions)
	applied = slices.DeleteFunc(applied, func(o definition.Definition) bool { return o == def })
	again := definition.Check([]definition.Source{{Name: file, Text: text}}, definition.Options{
		Schema: partial, Kinds: d.options.Kinds, Applied: applied, BreakAPI: true,
	})
	if again.Report.Err() != nil || len(again.Definitions) != 1 || !means(again.Definitions[0], def) {
		return capturedOf(schema.All())
	}
	return part
}

// simulate lets the entity decide about a command without storing anything.
func simulate(ctx context.Context, state *definitionsv1.State, in *definitionsv1.ApplyRequest,
) (*definitionsv1.ApplyResponse, error) {
	entity, err := entityOf(state)
	if err != nil {
		return nil, err
	}
	payload, err := proto.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode the definitions: %w", err)
	}
	decision, err := entity.Handle(ctx, sdk.Invocation{Method: "Apply", Payload: sdk.Payload{Value: payload}})
	if err != nil {
		return nil, fmt.Errorf("look at what would be applied: %w", err)
	}
	if r := decision.Refusal; r != nil {
		return nil, refused(r.Code, "%s", r.Message)
	}
	reply := &definitionsv1.ApplyResponse{}
	if err := proto.Unmarshal(decision.Reply.Value, reply); err != nil {
		return nil, fmt.Errorf("look at what would be applied: %w", err)
	}
	return reply, nil
}

// entityOf returns the entity in a state.
func entityOf(state *definitionsv1.State) (sdk.Entity, error) {
	entity, err := Services()[0].NewEntity(EntityID)
	if err != nil {
		return nil, fmt.Errorf("make the entity of the definitions: %w", err)
	}
	if state.GetRevision() == 0 {
		return entity, nil
	}
	value, err := proto.Marshal(state)
	if err == nil {
		url := "type.googleapis.com/" + string(state.ProtoReflect().Descriptor().FullName())
		err = entity.Load(&sdk.Payload{TypeURL: url, Value: value}, uint64(state.GetRevision())) //nolint:gosec // a count
	}
	if err != nil {
		return nil, fmt.Errorf("load the state of the definitions: %w", err)
	}
	return entity, nil
}

// store writes the blobs that are not known to be there.
func (d *Definitions) store(ctx context.Context, blobs []blob) error {
	for _, b := range blobs {
		in := &definitionsv1.PutRequest{Sha256: b.sha256, Content: b.content}
		if err := d.call(ctx, blobPut, in, &definitionsv1.PutResponse{}); err != nil {
			return fmt.Errorf("store a blob of %d bytes; no definition was applied: %w", len(b.content), err)
		}
		d.cache.keepBlob(b.sha256, b.content)
	}
	return nil
}

func outcome(o *definitionsv1.Outcome) Outcome {
	return Outcome{
		Kind: o.GetKind(), Name: o.GetName(), Version: VersionText(o.GetVersion()), Result: o.GetResult(),
		Warning: o.GetWarning(), Dataset: o.GetDataset(), Shares: o.GetShares(),
	}
}

// compare says what is otherwise than in the version in force, or in the newest one.
func (o *Outcome) compare(d *Definitions, now *Revision, def definition.Definition) {
	if o.Result != Applied {
		return
	}
	before := promotedOf(find(now.state, o.Kind, o.Name))
	if versions := find(now.state, o.Kind, o.Name).GetVersions(); before == nil && len(versions) > 0 {
		before = versions[len(versions)-1]
	}
	if before == nil {
		return
	}
	o.Before = VersionText(before.GetApplied().GetVersion())
	if was := d.compiledOf(before); was != nil {
		o.Differences = def.Differences(was)
	}
}
