package node

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker-adapter/embedded"
	"github.com/millrace-io/millrace/materializer/pebblestore"
)

var errFull = errors.New("no space left on device")

// A log or a store that cannot be written makes the node unready, and status and metrics show it. The test's own loop takes
// the place of the real one before anybody asks.
func TestFullDiskIsShown(t *testing.T) {
	at := time.Unix(1700000000, 0)
	for name, ill := range map[string]func(*Node) loop{
		"log": func(*Node) loop {
			return logLoop(func() embedded.Stats {
				return embedded.Stats{State: embedded.StateFailed, LastError: errFull, LastErrorTime: at}
			})
		},
		"store": func(n *Node) loop {
			return n.storeLoop(func() pebblestore.Stats { return pebblestore.Stats{Failure: errFull} })
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := started(t, Options{Local: local(t, "counter")})
			n.loops = []loop{ill(n)}
			if err := n.NotReady(); !errors.Is(err, errFull) || !strings.Contains(err.Error(), "the "+name+" cannot be written") {
				t.Errorf("not ready because: %v", err)
			}
			if code, body := page(t, n, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, errFull.Error()) {
				t.Errorf("/readyz: %d, %s", code, body)
			}
			if task := taskOf(t, n, name); task.GetState() != "retrying" || task.GetLastError() != errFull.Error() {
				t.Errorf("the status shows %v", task)
			}
			_, scrape := page(t, n, "/metrics")
			mustContain(t, "the scrape", scrape, "millrace_node_ready_state 0", fmt.Sprintf("millrace_node_loop_healthy{loop=%q} 0", name))
		})
	}
}

// What is over stays in the status with its time, and bothers nobody.
func TestWhatWentWrongBeforeIsRemembered(t *testing.T) {
	at := time.Unix(1700000000, 0)
	n := started(t, Options{Local: local(t, "counter")})
	n.loops = []loop{logLoop(func() embedded.Stats {
		return embedded.Stats{State: embedded.StateReady, LastError: errFull, LastErrorTime: at}
	})}
	task := taskOf(t, n, "log")
	if task.GetState() != "running" || task.GetLastError() != errFull.Error() || !task.GetLastErrorTime().AsTime().Equal(at) || n.NotReady() != nil {
		t.Errorf("the status shows %v, ready: %v", task, n.NotReady())
	}
}
