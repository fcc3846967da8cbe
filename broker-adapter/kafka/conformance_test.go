package kafka

import (
	"testing"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/brokertest"
)

func conformance(addrs []string) brokertest.Options {
	open := func(t *testing.T) broker.Log {
		l, err := Open(Options{Brokers: addrs})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	again := func(t *testing.T, _ broker.Log) broker.Log { return open(t) }
	return brokertest.Options{Open: open, Join: again, Reopen: again}
}

// TestConformance holds the adapter against the port on a real broker.
func TestConformance(t *testing.T) { brokertest.Run(t, conformance(brokers(t))) }

// TestConformanceOnFake does so on the in-process fake, to show that the fake is good for the tests beside this one.
func TestConformanceOnFake(t *testing.T) { brokertest.Run(t, conformance(fake(t, 3).ListenAddrs())) }
