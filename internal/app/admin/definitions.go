package admin

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/gateway"
	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/projections/definition"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
)

// definitions returns what the process knows of the app's definitions.
func (s *Service) definitions() (*definitions.Definitions, error) {
	if r := s.process.ReadSide(); r != nil && r.Definitions != nil {
		return r.Definitions, nil
	}
	return nil, status.Error(codes.Unimplemented,
		"this process knows no definitions: ask a worker, with --admin and its admin address")
}

// ListDefinitions returns the versions that are applied, or the newest changes, as the entity of
// the definitions has them.
func (s *Service) ListDefinitions(ctx context.Context,
	r *adminv1.ListDefinitionsRequest,
) (*adminv1.ListDefinitionsResponse, error) {
	d, err := s.definitions()
	if err != nil {
		return nil, err
	}
	state, err := d.Describe(ctx)
	if err != nil {
		return nil, gateway.Status(err).Err()
	}
	res := &adminv1.ListDefinitionsResponse{Revision: state.GetRevision()}
	if r.GetHistory() {
		for _, c := range state.GetHistory() {
			res.Changes = append(res.Changes, &adminv1.DefinitionChange{
				Revision: c.GetRevision(), At: c.GetAt(), Kind: c.GetKind(), Name: c.GetName(),
				Version: definitions.VersionText(c.GetVersion()), What: c.GetWhat(),
			})
		}
		return res, nil
	}
	for _, def := range state.GetDefinitions() {
		for _, v := range def.GetVersions() {
			res.Versions = append(res.Versions, appliedVersion(d, state, v))
		}
	}
	return res, nil
}

// stages are the names of what becomes of a version.
var stages = map[definitionsv1.Stage]string{ //nolint:gochecknoglobals // a constant table
	definitions.Building: "building", definitions.Promoted: "promoted", definitions.Kept: "kept",
}

func appliedVersion(
	d *definitions.Definitions, state *definitionsv1.State, live *definitionsv1.Live,
) *adminv1.AppliedVersion {
	v := live.GetApplied()
	id := definitions.ID{Kind: v.GetKind(), Name: v.GetName(), Version: definitions.VersionText(v.GetVersion())}
	shown := &adminv1.AppliedVersion{
		Kind: id.Kind, Name: id.Name, Version: id.Version, Stage: stages[live.GetStage()], Since: live.GetSince(),
		File: v.GetFile(), Applied: v.GetAt(), Dataset: v.GetDataset(), Note: d.Progress(id),
	}
	for _, rows := range state.GetDatasets() {
		if rows.GetDataset() == v.GetDataset() && v.GetDataset() != 0 {
			shown.Paused, shown.Rebuild = rows.GetPaused(), rows.GetRebuild()
		}
	}
	if live.GetHeld() {
		shown.Note = "it was rolled back, and waits for an operator to promote it"
	}
	revision, _ := d.Current()
	for _, u := range revision.Unsupported {
		if u.Kind == id.Kind && u.Name == id.Name && u.Version == id.Version {
			shown.Note = "not supported by this process: " + u.Reason
		}
	}
	return shown
}

// ApplyDefinitions applies files, or says what that would do.
func (s *Service) ApplyDefinitions(ctx context.Context,
	r *adminv1.ApplyDefinitionsRequest,
) (*adminv1.ApplyDefinitionsResponse, error) {
	d, err := s.definitions()
	if err != nil {
		return nil, err
	}
	files := make([]definition.Source, len(r.GetFiles()))
	for i, f := range r.GetFiles() {
		files[i] = definition.Source{Name: f.GetName(), Text: f.GetText()}
	}
	done, err := d.Apply(ctx, files, definitions.ApplyOptions{DryRun: r.GetDryRun(), BreakAPI: r.GetBreakApi()})
	if invalid, is := errors.AsType[*definition.InvalidError](err); is {
		return &adminv1.ApplyDefinitionsResponse{
			Problems: problemList(invalid.Problems), MoreProblems: int32(invalid.More), //nolint:gosec // bounded by the files
		}, nil
	}
	if err != nil {
		return nil, gateway.Status(err).Err()
	}
	res := &adminv1.ApplyDefinitionsResponse{Revision: done.Revision, Warnings: done.Warnings}
	for _, o := range done.Outcomes {
		res.Outcomes = append(res.Outcomes, &adminv1.DefinitionOutcome{
			Kind: o.Kind, Name: o.Name, Version: o.Version, Result: results[o.Result], Warning: o.Warning, Before: o.Before,
			Differences: o.Differences, Dataset: o.Dataset, Shares: o.Shares,
		})
	}
	return res, nil
}

// results are the names of what becomes of a definition that is applied.
var results = map[definitions.Result]string{ //nolint:gochecknoglobals // a constant table
	definitions.Applied: "applied", definitions.Unchanged: "unchanged", definitions.Skipped: "skipped",
}

func problemList(problems []*definition.Problem) []*adminv1.DefinitionProblem {
	all := make([]*adminv1.DefinitionProblem, len(problems))
	for i, p := range problems {
		all[i] = &adminv1.DefinitionProblem{
			File: p.File, Line: int32(p.Line), Column: int32(p.Column), Rule: string(p.Rule), Where: p.Where, //nolint:gosec // in a file of 256 KiB
			Message: p.Message, Fix: p.Fix,
		}
	}
	return all
}

// PromoteDefinition puts a version in force.
func (s *Service) PromoteDefinition(ctx context.Context,
	r *adminv1.PromoteDefinitionRequest,
) (*adminv1.PromoteDefinitionResponse, error) {
	d, err := s.definitions()
	if err != nil {
		return nil, err
	}
	id := definitions.ID{Kind: r.GetKind(), Name: r.GetName(), Version: r.GetVersion()}
	missing, err := d.Promote(ctx, id, r.GetForce())
	if err != nil {
		return nil, gateway.Status(err).Err()
	}
	return &adminv1.PromoteDefinitionResponse{Missing: missing}, nil
}

// RollbackDefinition puts the version in force that was so before.
func (s *Service) RollbackDefinition(ctx context.Context,
	r *adminv1.RollbackDefinitionRequest,
) (*adminv1.RollbackDefinitionResponse, error) {
	d, err := s.definitions()
	if err != nil {
		return nil, err
	}
	from, to, err := d.Rollback(ctx, definitions.ID{Kind: r.GetKind(), Name: r.GetName(), Version: r.GetVersion()})
	if err != nil {
		return nil, gateway.Status(err).Err()
	}
	return &adminv1.RollbackDefinitionResponse{From: from, To: to}, nil
}

// DropDefinition gives up a version, or a definition with all of its versions.
func (s *Service) DropDefinition(ctx context.Context,
	r *adminv1.DropDefinitionRequest,
) (*adminv1.DropDefinitionResponse, error) {
	d, err := s.definitions()
	if err != nil {
		return nil, err
	}
	if err := d.Drop(ctx, definitions.ID{Kind: r.GetKind(), Name: r.GetName(), Version: r.GetVersion()}); err != nil {
		return nil, gateway.Status(err).Err()
	}
	return &adminv1.DropDefinitionResponse{}, nil
}
