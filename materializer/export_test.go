package materializer

import "context"

// Bulk runs the bulk way whatever the distance, with an overlay of the given size.
func (f *Follower) Bulk(ctx context.Context, until int64, size int) error {
	return f.bulk(ctx, until, size, func() {})
}
