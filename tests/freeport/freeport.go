// Package freeport finds ports for servers of tests. They lie below those that systems give to connections (Linux: from 32768 on,
// others higher), so that nobody's connection takes one while its server is down.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
)

const (
	first, beyond = 10_000, 30_000
	attempts      = 100
)

// given are the ports that this process has asked for.
//
//nolint:gochecknoglobals // what is free is a property of the machine
var given = struct {
	sync.Mutex

	ports map[int]bool
}{ports: map[int]bool{}}

// On returns an address of a host of this machine on which nobody listens, each time another one.
func On(host string) (string, error) {
	port, err := Port(host)
	return net.JoinHostPort(host, strconv.Itoa(port)), err
}

// Port is On without the host.
func Port(host string) (int, error) {
	given.Lock()
	defer given.Unlock()
	for range attempts {
		port := first + rand.IntN(beyond-first) //nolint:gosec // not a secret
		if given.ports[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))) //nolint:noctx // returns at once
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		given.ports[port] = true
		return port, l.Close()
	}
	return 0, fmt.Errorf("find a free port on %s: %d were taken", host, attempts)
}
