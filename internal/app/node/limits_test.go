package node

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
)

// addLarge adds an item whose name has so many bytes to a cart.
func addLarge(t *testing.T, client shopv1.CartServiceClient, cart string, bytes int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := client.AddItem(ctx,
		&shopv1.AddItemRequest{CartId: cart, ItemId: "item", Name: strings.Repeat("n", bytes), Quantity: 1})
	return err
}

func epochs(n *Node) string {
	var all []string
	for _, p := range n.manager.Partitions() {
		all = append(all, fmt.Sprint(p.Status().Epoch))
	}
	return strings.Join(all, ",")
}

// TestLargeCommandsOnTheEmbeddedLog: each is below the limit, together they are far above what the
// topic takes at a time.
func TestLargeCommandsOnTheEmbeddedLog(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart")})
	client := shopv1.NewCartServiceClient(dial(t, n.PublicAddress()))
	before := epochs(n)
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() { // waited for below
			for range 4 {
				if err := addLarge(t, client, fmt.Sprint("cart", i), 300<<10); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	if after := epochs(n); after != before {
		t.Errorf("partitions were claimed again: epochs %s, before %s", after, before)
	}
}

// TestAHigherMaxCommitRaisesTheTopic: the topic was created under a lower one. On the code before,
// each large command ended the ownership of its partition, again and again.
func TestAHigherMaxCommitRaisesTheTopic(t *testing.T) {
	config := testConfig(t)
	large := func(c *Config, bytes int, want codes.Code) {
		t.Helper()
		n := started(t, Options{Config: c, Local: local(t, "cart")})
		before := epochs(n)
		if err := addLarge(t, shopv1.NewCartServiceClient(dial(t, n.PublicAddress())), "a", bytes); status.Code(err) != want {
			t.Errorf("max-commit %d: a command of %d bytes ends with %v; want %s", c.MaxCommit, bytes, err, want)
		}
		if after := epochs(n); after != before {
			t.Errorf("max-commit %d: partitions were claimed again: epochs %s, before %s", c.MaxCommit, after, before)
		}
		end(t, n)
	}
	large(config, 2<<20, codes.ResourceExhausted)
	higher := *config
	higher.MaxCommit = 3 << 20
	large(&higher, 2<<20, codes.OK)
	large(config, 800<<10, codes.OK)
	large(config, 2<<20, codes.ResourceExhausted)
}
