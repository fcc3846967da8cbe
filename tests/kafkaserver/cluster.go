package kafkaserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/millrace-io/millrace/tests/kit"
)

// DefaultPort is Kafka's usual port, which the command uses.
const DefaultPort = 9092

// Options say what to start.
type Options struct {
	// Brokers is their number, 0: one.
	Brokers int
	// Port of the first broker on 127.0.0.1, 0: free ones for all. Each further broker's is two
	// above the one before; those between, and the one above the last, are for the brokers' own
	// traffic.
	Port int
	// Dir keeps data, settings and logs; it is created. A directory from an earlier start, with as
	// many brokers, is used again with its data. Required.
	Dir string
	// Settings are added to the brokers' own, or replace them.
	Settings map[string]string
	// Listeners are additional listeners for clients. For one broker only.
	Listeners []Listener
	// Detached brokers outlive this process.
	Detached bool
}

// Listener is a listener for clients that is advertised under another address, such as that of a
// proxy.
type Listener struct {
	// Name is in capitals.
	Name string
	// Address is where the broker listens, Advertised the address that clients of this listener
	// get.
	Address, Advertised string
}

// Cluster is one or more brokers.
type Cluster struct {
	Servers []*Server
}

// Launch starts brokers and waits until they see each other. ErrUnavailable: this machine has no
// Java or no archives.
func Launch(ctx context.Context, o Options) (*Cluster, error) {
	in, err := install(ctx)
	if err != nil {
		return nil, err
	}
	return in.launch(ctx, o)
}

func (in *installation) launch(ctx context.Context, o Options, javaFlags ...string) (*Cluster, error) {
	servers, err := in.servers(o, javaFlags)
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	for _, s := range servers {
		if err := s.configure(servers, o.Settings); err != nil {
			return nil, fmt.Errorf("settings of broker %d: %w", s.node, err)
		}
	}
	if err := each(servers, func(s *Server) error { return s.format(ctx) }); err != nil {
		return nil, err
	}
	for _, s := range servers {
		if err := s.process.Start(); err != nil {
			return nil, errors.Join(err, c.Kill())
		}
		c.Servers = append(c.Servers, s)
	}
	for _, s := range servers {
		if err := s.waitReady(ctx); err != nil {
			return nil, errors.Join(err, c.Kill())
		}
	}
	return c, nil
}

// servers lays out the brokers: folders and ports.
func (in *installation) servers(o Options, javaFlags []string) ([]*Server, error) {
	if o.Dir == "" {
		return nil, errors.New("kafkaserver.Options.Dir is empty: name a directory for the brokers' data")
	}
	n := max(1, o.Brokers)
	ports := make([]int, 2*n)
	for i := range ports {
		if ports[i] = o.Port + i; o.Port != 0 {
			continue
		}
		var err error
		if ports[i], err = kit.Port("127.0.0.1"); err != nil {
			return nil, err
		}
	}
	servers := make([]*Server, n)
	for i := range servers {
		dir := filepath.Join(o.Dir, fmt.Sprintf("broker-%d", i+1))
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return nil, err
		}
		servers[i] = &Server{
			in: in, listeners: o.Listeners, node: i + 1, brokers: n, port: ports[2*i], controllerPort: ports[2*i+1], dir: dir,
		}
		servers[i].process = kit.Process{Command: kit.Command{
			Program: in.java, Args: append(slices.Clone(javaFlags),
				servers[i].javaArgs("kafka.Kafka", servers[i].propertiesFile())...),
			Env: servers[i].env(), Log: filepath.Join(dir, "broker.log"), Detached: o.Detached,
		}}
	}
	return servers, nil
}

// Addrs are the addresses of all brokers.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, s := range c.Servers {
		addrs = append(addrs, s.Addr())
	}
	return addrs
}

// String returns the addresses of all brokers, separated by commas.
func (c *Cluster) String() string { return strings.Join(c.Addrs(), ",") }

// Stop shuts all brokers down.
func (c *Cluster) Stop() error { return each(c.Servers, (*Server).Stop) }

// Kill ends all brokers at once. Data directories stay.
func (c *Cluster) Kill() error { return each(c.Servers, (*Server).Kill) }

// each runs an operation on all brokers at once: a quorum ends faster than its members one by one,
// and a Java start has pauses.
func each(servers []*Server, do func(*Server) error) error {
	errs := make([]error, len(servers))
	var all sync.WaitGroup
	for i, s := range servers {
		all.Go(func() { errs[i] = do(s) }) // bounded by stopTimeout or the context of a start; all.Wait waits for it
	}
	all.Wait()
	return errors.Join(errs...)
}
