package kafkaserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// startTimeout is what a cluster may take on a busy machine; one broker needs about 2 s on an idle one.
	startTimeout = 90 * time.Second
	// stopTimeout is what a clean stop may take before the process is killed.
	stopTimeout = 30 * time.Second
	// pollPause lies between two questions whether a broker is ready, askTimeout bounds each.
	pollPause  = 25 * time.Millisecond
	askTimeout = 2 * time.Second
)

// Server is one broker process. Its methods must not overlap.
type Server struct {
	in        *installation
	javaFlags []string
	detached  bool
	node      int
	port      int
	// controllerPort carries the quorum's own traffic.
	controllerPort int
	dir            string
	listeners      []Listener
	// brokers is how many there are in the cluster.
	brokers int

	process *os.Process
	// exited is closed when the process has ended; endErr is how.
	exited chan struct{}
	endErr error
}

// Addr is the address for clients, host and port.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// Node is the broker's id in the cluster, counted from 1.
func (s *Server) Node() int { return s.node }

// PID is the id of the broker's process.
func (s *Server) PID() int { return s.process.Pid }

// Kill ends the process as kill -9 does, and waits until it is gone.
func (s *Server) Kill() error {
	if err := s.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill broker %d: %w", s.node, err)
	}
	<-s.exited
	return nil
}

// Stop ends the broker in order and waits until it is gone; one that does not obey is killed.
func (s *Server) Stop() error {
	if err := s.process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop broker %d: %w", s.node, err)
	}
	patience := time.NewTimer(stopTimeout)
	defer patience.Stop()
	select {
	case <-s.exited:
		return nil
	case <-patience.C:
		return s.Kill()
	}
}

// Pause freezes the process (SIGSTOP) until Resume.
func (s *Server) Pause() error { return s.process.Signal(pauseSignal) }

// Resume lets a paused process go on.
func (s *Server) Resume() error { return s.process.Signal(resumeSignal) }

// Restart starts a stopped or killed broker again, on its data and its ports, and waits until it answers and sees the
// whole cluster.
func (s *Server) Restart(ctx context.Context) error {
	select {
	case <-s.exited:
	default:
		return fmt.Errorf("restart broker %d: process %d still runs", s.node, s.process.Pid)
	}
	if err := s.spawn(); err != nil {
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

// spawn starts the process and the goroutine that waits for it.
func (s *Server) spawn() error {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()                                        // the process has its own handle
	cmd := exec.Command(s.in.java, append(append([]string{}, s.javaFlags...), //nolint:noctx // lives until Stop or Kill
		s.javaArgs("kafka.Kafka", s.propertiesFile())...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = s.env(), log, log
	cmd.SysProcAttr = processAttributes(s.detached)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start broker %d: %w", s.node, err)
	}
	exited := make(chan struct{})
	s.process, s.exited = cmd.Process, exited
	go func() { // ends with the process; Stop and Kill wait for it
		s.endErr = cmd.Wait()
		close(exited)
	}()
	return nil
}

func (s *Server) env() []string {
	return append(os.Environ(), "CLASSPATH="+filepath.Join(s.in.lib, "*"))
}

func (s *Server) javaArgs(class string, args ...string) []string {
	flags := []string{
		"-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Djava.io.tmpdir=" + filepath.Join(s.dir, "tmp"), // a broker leaves native libraries behind when it is killed
		"-Dlog4j2.configurationFile=" + filepath.Join(s.dir, "log4j2.properties"),
	}
	if s.in.classes != "" {
		flags = append(flags, "-XX:SharedArchiveFile="+s.in.classes)
	}
	return append(append(flags, class), args...)
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "broker.log") }

// waitReady waits until the broker lists the whole cluster.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var last error
	for {
		var n int
		if n, last = countBrokers(ctx, s.Addr()); last == nil {
			if n >= s.brokers {
				return nil
			}
			last = fmt.Errorf("it knows %d of %d brokers", n, s.brokers)
		}
		select {
		case <-s.exited:
			return fmt.Errorf("broker %d ended instead of starting: %w; its log ends with: %s", s.node, s.endErr, s.logTail())
		case <-ctx.Done():
			return fmt.Errorf("broker %d at %s is not ready (%w): %w; its log ends with: %s",
				s.node, s.Addr(), ctx.Err(), last, s.logTail())
		case <-time.After(pollPause):
		}
	}
}

func (s *Server) logTail() string {
	f, err := os.Open(s.logFile())
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return tail(text)
}

// countBrokers asks one broker for the size of the cluster. The request is a raw one: clients answer from a cache that
// may have been filled while the brokers were still finding each other.
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
