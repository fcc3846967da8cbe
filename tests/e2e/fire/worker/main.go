// Command worker is what the tests of package fire run: a counter, a value entity, a shopping cart,
// an event-sourced one, and an entity that follows a script, in one program.
//
//	worker dev                       # a whole worker with both services in it
//	worker -remote 127.0.0.1:8080    # the services alone, as a function beside a worker
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/millrace-io/millrace"
	"github.com/millrace-io/millrace/examples/counter/counter"
	"github.com/millrace-io/millrace/examples/shoppingcart/cart"
	"github.com/millrace-io/millrace/sdk"
)

func main() {
	if len(os.Args) != 3 || os.Args[1] != "-remote" {
		millrace.Main(counter.Service, cart.Service, script)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := sdk.Serve(ctx, os.Args[2], counter.Service, cart.Service, script); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // the signal handler ends with the process
	}
}
