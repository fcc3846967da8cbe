package materializer_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
)

// foldBy folds a whole log by a layout.
func (w *writer) foldBy(l entities.Layout, from materializer.Meta) (*materializer.Fold, error) {
	w.t.Helper()
	fold := materializer.NewFold(address, "topic", from)
	if err := fold.Expect(l); err != nil {
		return fold, err
	}
	reader, err := w.log.Read(journal, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer reader.Close()
	return fold, materializer.NewFollower(reader, memstore.New(), fold).CatchUp(w.t.Context(), w.end(), nil)
}

func (w *writer) claimBy(l entities.Layout) {
	w.epoch++
	w.ordinal = 0
	w.put("", "", record.Envelope{
		Kind: record.Claim, Epoch: w.epoch, Nonce: 7,
		Claim: &record.ClaimInfo{Worker: "w", Layout: l},
	})
}

// placed returns an entity id of the address's partition, of that many, and not of the same one of
// twice as many.
func placed(t *testing.T, partitions int) string {
	t.Helper()
	for i := range 100_000 {
		id := strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i/182)
		if p := entities.Partition(id, partitions); p == int32(address.Partition) &&
			entities.Partition(id, 2*partitions) != p {
			return id
		}
	}
	t.Fatal("no id")
	return ""
}

// TestAnotherLayoutIsNotFolded: a claim that counts and was made by another layout stops the fold,
// whatever differs; so does a record of an older version in a partition where its entity does not
// belong; so does a store that was folded by another layout.
func TestAnotherLayoutIsNotFolded(t *testing.T) {
	mine := entities.LayoutOf("shop", 8)
	id := placed(t, 8)
	for name, test := range map[string]struct {
		write func(*writer)
		by    entities.Layout
		want  string
	}{
		"the same":         {func(w *writer) { w.claimBy(mine) }, mine, ""},
		"fewer partitions": {func(w *writer) { w.claimBy(entities.LayoutOf("shop", 4)) }, mine, "at offset 0 is for 4 partitions, this process uses 8"},
		"another app":      {func(w *writer) { w.claimBy(entities.LayoutOf("books", 8)) }, mine, `app "books"`},
		"another generation": {func(w *writer) {
			w.claimBy(entities.Layout{App: "shop", Generation: 2, Partitions: 8, Slots: 4096, Hash: "murmur2"})
		}, mine, "generation 2"},
		"after the right one":    {func(w *writer) { w.claimBy(mine); w.claimBy(entities.LayoutOf("shop", 4)) }, mine, "at offset 1 is for 4 partitions"},
		"a claim that is void":   {func(w *writer) { w.claimBy(mine); w.epoch--; w.claimBy(entities.LayoutOf("shop", 4)) }, mine, ""},
		"a declaration":          {func(w *writer) { w.epoch--; w.claimBy(entities.LayoutOf("shop", 4)) }, mine, ""},
		"old, in its place":      {func(w *writer) { w.claim(); w.put("cart/"+id, "x", record.Envelope{Kind: record.State}) }, mine, ""},
		"old, in a wrong place":  {func(w *writer) { w.claim(); w.put("cart/"+id, "x", record.Envelope{Kind: record.State}) }, entities.LayoutOf("shop", 16), "offset 1: the layout differs: \"cart/" + id + "\" belongs to partition"},
		"two, and none expected": {func(w *writer) { w.claimBy(mine); w.claimBy(entities.LayoutOf("shop", 4)) }, entities.Layout{}, "at offset 1 is for 4 partitions"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWriter(t)
			test.write(w)
			fold, err := w.foldBy(test.by, materializer.Meta{})
			if test.want == "" {
				if err != nil || fold.Meta().Layout != test.by {
					t.Errorf("%v, the store has %s", err, fold.Meta().Layout)
				}
				return
			}
			if !errors.Is(err, materializer.ErrUnfoldable) || !errors.Is(err, entities.ErrLayout) ||
				!strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	w := newWriter(t)
	w.claimBy(mine)
	fold, err := w.foldBy(mine, materializer.Meta{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.foldBy(entities.LayoutOf("shop", 16), fold.Meta()); !errors.Is(err, entities.ErrLayout) ||
		!strings.Contains(err.Error(), "the store of partition") {
		t.Errorf("a store of another layout: %v", err)
	}
}
