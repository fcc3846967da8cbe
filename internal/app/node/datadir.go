package node

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/millrace-io/millrace/internal/plural"
)

// identityFile holds what a data directory belongs to.
const identityFile = "identity.json"

// identityVersion is the version of the data directory's layout: log/, store/, views/,
// identity.json.
const identityVersion = 1

// identity is what was decided when the data directory was made.
type identity struct {
	Version    int    `json:"version"`
	App        string `json:"app"`
	Partitions int    `json:"partitions,omitempty"`
	Worker     string `json:"worker"`
}

// openDirectory makes the data directory, if need be, and returns what it belongs to. Settings that
// contradict it are an error. explicit reports whether the number of partitions was asked for, not
// just a default.
func openDirectory(c *Config, explicit bool) (identity, error) {
	if c.Ephemeral {
		return identity{App: c.App, Partitions: c.Partitions, Worker: workerName(c.Worker)}, nil
	}
	if err := os.MkdirAll(c.Data, 0o750); err != nil {
		return identity{}, fmt.Errorf("make the data directory %s: %w; choose another with --data", c.Data, err)
	}
	path := filepath.Join(c.Data, identityFile)
	content, err := os.ReadFile(path) //nolint:gosec // the operator names the directory
	if errors.Is(err, os.ErrNotExist) {
		return createIdentity(c, path)
	}
	if err != nil {
		return identity{}, fmt.Errorf("read %s: %w", path, err)
	}
	var id identity
	if err := json.Unmarshal(content, &id); err != nil {
		return identity{}, fmt.Errorf("%s is damaged: %w; it holds app, partitions and worker name: write it again, or choose another directory with --data", path, err)
	}
	switch {
	case id.Version > identityVersion:
		return identity{}, fmt.Errorf("the data directory %s has layout version %d, this program knows up to %d: use the version of millrace that made it, or a newer one", c.Data, id.Version, identityVersion)
	case id.App != c.App:
		return identity{}, fmt.Errorf("the data directory %s belongs to app %q, not %q: start with --app %s, or choose another directory with --data", c.Data, id.App, c.App, id.App)
	case explicit && len(c.Brokers) == 0 && id.Partitions != 0 && id.Partitions != c.Partitions:
		return identity{}, fmt.Errorf("the journal in %s has %s, not %d: leave --partitions out, or choose another directory with --data", c.Data, plural.Of(id.Partitions, "partition"), c.Partitions)
	}
	if id.Partitions == 0 {
		id.Partitions = c.Partitions
	}
	if c.Worker != "" {
		id.Worker = c.Worker
	}
	return id, nil
}

func createIdentity(c *Config, path string) (identity, error) {
	id := identity{Version: identityVersion, App: c.App, Partitions: c.Partitions, Worker: workerName(c.Worker)}
	content, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return identity{}, err
	}
	if err := writeDurably(path, append(content, '\n')); err != nil {
		return identity{}, fmt.Errorf("write to the data directory %s: %w; choose another with --data", c.Data, err)
	}
	return id, nil
}

// writeDurably makes a file that is whole or not there.
func writeDurably(path string, content []byte) error {
	temporary := path + ".new"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640) //nolint:gosec // group may read
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// workerName returns the configured name, or a new one.
func workerName(configured string) string {
	if configured != "" {
		return configured
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return "w-" + hex.EncodeToString(b[:])
}
