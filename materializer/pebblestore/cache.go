package pebblestore

import (
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Cache is a cache of blocks that several stores share. Each store holds it while it is open.
type Cache struct {
	blocks *pebble.Cache

	mu    sync.Mutex
	rooms []room // of the memtables of stores that have not been opened
}

// room keeps memory of a cache free.
type room struct {
	memTableBytes uint64
	release       func()
}

// NewCache returns a cache with room for blockCache bytes of blocks. memTableBytes has Options.
// MemTableBytes of each store that will share it, because Pebble takes the memory of memtables out
// of its cache. A store that is not open takes nothing from the blocks, and leaves them nothing.
// The cache must be closed.
func NewCache(blockCache int, memTableBytes ...uint64) *Cache {
	size := int64(blockCache)
	for _, bytes := range memTableBytes {
		size += usualMemTables * int64(bytes) //nolint:gosec // fits into memory
	}
	c := &Cache{blocks: pebble.NewCache(size)}
	for _, bytes := range memTableBytes {
		c.rooms = append(c.rooms, room{bytes, c.blocks.Reserve(usualMemTables * int(bytes))}) //nolint:gosec // fits
	}
	return c
}

// join gives a store that opens the room for its memtables.
func (c *Cache) join(memTableBytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.rooms, func(r room) bool { return r.memTableBytes == memTableBytes })
	if i < 0 {
		return // it was open before, and has left its room to the blocks
	}
	c.rooms[i].release()
	c.rooms = slices.Delete(c.rooms, i, i+1)
}

// Close gives up the cache; its memory is freed when the last store that has it is closed.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.blocks != nil {
		c.blocks.Unref()
		c.blocks = nil
	}
	return nil
}
