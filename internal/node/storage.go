package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/embedded"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/materializer/pebblestore"
)

// openLog opens the log that the settings name: Kafka with brokers, else the embedded one.
func (n *Node) openLog(ctx context.Context) (broker.Log, error) {
	if len(n.config.Brokers) > 0 {
		return n.openKafka(ctx)
	}
	log, err := embedded.Open(embedded.Options{Dir: n.logDirectory(), Ephemeral: n.config.Ephemeral, CacheBytes: int64(n.config.BlockCache)})
	if err != nil {
		return nil, err
	}
	n.sources = append(n.sources, embeddedMetrics(log))
	return log, nil
}

// openStore opens the store. One that is damaged, or of another version, is a cache that has spoiled: it is deleted, and
// comes back from the log.
func (n *Node) openStore() (materializer.Store, error) {
	if n.config.Ephemeral {
		return memstore.New(), nil
	}
	dir := n.storeDirectory()
	options := pebblestore.Options{
		Dir: dir, CacheBytes: int64(n.config.BlockCache),
		OnFailure: func(err error) { n.logger.Error("the store refuses writes", observe.Path, dir, observe.Error, err) },
		OnWarning: func(message string) { n.logger.Warn("store", observe.Path, dir, observe.Error, message) },
	}
	store, err := pebblestore.Open(options)
	if errors.Is(err, materializer.ErrCorrupt) {
		n.rebuilt = err
		n.logger.Warn("the store is damaged and is rebuilt from the log", observe.Path, dir, observe.Error, err)
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("remove the damaged store %s: %w", dir, err)
		}
		store, err = pebblestore.Open(options)
	}
	if err != nil {
		return nil, err
	}
	n.sources = append(n.sources, store.Metrics())
	return store, nil
}

// Durability says in a sentence what is promised of data that was answered for.
func (n *Node) Durability() string {
	if n.config.Ephemeral {
		return "none: everything is in memory and ends with this process"
	}
	return n.topic.Durability
}

// Engine names the log.
func (n *Node) Engine() string {
	if len(n.config.Brokers) > 0 {
		return "kafka at " + strings.Join(n.config.Brokers, ",")
	}
	return "embedded"
}
