package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace-io/millrace/broker-adapter/embedded"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/materializer/pebblestore"
)

// loop is something that works below the tasks, in a package that owns its goroutines: the writer
// of the embedded log, the store's flushes and compactions.
type loop struct {
	name string
	// failure is why it cannot write now, nil while it can.
	failure func() error
	// last is when its last error was, and that error; nil when there was none.
	last func() (time.Time, error)
}

// storeDirectory and logDirectory lie in the data directory.
func (n *Node) storeDirectory() string { return filepath.Join(n.config.Data, "store") }
func (n *Node) logDirectory() string   { return filepath.Join(n.config.Data, "log") }

// openLog opens the log that the settings name, Kafka with brokers, else the embedded one, unless
// one was given.
func (n *Node) openLog() error {
	if n.log != nil {
		return nil
	}
	if len(n.config.Brokers) > 0 {
		log, err := n.openKafka()
		if err != nil {
			return err
		}
		n.keepLog(log)
		n.sources = append(n.sources, kafkaMetrics(log))
		return nil
	}
	log, err := embedded.Open(embedded.Options{
		Dir: n.logDirectory(), Ephemeral: n.config.Ephemeral, BlockCache: n.config.BlockCache, Clock: n.clock,
	})
	if err != nil {
		return n.inUse(err)
	}
	n.keepLog(log)
	n.sources = append(n.sources, embeddedMetrics(log))
	n.loops = append(n.loops, logLoop(log.Stats))
	return nil
}

// inUse explains a lock to an operator who starts a second process.
func (n *Node) inUse(err error) error {
	if errors.Is(err, embedded.ErrLocked) || errors.Is(err, pebblestore.ErrLocked) {
		return fmt.Errorf("the data directory %s is in use by another process: stop that one, or choose another directory with --data (%w)", n.config.Data, err)
	}
	return err
}

func logLoop(stats func() embedded.Stats) loop {
	return loop{
		name: "log",
		failure: func() error {
			if s := stats(); s.State == embedded.StateFailed {
				return s.LastError
			}
			return nil
		},
		last: func() (time.Time, error) {
			s := stats()
			return s.LastErrorTime, s.LastError
		},
	}
}

// openStore opens the store. One that is damaged, or of another version, is a damaged cache: it is
// deleted and rebuilt from the log.
func (n *Node) openStore() (materializer.Store, error) {
	if n.config.Ephemeral {
		n.views.memory = memstore.New()
		return memstore.New(), nil
	}
	dir := n.storeDirectory()
	cache := pebblestore.NewCache(n.config.BlockCache, pebblestore.DefaultMemTableBytes, viewsMemTableBytes)
	n.onClose(cache.Close)
	n.views.dir, n.views.cache = n.viewsDirectory(), cache
	n.onClose(n.views.Close)
	options := pebblestore.Options{
		Dir: dir, Cache: cache,
		OnFailure: func(err error) {
			n.troubles.note(loopStore, err)
			n.logger.Error("the store refuses writes", observe.Path, dir, observe.Error, err)
			n.spoil(err)
		},
		OnWarning: func(message string) { n.logger.Warn("store", observe.Path, dir, observe.Error, message) },
	}
	var damage error
	if _, err := os.Stat(n.spoiledMark()); err == nil {
		damage = fmt.Errorf("%w: the damage was found while it was in use", materializer.ErrCorrupt)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	store, err := openOrReplace(options, damage, func(err error) {
		n.troubles.note(loopStore, fmt.Errorf("it was damaged and is rebuilt from the log: %w", err))
		n.logger.Warn("the store is damaged and is rebuilt from the log", observe.Path, dir, observe.Error, err)
	})
	if err == nil {
		err = os.RemoveAll(n.spoiledMark())
	}
	if err != nil {
		return nil, n.inUse(err)
	}
	n.sources = append(n.sources, pebblestore.Metrics(func() map[string]*pebblestore.Store {
		stores := map[string]*pebblestore.Store{loopStore: store}
		if views := n.views.now.Load(); views != nil {
			stores[loopViews] = views.Store
		}
		return stores
	}))
	n.loops = append(n.loops, n.storeLoop(store.Stats))
	n.written = func() uint64 { return store.Stats().Commits }
	return store, nil
}

// openOrReplace opens a store that can be made again. If it is damaged, or known to be, it is
// deleted, after tell was called, and begins empty.
func openOrReplace(o pebblestore.Options, damage error, tell func(error)) (*pebblestore.Store, error) {
	err := damage
	if err == nil {
		var store *pebblestore.Store
		if store, err = pebblestore.Open(o); err == nil {
			return store, nil
		}
	}
	if !errors.Is(err, materializer.ErrCorrupt) {
		return nil, err
	}
	tell(err)
	if err := os.RemoveAll(o.Dir); err != nil {
		return nil, fmt.Errorf("remove the damaged store %s: %w", o.Dir, err)
	}
	return pebblestore.Open(o)
}

const loopStore = "store"

// spoiledMark is a file that says that the store is damaged in a place that opening it does not
// look at.
func (n *Node) spoiledMark() string { return n.storeDirectory() + ".damaged" }

// spoil records what ends the use of the store. It does not wait.
func (n *Node) spoil(err error) {
	if errors.Is(err, pebblestore.ErrEnded) {
		select {
		case n.spoiled <- err:
		default: // is known
		}
	}
}

// endStore returns why the node ends: without a store it cannot answer anything. After damage it
// leaves a mark for the next start: what is damaged may be where opening does not look.
func (n *Node) endStore(why error) error {
	if !errors.Is(why, materializer.ErrCorrupt) {
		return fmt.Errorf("the store has failed; check its disk, then restart: %w", why)
	}
	if err := os.WriteFile(n.spoiledMark(), []byte(why.Error()+"\n"), 0o600); err != nil {
		return fmt.Errorf("%w (and that could not be noted for the next start: %w)", why, err)
	}
	return fmt.Errorf("the store was damaged while it was in use; restart, and it is rebuilt from the log: %w", why)
}

func (n *Node) storeLoop(stats func() pebblestore.Stats) loop {
	return loop{
		name:    loopStore,
		failure: func() error { return stats().Failure },
		last: func() (time.Time, error) {
			t := n.troubles.of(loopStore)
			return t.at, t.err
		},
	}
}

// Durability says in a sentence what is promised of acknowledged data.
func (n *Node) Durability() string {
	if n.config.Ephemeral {
		return "in memory only: data is lost when this process exits"
	}
	return n.topic.Durability
}

// Engine names the log.
func (n *Node) Engine() string { return engine(n.config) }

func engine(c *Config) string {
	if len(c.Brokers) > 0 {
		return "kafka at " + strings.Join(c.Brokers, ",")
	}
	return "embedded"
}
