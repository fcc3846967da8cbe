package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/millrace-io/millrace/internal/app/admin"
	"github.com/millrace-io/millrace/materializer/pebblestore"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// VerifyOffline reads the journal that the configuration names while no worker runs. It takes the
// lock of a data directory; it creates nothing.
func VerifyOffline(ctx context.Context, c *Config, r *adminv1.VerifyRequest,
	send func(*adminv1.VerifyResponse) error,
) (err error) {
	n, err := openOffline(ctx, c, r.GetStore())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	w := admin.Worker{Log: n.log, Topic: n.topic, Store: n.store}
	return w.Verify(ctx, r, send)
}

// openOffline opens log and journal of a configuration, and the store if it is wanted, and starts
// nothing.
func openOffline(ctx context.Context, c *Config, store bool) (*Node, error) {
	n := &Node{process: newProcess(Options{Config: c})}
	err := n.openForReading(ctx, store)
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

func (n *Node) openForReading(ctx context.Context, store bool) (err error) {
	if len(n.config.Brokers) == 0 || store {
		// Opening would make them.
		for _, dir := range []string{filepath.Join(n.config.Data, identityFile), n.storeDirectory()} {
			if _, err := os.Stat(dir); err != nil {
				return fmt.Errorf("there is nothing to verify in %s: %w; name the data directory with --data", n.config.Data, err)
			}
		}
		if n.identity, err = openDirectory(n.config, false); err != nil {
			return err
		}
	}
	if err := n.openLog(); err != nil {
		return err
	}
	if n.topic, err = n.log.Describe(ctx, n.journal()); err != nil {
		return fmt.Errorf("describe topic %s: %w", n.journal(), err)
	}
	if !store {
		return nil
	}
	opened, err := pebblestore.Open(pebblestore.Options{Dir: n.storeDirectory(), BlockCache: n.config.BlockCache})
	if err != nil {
		return n.inUse(err)
	}
	n.store = opened
	n.onClose(opened.Close)
	return nil
}
