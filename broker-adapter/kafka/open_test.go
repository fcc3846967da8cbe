package kafka

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// TestOpenUnreachable names the addresses that were tried.
func TestOpenUnreachable(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Options{Brokers: []string{addr}, OpenTimeout: 200 * time.Millisecond})
	if !errors.Is(err, broker.ErrUnreachable) || !strings.Contains(err.Error(), addr) {
		t.Fatalf("open: %v", err)
	}
}

// TestOpenSilent connects to a server that accepts connections and never answers.
func TestOpenSilent(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	_, err = Open(Options{Brokers: []string{listener.Addr().String()}, OpenTimeout: 200 * time.Millisecond})
	if !errors.Is(err, broker.ErrUnreachable) {
		t.Fatalf("open: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"no Kafka brokers":  {},
		"MinInsync is 3":    {Brokers: []string{"b"}, Settings: Settings{Replication: 2}, MinInsync: 3},
		"FetchBytes is -1":  {Brokers: []string{"b"}, FetchBytes: -1},
		"HeartbeatInterval": {Brokers: []string{"b"}, HeartbeatInterval: time.Minute},
		`"kerberos"`:        {Brokers: []string{"b"}, SASL: &SASL{Mechanism: "kerberos"}},
	} {
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("options %+v: error %v does not say %q", o, err, want)
		}
	}
}

// TestSASL logs in with each mechanism.
func TestSASL(t *testing.T) {
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		t.Run(mechanism, func(t *testing.T) {
			c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(),
				kfake.Superuser(strings.ToUpper(mechanism), "worker", "secret"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			l := open(t, Options{
				Brokers: c.ListenAddrs(), SASL: &SASL{Mechanism: mechanism, User: "worker", Password: "secret"},
			})
			mustAppend(t, l, newTestTopic(t, l, 1), text("x"))
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			wrong := Options{
				Brokers: c.ListenAddrs(), OpenTimeout: 300 * time.Millisecond,
				SASL: &SASL{Mechanism: mechanism, User: "worker", Password: "wrong"},
			}
			if _, err := Open(wrong); !errors.Is(err, broker.ErrUnreachable) {
				t.Errorf("open with a wrong password: %v", err)
			}
		})
	}
}

// TestRequestsEnd cuts requests short: by their context, and by an unreachable cluster.
func TestRequestsEnd(t *testing.T) {
	cluster := fake(t, 1)
	l := open(t, Options{Brokers: cluster.ListenAddrs(), RequestTimeout: time.Second})
	p := newTestTopic(t, l, 1)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.End(canceled, p); !errors.Is(err, context.Canceled) {
		t.Errorf("end with a context that has ended: %v", err)
	}
	cluster.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := l.Describe(ctx, p.Topic); !errors.Is(err, broker.ErrUnreachable) {
		t.Errorf("describe without a broker: %v", err)
	}
	if r := wait(t, "result", start(l, broker.Partition{Topic: "never.seen"}, text("x"))); !errors.Is(r.Err,
		broker.ErrUnreachable) ||
		!errors.Is(r.Err, broker.ErrNotWritten) {
		t.Errorf("append to a topic that cannot be looked up: %v", r.Err)
	}
}
