package definitions_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/tests/kit"
)

// TestRebuild: rows are built again beside the present ones, which stay in force until the others
// are complete in every version that shares them. A record that is left out stays so.
func TestRebuild(t *testing.T) {
	p := rollOut(t)
	apply(t, p.Definitions, files(t), definitions.ApplyOptions{})
	p.isReady("customers 1", true)
	p.isReady("orders 1", true)
	p.pass(time.Second)
	p.mustBe("1 STAGE_PROMOTED; ")
	before := view(t, p.Definitions, "orders", "1")
	orders := definitions.ID{Name: "orders"}
	if _, unchanged, err := p.LeaveOut(t.Context(), orders, before.Dataset, 2, 77, "order/9"); err != nil || unchanged {
		t.Fatalf("unchanged %t, %v", unchanged, err)
	}

	p.isReady("orders 1", false)
	version, unchanged, err := p.Rebuild(t.Context(), orders)
	if err != nil || unchanged || version != "1" {
		t.Fatalf("version %q, unchanged %t, %v", version, unchanged, err)
	}
	if _, unchanged, err = p.Rebuild(t.Context(), orders); err != nil || !unchanged {
		t.Errorf("the second time: unchanged %t, %v", unchanged, err)
	}
	r, _ := p.Current()
	if len(r.Rebuilding) != 1 || r.Rebuilding[0].Dataset <= before.Dataset || len(r.Rebuilding[0].Skips) != 1 {
		t.Fatalf("built again are %+v", r.Rebuilding)
	}
	next := r.Rebuilding[0].Dataset
	p.pass(time.Second)
	kit.Await(t, "progress", func() bool {
		return p.Progress(definitions.ID{Name: "orders", Version: "1"}) ==
			"its rows are built again: 3 of 4 partitions are live"
	})
	if now := view(t, p.Definitions, "orders", "1"); now.Dataset != before.Dataset {
		t.Errorf("the dataset is %d before the other one is complete", now.Dataset)
	}
	p.isReady("orders 1", true)
	p.pass(time.Second)
	kit.Await(t, "the other rows", func() bool {
		r, _ := p.Current()
		return view(t, p.Definitions, "orders", "1").Dataset == next && len(r.Rebuilding) == 0
	})
	now := view(t, p.Definitions, "orders", "1")
	if len(now.Skips) != 1 || now.Skips[0].GetOffset() != 77 || now.Stage != definitions.Promoted {
		t.Errorf("now it is %+v", now)
	}
	// Another version with the same fold shares the rows that are there now, and has their numbers.
	apply(t, p.Definitions, ordersAt(t, 2), definitions.ApplyOptions{})
	second := view(t, p.Definitions, "orders", "2")
	if second.Dataset != next || len(second.Indexes) == 0 || second.Indexes[0] != before.Indexes[0] {
		t.Errorf("version 2 has dataset %d and indexes %v, version 1 had %v", second.Dataset, second.Indexes, before.Indexes)
	}
}

// TestPause: it is about the rows, so versions that share them pause together.
func TestPause(t *testing.T) {
	d := newDefinitions(newRuntime(t))
	apply(t, d, files(t), definitions.ApplyOptions{})
	apply(t, d, ordersAt(t, 2), definitions.ApplyOptions{})
	orders := definitions.ID{Name: "orders", Version: "1"}
	for _, first := range []bool{true, false} {
		if _, unchanged, err := d.Pause(t.Context(), orders); err != nil || unchanged == first {
			t.Fatalf("unchanged %t, %v", unchanged, err)
		}
	}
	for _, version := range []string{"1", "2"} {
		if !view(t, d, "orders", version).Paused {
			t.Errorf("version %s is not paused", version)
		}
	}
	if view(t, d, "customers", "1").Paused {
		t.Error("another projection is paused")
	}
	if _, _, err := d.Rebuild(t.Context(), orders); !isRefused(err, codes.FailedPrecondition, "resume it first") {
		t.Errorf("a paused projection is built again: %v", err)
	}
	if version, unchanged, err := d.Resume(t.Context(), orders); err != nil || unchanged || version != "1" {
		t.Errorf("version %s, unchanged %t, %v", version, unchanged, err)
	}
	if view(t, d, "orders", "2").Paused {
		t.Error("it is paused still")
	}
	history, err := d.History(t.Context())
	if err != nil || history[len(history)-2].GetWhat() != "paused" || history[len(history)-1].GetWhat() != "resumed" {
		t.Errorf("the history is %v, %v", history, err)
	}
}

// TestSkipIsRefused: each refusal says why.
func TestSkipIsRefused(t *testing.T) {
	d := newDefinitions(newRuntime(t))
	apply(t, d, files(t), definitions.ApplyOptions{})
	dataset := view(t, d, "orders", "1").Dataset
	for _, c := range []struct {
		id      definitions.ID
		dataset uint32
		offset  int64
		entity  string
		code    codes.Code
		text    string
	}{
		{definitions.ID{Name: "nothing"}, dataset, 1, "order/1", codes.NotFound, "nothing is not applied"},
		{definitions.ID{Name: "orders", Version: "7"}, dataset, 1, "order/1", codes.NotFound, "version 7 is not applied"},
		{definitions.ID{Name: "orders"}, dataset + 9, 1, "order/1", codes.Aborted, "has other rows now"},
		{definitions.ID{Name: "orders"}, dataset, -1, "order/1", codes.InvalidArgument, "no record is named"},
		{definitions.ID{Name: "orders"}, dataset, 1, "", codes.InvalidArgument, "no record is named"},
	} {
		if _, _, err := d.LeaveOut(t.Context(), c.id, c.dataset, 0, c.offset, c.entity); !isRefused(err, c.code, c.text) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for i := range int64(1_000) {
		if _, _, err := d.LeaveOut(t.Context(), definitions.ID{Name: "orders"}, dataset, 0, i, "order/1"); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := d.LeaveOut(t.Context(), definitions.ID{Name: "orders"}, dataset, 0, 1_000, "order/1")
	if !isRefused(err, codes.ResourceExhausted, "apply a version that can fold them") {
		t.Errorf("more than are allowed: %v", err)
	}
	_, unchanged, err := d.LeaveOut(t.Context(), definitions.ID{Name: "orders"}, dataset, 0, 5, "order/1")
	if err != nil || !unchanged {
		t.Errorf("again: unchanged %t, %v", unchanged, err)
	}
}

// isRefused reports whether an error is a refusal with a code and a text.
func isRefused(err error, code codes.Code, text string) bool {
	refusal, is := errors.AsType[*entities.Error](err)
	return is && refusal.Code == uint32(code) && strings.Contains(refusal.Message, text)
}
