package fire

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// diskBytes is the size of each of the two disks that are filled.
const diskBytes = 192 << 20

// disks are two small file systems, for the log and for the store, in a mount namespace that a
// process of ours holds open: what is on them outlives the workers.
type disks struct {
	holder *exec.Cmd
	data   string
}

// mountDisks makes them, or returns why that is not possible here.
func mountDisks(t *testing.T) (*disks, error) {
	t.Helper()
	d := &disks{data: filepath.Join(t.TempDir(), "data")}
	for _, name := range []string{"log", "store"} {
		if err := os.MkdirAll(filepath.Join(d.data, name), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	line := fmt.Sprintf(`mount -t tmpfs -o size=%d none "$0/log" && mount -t tmpfs -o size=%d none "$0/store" && echo ready && exec cat`, diskBytes, diskBytes)
	d.holder = exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", line, d.data) //nolint:noctx // lives until its input is closed
	var said strings.Builder
	d.holder.Stderr = &said
	in, err := d.holder.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := d.holder.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.holder.Start(); err != nil {
		return nil, err
	}
	if answer, _ := bufio.NewReader(out).ReadString('\n'); answer != "ready\n" {
		_ = in.Close()
		return nil, fmt.Errorf("mount in a namespace of our own: %w: %s", d.holder.Wait(), said.String())
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = d.holder.Wait()
	})
	return d, nil
}

// enter is a command that starts another one where the disks are.
func (d *disks) enter() []string {
	return []string{"nsenter", "--user", "--mount", "--preserve-credentials", "-t", fmt.Sprint(d.holder.Process.Pid), "--"}
}

// path is where the test sees a file of the data directory.
func (d *disks) path(name string) string {
	return filepath.Join("/proc", fmt.Sprint(d.holder.Process.Pid), "root", d.data, name)
}

// fill leaves no room on a disk.
func (d *disks) fill(t *testing.T, disk string) {
	t.Helper()
	kit.FillDisk(t, d.path(disk+"/filler"))
}

func (d *disks) free(t *testing.T, disk string) {
	t.Helper()
	if err := os.Remove(d.path(disk + "/filler")); err != nil {
		t.Fatal(err)
	}
}

// disk is a worker on disks that are full from time to time.
func (r *run) disk(t *testing.T, w *world) {
	t.Helper()
	d, err := mountDisks(t)
	if err != nil {
		if kit.CI.Is("true") {
			t.Fatalf("CI=true, and disks of our own are not possible here: %v", err)
		}
		t.Logf("fire: %s: not run: disk full: disks of our own are not possible here: %v", r.engine, err)
		return
	}
	w.disks = d
	w.launch(harness.Options{
		Program: program, Tags: w.tags, Args: []string{"--partitions", fmt.Sprint(partitions)},
		Env: w.env, Data: d.data, Wrapper: d.enter(),
	})
	w.start(r.clients, 2*r.clients)
	w.inject([]fault{
		{"log disk full", (*world).fillLog},
		{"store disk full", (*world).fillStore},
		{"kill", (*world).kill},
	}, r.share())
	w.end()
	w.workers[0].Stop(t)
	spare := filepath.Join(t.TempDir(), "log") // a database wants a path that every process sees alike
	w.copy(d.path("log"), spare)
	w.readEmbedded(spare)
}

// fillLog leaves no room for the log until commands fail for it, or the worker says so because no
// command was under way, and makes room again: then the log recovers by itself.
func (w *world) fillLog() bool {
	w.forget("no space left")
	w.disks.fill(w.t, "log")
	kit.AwaitWithin(w.t, healing, "a command that finds no room, or the worker to say so", func() bool {
		return w.noted(codes.Unavailable, "no space left") || w.partitionsSay("no space left")
	})
	w.disks.free(w.t, "log")
	kit.AwaitWithin(w.t, healing, "the worker to be ready again", func() bool { return w.workers[0].Ready(w.t) })
	return true
}

// partitionsSay reports whether a partition that is not active gives these words as its last error.
func (w *world) partitionsSay(words string) bool {
	for _, p := range w.status(w.admins[0], callTimeout).GetPartitions() {
		if p.GetState() != "active" && strings.Contains(p.GetLastError(), words) {
			return true
		}
	}
	return false
}

// fillStore leaves no room for the store. A worker that is killed then cannot even open it, and
// says so.
func (w *world) fillStore() bool {
	p := w.worker()
	p.Kill(w.t)
	w.disks.fill(w.t, "store")
	before := len(p.Output(w.t))
	p.Respawn(w.t)
	said := ""
	kit.AwaitWithin(w.t, healing, "the worker to say that the store has no room", func() bool {
		said = p.Output(w.t)[before:]
		return strings.Contains(said, "no space left")
	})
	if !strings.Contains(said, filepath.Join(w.disks.data, "store")) {
		w.t.Errorf("a full disk is not named: %s", said)
	}
	w.disks.free(w.t, "store")
	if w.ready(p) { // its store had room, or got some in time
		return true
	}
	if said := lastLines(p.Output(w.t)); !strings.Contains(said, "no space left") {
		w.t.Fatalf("a worker has ended whose disk was full, and does not say so:\n%s", said)
	}
	w.outcome("full store disk ended the worker")
	w.restart(p)
	return true
}
