package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"

	"google.golang.org/grpc"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
)

// itemName is the name of every item.
const itemName = "thing"

// caller makes one call after the other: on entities of its own, of which it knows everything, and on those of all.
type caller struct {
	load *load
	name string
	rng  *rand.Rand
	// commands counts what it has sent: the number makes ids and items unique.
	commands int
	own      tally
	baskets  []*basket
}

func newCaller(l *load, i int) *caller {
	return &caller{load: l, name: fmt.Sprintf("caller-%d", i), rng: rand.New(rand.NewPCG(l.seed, uint64(i)+1))}
}

func (c *caller) run() {
	var steps []func()
	if c.load.counters {
		steps = append(steps, c.increment, c.incrementShared, c.readOwn)
	}
	if c.load.carts {
		steps = append(steps, c.addItem, c.addItem, c.readBasket)
	}
	for {
		select {
		case <-c.load.stopping:
			return
		default:
			steps[c.rng.IntN(len(steps))]()
		}
	}
}

// next numbers a command; the id is empty where commands have none.
func (c *caller) next() (number, id string) {
	c.commands++
	number = fmt.Sprintf("%s-%d", c.name, c.commands)
	if c.load.ids {
		return number, number
	}
	return number, ""
}

func (c *caller) increment() {
	value, effect := c.incrementCounter(c.name)
	c.load.wrong(named(c.name, c.own.incremented(effect, value)))
}

func (c *caller) incrementShared() {
	i := c.rng.IntN(len(c.load.shared))
	shared := c.load.shared[i]
	before := shared.now()
	value, effect := c.incrementCounter(sharedName(i))
	c.load.wrong(named(sharedName(i), shared.incremented(effect, value, before)))
}

func (c *caller) incrementCounter(id string) (value int64, e effect) {
	_, command := c.next()
	e = c.load.send(command, func(ctx context.Context, opts ...grpc.CallOption) error {
		reply, err := c.load.counter.Increment(ctx, &counterv1.IncrementRequest{CounterId: id}, opts...)
		value = reply.GetValue()
		return err
	})
	return value, e
}

func (c *caller) readOwn() {
	if value, err := c.load.readCounter(c.name); err == nil {
		c.load.wrong(named(c.name, c.own.read(value)))
	}
}

// addItem puts an item that nobody has put anywhere into the present cart, or into a new one.
func (c *caller) addItem() {
	if n := len(c.baskets); n == 0 || len(c.baskets[n-1].items) >= basketItems {
		c.baskets = append(c.baskets, &basket{id: fmt.Sprintf("%s-cart-%d", c.name, n), items: map[string]bool{}})
	}
	b := c.baskets[len(c.baskets)-1]
	item, command := c.next()
	var reply *shopv1.Cart
	effect := c.load.send(command, func(ctx context.Context, opts ...grpc.CallOption) (err error) {
		reply, err = c.load.cart.AddItem(ctx, &shopv1.AddItemRequest{CartId: b.id, ItemId: item, Name: itemName, Quantity: 1}, opts...)
		return err
	})
	c.load.wrong(named(b.id, b.added(item, effect, reply)))
}

// readBasket looks into a cart, most often one that is not touched any more.
func (c *caller) readBasket() {
	if len(c.baskets) > 0 {
		c.look(c.baskets[c.rng.IntN(len(c.baskets))])
	}
}

func (c *caller) look(b *basket) {
	if cart, err := c.load.readCart(b.id); err == nil {
		c.load.wrong(named(b.id, b.read(cart)))
	}
}

// check reads everything that the caller has ever written.
func (c *caller) check() {
	if c.load.counters {
		c.readOwn()
	}
	for _, b := range c.baskets {
		c.look(b)
	}
}
