package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/examples/counter/counter"
	"github.com/millrace-io/millrace/examples/shoppingcart/cart"
	"github.com/millrace-io/millrace/tests/kit"
)

// TestReadSide applies definitions to a running process, reads what was written before and after
// by the token of the write, changes the projection, and goes back.
func TestReadSide(t *testing.T) {
	t.Chdir(t.TempDir())
	p := Program{Name: "shop", Default: "dev", Local: function(t, cart.Service, counter.Service)}
	s := p.serveIn(t, "dev", "--ephemeral", "--partitions", "2")
	s.connect(t)
	run := func(line string) result {
		t.Helper()
		r := p.runIn(t, false, "", split(t, line)...)
		if r.code != exitOK {
			t.Fatalf("%s: exit code %d: %s%s", line, r.code, r.stdout, r.stderr)
		}
		return r
	}
	add := func(cart, item string) (token string) {
		t.Helper()
		r := run(`call shop.v1.CartService/AddItem -d '{"cart_id":"` + cart + `","item_id":"` + item + `","quantity":1}'`)
		return strings.TrimSpace(strings.TrimPrefix(r.stderr, "token "))
	}
	promoted := func(version string) {
		t.Helper()
		kit.AwaitWithin(t, patience, "version "+version+" is promoted", func() bool {
			return strings.Contains(run("projection list").stdout, `"name":"carts","version":"`+version+`","stage":"promoted"`)
		})
	}
	// items waits for the rows: what serves queries learns of a promotion a moment after it.
	items := func(want string, more ...string) {
		t.Helper()
		kit.AwaitWithin(t, patience, "carts with apples are "+want, func() bool {
			r := p.runIn(t, false, "", append(split(t, "query carts.ListByItem -p item=apple -o name"), more...)...)
			return r.code == exitOK && strings.Join(strings.Fields(r.stdout), " ") == want
		})
	}

	add("a", "apple")
	dir := folder(t, map[string]string{"carts.yaml": carts})
	if r := p.runIn(t, false, "", "diff", dir); r.code != exitDifferences || !strings.Contains(r.stdout, "carts 1: it is new") {
		t.Errorf("diff: %+v", r)
	}
	run("apply -f " + dir + " --dry-run")
	if r := run("definitions"); r.stdout != "" {
		t.Errorf("after a dry run: %s", r.stdout)
	}
	run("apply -f " + dir)
	promoted("1")
	items("a", "--at-least", add("b", "pear"))
	token := add("c", "apple")
	r := run("query carts.ListByItem -p item=apple -o name --page-size 1 --all --at-least " + token)
	if r.stdout != "a\nc\n" {
		t.Errorf("carts with apples after a write: %q", r.stdout)
	}
	run("diff " + dir)
	run("check " + dir + " --admin " + os.Getenv("MILLRACE_ADMIN"))

	changed := strings.NewReplacer("name: carts, version: 1", "name: carts, version: 2",
		"'${event.item.item_id}'", "'${event.item.item_id + \"!\"}'").Replace(carts)
	run("apply -f " + folder(t, map[string]string{"carts.yaml": changed}))
	promoted("2")
	items("", "--consistency", "strong")
	run("projection rollback carts")
	items("a c", "--consistency", "strong")
	run("projection drop carts 2 --yes")
	status := run("projection status carts").stdout
	if n := strings.Count(status, `"state":"LIVE"`); n != 2 {
		t.Errorf("live in %d partitions, want 2:\n%s", n, status)
	}
	history := run("definitions --history -o yaml").stdout
	mustContain(t, "the history", history, "what: applied", "what: promoted", "dropped")
	run("projection drop carts --yes")
	kit.AwaitWithin(t, patience, "the queries are gone", func() bool {
		return p.runIn(t, false, "", "query", "carts.Get", "-p", "cart_id=a").code == exitNotFound
	})
	if code := s.stop(t); code != exitOK {
		t.Errorf("dev ended with %d: %s", code, s.stderr)
	}
}
