package node

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/observe"
)

const (
	// watchEvery is how often the supervised function's files are looked at.
	watchEvery = 700 * time.Millisecond
	// watchMost bounds the files that are looked at.
	watchMost = 20_000
	// stopGrace is how long a supervised function may take to end by itself.
	stopGrace = 3 * time.Second
	// steadyAfter is how long it must have lived for its next end to count as the first.
	steadyAfter = 5 * time.Second
)

// supervise runs the function's command and starts it again when it ends, or when a file below the working directory
// changed. Callers wait meanwhile, as long as function-wait says.
func (n *Node) supervise(ctx context.Context) error {
	pause := backoff.Policy{First: 200 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.2}
	for attempt := 1; ctx.Err() == nil; attempt++ {
		began := time.Now()
		why := n.runCommand(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > steadyAfter || errors.Is(why, errChanged) {
			attempt = 1
		}
		n.logger.Info("starting the user function again", observe.Cause, why, observe.Attempt, attempt)
		if !errors.Is(why, errChanged) {
			select {
			case <-ctx.Done():
			case <-time.After(pause.Pause(attempt)):
			}
		}
		select {
		case n.readiness.restarted <- struct{}{}:
		default:
		}
	}
	return nil
}

var errChanged = errors.New("its files changed")

// runCommand runs the function once and returns why it ended.
func (n *Node) runCommand(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	host, port, _ := net.SplitHostPort(n.config.Function)
	cmd := exec.CommandContext(ctx, n.options.Command[0], n.options.Command[1:]...) //nolint:gosec // the operator's own command
	cmd.Env = append(os.Environ(), "HOST="+host, "PORT="+port)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	// A group of its own: `go run` and npm start the real program as a child, which must end with them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	if err := cmd.Start(); err != nil {
		return err
	}
	watching := make(chan struct{})
	go func() { // ends with ctx; waited for below
		defer close(watching)
		n.watchFiles(ctx, cancel)
	}()
	err := cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what is left of the group
	changed := errors.Is(context.Cause(ctx), errChanged)
	cancel(nil)
	<-watching
	if changed {
		return errChanged
	}
	if err == nil {
		err = errors.New("it ended")
	}
	return err
}

// watchFiles calls cancel when a file below the working directory is newer than it was.
func (n *Node) watchFiles(ctx context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	was := n.newest()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if now := n.newest(); now.After(was) {
			cancel(errChanged)
			return
		}
	}
}

// newest returns when the youngest source file was changed.
func (n *Node) newest() time.Time {
	var newest time.Time
	data, _ := filepath.Abs(n.config.Data)
	seen := 0
	_ = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be read is not watched
		}
		name := d.Name()
		if d.IsDir() {
			abs, _ := filepath.Abs(path)
			if path != "." && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "target" || name == "__pycache__" || abs == data) {
				return fs.SkipDir
			}
			return nil
		}
		if seen++; seen > watchMost {
			return fs.SkipAll
		}
		if info, err := d.Info(); err == nil && info.ModTime().After(newest) && !strings.HasPrefix(name, ".") {
			newest = info.ModTime()
		}
		return nil
	})
	return newest
}
