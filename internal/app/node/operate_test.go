package node

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/projections"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// TestOperatorsChangeRows: the record that parked an entity is listed and left out, and the entity
// goes on with its later ones; a pause holds the rows where they are; and rows that are built again
// take the place of those before while queries are answered.
func TestOperatorsChangeRows(t *testing.T) {
	c := testConfig(t)
	c.Definitions = t.TempDir()
	define(t, c.Definitions, map[string]string{
		"counters.yaml": strings.Replace(countersFile, "${state.value}", "${60 / (state.value - 2)}", 1),
	})
	n := started(t, Options{Config: c, Local: local(t, "counter")})
	awaitQueries(t, n.PublicAddress())
	admin, ctx := adminOf(t, n), t.Context()
	is := func(want string) func() bool {
		return func() bool {
			code, got, _ := getRow(t, n.PublicAddress(), "a", "")
			return code == http.StatusOK && got.Counters.Value == want
		}
	}
	for range 5 { // the second one cannot be folded
		incrementAt(t, n.PublicAddress(), "a")
	}
	var parked []*adminv1.ParkedEntity
	eventually(t, "the parked entity", func() bool {
		res, err := admin.ListParkedEntities(ctx, &adminv1.ListParkedEntitiesRequest{Name: "counters"})
		if err != nil {
			t.Fatal(err)
		}
		parked = res.GetEntities()
		return len(parked) == 1 && parked[0].GetBehind() == 3
	})
	skip := &adminv1.SkipRecordRequest{
		Name: "counters", Partition: parked[0].GetPartition(), Offset: parked[0].GetOffset(),
	}
	if res, err := admin.SkipRecord(ctx, skip); err != nil || res.GetEntity() != "counter/a" || res.GetUnchanged() {
		t.Fatalf("%v, %v", res, err)
	}
	if res, err := admin.SkipRecord(ctx, skip); err != nil || !res.GetUnchanged() {
		t.Errorf("again: %v, %v", res, err)
	}
	eventually(t, "the later records", is("20"))

	if _, err := admin.PauseProjection(ctx, &adminv1.PauseProjectionRequest{Name: "counters"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the worker to learn of the pause", func() bool {
		return !slices.ContainsFunc(n.readSide.engine.Status(), func(s projections.Status) bool {
			return s.State != projections.Paused
		})
	})
	incrementAt(t, n.PublicAddress(), "a")
	eventually(t, "the row while it is paused", is("20"))
	if _, err := admin.ResumeProjection(ctx, &adminv1.ResumeProjectionRequest{Name: "counters"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the row after the pause", is("15"))

	dataset := func() uint32 {
		res, err := admin.ListDefinitions(ctx, &adminv1.ListDefinitionsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetVersions()[0].GetDataset()
	}
	before := dataset()
	if _, err := admin.RebuildProjection(ctx, &adminv1.RebuildProjectionRequest{Name: "counters"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "other rows", func() bool { return dataset() != before })
	eventually(t, "the row as it was", is("15"))
}
