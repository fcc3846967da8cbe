package kafkaserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/tests/kit"
)

const (
	// startTimeout is what a cluster may take on a busy machine; one broker needs about 2 s on an
	// idle one.
	startTimeout = 90 * time.Second
	// stopTimeout is what a clean stop may take before the process is killed.
	stopTimeout = 30 * time.Second
	// pollPause lies between two questions whether a broker has ended, askTimeout bounds each
	// question to one.
	pollPause  = 25 * time.Millisecond
	askTimeout = 2 * time.Second
)

// Server is one broker process. Its methods must not overlap.
type Server struct {
	in   *installation
	node int
	port int
	// controllerPort carries the quorum's own traffic.
	controllerPort int
	dir            string
	listeners      []Listener
	// brokers is how many there are in the cluster.
	brokers int
	process kit.Process
}

// Addr is the address for clients, host and port.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// Node is the broker's id in the cluster, counted from 1.
func (s *Server) Node() int { return s.node }

// PID is the id of the broker's process.
func (s *Server) PID() int { return s.process.PID() }

// Kill ends the process as kill -9 does, and waits until it is gone.
func (s *Server) Kill() error { return s.process.Kill() }

// Stop ends the broker in order and waits until it is gone; one that does not obey is killed, which
// is an error.
func (s *Server) Stop() error { return s.process.Stop(stopTimeout) }

// Pause stops the process (SIGSTOP) until Resume.
func (s *Server) Pause() error { return s.process.Pause() }

// Resume continues a paused process.
func (s *Server) Resume() error { return s.process.Resume() }

// Restart starts a stopped or killed broker again, on its data and its ports, and waits until it
// answers and sees the whole cluster.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.process.Start(); err != nil {
		return err
	}
	return s.waitReady(ctx)
}

// format prepares the data directory.
func (s *Server) format(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, s.in.java, s.javaArgs("kafka.tools.StorageTool",
		"format", "--ignore-formatted", "-t", clusterID, "-c", s.propertiesFile())...)
	cmd.Env = s.env()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format the data of broker %d: %w: %s", s.node, err, tail(out))
	}
	return nil
}

func (s *Server) env() []string {
	return append(os.Environ(), "CLASSPATH="+filepath.Join(s.in.lib, "*"))
}

func (s *Server) javaArgs(class string, args ...string) []string {
	flags := []string{
		"-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Djava.io.tmpdir=" + filepath.Join(s.dir, "tmp"), // a killed broker leaves native libraries there
		"-Dlog4j2.configurationFile=" + filepath.Join(s.dir, "log4j2.properties"),
	}
	if s.in.classes != "" {
		flags = append(flags, "-XX:SharedArchiveFile="+s.in.classes)
	}
	return append(append(flags, class), args...)
}

// waitReady waits until the broker lists the whole cluster.
func (s *Server) waitReady(ctx context.Context) error {
	return s.process.Await(ctx, startTimeout, "ready at "+s.Addr(), func(ctx context.Context) error {
		n, err := countBrokers(ctx, s.Addr())
		if err == nil && n < s.brokers {
			err = fmt.Errorf("it knows %d of %d brokers", n, s.brokers)
		}
		return err
	})
}

// countBrokers asks one broker for the size of the cluster. The request is a raw one: clients
// answer from a cache that may have been filled while the brokers were still finding each other.
func countBrokers(ctx context.Context, addr string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RequestRetries(0), kgo.DisableClientMetrics())
	if err != nil {
		return 0, err
	}
	defer client.Close()
	answer, err := client.SeedBrokers()[0].Request(ctx, kmsg.NewPtrMetadataRequest())
	if err != nil {
		return 0, err
	}
	metadata, ok := answer.(*kmsg.MetadataResponse)
	if !ok {
		return 0, fmt.Errorf("broker %s answered %T to a metadata request", addr, answer)
	}
	return len(metadata.Brokers), nil
}
