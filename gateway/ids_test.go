package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/dynamicpb"
)

// namings are ways to send command ids in headers. refusal is a part of the error text; "": the
// command has the id.
func namings() map[string]struct {
	headers     []string
	id, refusal string
} {
	const command, key = "millrace-command-id", "idempotency-key"
	long := strings.Repeat("x", 257)
	return map[string]struct {
		headers     []string
		id, refusal string
	}{
		"none":                    {nil, "", ""},
		"an id":                   {[]string{command, "a"}, "a", ""},
		"a key":                   {[]string{key, "a"}, "a", ""},
		"a quoted key":            {[]string{key, `"a"`}, "a", ""},
		"both":                    {[]string{command, "a", key, "a"}, "a", ""},
		"a key twice":             {[]string{key, "a", key, `"a"`}, "a", ""},
		"the longest":             {[]string{key, long[1:]}, long[1:], ""},
		"an empty id":             {[]string{command, ""}, "", "millrace-command-id is empty"},
		"an empty key":            {[]string{key, ""}, "", "idempotency-key is empty"},
		"an empty quoted key":     {[]string{key, `""`}, "", "idempotency-key is empty"},
		"an additional empty key": {[]string{command, "a", key, ""}, "", "idempotency-key is empty"},
		"an additional empty id":  {[]string{command, "", key, "a"}, "", "millrace-command-id is empty"},
		"an empty key after one":  {[]string{key, "a", key, ""}, "", "idempotency-key"},
		"two ids":                 {[]string{command, "a", command, "b"}, "", "millrace-command-id was sent twice with different values"},
		"two keys":                {[]string{key, "a", key, "b"}, "", "idempotency-key was sent twice with different values"},
		"a key and another id":    {[]string{command, "a", key, "b"}, "", "name two different commands"},
		"too long an id":          {[]string{command, long}, "", "has 257 bytes"},
		"too long a key":          {[]string{key, long}, "", "has 257 bytes"},
	}
}

// TestTheIDOfACommand: an invalid id is refused, and the command does not run,
// over whichever protocol it comes.
func TestTheIDOfACommand(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, nil)
	w.always(w.reply("Cart", `{}`))
	native := w.dial()
	for name, n := range namings() {
		t.Run(name, func(t *testing.T) {
			judge := func(t *testing.T, before int, refused bool, said string) {
				t.Helper()
				ran := fake.count() - before
				switch {
				case n.refusal == "" && (refused || ran != 1 || fake.last().ID != n.id):
					t.Errorf("refused %v (%s), ran %d times, id %q, want %q", refused, said, ran, fake.last().ID, n.id)
				case n.refusal != "" && (!refused || ran != 0 || !strings.Contains(said, n.refusal)):
					t.Errorf("refused %v, ran %d times, and the caller reads %q", refused, ran, said)
				}
			}
			before := fake.count()
			ctx := metadata.AppendToOutgoingContext(t.Context(), n.headers...)
			err := native.Invoke(ctx, "/shop.v1.CartService/Plain", w.message("CartRequest", `{"cartId":"1"}`),
				dynamicpb.NewMessage(w.messageType("Cart")))
			judge(t, before, status.Code(err) == codes.InvalidArgument, status.Convert(err).Message())

			for _, path := range []string{"/v1/carts/1/items", "/shop.v1.CartService/AddItem"} {
				before := fake.count()
				got := w.httpWith(path, `{"cartId":"1"}`, n.headers)
				refused := got.status == http.StatusBadRequest && got.header.Get("millrace-outcome") == "not_applied"
				judge(t, before, refused, got.body)
			}
			eachFlavour(t, func(t *testing.T, h2 bool, opts []connect.ClientOption) {
				before := fake.count()
				request := connect.NewRequest(w.message("AddItemRequest", `{"cartId":"1"}`))
				for i := 0; i < len(n.headers); i += 2 {
					request.Header().Add(n.headers[i], n.headers[i+1])
				}
				_, err := w.rpcClient(h2, "/shop.v1.CartService/AddItem", opts...).CallUnary(t.Context(), request)
				said := ""
				if err != nil {
					said = err.Error()
				}
				judge(t, before, connect.CodeOf(err) == connect.CodeInvalidArgument, said)
			})
		})
	}
}

// TestAHeaderTwice: different values of one header are refused.
func TestAHeaderTwice(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, nil)
	w.always(w.reply("Cart", `{}`))
	for _, headers := range [][]string{
		{"millrace-consistency", "local", "millrace-consistency", "strong"},
		{"millrace-max-staleness", "1s", "millrace-max-staleness", "2s"},
		{"millrace-min-token", "a", "millrace-min-token", "b"},
	} {
		got := w.httpWith("/shop.v1.CartService/AddItem", `{"cartId":"1"}`, headers)
		if got.status != http.StatusBadRequest || !strings.Contains(got.body, headers[0]+" was sent twice") {
			t.Errorf("%q: %d %s", headers, got.status, got.body)
		}
	}
	if fake.count() != 0 {
		t.Errorf("%d commands ran", fake.count())
	}
	if got := w.httpWith("/shop.v1.CartService/AddItem", `{"cartId":"1"}`,
		[]string{"millrace-consistency", "local", "millrace-consistency", "local"}); got.status != http.StatusOK {
		t.Errorf("the same twice: %d %s", got.status, got.body)
	}
}
