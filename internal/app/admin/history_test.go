package admin

import (
	"context"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities/record"
)

// Records that lie far apart are jumped to, near ones read through; either way each is found.
func TestHistoryReadsFarAndNear(t *testing.T) {
	world := simlog.New(simlog.Options{SingleProcess: true})
	log := world.Client("reader")
	defer log.Close()
	if err := log.Create(t.Context(), broker.TopicSpec{Name: "j", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	where := broker.Partition{Topic: "j"}
	const count = 3*jump + 10
	for i := range count {
		env := record.Envelope{Kind: record.Barrier, Epoch: 1, Nonce: 1, Ordinal: uint64(i)}
		world.Inject(where, broker.Record{Headers: []broker.Header{{Key: record.HeaderKey, Value: env.Append(nil)}}})
	}
	reader := newPointReader(log, where)
	defer reader.close()
	for _, offset := range []int64{3, 4, 9, jump + 50, count - 1} {
		rec, env, err := reader.read(t.Context(), offset)
		if err != nil || rec.Offset != offset || env.Ordinal != uint64(offset) {
			t.Errorf("offset %d: %v, %v", offset, rec, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := reader.read(ctx, count); err == nil {
		t.Error("a record beyond the end was found")
	}
}
