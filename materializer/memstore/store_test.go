package memstore_test

import (
	"math/rand/v2"
	"testing"

	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/materializer/storetest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestConformance(t *testing.T) {
	storetest.Run(t, storetest.Options{
		Open: func(testing.TB) materializer.Store { return memstore.New() },
		Disk: func(testing.TB) storetest.Disk { return &disk{memstore.New()} },
	})
}

// disk keeps the newest store that was opened on it.
type disk struct{ store *memstore.Store }

func (d *disk) Open(testing.TB) (materializer.Store, error) {
	d.store = d.store.Clone()
	return d.store, nil
}

func (d *disk) Crash(unsynced int, random *rand.Rand) storetest.Disk {
	if random.IntN(100) < unsynced {
		return &disk{d.store.Clone()}
	}
	return &disk{d.store.Crash()}
}

func (*disk) Watch(func()) {}
