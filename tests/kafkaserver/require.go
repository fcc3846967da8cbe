package kafkaserver

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/millrace-io/millrace/tests/kit"
)

// Require checks that brokers can be started. If not, it skips the test with the reason, or fails
// it if CI=true.
func Require(t testing.TB) {
	t.Helper()
	_, err := install(t.Context())
	switch {
	case err == nil:
	case errors.Is(err, ErrUnavailable):
		kit.CannotRun(t, "%v", err)
	default:
		t.Fatal(err)
	}
}

// Start starts one broker for the length of a test. Without Options.Dir its data go to the test's
// own directory.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	o.Brokers = 1
	return start(t, o).Servers[0]
}

// StartCluster starts n brokers for the length of a test. Settings are explained at Options.
func StartCluster(t testing.TB, n int, settings ...map[string]string) *Cluster {
	t.Helper()
	o := Options{Brokers: n, Settings: map[string]string{}}
	for _, s := range settings {
		maps.Copy(o.Settings, s)
	}
	return start(t, o)
}

func start(t testing.TB, o Options) *Cluster {
	t.Helper()
	Require(t)
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c, err := Launch(t.Context(), o)
	if err != nil {
		t.Fatalf("start Kafka: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Kill(); err != nil { // its data is not needed any more
			t.Errorf("end Kafka: %v", err)
		}
	})
	return c
}

// MustRestart starts a killed or stopped broker again and ends the test where that is not possible.
func (s *Server) MustRestart(t testing.TB) {
	t.Helper()
	if err := s.Restart(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}
