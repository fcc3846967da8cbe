package embedded

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// The file ENDS, written at a clean close, says where each partition ended. Damage at the end of a
// database's WAL looks just like a write torn by a power cut; with this file a start detects that
// acknowledged records are missing. It is a lower bound, so it stays true while the log grows.
const (
	endsFile    = "ENDS"
	endsNewFile = "ENDS.new"
	// maxEndsBytes bounds how much of it is read.
	maxEndsBytes = 64 << 20
)

// endsContent is the file. Sum is the CRC-32C of the JSON of Ends.
type endsContent struct {
	Ends map[string][]int64 `json:"ends"`
	Sum  uint32             `json:"sum"`
}

func endsSum(ends map[string][]int64) (uint32, error) {
	b, err := json.Marshal(ends) // sorts keys
	return crc32.Checksum(b, castagnoli), err
}

// ends returns where every partition ends.
func (t *topicTable) ends() map[string][]int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	ends := make(map[string][]int64, len(t.byName))
	for name, tp := range t.byName {
		for _, p := range tp.partitions {
			ends[name] = append(ends[name], p.end.Load())
		}
	}
	return ends
}

// writeEnds replaces the file atomically.
func writeEnds(disk vfs.FS, dir string, ends map[string][]int64) error {
	sum, err := endsSum(ends)
	if err != nil {
		return err
	}
	content, err := json.Marshal(endsContent{Ends: ends, Sum: sum})
	if err != nil {
		return err
	}
	return replaceFile(disk, dir, endsNewFile, endsFile, content)
}

// checkEnds compares the partitions with the file.
func checkEnds(disk vfs.FS, dir string, topics *topicTable) error {
	ends, err := readEnds(disk, dir)
	if err != nil {
		return err
	}
	now := topics.ends()
	for name, partitions := range ends {
		for id, before := range partitions {
			after := int64(0)
			if id < len(now[name]) {
				after = now[name][id]
			}
			if after < before {
				return fmt.Errorf("open log in %s: topic %s, partition %d ends at offset %d, file %s says %d: %w: %w; %s",
					dir, name, id, after, endsFile, before, ErrCorrupt, broker.ErrRegressed, restoreAdvice)
			}
		}
	}
	return nil
}

// readEnds returns nothing when the log was never closed cleanly.
func readEnds(disk vfs.FS, dir string) (map[string][]int64, error) {
	f, err := disk.Open(disk.PathJoin(dir, endsFile))
	if oserror.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, directoryError("read file "+endsFile+" in", dir, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxEndsBytes))
	if err := firstError(err, f.Close()); err != nil {
		return nil, directoryError("read file "+endsFile+" in", dir, err)
	}
	var content endsContent
	err = json.Unmarshal(b, &content)
	if sum, _ := endsSum(content.Ends); err != nil || sum != content.Sum {
		return nil, fmt.Errorf(
			"open log in %s: file %s: %w: it only guards the other files; check the disk, then remove this file to open without it",
			dir, endsFile, ErrCorrupt)
	}
	return content.Ends, nil
}
