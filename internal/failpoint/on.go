//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

//nolint:gochecknoglobals // armed once, by the environment
var (
	armed, at = arm()
	hits      atomic.Int64
)

// signals are those received and not yet counted by Shift; shift is the sum of those counted.
var (
	signals = listen()
	shift   atomic.Int64
)

func listen() <-chan os.Signal {
	c := make(chan os.Signal, 16)
	signal.Notify(c, syscall.SIGUSR1, syscall.SIGUSR2)
	return c
}

// Shift returns how far the wall clock of the process was set from the machine's.
func Shift() time.Duration {
	select {
	case s := <-signals:
		if s == syscall.SIGUSR1 {
			shift.Add(int64(Step))
		} else {
			shift.Add(-int64(Step))
		}
	default:
	}
	return time.Duration(shift.Load())
}

func arm() (name string, at int64) {
	spec := os.Getenv(Variable)
	if spec == "" {
		return "", 0
	}
	name, count, _ := strings.Cut(spec, ":")
	at, err := strconv.ParseInt(count, 10, 64)
	if err != nil || at < 1 || !slices.Contains(Points(), name) {
		panic(fmt.Sprintf("%s=%q: want name:n with n from 1 and a name of %v", Variable, spec, Points()))
	}
	return name, at
}

// Hit kills the process if name is the armed point and this is the hit that it is armed for.
func Hit(name string) {
	if name == armed && hits.Add(1) == at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the signal arrives
	}
}
