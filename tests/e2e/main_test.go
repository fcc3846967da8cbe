package e2e_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

func TestMain(m *testing.M) { harness.Main(m) }

// page is an answer over plain HTTP.
type page struct {
	status int
	body   string
}

// request sends a plain HTTP request on a connection of its own. It does not ask for the
// connection's end: to one that does, net/http would send a reset if it refused a large body, and
// the answer could be lost.
func request(t *testing.T, method, url, contentType, body string) page {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport, Timeout: kit.Patience}).Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return page{status: res.StatusCode, body: string(answer)}
}

// says checks that an error has a code and the words that its reader needs.
func says(t *testing.T, err error, code codes.Code, words ...string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Errorf("got %s (%q), want %s", s.Code(), s.Message(), code)
	}
	contains(t, s.Message(), words...)
}

// contains checks that a text has all words.
func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q does not say %q", text, word)
		}
	}
}

// account is a counter and a cart that a test changes step by step, and whose contents it knows.
type account struct {
	counters counterv1.CounterServiceClient
	carts    shopv1.CartServiceClient
	sum      int64
}

func newAccount(conn *grpc.ClientConn) *account {
	return &account{counters: counterv1.NewCounterServiceClient(conn), carts: shopv1.NewCartServiceClient(conn)}
}

// add makes the next command, which must work and find everything before it.
func (a *account) add(t *testing.T) {
	t.Helper()
	a.sum++
	got, err := a.counters.Increment(t.Context(), &counterv1.IncrementRequest{CounterId: "account", By: 1})
	if err != nil || got.GetValue() != a.sum {
		t.Fatalf("the next command on the counter: %v, %v; want %d", got, err, a.sum)
	}
	cart, err := a.carts.AddItem(t.Context(),
		&shopv1.AddItemRequest{CartId: "account", ItemId: "apple", Name: "Apple", Quantity: 1})
	if err != nil || len(cart.GetItems()) != 1 || int64(cart.GetItems()[0].GetQuantity()) != a.sum {
		t.Fatalf("the next command on the cart: %v, %v; want %d apples", cart, err, a.sum)
	}
}
