package kafkaserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrNotRunning means that no broker was left running in the background.
var ErrNotRunning = errors.New("no Kafka runs in the background")

// Background is a broker of this user that outlives the process which started it, or a cluster of
// brokers. There is one of each size. Calls must not overlap.
type Background struct {
	dir     string
	brokers int
}

// BackgroundState is what its file stores.
type BackgroundState struct {
	PIDs []int `json:"pids"`
	// Addrs are the addresses for clients, Data the directory of the data.
	Addrs []string `json:"addrs"`
	Data  string   `json:"data"`
}

// OpenBackground returns the background cluster of a number of brokers.
func OpenBackground(brokers int) (*Background, error) {
	dir, err := CacheDir()
	if err != nil {
		return nil, err
	}
	return &Background{dir: dir, brokers: max(1, brokers)}, nil
}

// name is that of its files.
func (b *Background) name() string {
	if b.brokers > 1 {
		return fmt.Sprintf("kafka-%d", b.brokers)
	}
	return "kafka"
}

func (b *Background) file() string { return filepath.Join(b.dir, b.name()+".pid") }

// State returns the running brokers, or ErrNotRunning. A file left by brokers that have all died is
// removed. If only some have died, it returns an error; Stop ends the rest.
func (b *Background) State() (BackgroundState, error) {
	s, err := b.read()
	if err != nil {
		return s, err
	}
	var dead []string
	for i, pid := range s.PIDs {
		n, err := countBrokers(context.Background(), s.Addrs[i])
		switch {
		case !alive(pid):
			dead = append(dead, s.Addrs[i])
		case err != nil || n == 0:
			return s, fmt.Errorf("process %d of %s does not answer at %s; end it if it is a broker, and remove the file",
				pid, b.file(), s.Addrs[i])
		}
	}
	switch {
	case len(dead) == len(s.PIDs):
		return s, errors.Join(ErrNotRunning, os.Remove(b.file()))
	case len(dead) > 0:
		return s, fmt.Errorf("of the %d brokers of %s those at %s have ended; stop the rest, and start all", len(s.PIDs),
			b.file(), strings.Join(dead, ", "))
	}
	return s, nil
}

func (b *Background) read() (BackgroundState, error) {
	var s BackgroundState
	text, err := os.ReadFile(b.file())
	if errors.Is(err, os.ErrNotExist) {
		return s, ErrNotRunning
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil && (len(s.PIDs) == 0 || len(s.PIDs) != len(s.Addrs)) {
		err = errors.New("it names no process")
	}
	if err != nil {
		return s, fmt.Errorf("%s: %w; end the brokers and remove the file", b.file(), err)
	}
	return s, nil
}

// Start starts the brokers on ports from the given one on (Options.Port); data "" means a directory
// in the cache.
func (b *Background) Start(ctx context.Context, port int, data string) (BackgroundState, error) {
	switch s, err := b.State(); {
	case err == nil:
		return s, fmt.Errorf("Kafka runs already at %s (processes %v); stop it first", strings.Join(s.Addrs, ", "), s.PIDs) //nolint:staticcheck // its name
	case !errors.Is(err, ErrNotRunning):
		return s, err
	}
	if data == "" {
		data = filepath.Join(b.dir, strings.Replace(b.name(), "kafka", "data", 1))
	}
	data, err := filepath.Abs(data)
	if err != nil {
		return BackgroundState{}, err
	}
	c, err := Launch(ctx, Options{Brokers: b.brokers, Port: port, Dir: data, Detached: true})
	if err != nil {
		return BackgroundState{}, err
	}
	s := BackgroundState{Addrs: c.Addrs(), Data: data}
	for _, server := range c.Servers {
		s.PIDs = append(s.PIDs, server.PID())
	}
	text, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(b.file(), text, 0o600)
	}
	if err != nil {
		return s, errors.Join(err, c.Stop()) // one that could not be stopped later must not stay
	}
	return s, nil
}

// Stop shuts the brokers down, all at once, since a controller waits for a quorum. One that does
// not stop in time is killed.
func (b *Background) Stop() (BackgroundState, error) {
	s, err := b.State()
	if errors.Is(err, ErrNotRunning) || len(s.PIDs) == 0 {
		return s, err
	}
	deadline := time.Now().Add(stopTimeout)
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for _, pid := range s.PIDs {
			if err := send(pid, signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return s, fmt.Errorf("stop process %d: %w", pid, err)
			}
		}
		for ; time.Now().Before(deadline); <-time.After(pollPause) {
			if !slices.ContainsFunc(s.PIDs, alive) {
				return s, os.Remove(b.file())
			}
		}
		deadline = deadline.Add(askTimeout)
	}
	return s, fmt.Errorf("processes %v do not end within %v of a request to stop", s.PIDs, stopTimeout)
}

func send(pid int, signal syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Signal(signal)
}

// alive reports whether a process with this id exists.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	return err == nil && p.Signal(syscall.Signal(0)) == nil
}
