package partitions

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/core"
)

// reformat gives the store's image the format of an older version: the version is the first number
// of the meta row.
func (f *fixture) reformat(version uint64) {
	f.t.Helper()
	lower, upper := f.p.image.Address.Range()
	key, row := []byte(nil), []byte(nil)
	err := f.store.Scan(lower, upper, func(k, v []byte) bool {
		if k[len(lower)] == 'm' {
			key, row = slices.Clone(k), slices.Clone(v)
		}
		return true
	})
	_, n := binary.Uvarint(row)
	batch := f.store.NewBatch()
	if err = errors.Join(
		err, batch.Put(key, append(binary.AppendUvarint(nil, version), row[n:]...)), batch.Commit(),
	); err != nil {
		f.t.Fatal(err)
	}
}

// TestAnImageThatTheLogCannotReplaceIsKept: after an upgrade that folds again, the store may be the
// only copy of what the log has lost. The partition halts with evidence, over restarts, and drops
// nothing unless an operator chooses so.
func TestAnImageThatTheLogCannotReplaceIsKept(t *testing.T) {
	const newer = materializer.FoldVersion + 1 // an older one's meta row has fewer fields
	for name, test := range map[string]struct {
		damage func(*fixture)
		says   string
	}{
		"its beginning is gone":  {func(f *fixture) { f.world.Trim(partition0, 3) }, "it begins at offset 3"},
		"all of it is gone":      {func(f *fixture) { f.world.Trim(partition0, 9) }, "it begins at offset 9"},
		"records are gone":       {func(f *fixture) { f.world.Remove(partition0, 4, 5) }, "it has no record at offset 4"},
		"a claim cannot be read": {func(f *fixture) { f.world.Change(partition0, 3, garbled) }, "the claim at offset 6 follows owner 2"},
		"it is whole":            {func(*fixture) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := damaged(t, func(*simlog.World) {})
			f.reformat(newer)
			test.damage(f)
			before := f.rows()
			f = f.restart()
			if test.says == "" {
				f.await(core.Active)
				f.want(f.submit(command("b", "read")), "y")
				return
			}
			f.halts()
			why := f.p.Status().Halted
			if !errors.Is(why, materializer.ErrOnlyCopy) || !strings.Contains(why.Error(), test.says) ||
				!strings.Contains(why.Error(), "format 5") {
				t.Errorf("halted because of %v; want %q", why, test.says)
			}
			if after := f.rows(); !slices.Equal(before, after) {
				t.Errorf("the rows were\n%s\nand are\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
			all, err := f.m.Halted(t.Context())
			if err != nil || len(all) != 1 || all[0].Refused[materializer.AppendImage] == "" ||
				all[0].Refused[materializer.AcceptLoss] != "" || all[0].Refused[materializer.Retry] != "" {
				t.Errorf("evidence %+v, %v", all, err)
			}
			if _, err := f.m.Repair(t.Context(), 0, materializer.Retry); err == nil {
				t.Error("a log that has lost records is taken for restored")
			}
			f = f.restart()
			f.halts()
			if after := f.rows(); !slices.Equal(before, after) {
				t.Errorf("after a restart the rows are\n%s", strings.Join(after, "\n"))
			}
			f.repair(materializer.AcceptLoss)
			f.want(f.submit(command("c", "add w")), map[bool]string{true: "w", false: "z w"}[strings.HasPrefix(name, "all")])
		})
	}
}
