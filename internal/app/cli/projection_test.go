package cli

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// defined is a process with two versions of a projection on two workers, of which a third one
// cannot be reached. It writes down what it is asked to change.
type defined struct {
	adminv1.UnimplementedAdminServiceServer
	asked string
}

// ListDefinitions answers with what stands here.
func (*defined) ListDefinitions(_ context.Context,
	r *adminv1.ListDefinitionsRequest,
) (*adminv1.ListDefinitionsResponse, error) {
	at := timestamppb.New(time.Unix(1_700_000_000, 0))
	if r.GetHistory() {
		return &adminv1.ListDefinitionsResponse{Revision: 3, Changes: []*adminv1.DefinitionChange{
			{Revision: 2, At: at, Kind: "Projection", Name: "orders", Version: "4", What: "applied"},
			{Revision: 3, At: at, Kind: "Projection", Name: "orders", Version: "4", What: "promoted"},
		}}, nil
	}
	return &adminv1.ListDefinitionsResponse{Revision: 4, Versions: []*adminv1.AppliedVersion{
		{Kind: "Projection", Name: "orders", Version: "4", Stage: "promoted", Since: at, File: "orders.yaml", Dataset: 1},
		{
			Kind: "Projection", Name: "orders", Version: "5", Stage: "building", Since: at, File: "orders.yaml", Dataset: 2,
			Note: "partition 0: BUILDING, offset 10 of 20",
		},
		{Kind: "Saga", Name: "refund", Version: "1", Stage: "promoted", Since: at, File: "refund.yaml"},
	}}, nil
}

// Cluster answers with what stands here.
func (*defined) Cluster(context.Context, *adminv1.ClusterRequest) (*adminv1.ClusterResponse, error) {
	rows := func(dataset uint32, partition int32, state string, position int64, rows uint64) *adminv1.ProjectionStatus {
		s := &adminv1.ProjectionStatus{
			Dataset: dataset, Partition: partition, State: state, Position: position, EndOffset: 20, LagRecords: 20 - position,
			LagSeconds: 1.5, Rows: rows, Incomplete: int32(dataset - 1),
		}
		if state == "STOPPED" {
			s.LastError, s.LastErrorTime = "no space left on device", timestamppb.New(time.Unix(1_700_000_000, 0))
		}
		return s
	}
	return &adminv1.ClusterResponse{
		Partitions: []*adminv1.Placement{{Partition: 0}, {Partition: 1}},
		Members: []*adminv1.Member{
			{Name: "w-1", Status: &adminv1.StatusResponse{Projections: []*adminv1.ProjectionStatus{
				rows(1, 0, "LIVE", 20, 5), rows(1, 1, "STOPPED", 20, 6), rows(2, 0, "BUILDING", 10, 2),
			}}},
			{Name: "w-2", Status: &adminv1.StatusResponse{Projections: []*adminv1.ProjectionStatus{
				rows(1, 0, "LIVE", 19, 4), rows(1, 1, "LIVE", 18, 7), rows(2, 1, "STOPPED", 8, 1),
			}}},
			{Name: "w-3", Error: "connection refused"},
		},
	}, nil
}

// ApplyDefinitions writes its request down.
func (s *defined) ApplyDefinitions(_ context.Context,
	r *adminv1.ApplyDefinitionsRequest,
) (*adminv1.ApplyDefinitionsResponse, error) {
	s.note("apply", r)
	switch r.GetFiles()[0].GetName() {
	case "wrong.yaml":
		return &adminv1.ApplyDefinitionsResponse{MoreProblems: 2, Problems: []*adminv1.DefinitionProblem{{
			File: "wrong.yaml", Line: 3, Column: 1, Rule: "P105", Where: "spec.key[0]", Message: "the row has no field id",
			Fix: "did you mean order_id?",
		}}}, nil
	case "slow.yaml":
		return nil, status.Error(codes.Unavailable, "the owner of the definitions moves")
	case "same.yaml":
		return &adminv1.ApplyDefinitionsResponse{Outcomes: []*adminv1.DefinitionOutcome{
			{Kind: "Projection", Name: "orders", Version: "4", Result: "unchanged", Dataset: 1, Shares: true},
		}}, nil
	}
	return &adminv1.ApplyDefinitionsResponse{
		Warnings: []string{"orders.yaml:1:1: warning P230 spec: OrderViewed is neither mapped nor ignored"},
		Outcomes: []*adminv1.DefinitionOutcome{
			{Kind: "Projection", Name: "customers", Version: "1", Result: "applied", Dataset: 3},
			{
				Kind: "Projection", Name: "orders", Version: "5", Result: "applied", Dataset: 2, Before: "4", Shares: true,
				Differences: []string{"index by_status is new: it is built from the rows", "query ListOpen is gone"},
			},
			{Kind: "Projection", Name: "parcels", Version: "2", Result: "unchanged", Dataset: 4, Shares: true},
			{Kind: "Saga", Name: "refund", Version: "2", Result: "applied", Before: "1"},
		},
	}, nil
}

// PromoteDefinition writes its request down.
func (s *defined) PromoteDefinition(_ context.Context,
	r *adminv1.PromoteDefinitionRequest,
) (*adminv1.PromoteDefinitionResponse, error) {
	s.note("promote", r)
	if r.GetForce() {
		return &adminv1.PromoteDefinitionResponse{Missing: "partition 0: BUILDING, offset 10 of 20"}, nil
	}
	return &adminv1.PromoteDefinitionResponse{}, nil
}

// RollbackDefinition writes its request down.
func (s *defined) RollbackDefinition(_ context.Context,
	r *adminv1.RollbackDefinitionRequest,
) (*adminv1.RollbackDefinitionResponse, error) {
	s.note("rollback", r)
	return &adminv1.RollbackDefinitionResponse{From: "5", To: "4"}, nil
}

// DropDefinition writes its request down.
func (s *defined) DropDefinition(_ context.Context,
	r *adminv1.DropDefinitionRequest,
) (*adminv1.DropDefinitionResponse, error) {
	s.note("drop", r)
	return &adminv1.DropDefinitionResponse{}, nil
}

// RebuildProjection, PauseProjection, ResumeProjection and SkipRecord write their requests down.
func (s *defined) RebuildProjection(_ context.Context,
	r *adminv1.RebuildProjectionRequest,
) (*adminv1.RebuildProjectionResponse, error) {
	s.note("rebuild", r)
	return &adminv1.RebuildProjectionResponse{Version: "4", Unchanged: r.GetVersion() != ""}, nil
}

func (s *defined) PauseProjection(_ context.Context,
	r *adminv1.PauseProjectionRequest,
) (*adminv1.PauseProjectionResponse, error) {
	s.note("pause", r)
	return &adminv1.PauseProjectionResponse{Version: "4"}, nil
}

func (s *defined) ResumeProjection(_ context.Context,
	r *adminv1.ResumeProjectionRequest,
) (*adminv1.ResumeProjectionResponse, error) {
	s.note("resume", r)
	return &adminv1.ResumeProjectionResponse{Version: "4", Unchanged: true}, nil
}

func (s *defined) SkipRecord(_ context.Context, r *adminv1.SkipRecordRequest) (*adminv1.SkipRecordResponse, error) {
	s.note("skip", r)
	if r.GetOffset() == 404 {
		return nil, status.Error(codes.NotFound, "the record at 1:404 has parked nothing")
	}
	return &adminv1.SkipRecordResponse{Version: "4", Entity: "order/7"}, nil
}

// ListParkedEntities answers with two pages of what stands here, and with nothing for version 9.
func (*defined) ListParkedEntities(_ context.Context,
	r *adminv1.ListParkedEntitiesRequest,
) (*adminv1.ListParkedEntitiesResponse, error) {
	switch {
	case r.GetVersion() == "9":
		return &adminv1.ListParkedEntitiesResponse{Version: "9"}, nil
	case r.GetPageToken() == "":
		return &adminv1.ListParkedEntitiesResponse{
			Version: "4", NextPageToken: "0:7", MissingPartitions: []int32{2},
			Entities: []*adminv1.ParkedEntity{{Offset: 12, Entity: "order/7", Error: "field total_cents: division by zero", Behind: 3}},
		}, nil
	default:
		return &adminv1.ListParkedEntitiesResponse{
			Version:  "4",
			Entities: []*adminv1.ParkedEntity{{Partition: 1, Offset: 404, Entity: "order/8", Error: "too long", Stopped: true}},
		}, nil
	}
}

func (s *defined) note(what string, r interface{ ProtoReflect() protoreflect.Message }) {
	text, err := protojson.Marshal(r)
	if err == nil {
		text, err = compact(text)
	}
	if err != nil {
		text = []byte(err.Error())
	}
	s.asked = what + " " + string(text) + "\n"
}

// TestProjectionTranscript runs the commands about definitions, and compares output, exit codes,
// and what the process was asked to change with testdata/projection; -rewrite writes it anew.
func TestProjectionTranscript(t *testing.T) {
	script := testdata(t, "projection")
	t.Chdir(t.TempDir())
	for _, name := range []string{"orders", "wrong", "slow", "same"} {
		if err := os.MkdirAll(name, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name+"/"+name+".yaml", []byte("kind: Projection\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &defined{}
	serveAdmin(t, s)
	p := tool(t)
	datadriven.RunTest(t, script, func(t *testing.T, d *datadriven.TestData) string {
		s.asked = ""
		line, stdin, _ := strings.Cut(d.Input, "\n")
		r := p.runIn(t, d.Cmd == "terminal", stdin, split(t, line)...)
		text := scrub(r)
		if s.asked != "" {
			text += "asked: " + s.asked
		}
		return text
	})
}
