package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
	projectionv1 "github.com/millrace-io/millrace/proto/gen/millrace/projection/v1"
	"github.com/millrace-io/millrace/tests/kit"
)

const (
	queryClients = 64
	// The view has placedOrders of orderCustomers. One in shippedOf orders of each customer is
	// shipped, the others are open.
	placedOrders, orderCustomers, shippedOf = 10_000, 100, 4
	queryPage                               = 50
	// lagLoad is the part of the highest rate of commands at which the lag is measured. One caller in
	// lagCallers asks for the row of each of its commands, so that queries are a small part of the
	// load.
	lagLoad, lagCallers = 0.6, 16
	// lagWait is how long a query waits for a row, the longest that there is.
	lagWait = 30 * time.Second
)

// The numbers of the fields that all generated query services have.
const (
	fieldRows, fieldNextPage, fieldGroupCount   = 1, 2, 51
	fieldPageSize, fieldPageToken, fieldFresher = 101, 102, 106
)

// queries measures the queries of examples/orders against the bare echo, what its projections cost
// commands, and how long after a command its row is there.
func (b *bench) queries(ctx context.Context) error {
	program := filepath.Join(b.dir, "orders")
	if err := kit.Build(ctx, ".", program, "examples/orders"); err != nil {
		return err
	}
	definitions, err := filepath.Abs("examples/orders/definitions")
	if err != nil {
		return err
	}
	with, err := b.startOrders(ctx, "orders-with", program, definitions)
	if err != nil {
		return err
	}
	defer with.stop()
	if err := with.Await(ctx, readyTimeout, "able to count its orders", with.counted); err != nil {
		return err
	}
	if err := b.queriesOverEcho(ctx, with); err != nil {
		return err
	}

	none := filepath.Join(b.dir, "no-definitions")
	if err := os.Mkdir(none, 0o700); err != nil {
		return err
	}
	without, err := b.startOrders(ctx, "orders-without", program, none)
	if err != nil {
		return err
	}
	defer without.stop()
	return b.projected(ctx, with, without)
}

// queriesOverEcho measures each kind of query, in turns with the echo.
func (b *bench) queriesOverEcho(ctx context.Context, o *orders) error {
	address, err := kit.Address()
	if err != nil {
		return err
	}
	bare, err := start(ctx, b.dir, address, kit.Listens(address), os.Args[0], "echo", address)
	if err != nil {
		return err
	}
	defer bare.stop()
	const echo = "echo beside queries"
	queries := []struct {
		name  string
		least float64
		do    call
	}{
		{"query, Get", 0.5, o.get},
		{"query, list of 50, including index", 0.2, o.listByCustomer},
		{"query, list of 50, plain index", 0.1, o.listOpen()},
		{"query, aggregate", 0, func(ctx context.Context, client, _ int) error { return o.count(ctx, client, nil) }},
	}
	loads := []load{{name: echo, server: bare, do: increments(address, spread(b.keys))}}
	for _, q := range queries {
		if b.wanted(q.name) {
			loads = append(loads, load{name: q.name, server: o.process, do: q.do})
		}
	}
	if err := b.inRounds(ctx, queryClients, loads, echo); err != nil {
		return err
	}
	for _, q := range queries {
		if q.least > 0 {
			b.figures.aim(q.name, q.least)
		}
	}
	return nil
}

// aim prints the ratio of a load, if it was measured, beside what it is to be.
func (f *figures) aim(name string, least float64) {
	i := slices.IndexFunc(f.Loads, func(l figure) bool { return l.Name == name })
	if i >= 0 {
		fmt.Printf("%s: %.2f of echo, to be at least %.1f\n", name, f.Loads[i].Ratio, least)
	}
}

// projected measures commands with and without projections, and the lag of their rows.
func (b *bench) projected(ctx context.Context, with, without *orders) error {
	const plain, folded = "commands without projections", "commands with projections"
	over, under, err := b.inTurns(ctx, queryClients,
		&load{name: folded, server: with.process, do: with.commands},
		&load{name: plain, server: without.process, do: without.commands})
	if err != nil {
		return err
	}
	b.figures.add(plain, queryClients, under, nil)
	b.figures.add(folded, queryClients, over, nil)
	b.figures.table(queryClients, func(f *figure) bool { return f.Name == plain || f.Name == folded })
	b.figures.single("commands with projections over without", "(to be at least 0.85)",
		medianQuotient(over, under, (*round).rate))
	return b.lag(ctx, with, median(over, (*round).rate))
}

// lag measures for how long a caller that has the answer of a command waits for its row: a Get with
// the command's token, so that one query's round trip is in it.
func (b *bench) lag(ctx context.Context, o *orders, highest float64) error {
	if _, err := drive(ctx, queryClients, nil, b.warm, b.length, []*process{o.process}, o.commands); err != nil {
		return err
	}
	began := time.Now()
	if err := o.count(ctx, 0, freshness(&projectionv1.Freshness{
		Level: &projectionv1.Freshness_Strong{Strong: &emptypb.Empty{}},
	})); err != nil {
		return err
	}
	b.figures.single("rows complete after the highest rate of commands", "ms", milliseconds(time.Since(began)))
	var rates []float64
	var p50, p99 []time.Duration
	for range b.rounds {
		waits := make([][]time.Duration, queryClients)
		counts := time.Now().Add(b.warm)
		r, err := drive(ctx, queryClients, newPace(lagLoad*highest), b.warm, b.length, []*process{o.process},
			func(ctx context.Context, client, _ int) error {
				var header metadata.MD
				id, err := o.command(ctx, client, grpc.Header(&header))
				if err != nil || client%lagCallers != 0 {
					return err
				}
				answered := time.Now()
				if err := o.getAfter(ctx, client, id, header.Get("millrace-token")); err != nil {
					return err
				}
				if answered.After(counts) {
					waits[client] = append(waits[client], time.Since(answered))
				}
				return nil
			})
		if err != nil {
			return err
		}
		all := slices.Concat(waits...)
		if len(all) == 0 {
			return fmt.Errorf("no row was asked for within %s", b.length)
		}
		slices.Sort(all)
		rates = append(rates, r.rate())
		p50, p99 = append(p50, all[len(all)/2]), append(p99, all[len(all)*99/100])
		progressf("lag at %.0f commands/s: p50 %v, p99 %v of %d", r.rate(), all[len(all)/2], all[len(all)*99/100], len(all))
	}
	b.figures.single("commands/s while the lag is measured", "", medianOf(rates))
	b.figures.single("lag from answer to row, p50", "ms", milliseconds(medianOf(p50)))
	b.figures.single("lag from answer to row, p99", "ms (to be at most 50)", milliseconds(medianOf(p99)))
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// orders is a worker of examples/orders, and its callers.
type orders struct {
	*process
	conns []*grpc.ClientConn
	// made counts the orders that command has placed. placed has for each caller the order that it
	// has placed and not shipped yet.
	made   atomic.Int64
	placed [queryClients]string
}

// startOrders starts a worker with definitions of a directory, and makes its customers and orders.
func (b *bench) startOrders(ctx context.Context, name, program, definitions string) (*orders, error) {
	p, err := b.startWorker(ctx, name, program, "dev", "--definitions", definitions)
	if err != nil {
		return nil, err
	}
	o := &orders{process: p, conns: connect(p.address)}
	progressf("making %d orders", placedOrders)
	if err := o.fill(ctx); err != nil {
		p.stop()
		return nil, err
	}
	return o, nil
}

func orderID(n int) string    { return "o" + strconv.Itoa(n) }
func customerID(n int) string { return "c" + strconv.Itoa(n%orderCustomers) }

func (o *orders) fill(ctx context.Context) error {
	if err := concurrently(orderCustomers, func(n int) error {
		_, err := ordersv1.NewCustomerServiceClient(o.conn(n)).SetCustomer(ctx,
			&ordersv1.SetCustomerRequest{CustomerId: customerID(n), Name: "Customer " + strconv.Itoa(n), City: "London"})
		return err
	}); err != nil {
		return err
	}
	return concurrently(placedOrders, func(n int) error {
		if err := o.place(ctx, n, orderID(n), customerID(n)); err != nil {
			return err
		}
		if n/orderCustomers%shippedOf == 0 {
			return o.ship(ctx, n, orderID(n))
		}
		return nil
	})
}

// concurrently calls do for each number below n, and returns when all calls have ended.
func concurrently(n int, do func(n int) error) error {
	var next atomic.Int64
	var wait sync.WaitGroup
	errs := make([]error, fillClients)
	for c := range errs {
		wait.Go(func() { // ends with an error, or when all are called; waited for below
			for i := int(next.Add(1) - 1); i < n && errs[c] == nil; i = int(next.Add(1) - 1) {
				errs[c] = do(i)
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func (o *orders) conn(client int) *grpc.ClientConn { return o.conns[client%connections] }

func (o *orders) place(ctx context.Context, client int, order, customer string, options ...grpc.CallOption) error {
	_, err := ordersv1.NewOrderServiceClient(o.conn(client)).PlaceOrder(ctx, &ordersv1.PlaceOrderRequest{
		OrderId: order, CustomerId: customer,
		Lines: []*ordersv1.Line{{Sku: "bolt", Quantity: 2, Cents: 15}, {Sku: "nut", Quantity: 1, Cents: 7}},
	}, options...)
	return err
}

func (o *orders) ship(ctx context.Context, client int, order string, options ...grpc.CallOption) error {
	_, err := ordersv1.NewOrderServiceClient(o.conn(client)).ShipOrder(ctx,
		&ordersv1.ShipOrderRequest{OrderId: order, Carrier: "rail"}, options...)
	return err
}

// command places a new order, or ships the one that the caller placed before, and returns its id.
func (o *orders) command(ctx context.Context, client int, options ...grpc.CallOption) (string, error) {
	if id := o.placed[client]; id != "" {
		o.placed[client] = ""
		return id, o.ship(ctx, client, id, options...)
	}
	n := int(o.made.Add(1))
	id := "n" + strconv.Itoa(n)
	o.placed[client] = id
	return id, o.place(ctx, client, id, customerID(n), options...)
}

func (o *orders) commands(ctx context.Context, client, _ int) error {
	_, err := o.command(ctx, client)
	return err
}

func (o *orders) get(ctx context.Context, client, n int) error {
	return o.getRow(ctx, client, orderID((client+n*queryClients)%placedOrders), nil)
}

// getAfter asks for a row that includes what the token of an answer names.
func (o *orders) getAfter(ctx context.Context, client int, order string, tokens []string) error {
	if len(tokens) != 1 {
		return fmt.Errorf("the answer to a command about order %s has %d tokens", order, len(tokens))
	}
	return o.getRow(ctx, client, order, freshness(&projectionv1.Freshness{
		Level: &projectionv1.Freshness_AtLeast{AtLeast: tokens[0]}, MaxWait: durationpb.New(lagWait),
	}))
}

func (o *orders) getRow(ctx context.Context, client int, order string, fresher []byte) error {
	a, err := o.ask(ctx, client, "Get", slices.Concat(text(1, order), fresher))
	if err != nil {
		return err
	}
	return a.check(1, func(r *ordersv1.OrderRow) bool { return r.GetOrderId() == order })
}

// listByCustomer asks for the last orders of a customer.
func (o *orders) listByCustomer(ctx context.Context, client, n int) error {
	customer := customerID(client + n)
	a, err := o.ask(ctx, client, "ListByCustomer", slices.Concat(text(1, customer), pageSize()))
	if err != nil {
		return err
	}
	return a.check(queryPage, func(r *ordersv1.OrderRow) bool { return r.GetCustomerId() == customer })
}

// listOpen asks for the open orders, page after page.
func (o *orders) listOpen() call {
	var next [queryClients]string
	return func(ctx context.Context, client, _ int) error {
		a, err := o.ask(ctx, client, "ListOpen", slices.Concat(pageSize(), text(fieldPageToken, next[client])))
		if err != nil {
			return err
		}
		least := queryPage
		if a.next == "" && next[client] != "" { // the last page
			least = 0
		}
		next[client] = a.next
		return a.check(least, func(r *ordersv1.OrderRow) bool { return r.GetStatus() == ordersv1.Status_STATUS_OPEN })
	}
}

// counted is no error when all orders that fill has made are in the view.
func (o *orders) counted(ctx context.Context) error { return o.count(ctx, 0, nil) }

// count asks how many orders there are of each status. Fewer than fill has made is an error.
func (o *orders) count(ctx context.Context, client int, fresher []byte) error {
	a, err := o.ask(ctx, client, "CountByStatus", fresher)
	if err != nil {
		return err
	}
	var sum uint64
	for _, group := range a.rows {
		if err := fields(group, func(number protowire.Number, value uint64, _ []byte) {
			if number == fieldGroupCount {
				sum += value
			}
		}); err != nil {
			return err
		}
	}
	if sum < placedOrders {
		return fmt.Errorf("the view counts %d orders, and there are %d", sum, placedOrders)
	}
	return nil
}

// page is an answer of a query: its row, rows or groups, and the token of the page that follows.
type page struct {
	rows [][]byte
	next string
}

// check decodes all rows, as every client does. Fewer than least are an error, and one that is not
// wanted is.
func (p *page) check(least int, wanted func(*ordersv1.OrderRow) bool) error {
	if len(p.rows) < least {
		return fmt.Errorf("the answer has %d rows, and must have %d", len(p.rows), least)
	}
	for _, content := range p.rows {
		var row ordersv1.OrderRow
		if err := proto.Unmarshal(content, &row); err != nil {
			return err
		}
		if !wanted(&row) {
			return fmt.Errorf("a row is in the answer that was not asked for: %v", &row)
		}
	}
	return nil
}

// ask calls a method of the generated query service. Its messages are not known when this is
// compiled, so that they are Empty here, with all their fields unknown.
func (o *orders) ask(ctx context.Context, client int, method string, request []byte) (page, error) {
	var in, out emptypb.Empty
	in.ProtoReflect().SetUnknown(request)
	if err := o.conn(client).Invoke(ctx, "/millrace.query.orders.OrdersQuery/"+method, &in, &out); err != nil {
		return page{}, fmt.Errorf("%s: %w", method, err)
	}
	var p page
	err := fields(out.ProtoReflect().GetUnknown(), func(number protowire.Number, _ uint64, content []byte) {
		switch number {
		case fieldRows:
			p.rows = append(p.rows, content)
		case fieldNextPage:
			p.next = string(content)
		}
	})
	return p, err
}

// fields passes the fields of a message, each with its integer or its bytes.
func fields(message []byte, pass func(number protowire.Number, value uint64, content []byte)) error {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return protowire.ParseError(tag)
		}
		var value uint64
		var content []byte
		var n int
		switch message = message[tag:]; kind {
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			content, n = protowire.ConsumeBytes(message)
		default:
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		pass(number, value, content)
		message = message[n:]
	}
	return nil
}

func text(number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

func pageSize() []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, fieldPageSize, protowire.VarintType), queryPage)
}

// freshness is the field of a request that says how recent its answer must be.
func freshness(f *projectionv1.Freshness) []byte {
	content, err := proto.Marshal(f)
	if err != nil {
		panic(err) // a message of this program
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, fieldFresher, protowire.BytesType), content)
}
