package definitions

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
)

// The methods of the runtime's services.
const (
	definitionsApply    = definitionsv1.DefinitionsService_Apply_FullMethodName
	definitionsDescribe = definitionsv1.DefinitionsService_Describe_FullMethodName
	definitionsPromote  = definitionsv1.DefinitionsService_Promote_FullMethodName
	definitionsRollback = definitionsv1.DefinitionsService_Rollback_FullMethodName
	definitionsDrop     = definitionsv1.DefinitionsService_Drop_FullMethodName
	definitionsRebuild  = definitionsv1.DefinitionsService_Rebuild_FullMethodName
	definitionsEnd      = definitionsv1.DefinitionsService_EndRebuild_FullMethodName
	definitionsPause    = definitionsv1.DefinitionsService_Pause_FullMethodName
	definitionsResume   = definitionsv1.DefinitionsService_Resume_FullMethodName
	definitionsSkip     = definitionsv1.DefinitionsService_Skip_FullMethodName
	blobPut             = definitionsv1.BlobService_Put_FullMethodName
	blobGet             = definitionsv1.BlobService_Get_FullMethodName
)

// call sends a command and reads the reply.
func call(ctx context.Context, c Commands, method string, in, out proto.Message) error {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	request, err := proto.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode the request of %s: %w", method, err)
	}
	reply, err := c.Call(ctx, service, name, request)
	if err != nil {
		return err //nolint:wrapcheck // it is the answer, and says what failed
	}
	if err := proto.Unmarshal(reply, out); err != nil {
		return fmt.Errorf("decode the reply of %s: %w", method, err)
	}
	return nil
}

func (d *Definitions) call(ctx context.Context, method string, in, out proto.Message) error {
	return call(ctx, d.options.Commands, method, in, out)
}

// refusedWith reports whether an error is a refusal of the entity with a code.
func refusedWith(err error, code codes.Code) bool {
	e, ok := errors.AsType[*entities.Error](err)
	return ok && e.Reason == entities.FunctionRefused && codes.Code(e.Code) == code
}

// ID names a version of a definition. Kind is "Projection" if it is empty.
type ID struct{ Kind, Name, Version string }

func (id ID) kind() string {
	if id.Kind == "" {
		return "Projection"
	}
	return id.Kind
}

// version returns the version of an id, nil if it has none.
func (id ID) version() (*definitionsv1.Version, error) {
	if id.Version == "" {
		return nil, nil
	}
	v, err := ParseVersion(id.Version)
	if err != nil {
		return nil, invalid("%s: %v", id.Name, err)
	}
	return v, nil
}

func invalid(format string, args ...any) error {
	return entities.Errorf(entities.InvalidCommand, entities.NotApplied, format, args...)
}

// refused is a refusal of this process, with the code that the entity would have given.
func refused(code codes.Code, format string, args ...any) error {
	return &entities.Error{
		Reason: entities.FunctionRefused, Code: uint32(code), Message: fmt.Sprintf(format, args...),
		Outcome: entities.Refused,
	}
}

// Describe returns what is applied, asked of the entity.
func (d *Definitions) Describe(ctx context.Context) (*definitionsv1.State, error) {
	reply := &definitionsv1.DescribeResponse{}
	err := d.call(ctx, definitionsDescribe, &definitionsv1.DescribeRequest{App: EntityID}, reply)
	if err != nil {
		return nil, err
	}
	if reply.GetState() == nil {
		return &definitionsv1.State{}, nil
	}
	return reply.GetState(), nil
}

// History returns the newest changes, the oldest of them first. The journal has all of them.
func (d *Definitions) History(ctx context.Context) ([]*definitionsv1.Change, error) {
	state, err := d.Describe(ctx)
	return state.GetHistory(), err
}

// Promote puts a version in force. It fails with FAILED_PRECONDITION while the version is not
// ready, unless force is set. It returns what was not ready then.
func (d *Definitions) Promote(ctx context.Context, id ID, force bool) (missing string, err error) {
	version, err := id.version()
	if err != nil {
		return "", err
	}
	if version == nil {
		return "", invalid("%s: name the version that is to be promoted, as in %s 4", id.Name, id.Name)
	}
	now, err := d.refresh(ctx)
	if err != nil {
		return "", err
	}
	if liveOf(find(now.state, id.kind(), id.Name), version) != nil { // else the entity refuses it
		missing = d.missing(ctx, id.kind(), id.Name, version)
	}
	if missing != "" && !force {
		return "", refused(codes.FailedPrecondition, "%s version %s is not ready: %s: wait, or use --force", id.Name,
			id.Version, missing)
	}
	err = d.change(ctx, definitionsPromote, &definitionsv1.PromoteRequest{
		App: EntityID, Kind: id.kind(), Name: id.Name, Version: version, Missing: missing,
	}, &definitionsv1.PromoteResponse{})
	return missing, err
}

// Rollback puts the version in force that was so before or, if the id has a version, that one. It
// returns which took the place of which.
func (d *Definitions) Rollback(ctx context.Context, id ID) (from, to string, err error) {
	version, err := id.version()
	if err != nil {
		return "", "", err
	}
	reply := &definitionsv1.RollbackResponse{}
	err = d.change(ctx, definitionsRollback, &definitionsv1.RollbackRequest{
		App: EntityID, Kind: id.kind(), Name: id.Name, To: version,
	}, reply)
	if err != nil {
		return "", "", err
	}
	return VersionText(reply.GetFrom()), VersionText(reply.GetTo()), nil
}

// Drop gives up a version or, if the id has none, the whole definition.
func (d *Definitions) Drop(ctx context.Context, id ID) error {
	version, err := id.version()
	if err != nil {
		return err
	}
	return d.change(ctx, definitionsDrop, &definitionsv1.DropRequest{
		App: EntityID, Kind: id.kind(), Name: id.Name, Version: version, Reason: "by an operator",
	}, &definitionsv1.DropResponse{})
}

// Rebuild builds the rows of a version again, and changes over when they are complete. Queries
// read the present rows until then. Without a version it is the one in force or, without one, the
// newest; it is returned, and whether the rows were being built again already.
func (d *Definitions) Rebuild(ctx context.Context, id ID) (version string, unchanged bool, err error) {
	reply := &definitionsv1.RebuildResponse{}
	err = d.operate(ctx, id, definitionsRebuild, reply, func(v *definitionsv1.Version) proto.Message {
		return &definitionsv1.RebuildRequest{App: EntityID, Kind: id.kind(), Name: id.Name, Version: v}
	})
	return VersionText(reply.GetVersion()), reply.GetUnchanged(), err
}

// Pause has nothing folded into the rows of a version until Resume. Queries read them as they are.
// Without a version it is as with Rebuild.
func (d *Definitions) Pause(ctx context.Context, id ID) (version string, unchanged bool, err error) {
	reply := &definitionsv1.PauseResponse{}
	err = d.operate(ctx, id, definitionsPause, reply, func(v *definitionsv1.Version) proto.Message {
		return &definitionsv1.PauseRequest{App: EntityID, Kind: id.kind(), Name: id.Name, Version: v}
	})
	return VersionText(reply.GetVersion()), reply.GetUnchanged(), err
}

// Resume ends a pause. Without a version it is as with Rebuild.
func (d *Definitions) Resume(ctx context.Context, id ID) (version string, unchanged bool, err error) {
	reply := &definitionsv1.ResumeResponse{}
	err = d.operate(ctx, id, definitionsResume, reply, func(v *definitionsv1.Version) proto.Message {
		return &definitionsv1.ResumeRequest{App: EntityID, Kind: id.kind(), Name: id.Name, Version: v}
	})
	return VersionText(reply.GetVersion()), reply.GetUnchanged(), err
}

// LeaveOut leaves a record that could not be folded out of the rows of a version, on all workers:
// that of a partition, an offset, and an entity (type/id), as it was seen in a dataset. Without a
// version it is as with Rebuild.
func (d *Definitions) LeaveOut(ctx context.Context, id ID, dataset uint32, partition int32, offset int64, entity string,
) (version string, unchanged bool, err error) {
	reply := &definitionsv1.SkipResponse{}
	err = d.operate(ctx, id, definitionsSkip, reply, func(v *definitionsv1.Version) proto.Message {
		return &definitionsv1.SkipRequest{
			App: EntityID, Kind: id.kind(), Name: id.Name, Version: v, Dataset: dataset,
			Skip: &definitionsv1.Skip{Partition: partition, Offset: offset, Entity: entity},
		}
	})
	return VersionText(reply.GetVersion()), reply.GetUnchanged(), err
}

// operate sends a command about the rows of a version.
func (d *Definitions) operate(
	ctx context.Context, id ID, method string, reply proto.Message, request func(*definitionsv1.Version) proto.Message,
) error {
	version, err := id.version()
	if err != nil {
		return err
	}
	return d.change(ctx, method, request(version), reply)
}

// Rows returns a version as this process knows it, asked of the entity: the one that is named or,
// without a version, the one in force or the newest.
func (d *Definitions) Rows(ctx context.Context, id ID) (*View, error) {
	version, err := id.version()
	if err != nil {
		return nil, err
	}
	r, err := d.refresh(ctx)
	if err != nil {
		return nil, err
	}
	live := chosen(find(r.state, id.kind(), id.Name), version)
	for _, v := range r.Views {
		if live != nil && v.Name == id.Name && compareVersions(v.version, live.GetApplied().GetVersion()) == 0 {
			return v, nil
		}
	}
	if live != nil {
		return nil, refused(codes.FailedPrecondition, "%s version %s is not supported by this process: ask a newer worker",
			id.Name, VersionText(live.GetApplied().GetVersion()))
	}
	return nil, refused(codes.NotFound, "%s is not applied; see `millrace definitions`",
		strings.TrimSpace(id.Name+" "+id.Version))
}

// change sends a command, and makes its effect known in this process.
func (d *Definitions) change(ctx context.Context, method string, in, out proto.Message) error {
	if err := d.call(ctx, method, in, out); err != nil {
		return err
	}
	_, err := d.refresh(ctx)
	if err != nil {
		d.options.Logger.Info("a change of the definitions took effect, and is not known here yet", "method", method,
			"err", err)
	}
	return nil
}

// refresh asks the entity, and returns the revision that this process knows then.
func (d *Definitions) refresh(ctx context.Context) (*Revision, error) {
	state, err := d.Describe(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.take(ctx, state); err != nil {
		return nil, err
	}
	r, _ := d.Current()
	return r, nil
}
