package cli

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/examples/counter/counter"
	"github.com/millrace-io/millrace/examples/shoppingcart/cart"
	"github.com/millrace-io/millrace/sdk"
)

// carts are definitions that are right against the examples.
const carts = `apiVersion: millrace/v1
kind: Projection
metadata: {name: carts, version: 1}
spec:
  row: {cart_id: string, last_item: string, checked_out: bool}
  key: [cart_id]
  from:
    - entity: cart
      events:
        ItemAdded: {set: {last_item: '${event.item.item_id}'}}
        CheckedOut: {set: {checked_out: true}}
      ignore: [ItemRemoved]
  indexes: [{name: by_item, fields: [last_item]}]
  queries:
    ListByItem:
      params: {item: string}
      where: row.last_item == params.item
---
apiVersion: millrace/v1
kind: Projection
metadata: {name: counters, version: 1}
spec:
  row: {id: string, value: int64}
  key: [id]
  from: [{entity: counter, state: {type: counter.v1.State, set: {value: '${state.value}'}}}]
`

// wrong is the file with two mistakes, of which one has a problem in its wake.
func wrong() string {
	return strings.NewReplacer("ItemAdded:", "ItemAded:", "[last_item]", "[last_itm]").Replace(carts)
}

// folder writes files into a new folder and returns its name.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// ofExamples is a program that hosts what the definitions are about.
func ofExamples(t *testing.T) Program {
	t.Helper()
	return Program{Name: "shop", Default: "dev", Local: function(t, cart.Service, counter.Service)}
}

// A program checks definitions against its own functions, without a process.
func TestCheckInProgram(t *testing.T) {
	p := ofExamples(t)
	good := folder(t, map[string]string{"carts.yaml": carts, "millrace.yaml": "app: shop\n", "README.md": "x"})
	r := p.runIn(t, false, "", "check", good)
	if r.code != exitOK || r.stdout != "2 definitions in 1 file: no problems\n" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	r = p.runIn(t, false, "", "check", filepath.Join(good, "carts.yaml"))
	if r.code != exitOK || r.stdout != "2 definitions in 1 file: no problems\n" {
		t.Errorf("one file: %+v", r)
	}
	if r := p.runIn(t, false, "", "check", good, "-o", "json"); r.code != exitOK || r.stdout != "" || r.stderr != "" {
		t.Errorf("JSON: %+v", r)
	}
}

// Problems have the place, the rule, the fix; the exit code is that of what is refused.
func TestCheckProblems(t *testing.T) {
	p := ofExamples(t)
	t.Chdir(folder(t, nil))
	if err := os.Mkdir("views", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("views/carts.yaml", []byte(wrong()), 0o600); err != nil {
		t.Fatal(err)
	}
	for form, want := range map[string]string{
		"": `views/carts.yaml:10:9: P210 spec.from[0].events.ItemAded: there is no event ItemAded in shop.v1
  fix: did you mean ItemAdded?
views/carts.yaml:13:38: P105 spec.indexes[0].fields[0]: the row has no field last_itm
  fix: did you mean last_item?
views/carts.yaml:17:14: P409 spec.queries.ListByItem.where: no index serves this, so every row would be examined ` +
			`for row.last_item == params.item
  fix: add the index {name: by_last_item, fields: [last_item]}, or set allowScan: true
`,
		"json": `{"file":"views/carts.yaml","line":10,"column":9,"rule":"P210","where":"spec.from[0].events.ItemAded","message":"there is no event ItemAded in shop.v1","fix":"did you mean ItemAdded?","warning":false}
`,
		"name": "views/carts.yaml:10:9\nviews/carts.yaml:13:38\nviews/carts.yaml:17:14\n",
		"yaml": "- file: views/carts.yaml\n  line: 10\n",
	} {
		args := []string{"check", "views"}
		if form != "" {
			args = append(args, "-o", form)
		}
		r := p.runIn(t, true, "", args...)
		if r.code != exitPrecondition || r.stderr != "shop: 3 problems in 1 file\n" {
			t.Errorf("%q: %+v", form, r)
		}
		if !strings.HasPrefix(r.stdout, want) {
			t.Errorf("%q:\n%s\nwant\n%s", form, r.stdout, want)
		}
	}
}

// Hidden characters of a file reach no terminal, in any form.
func TestProblemsAreVisible(t *testing.T) {
	p := ofExamples(t)
	dir := folder(t, map[string]string{"carts.yaml": strings.Replace(carts, "'${event.item.item_id}'", `"x\e[2J\u009b31m${\u202e}"`, 1)})
	for _, form := range formats {
		for _, line := range [][]string{{"check", dir, "-o", string(form)}, {"gen", "proto", "carts", dir}} {
			r := p.runIn(t, true, "", line...)
			if r.code != exitPrecondition || r.stdout+r.stderr == "" {
				t.Fatalf("%+v", r)
			}
			checkVisible(t, r.stdout+r.stderr)
		}
	}
}

// What is served comes from a file, a function or a worker; or the error says what to do.
func TestCheckAgainst(t *testing.T) {
	t.Chdir(t.TempDir())
	dir := folder(t, map[string]string{"carts.yaml": carts})
	descriptors := descriptorsOf(t, cart.Service, counter.Service)
	entities := []string{"--entity", "cart=shop.v1.CartService:event-sourced", "--entity", "counter=counter.v1.CounterService:value"}
	remote := serveFunction(t, cart.Service, counter.Service)
	p := tool(t)
	s := p.serveIn(t, "dev", "--ephemeral", "--partitions", "2")
	s.connect(t)
	missing := folder(t, nil)
	large := folder(t, map[string]string{"large.yaml": "# " + strings.Repeat("x", 300_000)})
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"the worker":           {[]string{"check", dir}, exitOK, "no problems"},
		"a function":           {[]string{"check", dir, "--function", remote}, exitOK, "no problems"},
		"descriptors":          {append([]string{"check", dir, "--descriptors", descriptors}, entities...), exitOK, "no problems"},
		"no entities":          {[]string{"check", dir, "--descriptors", descriptors}, exitUsage, "name each that is a source, as in --entity order=shop.v1.OrderService:event-sourced; the file has the services "},
		"an entity, no kind":   {[]string{"check", dir, "--descriptors", descriptors, "--entity", "cart=shop.v1.CartService"}, exitUsage, "write it as TYPE=SERVICE:KIND"},
		"an unknown kind":      {[]string{"check", dir, "--descriptors", descriptors, "--entity", "cart=shop.v1.CartService:events"}, exitUsage, `"events" is not a kind of entities: use event-sourced or value`},
		"an unknown service":   {[]string{"check", dir, "--descriptors", descriptors, "--entity", "cart=shop.v1.Carts:value"}, exitUsage, "service shop.v1.Carts is not in the descriptors"},
		"entities alone":       {append([]string{"check", dir}, entities...), exitUsage, "--entity needs --descriptors"},
		"two of them":          {[]string{"check", dir, "--descriptors", descriptors, "--function", remote}, exitUsage, "choose one"},
		"no descriptors there": {[]string{"check", dir, "--descriptors", "none.binpb"}, exitUsage, "none.binpb"},
		"not descriptors":      {[]string{"check", dir, "--descriptors", filepath.Join(dir, "carts.yaml")}, exitUsage, "are not a FileDescriptorSet"},
		"no function":          {[]string{"check", dir, "--function", "127.0.0.1:1"}, exitError, "no function answers at 127.0.0.1:1: start it"},
		"not a function":       {[]string{"check", dir, "--function", os.Getenv("MILLRACE_ADMIN")}, exitUsage, "is not a function"},
		"no worker":            {[]string{"check", dir, "--admin", "127.0.0.1:1"}, exitError, "cannot connect to 127.0.0.1:1"},
		"no folder":            {[]string{"check"}, exitUsage, "expected a folder"},
		"not a folder":         {[]string{"check", "none"}, exitUsage, "none"},
		"an empty folder":      {[]string{"check", missing}, exitUsage, "whose names end in .yaml"},
		"a large file":         {[]string{"check", large}, exitPrecondition, "D101"},
		"a proto file":         {[]string{"gen", "proto", "carts", dir}, exitOK, "service CartsQuery {"},
		"no such definition":   {[]string{"gen", "proto", "orders", dir}, exitNotFound, "it has carts, counters"},
	} {
		t.Run(name, func(t *testing.T) {
			r := p.runIn(t, false, "", c.args...)
			if r.code != c.code || !strings.Contains(r.stdout+r.stderr, c.want) {
				t.Errorf("code %d, want %d:\n%s%s, want %q", r.code, c.code, r.stdout, r.stderr, c.want)
			}
		})
	}
	s.stop(t)
}

// descriptorsOf writes a file as protoc does.
func descriptorsOf(t *testing.T, services ...*sdk.Service) string {
	t.Helper()
	spec, err := sdk.EntitySpec(services...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := discovery.NewCatalog(spec, discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	content, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: c.FileDescriptorSet().GetFile()})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "shop.binpb")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// serveFunction serves a function, and returns its address.
func serveFunction(t *testing.T, services ...*sdk.Service) string {
	t.Helper()
	function, err := sdk.NewServer(services...)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	function.Register(server)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }() // Stop ends it; received below
	t.Cleanup(func() {
		server.Stop()
		function.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}
