package materializer

import "context"

// Bulk runs a bulk rebuild at any distance, with an overlay of the given size.
func (f *Follower) Bulk(ctx context.Context, until int64, size int) error {
	return f.bulk(ctx, until, size, func() {})
}

// KindOf returns the name of the kind of a row, and whether a worker removes such rows; "" for a
// key that the table does not have.
func KindOf(key []byte) (name string, swept bool) {
	k, rest := kindOf(key)
	if k == nil || !k.key.valid(rest) {
		return "", false
	}
	return k.name, k.swept
}

// FoldedKinds are the names of the kinds that a fold writes.
func FoldedKinds() (names []string) {
	for i := range rowKinds {
		if k := &rowKinds[i]; k.since > 0 && !k.local && k.kind != rowEntity || k.entity {
			names = append(names, k.name)
		}
	}
	return names
}

// Live reports whether a piece comes from the memory of a feed, not from the log.
func (p *Piece) Live() bool { return p.live }

// Has reports whether a record with this key is of one of the types.
func (t Types) Has(key []byte) bool { return t.has(key) }
