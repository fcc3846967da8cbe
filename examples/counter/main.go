// Command counter is a counter, the smallest service with a state.
//
//	counter dev                       # a worker with the service, an embedded log and a gateway in one process
//	counter -remote 127.0.0.1:8080    # only the service, as a function next to a worker
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/millrace-io/millrace"
	"github.com/millrace-io/millrace/examples/counter/counter"
	"github.com/millrace-io/millrace/sdk"
)

func main() {
	if len(os.Args) != 3 || os.Args[1] != "-remote" {
		millrace.Main(counter.Service)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := sdk.Serve(ctx, os.Args[2], counter.Service); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // the signal handler ends with the process
	}
}
