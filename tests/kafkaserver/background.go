package kafkaserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrNotRunning means that no broker was left running in the background.
var ErrNotRunning = errors.New("no Kafka runs in the background")

// Background is the one broker of this user that outlives the process which started it. Calls must not overlap.
type Background struct{ dir string }

// BackgroundState is what is kept about it.
type BackgroundState struct {
	PID int `json:"pid"`
	// Addr is the address for clients, Data the directory of its data.
	Addr string `json:"addr"`
	Data string `json:"data"`
}

// OpenBackground looks into the cache directory.
func OpenBackground() (*Background, error) {
	dir, err := CacheDir()
	if err != nil {
		return nil, err
	}
	return &Background{dir: dir}, nil
}

func (b *Background) file() string { return filepath.Join(b.dir, "kafka.pid") }

// State returns the running broker, or ErrNotRunning. A file left by one that has died is removed.
func (b *Background) State() (BackgroundState, error) {
	var s BackgroundState
	text, err := os.ReadFile(b.file())
	if errors.Is(err, os.ErrNotExist) {
		return s, ErrNotRunning
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return s, fmt.Errorf("%s: %w; end the broker by hand and remove the file", b.file(), err)
	}
	if n, err := countBrokers(context.Background(), s.Addr); alive(s.PID) && (err == nil && n > 0) {
		return s, nil
	}
	if alive(s.PID) {
		return s, fmt.Errorf("process %d of %s does not answer at %s; end it if it is a broker, and remove the file", s.PID, b.file(), s.Addr)
	}
	return s, errors.Join(ErrNotRunning, os.Remove(b.file()))
}

// Start starts the broker on a port; data "" means a directory in the cache.
func (b *Background) Start(ctx context.Context, port int, data string) (BackgroundState, error) {
	switch s, err := b.State(); {
	case err == nil:
		return s, fmt.Errorf("a broker runs already at %s (process %d); stop it first", s.Addr, s.PID)
	case !errors.Is(err, ErrNotRunning):
		return s, err
	}
	if data == "" {
		data = filepath.Join(b.dir, "data")
	}
	data, err := filepath.Abs(data)
	if err != nil {
		return BackgroundState{}, err
	}
	c, err := Launch(ctx, Options{Port: port, Dir: data, Detached: true})
	if err != nil {
		return BackgroundState{}, err
	}
	s := BackgroundState{PID: c.Servers[0].PID(), Addr: c.Servers[0].Addr(), Data: data}
	text, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(b.file(), text, 0o600)
	}
	if err != nil {
		return s, errors.Join(err, c.Stop()) // one that nobody could stop later must not stay
	}
	return s, nil
}

// Stop ends the broker in order.
func (b *Background) Stop() (BackgroundState, error) {
	s, err := b.State()
	if err != nil {
		return s, err
	}
	p, err := os.FindProcess(s.PID)
	if err == nil {
		err = p.Signal(syscall.SIGTERM)
	}
	if err != nil {
		return s, fmt.Errorf("stop process %d: %w", s.PID, err)
	}
	for deadline := time.Now().Add(stopTimeout); alive(s.PID); {
		if time.Now().After(deadline) {
			return s, fmt.Errorf("process %d does not end within %v of a request to stop", s.PID, stopTimeout)
		}
		<-time.After(pollPause)
	}
	return s, os.Remove(b.file())
}

// alive tells whether a process with this id exists.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	return err == nil && p.Signal(syscall.Signal(0)) == nil
}
