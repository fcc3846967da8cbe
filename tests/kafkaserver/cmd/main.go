// Command cmd runs an Apache Kafka on this machine: `make kafka` starts one broker, `make
// kafka-stop` stops it; `make kafka-cluster` and `make kafka-cluster-stop` do so with three. The
// brokers outlive the command; their process ids, addresses and data are in the user's cache
// directory.
//
// Exit codes: 0 done (status: it runs), 1 an error, 2 wrong usage, 3 status: it does not run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/millrace-io/millrace/tests/kafkaserver"
)

const usage = `usage: kafkaserver [-brokers 1] [-port 9092] [-data dir] start | stop | status`

const (
	exitError   = 1
	exitUsage   = 2
	exitStopped = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, out, diag io.Writer) int {
	flags := flag.NewFlagSet("kafkaserver", flag.ContinueOnError)
	flags.SetOutput(diag)
	flags.Usage = func() { _, _ = fmt.Fprintln(diag, usage) }
	brokers := flags.Int("brokers", 1, "how many brokers; three keep records on all, and acknowledge what two have")
	port := flags.Int("port", kafkaserver.DefaultPort,
		"port on 127.0.0.1 for clients, of the first broker; the next ones are two apart")
	data := flags.String("data", "", "directory of the data (default: in the cache directory)")
	if flags.Parse(args) != nil || flags.NArg() != 1 || *brokers < 1 {
		flags.Usage()
		return exitUsage
	}
	background, err := kafkaserver.OpenBackground(*brokers)
	if err != nil {
		return report(diag, err)
	}
	switch flags.Arg(0) {
	case "start":
		err = start(ctx, background, *port, *data, out)
	case "stop":
		err = stopBroker(background, out)
	case "status":
		return status(background, *brokers, out, diag)
	default:
		flags.Usage()
		return exitUsage
	}
	return report(diag, err)
}

func report(diag io.Writer, err error) int {
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(diag, "kafkaserver:", err)
	return exitError
}

func start(ctx context.Context, b *kafkaserver.Background, port int, data string, out io.Writer) error {
	s, err := b.Start(ctx, port, data)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "Kafka %s answers at %s (processes %v, data in %s).\nStop it with: make %s-stop\n",
		kafkaserver.Version, strings.Join(s.Addrs, ","), s.PIDs, s.Data, target(len(s.PIDs)))
	return err
}

func stopBroker(b *kafkaserver.Background, out io.Writer) error {
	s, err := b.Stop()
	if errors.Is(err, kafkaserver.ErrNotRunning) {
		_, err = fmt.Fprintln(out, "Kafka does not run.")
		return err
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "Kafka at %s is stopped. Its data stay in %s.\n", strings.Join(s.Addrs, ","), s.Data)
	return err
}

// target is the one of the Makefile that starts so many brokers.
func target(brokers int) string {
	if brokers > 1 {
		return "kafka-cluster"
	}
	return "kafka"
}

func status(b *kafkaserver.Background, brokers int, out, diag io.Writer) int {
	s, err := b.State()
	if errors.Is(err, kafkaserver.ErrNotRunning) {
		_, _ = fmt.Fprintln(out, "Kafka does not run. Start it with: make", target(brokers))
		return exitStopped
	}
	if err == nil {
		_, err = fmt.Fprintf(out, "Kafka %s runs at %s (processes %v, data in %s).\n",
			kafkaserver.Version, strings.Join(s.Addrs, ","), s.PIDs, s.Data)
	}
	return report(diag, err)
}
