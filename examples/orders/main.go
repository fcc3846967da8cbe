// Command orders keeps orders and customers, and shows them by projections.
//
//	orders dev                       # a worker with the services, an embedded log and a gateway
//	orders -remote 127.0.0.1:8080    # only the services, as a function next to a worker
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/millrace-io/millrace"
	"github.com/millrace-io/millrace/examples/orders/orders"
	"github.com/millrace-io/millrace/sdk"
)

func main() {
	if len(os.Args) != 3 || os.Args[1] != "-remote" {
		millrace.Main(orders.Orders, orders.Customers)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := sdk.Serve(ctx, os.Args[2], orders.Orders, orders.Customers); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // the signal handler ends with the process
	}
}
