package freeport_test

import (
	"net"
	"testing"

	"github.com/millrace-io/millrace/tests/freeport"
)

func TestOn(t *testing.T) {
	seen := map[string]bool{}
	for range 50 {
		address, err := freeport.On("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		if seen[address] {
			t.Fatalf("%s was given twice", address)
		}
		seen[address] = true
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if tcp, ok := l.Addr().(*net.TCPAddr); !ok || tcp.Port >= 32768 {
			t.Errorf("%s may be taken by a connection", address)
		}
	}
	if address, err := freeport.On("not a host"); err == nil {
		t.Errorf("no such host, and %s", address)
	}
}
