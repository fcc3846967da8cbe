package definitions

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/internal/mutation"
	"github.com/millrace-io/millrace/internal/plural"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
	"github.com/millrace-io/millrace/sdk"
)

// The entity that knows what is applied. An app has one.
const (
	EntityType = "_definitions"
	EntityID   = "app"
	BlobType   = "_blob"
)

// Limits of what is applied.
const (
	// maxDrafts bounds one apply: it is one commit.
	maxDrafts = 256
	// maxLive bounds the versions of one definition that are not dropped.
	maxLive = 16
	// MaxBlobBytes is the longest content of one blob. What is longer is cut into several.
	MaxBlobBytes = 512 << 10
)

// Services are the runtime's own: the entity of the definitions, and blobs.
func Services() []*sdk.Service {
	return []*sdk.Service{
		sdk.EventSourced(EntityType, newApp,
			sdk.Handle(definitionsv1.DefinitionsService_Apply_FullMethodName, (*app).apply),
			sdk.Handle(definitionsv1.DefinitionsService_Describe_FullMethodName, (*app).describe),
			sdk.Handle(definitionsv1.DefinitionsService_Promote_FullMethodName, (*app).promote),
			sdk.Handle(definitionsv1.DefinitionsService_Rollback_FullMethodName, (*app).rollback),
			sdk.Handle(definitionsv1.DefinitionsService_Drop_FullMethodName, (*app).drop),
			sdk.Handle(definitionsv1.DefinitionsService_Rebuild_FullMethodName, (*app).rebuild),
			sdk.Handle(definitionsv1.DefinitionsService_EndRebuild_FullMethodName, (*app).endRebuild),
			sdk.Handle(definitionsv1.DefinitionsService_Pause_FullMethodName, (*app).pause),
			sdk.Handle(definitionsv1.DefinitionsService_Resume_FullMethodName, (*app).resume),
			sdk.Handle(definitionsv1.DefinitionsService_Skip_FullMethodName, (*app).skip),
			sdk.On((*app).applied),
			sdk.On((*app).promoted),
			sdk.On((*app).rolledBack),
			sdk.On((*app).dropped),
			sdk.On((*app).pageKeyChosen),
			sdk.On((*app).rebuildBegan),
			sdk.On((*app).rebuilt),
			sdk.On((*app).paused),
			sdk.On((*app).resumed),
			sdk.On((*app).skipped),
			sdk.SnapshotEvery(100, (*app).snapshot, (*app).restore),
		),
		sdk.Value(BlobType,
			sdk.HandleValue(definitionsv1.BlobService_Put_FullMethodName, putBlob),
			sdk.HandleValue(definitionsv1.BlobService_Get_FullMethodName, getBlob),
		),
	}
}

// app is the entity `_definitions/app`. Its handlers decide; state.go has what events do, and
// operate.go what operators decide about rows.
type app struct {
	id    string
	state *definitionsv1.State
}

func newApp(id string) *app { return &app{id: id, state: &definitionsv1.State{}} }

func (a *app) describe(*sdk.Command, *definitionsv1.DescribeRequest) (*definitionsv1.DescribeResponse, error) {
	return &definitionsv1.DescribeResponse{State: a.state}, nil
}

// mayChange refuses a command for another id than that of the app, and one that was decided by
// another revision.
func (a *app) mayChange(expected int64) error {
	if a.id != EntityID {
		return sdk.Refuse(codes.InvalidArgument, "%s/%s: the only entity of this type has the id %q", EntityType, a.id,
			EntityID)
	}
	if expected != 0 && expected != a.state.GetRevision() && !mutation.On(mutation.Expected) {
		return sdk.Refuse(codes.Aborted,
			"the definitions have changed: they are at revision %d, and the command was made for %d: try again",
			a.state.GetRevision(), expected)
	}
	return nil
}

// apply applies all drafts, or none.
func (a *app) apply(cmd *sdk.Command, in *definitionsv1.ApplyRequest) (*definitionsv1.ApplyResponse, error) {
	if len(in.GetDrafts()) > maxDrafts {
		return nil, sdk.Refuse(codes.InvalidArgument, "%s are more than one apply may have: apply at most %d at a time",
			plural.Of(len(in.GetDrafts()), "definition"), maxDrafts)
	}
	outcomes := make([]*definitionsv1.Outcome, len(in.GetDrafts()))
	for i, d := range in.GetDrafts() {
		var err error
		if outcomes[i], err = a.judge(d, in); err != nil {
			return nil, err
		}
	}
	// What is applied already needs no revision: the same command may come twice.
	isNew := func(o *definitionsv1.Outcome) bool { return o.GetResult() == Applied }
	if !slices.ContainsFunc(outcomes, isNew) {
		return &definitionsv1.ApplyResponse{Revision: a.state.GetRevision(), Outcomes: outcomes}, nil
	}
	if err := a.mayChange(in.GetExpected()); err != nil {
		return nil, err
	}
	if err := a.needs(in.GetDrafts()); err != nil {
		return nil, err
	}
	for i, d := range in.GetDrafts() {
		if n := len(find(a.state, d.GetKind(), d.GetName()).GetVersions()); n >= maxLive && isNew(outcomes[i]) {
			return nil, sdk.Refuse(codes.ResourceExhausted, "%s has %s that are not dropped: drop one of them",
				d.GetName(), plural.Of(n, "version"))
		}
	}
	if key := in.GetPageKey(); len(key) > 0 && len(a.state.GetPageKey()) == 0 {
		cmd.Emit(&definitionsv1.PageKeyChosen{Key: key})
	}
	for i, d := range in.GetDrafts() {
		if !isNew(outcomes[i]) {
			continue
		}
		if err := a.add(cmd, d, outcomes[i]); err != nil {
			return nil, err
		}
	}
	return &definitionsv1.ApplyResponse{Revision: a.state.GetRevision(), Outcomes: outcomes}, nil
}

// judge says what is to become of a draft.
func (a *app) judge(d *definitionsv1.Draft, in *definitionsv1.ApplyRequest) (*definitionsv1.Outcome, error) {
	def := find(a.state, d.GetKind(), d.GetName())
	highest := def.GetHighest()
	out := &definitionsv1.Outcome{
		Kind: d.GetKind(), Name: d.GetName(), Version: &definitionsv1.Version{Number: d.GetNumber()},
		Result: Applied,
	}
	if d.GetName() == "" || d.GetNumber() < 1 {
		return nil, sdk.Refuse(codes.InvalidArgument, "a definition has the name %q and the version %d: both are needed",
			d.GetName(), d.GetNumber())
	}
	skip := func(format string, args ...any) (*definitionsv1.Outcome, error) {
		err := sdk.Refuse(codes.FailedPrecondition, format, args...)
		if !in.GetLenient() {
			return nil, err
		}
		out.Result, out.Warning = Skipped, err.Error()
		return out, nil
	}
	switch {
	case d.GetNumber() > highest.GetNumber():
		return out, nil
	case d.GetNumber() < highest.GetNumber():
		return skip("%s version %d is lower than version %s, which was applied: raise metadata.version above %d",
			d.GetName(), d.GetNumber(), VersionText(highest), highest.GetNumber())
	}
	newest := newestOf(def, d.GetNumber())
	switch {
	case newest.GetApplied().GetContent() == d.GetContent() && newest != nil:
		out.Result, out.Version, out.Dataset = Unchanged, newest.GetApplied().GetVersion(),
			newest.GetApplied().GetDataset()
		return out, nil
	case mutation.On(mutation.Immutable):
		return out, nil
	case in.GetDev():
		out.Version.Dev = highest.GetDev() + 1
		return out, nil
	case newest == nil:
		return skip("%s version %d was dropped: raise metadata.version", d.GetName(), d.GetNumber())
	default:
		return nil, sdk.Refuse(codes.Aborted, "%s version %d is applied with other content: raise metadata.version",
			d.GetName(), d.GetNumber())
	}
}

// needs refuses drafts that name what is neither applied nor among them.
func (a *app) needs(drafts []*definitionsv1.Draft) error {
	for _, d := range drafts {
		for _, name := range d.GetUses() {
			among := func(o *definitionsv1.Draft) bool { return o.GetKind() == d.GetKind() && o.GetName() == name }
			if len(find(a.state, d.GetKind(), name).GetVersions()) == 0 && !slices.ContainsFunc(drafts, among) {
				return sdk.Refuse(codes.FailedPrecondition, "%s uses %s, which is not applied: apply both", d.GetName(), name)
			}
		}
	}
	return nil
}

// add applies one draft.
func (a *app) add(cmd *sdk.Command, d *definitionsv1.Draft, out *definitionsv1.Outcome) error {
	numbers, err := a.number(d)
	if err != nil {
		return err
	}
	out.Dataset, out.Shares = numbers.dataset, numbers.shares
	cmd.Emit(&definitionsv1.Applied{
		Kind: d.GetKind(), Name: d.GetName(), Version: out.GetVersion(), Document: d.GetDocument(), File: d.GetFile(),
		Captured: d.GetCaptured(), Content: d.GetContent(), FoldHash: d.GetFoldHash(), Dataset: numbers.dataset,
		Indexes: numbers.indexes, Aggregates: numbers.aggregates, Manual: d.GetManual(), KeepPrevious: d.GetKeepPrevious(),
		Uses: d.GetUses(), At: timestamppb.New(cmd.Time()), By: cmd.Principal(),
	})
	if out.GetVersion().GetDev() == 0 {
		return nil
	}
	for _, v := range slices.Clone(find(a.state, d.GetKind(), d.GetName()).GetVersions()) {
		if v.GetStage() == Building && less(v.GetApplied().GetVersion(), out.GetVersion()) {
			a.emitDropped(cmd, v.GetApplied(), "replaced by "+VersionText(out.GetVersion())+" before it was ready")
		}
	}
	return nil
}

// promote puts a version in force.
func (a *app) promote(cmd *sdk.Command, in *definitionsv1.PromoteRequest) (*definitionsv1.PromoteResponse, error) {
	def := find(a.state, in.GetKind(), in.GetName())
	v := liveOf(def, in.GetVersion())
	if v != nil && v.GetStage() == Promoted {
		return &definitionsv1.PromoteResponse{Revision: a.state.GetRevision(), Unchanged: true}, nil
	}
	if err := a.mayChange(in.GetExpected()); err != nil {
		return nil, err
	}
	name := in.GetName() + " version " + VersionText(in.GetVersion())
	present := promotedOf(def)
	switch {
	case v == nil:
		return nil, notApplied(def, in.GetName(), in.GetVersion())
	case in.GetAutomatic() && !mutation.On(mutation.Held) &&
		(v.GetApplied().GetManual() || v.GetHeld() || v.GetStage() != Building):
		return nil, sdk.Refuse(codes.FailedPrecondition, "%s waits for an operator to promote it", name)
	case in.GetAutomatic() && less(in.GetVersion(), present.GetApplied().GetVersion()):
		return nil, sdk.Refuse(codes.FailedPrecondition, "%s is lower than version %s, which is in force", name,
			VersionText(present.GetApplied().GetVersion()))
	}
	cmd.Emit(&definitionsv1.Promoted{
		Kind: in.GetKind(), Name: in.GetName(), Version: v.GetApplied().GetVersion(), At: timestamppb.New(cmd.Time()),
		By: cmd.Principal(), Missing: in.GetMissing(),
	})
	a.dropBehind(cmd, def, v)
	return &definitionsv1.PromoteResponse{Revision: a.state.GetRevision()}, nil
}

// dropBehind gives up what a promoted version has made superfluous.
func (a *app) dropBehind(cmd *sdk.Command, def *definitionsv1.Definition, now *definitionsv1.Live) {
	version := now.GetApplied().GetVersion()
	keep := version.GetDev() == 0 && now.GetApplied().GetKeepPrevious().AsDuration() > 0
	for _, v := range slices.Clone(def.GetVersions()) {
		old := v.GetApplied().GetVersion()
		switch {
		case v == now:
		case v.GetStage() == Building && less(old, version):
			a.emitDropped(cmd, v.GetApplied(), "version "+VersionText(version)+" was ready first")
		case v.GetStage() == Kept && !keep:
			a.emitDropped(cmd, v.GetApplied(), "replaced by "+VersionText(version))
		}
	}
}

// rollback puts the version in force that was so before.
func (a *app) rollback(cmd *sdk.Command, in *definitionsv1.RollbackRequest) (*definitionsv1.RollbackResponse, error) {
	if err := a.mayChange(0); err != nil {
		return nil, err
	}
	def := find(a.state, in.GetKind(), in.GetName())
	from, to := promotedOf(def), lastKept(def)
	if in.GetTo() != nil {
		to = liveOf(def, in.GetTo())
	}
	switch {
	case from == nil:
		return nil, sdk.Refuse(codes.FailedPrecondition, "%s has no version in force", in.GetName())
	case in.GetTo() != nil && to == nil:
		return nil, notApplied(def, in.GetName(), in.GetTo())
	case to == nil:
		return nil, sdk.Refuse(codes.FailedPrecondition,
			"%s has no version to go back to: the ones before version %s are dropped", in.GetName(),
			VersionText(from.GetApplied().GetVersion()))
	case to == from:
		return &definitionsv1.RollbackResponse{
			Revision: a.state.GetRevision(), From: from.GetApplied().GetVersion(), To: to.GetApplied().GetVersion(),
		}, nil
	case to.GetStage() != Kept:
		return nil, sdk.Refuse(codes.FailedPrecondition, "%s version %s was never in force: promote it", in.GetName(),
			VersionText(in.GetTo()))
	}
	cmd.Emit(&definitionsv1.RolledBack{
		Kind: in.GetKind(), Name: in.GetName(), From: from.GetApplied().GetVersion(), To: to.GetApplied().GetVersion(),
		At: timestamppb.New(cmd.Time()), By: cmd.Principal(),
	})
	return &definitionsv1.RollbackResponse{
		Revision: a.state.GetRevision(), From: from.GetApplied().GetVersion(), To: to.GetApplied().GetVersion(),
	}, nil
}

// drop gives up one version, or all.
func (a *app) drop(cmd *sdk.Command, in *definitionsv1.DropRequest) (*definitionsv1.DropResponse, error) {
	if err := a.mayChange(in.GetExpected()); err != nil {
		return nil, err
	}
	def := find(a.state, in.GetKind(), in.GetName())
	gone := slices.Clone(def.GetVersions())
	if in.GetVersion() != nil {
		v := liveOf(def, in.GetVersion())
		if v == nil {
			return nil, notApplied(def, in.GetName(), in.GetVersion())
		}
		if v.GetStage() == Promoted {
			return nil, sdk.Refuse(codes.FailedPrecondition,
				"%s version %s is in force: promote another one, or drop all of %s", in.GetName(),
				VersionText(in.GetVersion()), in.GetName())
		}
		gone = []*definitionsv1.Live{v}
	}
	if len(gone) == 0 {
		return nil, sdk.Refuse(codes.NotFound, "%s is not applied", in.GetName())
	}
	if user := usedBy(a.state, def); user != "" && len(gone) == len(def.GetVersions()) {
		return nil, sdk.Refuse(codes.FailedPrecondition, "%s is used by %s: drop that first", in.GetName(), user)
	}
	for _, v := range gone {
		a.emitDropped(cmd, v.GetApplied(), in.GetReason())
	}
	return &definitionsv1.DropResponse{Revision: a.state.GetRevision()}, nil
}

func (a *app) emitDropped(cmd *sdk.Command, v *definitionsv1.Applied, reason string) {
	cmd.Emit(&definitionsv1.Dropped{
		Kind: v.GetKind(), Name: v.GetName(), Version: v.GetVersion(), Reason: reason, At: timestamppb.New(cmd.Time()),
		By: cmd.Principal(),
	})
}

// notApplied is the refusal for a version that is not live.
func notApplied(def *definitionsv1.Definition, name string, v *definitionsv1.Version) error {
	if highest := def.GetHighest(); highest != nil && !less(highest, v) {
		return sdk.Refuse(codes.NotFound, "%s version %s was dropped, or never applied", name, VersionText(v))
	}
	return sdk.Refuse(codes.NotFound, "%s version %s is not applied", name, VersionText(v))
}

// putBlob stores content under its hash. Again is without effect.
func putBlob(cmd *sdk.ValueCommand[*definitionsv1.Blob], in *definitionsv1.PutRequest,
) (*definitionsv1.PutResponse, error) {
	switch {
	case in.GetSha256() != hashOf(in.GetContent()):
		return nil, sdk.Refuse(codes.InvalidArgument, "the content of blob %s has the hash %s", in.GetSha256(),
			hashOf(in.GetContent()))
	case len(in.GetContent()) > MaxBlobBytes:
		return nil, sdk.Refuse(codes.InvalidArgument, "a blob of %d bytes is too long: cut it into pieces of %d",
			len(in.GetContent()), MaxBlobBytes)
	case cmd.State() == nil:
		cmd.Update(&definitionsv1.Blob{Content: in.GetContent()})
	}
	return &definitionsv1.PutResponse{}, nil
}

func getBlob(cmd *sdk.ValueCommand[*definitionsv1.Blob], in *definitionsv1.GetRequest,
) (*definitionsv1.GetResponse, error) {
	if cmd.State() == nil {
		return nil, sdk.Refuse(codes.NotFound, "there is no blob %s", in.GetSha256())
	}
	return &definitionsv1.GetResponse{Content: cmd.State().GetContent()}, nil
}

func hashOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
