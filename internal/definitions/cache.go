package definitions

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
)

// cache keeps the last state, and blobs, in a folder. All of it is a hint: what is not there, or
// damaged, is asked for. Without a folder the blobs are in memory. Safe for concurrent use.
type cache struct {
	dir string

	mu    sync.Mutex
	blobs map[string][]byte
	size  int
}

// maxCached bounds the blobs in memory.
const maxCached = 16 << 20

func newCache(dir string) *cache { return &cache{dir: dir, blobs: map[string][]byte{}} }

const stateFile = "state.binpb"

// state returns the state that was kept; nil if there is none.
func (c *cache) state() (*definitionsv1.State, error) {
	if c.dir == "" {
		return nil, nil
	}
	b, err := os.ReadFile(filepath.Join(c.dir, stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the last known definitions: %w", err)
	}
	s := &definitionsv1.State{}
	if err := proto.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(c.dir, stateFile), err)
	}
	return s, nil
}

// keep keeps a state.
func (c *cache) keep(s *definitionsv1.State) error {
	if c.dir == "" {
		return nil
	}
	b, err := proto.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode the definitions: %w", err)
	}
	if err := c.write(stateFile, b); err != nil {
		return err
	}
	return c.prune(s)
}

// prune removes the blobs that no version of a state names.
func (c *cache) prune(s *definitionsv1.State) error {
	named := map[string]bool{}
	for _, def := range s.GetDefinitions() {
		for _, v := range def.GetVersions() {
			for _, sha := range append([]string{v.GetApplied().GetDocument()}, v.GetApplied().GetCaptured()...) {
				named[sha] = true
			}
		}
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("look for blobs that are not needed any more: %w", err)
	}
	for _, e := range entries {
		if sha, isBlob := strings.CutSuffix(e.Name(), ".blob"); isBlob && !named[sha] {
			if err := os.Remove(filepath.Join(c.dir, e.Name())); err != nil {
				return fmt.Errorf("remove a blob that is not needed any more: %w", err)
			}
		}
	}
	return nil
}

// write replaces a file in one step.
func (c *cache) write(name string, content []byte) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the definitions: %w", err)
	}
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// blob returns content by its hash; nil if it is not there.
func (c *cache) blob(sha256 string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b, ok := c.blobs[sha256]; ok {
		return b
	}
	if c.dir == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(c.dir, filepath.Base(sha256)+".blob"))
	if err != nil || hashOf(b) != sha256 {
		return nil
	}
	return b
}

// keepBlob keeps content. A disk that does not take it costs a question to the entity.
func (c *cache) keepBlob(sha256 string, content []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dir != "" {
		_ = c.write(filepath.Base(sha256)+".blob", content)
		return
	}
	if c.size += len(content); c.size > maxCached {
		c.blobs, c.size = map[string][]byte{}, len(content)
	}
	c.blobs[sha256] = content
}
