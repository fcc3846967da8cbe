package fire

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/grpc"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
)

const (
	// mostCommands bounds an entity's history, and mostUnknown the commands in it whose outcome is
	// unknown: the search for an order tries every subset of those.
	mostCommands = 150
	mostUnknown  = 8
	// counterSlots is what fits into a counter: two bits tell how often each of its commands took
	// effect.
	counterSlots = 31
	// mostSleep bounds how many milliseconds a script takes over a command.
	mostSleep = 30
	// hot is how many entities get half of the commands, where looks may be answered with earlier
	// states.
	hot = 4
	// shutAfter is when a cart may be closed for good.
	shutAfter = 120
)

// thing is the interface of the two kinds of entities.
type thing interface {
	// kind is the name of the entity type, slots how many things fit in.
	kind() string
	slots() int
	// call sends one command and returns what its answer showed.
	call(ctx context.Context, conn grpc.ClientConnInterface, id string, c *command,
		opts ...grpc.CallOption) (contents, error)
}

// carts are event-sourced: each slot is an item.
type carts struct{}

func (carts) kind() string { return "cart" }
func (carts) slots() int   { return mostCommands }

func (carts) call(ctx context.Context, conn grpc.ClientConnInterface, id string, c *command,
	opts ...grpc.CallOption,
) (contents, error) {
	client := shopv1.NewCartServiceClient(conn)
	var cart *shopv1.Cart
	var err error
	switch c.kind {
	case give:
		cart, err = client.AddItem(ctx, &shopv1.AddItemRequest{CartId: id, ItemId: strconv.Itoa(c.slot), Quantity: 1},
			opts...)
	case take:
		cart, err = client.RemoveItem(ctx, &shopv1.RemoveItemRequest{CartId: id, ItemId: strconv.Itoa(c.slot)}, opts...)
	case shut:
		cart, err = client.Checkout(ctx, &shopv1.CheckoutRequest{CartId: id}, opts...)
	case look:
		cart, err = client.GetCart(ctx, &shopv1.GetCartRequest{CartId: id}, opts...)
	}
	if err != nil {
		return contents{}, err
	}
	saw := contents{closed: cart.GetCheckedOut()}
	for _, item := range cart.GetItems() {
		saw.add(item.GetItemId(), int64(item.GetQuantity()))
	}
	return saw, nil
}

// add notes an item as it was shown.
func (c *contents) add(item string, quantity int64) {
	slot, err := strconv.Atoi(item)
	switch {
	case err != nil || slot < 0 || slot >= slots || quantity < 1:
		c.phantom += fmt.Sprintf(" %d of item %q", quantity, item)
	case quantity > 1:
		c.twice += fmt.Sprintf(" item %d %d times", slot, quantity)
		fallthrough
	default:
		c.set = c.set.with(slot)
	}
}

// counters are value entities: each slot is two bits of the number.
type counters struct{}

func (counters) kind() string { return "counter" }
func (counters) slots() int   { return counterSlots }

func (counters) call(ctx context.Context, conn grpc.ClientConnInterface, id string, c *command,
	opts ...grpc.CallOption,
) (contents, error) {
	client := counterv1.NewCounterServiceClient(conn)
	var counter *counterv1.Counter
	var err error
	if c.kind == give {
		counter, err = client.Increment(ctx, &counterv1.IncrementRequest{CounterId: id, By: weight(c.slot)}, opts...)
	} else {
		counter, err = client.Get(ctx, &counterv1.GetRequest{CounterId: id}, opts...)
	}
	if err != nil {
		return contents{}, err
	}
	return counted(counter.GetValue()), nil
}

// weight is what a command adds to a counter.
func weight(slot int) int64 { return 1 << (2 * slot) }

// counted reads from a counter's value which commands took effect.
func counted(value int64) contents {
	var saw contents
	if value < 0 {
		saw.phantom = fmt.Sprintf(" the value %d", value)
	}
	for slot := range counterSlots {
		if times := value >> (2 * slot) & 3; times > 0 {
			saw.add(strconv.Itoa(slot), times)
		}
	}
	return saw
}

// thingOf finds a kind of entities by its name.
func thingOf(kind string) thing {
	for _, t := range []thing{carts{}, counters{}, scripts{}} {
		if t.kind() == kind {
			return t
		}
	}
	panic("there are no entities of kind " + kind)
}

// entity is one entity, and everything that was asked of it.
type entity struct {
	thing

	id string
	// What follows is guarded by the pool's lock.
	history []*command
	given   int
	unknown int
	// inside is how many clients work on it; full: no more shall.
	inside int
	full   bool
}

// name is its key.
func (e *entity) name() string { return e.kind() + "/" + e.id }

// pool is the entities that clients work on, a fixed number at a time; a new one replaces one that
// is full.
type pool struct {
	mu   sync.Mutex
	live []*entity
	made int
	// prefix makes ids unique.
	prefix string
	// relaxed: every second look may be answered with an earlier state, there are more of them, and
	// half of all commands are for a few entities, so that there is mostly something new to be
	// missed.
	relaxed bool
	// over gets each entity that no client works on any more.
	over chan *entity
}

func newPool(size int, prefix string, relaxed bool) *pool {
	p := &pool{prefix: prefix, relaxed: relaxed, over: make(chan *entity, size)}
	for range size {
		p.live = append(p.live, p.make())
	}
	return p
}

func (p *pool) make() *entity {
	p.made++
	e := &entity{thing: carts{}, id: fmt.Sprintf("%s-%d", p.prefix, p.made)}
	switch p.made % 6 {
	case 0, 3:
		e.thing = counters{}
	case 4:
		e.thing = scripts{}
	}
	return e
}

// begin picks an entity and the next command for it.
func (p *pool) begin(rng *rand.Rand, id string) (*entity, *command) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := rng.IntN(len(p.live))
	if p.relaxed && rng.IntN(2) == 0 {
		i = rng.IntN(min(hot, len(p.live)))
	}
	e := p.live[i]
	c := &command{kind: e.choose(rng, p.relaxed), id: id}
	switch c.kind {
	case give:
		c.slot = e.given
		e.given++
		if e.kind() == "script" && rng.IntN(8) == 0 {
			c.sleep = rng.IntN(mostSleep)
		}
	case take:
		c.slot = rng.IntN(max(e.given, 1))
	case shut:
	case look:
		c.id = ""
		if p.relaxed && rng.IntN(2) == 0 {
			c.relax(rng, e.history)
		}
	}
	e.history = append(e.history, c)
	e.inside++
	if len(e.history) >= mostCommands || e.given >= e.slots() || e.unknown >= mostUnknown {
		e.full = true
		p.live[i] = p.make()
	}
	return e, c
}

// beginGive picks a counter that clients work on and gives it something; nil when there is none.
func (p *pool) beginGive(rng *rand.Rand) (*entity, *command) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range rng.Perm(len(p.live)) {
		// The last slot fills it, and is for clients.
		if e := p.live[i]; e.kind() == "counter" && e.given > 0 && e.given+1 < e.slots() {
			c := &command{kind: give, slot: e.given}
			e.given++
			e.history = append(e.history, c)
			e.inside++
			return e, c
		}
	}
	return nil, nil
}

// beginLook looks at an entity that a client works on.
func (p *pool) beginLook(e *entity) *command {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &command{kind: look}
	e.history = append(e.history, c)
	e.inside++
	return c
}

// written are the keys of entities to which something was given.
func (p *pool) written() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var keys []string
	for _, e := range p.live {
		if slices.ContainsFunc(e.history, func(c *command) bool { return c.kind == give && c.fate == done }) {
			keys = append(keys, e.name())
		}
	}
	return keys
}

// choose picks what to ask.
func (e *entity) choose(rng *rand.Rand, relaxed bool) kind {
	const percent = 100
	looks := 30
	if relaxed {
		looks = 50
	}
	switch n := rng.IntN(percent); {
	case n < looks:
		return look
	case e.kind() != "cart" || n < 80:
		return give
	case n == 80 && len(e.history) > shutAfter:
		return shut
	default:
		return take
	}
}

// hand gives an entity that is done with to the checkers, and waits until one takes it; nil is
// none.
func (p *pool) hand(over *entity) {
	if over != nil {
		p.over <- over
	}
}

// end takes note of how a command ended, and returns the entity if it is done with.
func (p *pool) end(e *entity, c *command, result command) (over *entity) {
	p.mu.Lock()
	*c = result
	if c.fate == unknown && c.changes() {
		e.unknown++
	}
	e.inside--
	if e.full && e.inside == 0 {
		over = e
	}
	p.mu.Unlock()
	return over
}

// rest returns what is left when no client works any more.
func (p *pool) rest() []*entity {
	p.mu.Lock()
	defer p.mu.Unlock()
	rest := p.live
	p.live = nil
	return rest
}
