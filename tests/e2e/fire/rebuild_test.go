package fire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/tests/kit"
)

// shownEntities bounds how many entities are compared.
const shownEntities = 200

// rebuildStore deletes the store after an end in order and after a kill, while no call is under
// way: what the worker shows of its entities and its journal is the same after each.
func (w *world) rebuildStore() bool {
	w.t.Helper()
	p := w.worker()
	happened := true
	w.quietly(func() {
		w.awaitNoEffects()
		before := w.see()
		for _, end := range []func(){
			func() {
				if code := p.Stop(w.t); code != 0 {
					w.broken(violation{unexpected, p.Data(), fmt.Sprintf("stopped in order, the exit code is %d", code)})
				}
			},
			func() { p.Kill(w.t) },
		} {
			end()
			happened = p.DeleteStore(w.t) && happened
			w.restart(p)
			w.broke(before.compare(w.see()))
		}
	})
	return happened
}

// awaitNoEffects waits until the worker has nothing left to deliver.
func (w *world) awaitNoEffects() {
	w.t.Helper()
	kit.AwaitWithin(w.t, healing, "every effect to be settled", func() bool {
		s := w.status(w.admins[0], callTimeout)
		return len(s.GetPartitions()) == partitions &&
			!slices.ContainsFunc(s.GetPartitions(), func(p *adminv1.PartitionStatus) bool {
				return p.GetState() != "active" || p.GetOpenEffects() > 0 || p.GetMoreEffects()
			})
	})
}

// shown is what a worker shows of its data.
type shown struct {
	// entities has what the store knows of each, by key; journal the records of each partition, in
	// order.
	entities map[string]*adminv1.GetEntityResponse
	journal  map[int32][]*adminv1.TailResponse
}

// see asks a worker for entities and the journal.
func (w *world) see() shown {
	w.t.Helper()
	s := shown{entities: map[string]*adminv1.GetEntityResponse{}, journal: map[int32][]*adminv1.TailResponse{}}
	ctx, cancel := context.WithTimeout(w.ctx, healing)
	defer cancel()
	admin := adminv1.NewAdminServiceClient(w.admins[0])
	for _, key := range w.written() {
		kind, id, _ := strings.Cut(key, "/")
		entity, err := admin.GetEntity(ctx, &adminv1.GetEntityRequest{Type: kind, Id: id})
		if err != nil {
			w.t.Fatalf("get %s: %v", key, err)
		}
		entity.AsOfOffset = 0 // every start adds a claim
		s.entities[key] = entity
	}
	journal, err := admin.Tail(ctx, &adminv1.TailRequest{})
	for err == nil {
		var record *adminv1.TailResponse
		if record, err = journal.Recv(); err == nil {
			s.journal[record.GetPartition()] = append(s.journal[record.GetPartition()], record)
		}
	}
	if !errors.Is(err, io.EOF) {
		w.t.Fatalf("tail: %v", err)
	}
	return s
}

// written are the keys of entities that were certainly written to.
func (w *world) written() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys := w.pool.written()
	for name, r := range w.finished {
		if r.must != (set{}) {
			keys = append(keys, name)
		}
	}
	slices.Sort(keys)
	return keys[:min(len(keys), shownEntities)]
}

// compare holds what is shown later against it. The journal may have grown by what a start and an
// end add, and by notes that effects are settled, which come late.
func (s shown) compare(later shown) []violation {
	var found []violation
	name := func(promise, what, format string, args ...any) {
		found = append(found, violation{promise, what, "after a rebuild of the store: " + fmt.Sprintf(format, args...)})
	}
	for key, was := range s.entities {
		if is := later.entities[key]; !proto.Equal(was, is) {
			name(lostWrite, key, "it was %v, and is %v", was, is)
		}
	}
	for id, was := range s.journal {
		is, partition := later.journal[id], fmt.Sprintf("partition %d", id)
		if len(is) < len(was) {
			name(lostWrite, partition, "it had %d records, and has %d", len(was), len(is))
			continue
		}
		for i := range was {
			if !proto.Equal(was[i], is[i]) {
				name(lostWrite, partition, "a record was %v, and is %v", was[i], is[i])
			}
		}
		for _, r := range is[len(was):] {
			if !slices.Contains([]string{"claim", "release", "settled"}, r.GetKind()) {
				name(phantom, partition, "there is a new record %v, and no command", r)
			}
		}
	}
	return found
}
