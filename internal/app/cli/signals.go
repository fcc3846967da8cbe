package cli

import (
	"context"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
	"time"
)

// samePress is how long after a first signal another one counts as the same: timeout(1), shells and
// other wrappers send a signal to the process and to its group.
const samePress = time.Second

// signals receives those that ask the process to end.
type signals chan os.Signal

// notify has the signals of the process delivered. SIGHUP, which a closed terminal sends, stays
// ignored under nohup.
func notify() signals {
	s := make(signals, 4)
	signal.Notify(s, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(s, syscall.SIGHUP)
	}
	return s
}

// outliveOutput has a server go on when the reader of its output is gone, as after Ctrl-C on
// `millrace dev | tee file`: otherwise the next line that it prints ends it in the middle of its
// shutdown. The signal itself is not looked at, because every broken connection sends it, too.
// Other commands are to end at once: `log tail | head`.
func outliveOutput() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// await returns a context that ends with the first signal, a channel that is closed when a later
// one insists, and a function that releases both. SIGQUIT also prints the goroutines.
func (s signals) await() (context.Context, <-chan struct{}, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	insisted, released, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() { // ends when a signal insists, or with release, which waits for it
		defer close(ended)
		var first time.Time
		for {
			select {
			case got := <-s:
				if got == syscall.SIGQUIT {
					_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
				}
				if first.IsZero() {
					first = time.Now()
					cancel(signalError{got})
				} else if insists(got) && time.Since(first) >= samePress {
					close(insisted)
					return
				}
			case <-released:
				return
			}
		}
	}()
	return ctx, insisted, func() {
		close(released)
		<-ended
		cancel(nil)
	}
}

// signalError is the cause of a stop: for who asks for no more, that the context was cancelled.
type signalError struct{ os.Signal }

func (s signalError) Error() string { return s.String() }

func (s signalError) Unwrap() error { return context.Canceled }

// insists reports whether a second signal forces the shutdown. A closed terminal does not: no one
// has asked for that.
func insists(s os.Signal) bool { return s != syscall.SIGHUP }
