// Command millrace runs stateful services: `millrace dev` for a developer, `millrace run` next to a
// user function.
package main

import (
	"github.com/millrace-io/millrace"
	"github.com/millrace-io/millrace/examples/counter/counter"
	"github.com/millrace-io/millrace/examples/pricing/pricing"
	"github.com/millrace-io/millrace/examples/shoppingcart/cart"
)

func main() {
	millrace.Tool(cart.Service, counter.Service, pricing.Service)
}
