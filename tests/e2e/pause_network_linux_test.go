package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kafkaserver"
	"github.com/millrace-io/millrace/tests/kit"
)

// machine is a network namespace that is connected with this machine by a cable that can be pulled.
// A process keeps it, and it ends with that process, however the tests end.
type machine struct {
	t   *testing.T
	pid string
	// link is the name of the cable's end in there; here and there are the addresses of both ends.
	link, here, there string
}

// connectMachine connects another machine. Where the system forbids that, the test is skipped, and
// fails with CI=true.
func connectMachine(t *testing.T) *machine {
	t.Helper()
	keeper := exec.CommandContext(t.Context(), "unshare", "--net", "sleep", "infinity")
	keeper.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := keeper.Start(); err != nil {
		noMachine(t, err.Error())
	}
	t.Cleanup(func() {
		_ = keeper.Process.Kill() // it may have ended by itself
		_ = keeper.Wait()
	})
	n := rand.IntN(1 << 14) // one of the small networks of 10.213.0.0/16
	m := &machine{
		t: t, pid: strconv.Itoa(keeper.Process.Pid), link: fmt.Sprintf("mr%dt", n),
		here: fmt.Sprintf("10.213.%d.%d", n>>6, n&63<<2+1), there: fmt.Sprintf("10.213.%d.%d", n>>6, n&63<<2+2),
	}
	end := fmt.Sprintf("mr%dh", n)
	for !m.apart(keeper) { // unshare has to get there first
		<-time.After(time.Millisecond)
	}
	for _, line := range []string{
		"ip link add " + end + " type veth peer name " + m.link + " netns " + m.pid,
		"ip addr add " + m.here + "/30 dev " + end,
		"ip link set " + end + " up",
		m.inside("ip addr add " + m.there + "/30 dev " + m.link),
		m.inside("ip link set lo up"),
		m.inside("ip link set " + m.link + " up"),
	} {
		if said, err := m.run(line); err != nil {
			noMachine(t, fmt.Sprintf("%s: %v: %s", line, err, said))
		}
	}
	return m
}

func noMachine(t *testing.T, why string) {
	t.Helper()
	kit.CannotRun(t, "no network of our own is possible (it takes root, unshare, nsenter and ip): %s", why)
}

// apart reports whether the keeper has a network of its own. One that ended has none that could be
// waited for.
func (m *machine) apart(keeper *exec.Cmd) bool {
	ours, err := os.Readlink("/proc/self/ns/net")
	theirs, gone := os.Readlink("/proc/" + m.pid + "/ns/net")
	if err != nil || gone != nil {
		noMachine(m.t, fmt.Sprintf("%s ended, or there is no /proc: %v %v", keeper, err, gone))
	}
	return ours != theirs
}

// inside is a command line that is run on the machine.
func (m *machine) inside(line string) string { return "nsenter -n -t " + m.pid + " " + line }

func (m *machine) run(line string) ([]byte, error) {
	words := strings.Fields(line)
	return exec.CommandContext(m.t.Context(), words[0], words[1:]...).CombinedOutput()
}

// cable pulls the machine's cable, or puts it back. While it is pulled, what is sent is lost: no
// socket is closed, and none refuses.
func (m *machine) cable(state string) {
	m.t.Helper()
	if said, err := m.run(m.inside("ip link set " + m.link + " " + state)); err != nil {
		m.t.Fatalf("set the link %s: %v: %s", state, err, said)
	}
}

// TestMachineThatVanishes pulls the cable of a worker's machine: no peer sees a socket close.
// Callers of the gateway have their answers soon after its session at the latest, and none fails.
// When the cable is back, so is the worker.
func TestMachineThatVanishes(t *testing.T) {
	m := connectMachine(t)
	door := kit.FreeAddressOn(t, m.here)
	kafka := kafkaserver.Start(t,
		kafkaserver.Options{Listeners: []kafkaserver.Listener{{Name: "OUTSIDE", Address: door, Advertised: door}}})
	c := &cluster{t: t}
	for range 2 {
		c.add(kafka.Addr(), harness.Options{Args: []string{"--peer", kit.FreeAddressOn(t, m.here)}})
	}
	there := c.add(door, harness.Options{Host: m.there, Wrapper: strings.Fields(m.inside("--"))})
	c.gateway = harness.Start(t,
		harness.Options{Command: "gateway", Args: []string{"--app", "counters", "--brokers", kafka.Addr()}})
	c.settled()
	c.passedOver("a machine that vanished", there, func() { m.cable("down") }, func() { m.cable("up") })
}
