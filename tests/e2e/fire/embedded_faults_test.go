package fire

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/embedded"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// storeFaults are what can happen to the store, a cache of any log; without another fault it must
// be rebuilt.
func storeFaults() []fault {
	return []fault{
		{"store deleted", (*world).loseStore},
		{"store bits flipped", (*world).flipStore},
	}
}

// logFaults are what can happen to the embedded log.
func logFaults() []fault {
	return []fault{
		{"torn tail", (*world).tearTail},
		{"log bits flipped", (*world).flipLog},
		{"second process", (*world).secondProcess},
		{"pause", (*world).pause},
	}
}

func (w *world) loseStore() bool {
	p := w.worker()
	p.Kill(w.t)
	deleted := p.DeleteStore(w.t)
	w.restart(p)
	return deleted
}

// flipStore turns bits in files of the store, after an end in order or after a kill: then some of
// what is in them was never made durable.
func (w *world) flipStore() bool {
	p := w.worker()
	if w.rng.IntN(2) == 0 {
		p.Kill(w.t)
	} else {
		p.Stop(w.t)
	}
	flipped := flip(w.t.Fatalf, w.rng, filepath.Join(p.Data(), "store"), 1+w.rng.IntN(8))
	before := len(p.Output(w.t))
	w.restart(p)
	if strings.Contains(p.Output(w.t)[before:], "damaged") {
		w.outcome("store damage found")
	}
	return len(flipped) > 0
}

// flip turns k bits, each in a file below dir that is chosen by kind first, so that the few large
// ones do not get all.
func flip(fatalf func(string, ...any), rng *rand.Rand, dir string, k int) []string {
	byKind := map[string][]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > 0 {
			kind := strings.TrimRight(strings.Trim(filepath.Base(path), "0123456789"), "-0123456789")
			byKind[kind] = append(byKind[kind], path)
		}
		return err
	})
	if err != nil {
		fatalf("look for files in %s: %v", dir, err)
	}
	var kinds, flipped []string
	for kind := range byKind {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	for range min(k, len(kinds)*k) {
		files := byKind[kinds[rng.IntN(len(kinds))]]
		file := files[rng.IntN(len(files))]
		content, err := os.ReadFile(file)
		if err == nil {
			content[rng.IntN(len(content))] ^= 1 << rng.IntN(8)
			err = os.WriteFile(file, content, 0o600)
		}
		if err != nil {
			fatalf("turn a bit: %v", err)
		}
		flipped = append(flipped, file)
	}
	return flipped
}

// tearTail kills the worker and appends garbage to its log, as a write does that a power loss cuts
// off.
func (w *world) tearTail() bool {
	p := w.worker()
	p.Kill(w.t)
	name, number := newestWAL(filepath.Join(p.Data(), "log"))
	if name == "" {
		w.t.Fatal("the log has no WAL")
	}
	file, err := os.OpenFile(name, os.O_RDWR, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	content, err := os.ReadFile(name)
	if err == nil {
		garbage := make([]byte, 1+w.rng.IntN(64<<10))
		for i := range garbage {
			garbage[i] = byte(w.rng.Uint32())
		}
		_, err = file.WriteAt(garbage, int64(endOfWAL(content, number)))
	}
	if err = errors.Join(err, file.Close()); err != nil {
		w.t.Fatal(err)
	}
	w.restart(p)
	return true
}

// newestWAL returns the log's WAL with the highest number.
func newestWAL(dir string) (name string, number uint32) {
	names, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, found := range names {
		n, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(found), ".log"), 10, 32)
		if err == nil && uint32(n) >= number {
			name, number = found, uint32(n)
		}
	}
	return name, number
}

// endOfWAL returns where the last whole chunk of a WAL ends. A chunk is a checksum (4 bytes), a
// length (2), a type (1), the number of the log (4), a position (8), and its payload; none crosses
// the border of a block.
func endOfWAL(content []byte, number uint32) int {
	const block, header, firstType, lastType = 32 << 10, 19, 9, 12
	at := 0
	for {
		if left := block - at%block; left < header {
			at += left
		}
		if at+header > len(content) {
			return min(at, len(content))
		}
		length := int(binary.LittleEndian.Uint16(content[at+4:]))
		kind, of := content[at+6], binary.LittleEndian.Uint32(content[at+7:])
		if kind < firstType || kind > lastType || of != number || at+header+length > len(content) {
			return at
		}
		at += header + length
	}
}

// secondProcess starts another worker on the same directory: it must end with an error that names
// the reason, and disturb nothing.
func (w *world) secondProcess() bool {
	p := w.worker()
	second := harness.Launch(w.t, harness.Options{Program: program, Tags: w.tags, Data: p.Data()})
	code := second.AwaitExit(w.t)
	said := second.Output(w.t)
	if code == 0 || !strings.Contains(said, p.Data()) || !strings.Contains(said, "in use") {
		w.t.Errorf("a second process on %s ended with %d and said:\n%s", p.Data(), code, said)
	}
	return true
}

// flipLog turns bits in the files of the log itself, which nothing can rebuild: the worker names
// file and remedy, or what was hit is not needed. What it shows all the same is right. Then the log
// is restored from a copy.
func (w *world) flipLog() bool {
	p := w.worker()
	damaged := false
	w.quietly(func() {
		p.Stop(w.t)
		spare := filepath.Join(w.t.TempDir(), "copy")
		w.copy(p.Data(), spare)
		flip(w.t.Fatalf, w.rng, filepath.Join(p.Data(), "log"), 1+w.rng.IntN(4))
		damaged = true
		p.DeleteStore(w.t) // so that all of the log is read
		w.judgeDamagedLog(p)
		p.Kill(w.t)
		if err := os.RemoveAll(p.Data()); err != nil {
			w.t.Fatal(err)
		}
		w.copy(spare, p.Data())
		if err := os.RemoveAll(spare); err != nil {
			w.t.Fatal(err)
		}
		w.restart(p)
	})
	return damaged
}

// judgeDamagedLog starts a worker on a damaged log.
func (w *world) judgeDamagedLog(p *harness.Process) {
	before := len(p.Output(w.t))
	p.Respawn(w.t)
	var trouble string
	ready := false
	kit.AwaitWithin(w.t, healing, "a worker with a damaged log to be ready, to end, or to say what is wrong", func() bool {
		if p.Ended() {
			return true
		}
		ready = p.Ready(w.t)
		trouble = w.logTrouble()
		return ready || trouble != ""
	})
	if !ready && trouble == "" { // it has ended
		trouble = p.Output(w.t)[before:]
	}
	switch {
	case ready:
		w.compare() // whatever it shows is right
		w.outcome("log damage not found")
	case !strings.Contains(trouble, filepath.Join(p.Data(), "log")) || !strings.Contains(trouble, "check the disk") &&
		!strings.Contains(trouble, "run the version"):
		w.t.Errorf("the log is damaged, and this does not name it with a remedy: %s", trouble)
	default:
		w.outcome("log damage named")
	}
}

// logTrouble is the worker's status of a log that cannot be read.
func (w *world) logTrouble() string {
	s := w.status(w.admins[0], callTimeout)
	for _, p := range s.GetPartitions() {
		if p.GetState() != "active" && strings.Contains(p.GetLastError(), "damaged") {
			return p.GetLastError()
		}
	}
	for _, task := range s.GetTasks() {
		if strings.Contains(task.GetLastError(), "damaged") {
			return task.GetLastError()
		}
	}
	return ""
}

func (w *world) copy(from, to string) {
	w.t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		w.t.Fatalf("copy %s: %v", from, err)
	}
}

// lastLines is the end of a process's output.
func lastLines(said string) string { return said[max(0, len(said)-4<<10):] }

// readEmbedded stops the worker, reads its log from the start and compares it with what every
// client knows.
func (w *world) readEmbedded(dir string) {
	w.t.Helper()
	w.workers[0].Stop(w.t)
	log, err := embedded.Open(embedded.Options{Dir: dir})
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	j := newJournal()
	for id := range int32(partitions) {
		at := broker.Partition{Topic: topic, ID: id}
		end, err := log.End(w.ctx, at)
		if err != nil {
			w.t.Fatalf("%s: the log in %s: %v", w.name, dir, err)
		}
		reader, err := log.Read(at, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		for j.part(id).next < end {
			batch, err := reader.Next(w.ctx)
			if err != nil {
				w.t.Fatalf("read the log of %s: %v", w.name, err)
			}
			for i := range batch.Records {
				r := &batch.Records[i]
				j.add(id, r.Offset, r.Key, r.Value, r.Header(record.HeaderKey))
			}
		}
		if err := reader.Close(); err != nil {
			w.t.Error(err)
		}
	}
	w.judgeLog(j)
}
