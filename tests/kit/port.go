package kit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// Ports are chosen below those that systems give to connections (Linux: from 32768 on, others
// higher), so that no connection takes one while its server is down.
const (
	firstPort, endPort = 10_000, 30_000
	portAttempts       = 100
)

// givenPorts are those that this process has asked for.
//
//nolint:gochecknoglobals // what is free is a property of the machine
var givenPorts = struct {
	sync.Mutex

	given map[int]bool
}{given: map[int]bool{}}

// Port returns a port of a host of this machine at which there is no listener, each time another
// one.
func Port(host string) (int, error) {
	givenPorts.Lock()
	defer givenPorts.Unlock()
	for range portAttempts {
		port := firstPort + rand.IntN(endPort-firstPort) //nolint:gosec // not a secret
		if givenPorts.given[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))) //nolint:noctx // returns at once
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		givenPorts.given[port] = true
		return port, l.Close()
	}
	return 0, fmt.Errorf("find a free port on %s: %d were taken", host, portAttempts)
}

// Address is Port on the loopback interface, with its host.
func Address() (string, error) { return AddressOn("127.0.0.1") }

// AddressOn is Port, with the host.
func AddressOn(host string) (string, error) {
	port, err := Port(host)
	return net.JoinHostPort(host, strconv.Itoa(port)), err
}

// FreeAddress is Address for a test.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return FreeAddressOn(t, "127.0.0.1")
}

// FreeAddressOn is AddressOn for a test.
func FreeAddressOn(t testing.TB, host string) string {
	t.Helper()
	address, err := AddressOn(host)
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// Listen opens a port; 127.0.0.1:0 is a free one.
func Listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
