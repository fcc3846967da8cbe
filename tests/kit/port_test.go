package kit_test

import (
	"net"
	"testing"

	"github.com/millrace-io/millrace/tests/kit"
)

// TestAddressesAreFreeAndDiffer asks for many addresses, and opens each.
func TestAddressesAreFreeAndDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 50 {
		address, err := kit.Address()
		if err != nil {
			t.Fatal(err)
		}
		if seen[address] {
			t.Fatalf("%s was given twice", address)
		}
		seen[address] = true
		l := kit.Listen(t, address)
		defer l.Close()
		if tcp, ok := l.Addr().(*net.TCPAddr); !ok || tcp.Port >= 32768 {
			t.Errorf("%s may be taken by a connection", address)
		}
	}
	if address, err := kit.AddressOn("not a host"); err == nil {
		t.Errorf("no such host, and %s", address)
	}
}
