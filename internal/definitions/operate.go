package definitions

import (
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/internal/plural"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
	"github.com/millrace-io/millrace/sdk"
)

// This file has what operators decide about rows: that they are built again, that they pause, and
// which records are left out of them. It belongs to the dataset, so it holds for all versions that
// share the rows, and for the rows that take their place.

// maxSkips bounds the records that are left out of a dataset: all processes have all of them.
const maxSkips = 1_000

// rowsOf returns a version that has rows, and their dataset. Without a version it is the one in
// force or, without one, the newest.
func (a *app) rowsOf(
	kind, name string, v *definitionsv1.Version,
) (*definitionsv1.Applied, *definitionsv1.Dataset, error) {
	if err := a.mayChange(0); err != nil {
		return nil, nil, err
	}
	def := find(a.state, kind, name)
	live := chosen(def, v)
	switch {
	case live == nil && v != nil:
		return nil, nil, notApplied(def, name, v)
	case live == nil:
		return nil, nil, sdk.Refuse(codes.NotFound, "%s is not applied", name)
	}
	d := datasetOf(a.state, live.GetApplied().GetDataset())
	if d == nil {
		return nil, nil, sdk.Refuse(codes.FailedPrecondition, "%s version %s has no rows", name,
			VersionText(live.GetApplied().GetVersion()))
	}
	return live.GetApplied(), d, nil
}

// chosen returns a live version: the one that is named, else the one in force, else the newest; nil
// if there is none.
func chosen(def *definitionsv1.Definition, v *definitionsv1.Version) *definitionsv1.Live {
	if v != nil {
		return liveOf(def, v)
	}
	if present := promotedOf(def); present != nil {
		return present
	}
	return lastWhere(def, func(*definitionsv1.Live) bool { return true })
}

// rebuild begins to build rows again.
func (a *app) rebuild(cmd *sdk.Command, in *definitionsv1.RebuildRequest) (*definitionsv1.RebuildResponse, error) {
	v, d, err := a.rowsOf(in.GetKind(), in.GetName(), in.GetVersion())
	switch {
	case err != nil:
		return nil, err
	case d.GetPaused():
		return nil, sdk.Refuse(codes.FailedPrecondition, "%s version %s is paused, and its new rows would be: resume it first",
			v.GetName(), VersionText(v.GetVersion()))
	}
	unchanged := d.GetRebuild() != 0
	if !unchanged {
		cmd.Emit(&definitionsv1.RebuildBegan{
			Kind: v.GetKind(), Name: v.GetName(), Version: v.GetVersion(), Dataset: d.GetDataset(),
			Next: a.state.GetNextDataset(), At: timestamppb.New(cmd.Time()), By: cmd.Principal(),
		})
	}
	return &definitionsv1.RebuildResponse{
		Revision: a.state.GetRevision(), Version: v.GetVersion(), Unchanged: unchanged,
	}, nil
}

// endRebuild changes over to rows that are complete.
func (a *app) endRebuild(
	cmd *sdk.Command, in *definitionsv1.EndRebuildRequest,
) (*definitionsv1.EndRebuildResponse, error) {
	if err := a.mayChange(in.GetExpected()); err != nil {
		return nil, err
	}
	d, v := datasetOf(a.state, in.GetDataset()), a.userOf(in.GetDataset())
	if d.GetRebuild() == 0 || v == nil {
		return nil, sdk.Refuse(codes.FailedPrecondition, "dataset %d is not built again", in.GetDataset())
	}
	cmd.Emit(&definitionsv1.Rebuilt{
		Kind: v.GetKind(), Name: v.GetName(), Version: v.GetVersion(), Dataset: d.GetDataset(), Next: d.GetRebuild(),
		At: timestamppb.New(cmd.Time()), By: cmd.Principal(),
	})
	return &definitionsv1.EndRebuildResponse{Revision: a.state.GetRevision()}, nil
}

// userOf returns a version that has a dataset: the one in force, if it has. It is nil for none.
func (a *app) userOf(dataset uint32) (user *definitionsv1.Applied) {
	for _, def := range a.state.GetDefinitions() {
		for _, v := range def.GetVersions() {
			if v.GetApplied().GetDataset() == dataset && (user == nil || v.GetStage() == Promoted) {
				user = v.GetApplied()
			}
		}
	}
	return user
}

func (a *app) pause(cmd *sdk.Command, in *definitionsv1.PauseRequest) (*definitionsv1.PauseResponse, error) {
	v, d, err := a.rowsOf(in.GetKind(), in.GetName(), in.GetVersion())
	if err != nil {
		return nil, err
	}
	unchanged := d.GetPaused()
	if !unchanged {
		cmd.Emit(&definitionsv1.Paused{
			Kind: v.GetKind(), Name: v.GetName(), Version: v.GetVersion(), Dataset: d.GetDataset(),
			At: timestamppb.New(cmd.Time()), By: cmd.Principal(),
		})
	}
	return &definitionsv1.PauseResponse{
		Revision: a.state.GetRevision(), Version: v.GetVersion(), Unchanged: unchanged,
	}, nil
}

func (a *app) resume(cmd *sdk.Command, in *definitionsv1.ResumeRequest) (*definitionsv1.ResumeResponse, error) {
	v, d, err := a.rowsOf(in.GetKind(), in.GetName(), in.GetVersion())
	if err != nil {
		return nil, err
	}
	unchanged := !d.GetPaused()
	if !unchanged {
		cmd.Emit(&definitionsv1.Resumed{
			Kind: v.GetKind(), Name: v.GetName(), Version: v.GetVersion(), Dataset: d.GetDataset(),
			At: timestamppb.New(cmd.Time()), By: cmd.Principal(),
		})
	}
	return &definitionsv1.ResumeResponse{
		Revision: a.state.GetRevision(), Version: v.GetVersion(), Unchanged: unchanged,
	}, nil
}

// skip leaves a record out of rows.
func (a *app) skip(cmd *sdk.Command, in *definitionsv1.SkipRequest) (*definitionsv1.SkipResponse, error) {
	v, d, err := a.rowsOf(in.GetKind(), in.GetName(), in.GetVersion())
	if err != nil {
		return nil, err
	}
	same := func(s *definitionsv1.Skip) bool {
		return s.GetPartition() == in.GetSkip().GetPartition() && s.GetOffset() == in.GetSkip().GetOffset()
	}
	unchanged := slices.ContainsFunc(d.GetSkips(), same)
	switch {
	case in.GetSkip().GetPartition() < 0 || in.GetSkip().GetOffset() < 0 || in.GetSkip().GetEntity() == "":
		return nil, sdk.Refuse(codes.InvalidArgument, "no record is named that is to be left out of %s", v.GetName())
	case d.GetDataset() != in.GetDataset():
		return nil, sdk.Refuse(codes.Aborted,
			"%s version %s has other rows now (dataset %d) than those that the record was seen in (dataset %d): look again",
			v.GetName(), VersionText(v.GetVersion()), d.GetDataset(), in.GetDataset())
	case !unchanged && len(d.GetSkips()) >= maxSkips:
		return nil, sdk.Refuse(codes.ResourceExhausted,
			"%s version %s has %s left out already, and more are not allowed: apply a version that can fold them",
			v.GetName(), VersionText(v.GetVersion()), plural.Of(len(d.GetSkips()), "record"))
	case !unchanged:
		cmd.Emit(&definitionsv1.Skipped{
			Kind: v.GetKind(), Name: v.GetName(), Version: v.GetVersion(), Dataset: d.GetDataset(), Skip: in.GetSkip(),
			At: timestamppb.New(cmd.Time()), By: cmd.Principal(),
		})
	}
	return &definitionsv1.SkipResponse{Revision: a.state.GetRevision(), Version: v.GetVersion(), Unchanged: unchanged}, nil
}

// What the events do.

func (a *app) rebuildBegan(e *definitionsv1.RebuildBegan) {
	a.note(e.GetAt(), e.GetBy(), e.GetKind(), e.GetName(), e.GetVersion(), "rows are built again")
	a.state.NextDataset = max(a.state.GetNextDataset(), e.GetNext()+1)
	if d := datasetOf(a.state, e.GetDataset()); d != nil {
		d.Rebuild = e.GetNext()
	}
}

// rebuilt gives the versions of a dataset the one that was built in its place, which has the same
// numbers of indexes and aggregates.
func (a *app) rebuilt(e *definitionsv1.Rebuilt) {
	a.note(e.GetAt(), e.GetBy(), e.GetKind(), e.GetName(), e.GetVersion(), "rows were built again")
	d := datasetOf(a.state, e.GetDataset())
	if d == nil {
		return
	}
	d.Dataset, d.Rebuild = e.GetNext(), 0
	sortDatasets(a.state)
	for _, def := range a.state.GetDefinitions() {
		for _, v := range def.GetVersions() {
			if v.GetApplied().GetDataset() == e.GetDataset() {
				v.Applied = proto.CloneOf(v.GetApplied()) // the event of its own stays
				v.Applied.Dataset = e.GetNext()
			}
		}
	}
}

func (a *app) paused(e *definitionsv1.Paused) {
	a.note(e.GetAt(), e.GetBy(), e.GetKind(), e.GetName(), e.GetVersion(), "paused")
	if d := datasetOf(a.state, e.GetDataset()); d != nil {
		d.Paused = true
	}
}

func (a *app) resumed(e *definitionsv1.Resumed) {
	a.note(e.GetAt(), e.GetBy(), e.GetKind(), e.GetName(), e.GetVersion(), "resumed")
	if d := datasetOf(a.state, e.GetDataset()); d != nil {
		d.Paused = false
	}
}

func (a *app) skipped(e *definitionsv1.Skipped) {
	a.note(e.GetAt(), e.GetBy(), e.GetKind(), e.GetName(), e.GetVersion(), "a record of "+e.GetSkip().GetEntity()+
		" is left out")
	if d := datasetOf(a.state, e.GetDataset()); d != nil {
		d.Skips = append(d.GetSkips(), e.GetSkip())
	}
}
