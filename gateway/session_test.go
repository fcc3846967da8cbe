package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/entities"
)

// browser is the header that tells a browser.
var browser = []string{"Sec-Fetch-Site", "same-origin"}

const cookieOfTest = "millrace_token_" + testApp + "_1"

func positions(list ...entities.Position) string {
	t := entities.Token{App: testApp, Generation: entities.Generation, Positions: list}
	return t.Encode()
}

func at(partition int32, next int64) entities.Position {
	return entities.Position{Partition: partition, Next: next}
}

// tokenWorld answers everything with a token.
func tokenWorld(t *testing.T) (w *world, answerWith func(token string, md ...entities.MetadataEntry)) {
	t.Helper()
	fake := &dispatcher{}
	w = newWorld(t, fake, nil)
	return w, func(token string, md ...entities.MetadataEntry) {
		fake.unary = func(_ context.Context, cmd *entities.Command) (*entities.Reply, error) {
			name := "Cart"
			if strings.HasSuffix(cmd.Service, "StreamService") {
				name = "Line"
			}
			reply := w.reply(name, "{}")
			reply.Token, reply.Metadata = token, md
			return reply, nil
		}
	}
}

// setCookie returns the cookie that an answer sets, nil for none.
func setCookie(t *testing.T, a answer) *http.Cookie {
	t.Helper()
	all := (&http.Response{Header: a.header}).Cookies()
	switch {
	case len(all) == 0:
		return nil
	case len(all) > 1 || all[0].Name != cookieOfTest:
		t.Fatalf("the answer sets %v", all)
	}
	return all[0]
}

// TestAWriteOfABrowserSetsACookie: with the token of the write, merged with that of writes before.
func TestAWriteOfABrowserSetsACookie(t *testing.T) {
	w, answerWith := tokenWorld(t)
	answerWith(positions(at(3, 7)))
	const path = "/v1/carts/42/items"
	c := setCookie(t, w.httpWith(path, "{}", browser))
	if c == nil || c.Value != positions(at(3, 7)) || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode ||
		c.Path != "/" || c.MaxAge != 600 {
		t.Fatalf("the cookie is %v", c)
	}
	answerWith(positions(at(1, 2)))
	kept := []string{"Cookie", "other=1; " + cookieOfTest + "=" + c.Value}
	c = setCookie(t, w.httpWith(path, "{}", kept)) // older browsers do not send Sec-Fetch-Site
	if c == nil || c.Value != positions(at(1, 2), at(3, 7)) {
		t.Fatalf("the cookie is %v", c)
	}
	for name, sent := range map[string]string{"no token": "x", "a token of another app": (&entities.Token{App: "b"}).Encode()} {
		c := setCookie(t, w.httpWith(path, "{}", []string{"Cookie", cookieOfTest + "=" + sent}))
		if c == nil || c.Value != positions(at(1, 2)) {
			t.Errorf("after %s the cookie is %v", name, c)
		}
	}
	if c := setCookie(t, w.httpWith(path, "{}", nil)); c != nil {
		t.Errorf("a client that is no browser gets the cookie %v", c)
	}
	if c := setCookie(t, w.httpWith("/v1/echo", "{}", browser)); c != nil {
		t.Errorf("an action sets the cookie %v", c)
	}
}

// TestALatePollTakesNoTokenAway: a poll that was sent before a write, and is answered after it,
// sets no cookie.
func TestALatePollTakesNoTokenAway(t *testing.T) {
	w, answerWith := tokenWorld(t)
	answerWith(positions(at(3, 7)))
	for _, get := range []string{"GET", "HEAD"} {
		if c := setCookie(t, w.http(get, "/v1/carts/42", "", browser...)); c != nil {
			t.Errorf("%s sets the cookie %v", get, c)
		}
	}
	if c := setCookie(t, w.httpWith("/shop.v1.CartService/Look", "{\"cartId\":\"42\"}", browser)); c != nil {
		t.Errorf("a method without side effects sets the cookie %v", c)
	}
}

// TestTheCookieHasManyPartitions: what does not fit into a cookie is the marker for all of them.
func TestTheCookieHasManyPartitions(t *testing.T) {
	w, answerWith := tokenWorld(t)
	var before []entities.Position
	for p := range int32(entities.MaxPositions) {
		before = append(before, at(p, 1<<40))
	}
	answerWith(positions(at(300, 2)))
	kept := []string{"Cookie", cookieOfTest + "=" + positions(before...)}
	c := setCookie(t, w.httpWith("/v1/carts/42/items", "{}", kept))
	if c == nil {
		t.Fatal("there is no cookie")
	}
	if token, err := entities.DecodeToken(testApp, c.Value); err != nil || !token.Latest {
		t.Errorf("the cookie is %+v, %v", token, err)
	}
}

// TestQueriesGetTheSessionToken: an action gets the token of the cookie, in all protocols of
// browsers, unless the caller sends one itself. A reply that dropped it ends the cookie.
func TestQueriesGetTheSessionToken(t *testing.T) {
	w, answerWith := tokenWorld(t)
	answerWith("")
	cookie := cookieOfTest + "=" + positions(at(3, 7))
	for name, c := range map[string]struct {
		path, contentType string
		headers           []string
		want              string
	}{
		"HTTP":            {"/v1/echo", jsonValue, []string{"Cookie", cookie}, positions(at(3, 7))},
		"Connect":         {"/shop.v1.StreamService/Echo", jsonValue, []string{"Connect-Protocol-Version", "1", "Cookie", cookie}, positions(at(3, 7))},
		"the caller's":    {"/v1/echo", jsonValue, []string{"Cookie", cookie, "Millrace-Session-Token", "mine"}, "mine"},
		"another cookie":  {"/v1/echo", jsonValue, []string{"Cookie", "millrace_token_other_1=x"}, ""},
		"a broken cookie": {"/v1/echo", jsonValue, []string{"Cookie", "=;;" + cookie}, ""},
		"two tokens":      {"/v1/echo", jsonValue, []string{"Millrace-Session-Token", "a", "Millrace-Session-Token", "b"}, ""},
		"no cookie":       {"/v1/echo", jsonValue, nil, ""},
	} {
		a := w.http("POST", c.path, "{}", append([]string{jsonType, c.contentType}, c.headers...)...)
		if a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		if got := w.fake.last().Metadata.Get(entities.SessionToken); got != c.want {
			t.Errorf("%s: the session token is %q, want %q", name, got, c.want)
		}
	}
	answerWith("", entities.MetadataEntry{Key: entities.SessionDropped, Text: "true"})
	a := w.httpWith("/v1/echo", "{}", []string{"Cookie", cookie})
	if c := setCookie(t, a); c == nil || c.MaxAge >= 0 || a.header.Get("Millrace-Session-Dropped") != "true" {
		t.Errorf("after a dropped token the cookie is %v, the header %q", c, a.header.Get("Millrace-Session-Dropped"))
	}
}
