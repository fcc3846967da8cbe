package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/gateway"
)

// preflight asks as a browser does before a call.
func (w *world) preflight(origin, path string) answer {
	w.t.Helper()
	return w.http("OPTIONS", path, "", "Origin", origin, "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "content-type,x-grpc-web")
}

// A page of an allowed origin may call by every protocol and read the headers; another one gets no
// header of CORS, and the browser's question is answered with the reason.
func TestCORS(t *testing.T) {
	const plain = "/shop.v1.CartService/Plain"
	const page = "https://shop.example.com"
	w := newWorld(t, &dispatcher{}, func(o *gateway.Options) { o.CORSOrigins = []string{page} })
	reply := w.reply("Cart", `{"cartId":"42"}`)
	reply.Token = "tok"
	w.always(reply)

	got := w.preflight(page, "/v1/carts/1/items")
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": page, "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
		"Access-Control-Allow-Headers": "content-type,x-grpc-web", "Access-Control-Max-Age": "7200",
		"Access-Control-Allow-Credentials": "",
		"Vary":                             "Origin,Access-Control-Request-Method, Access-Control-Request-Headers",
	} {
		if is := strings.Join(got.header.Values(name), ","); is != want {
			t.Errorf("preflight: %s: %q, want %q", name, is, want)
		}
	}
	if got.status != http.StatusNoContent {
		t.Errorf("preflight: %d", got.status)
	}

	for contentType, body := range map[string]string{
		"application/grpc-web+proto": frame(0, "\x0a\x0242"), "application/proto": "\x0a\x0242", jsonValue: `{"cartId":"42"}`,
	} {
		got := w.http("POST", plain, body, jsonType, contentType, "Origin", page)
		exposed := got.header.Get("Access-Control-Expose-Headers")
		if got.status != 200 || got.header.Get("Access-Control-Allow-Origin") != page || got.header.Get("Vary") != "Origin" ||
			!strings.Contains(exposed, "millrace-token") {
			t.Errorf("%s: %d %v", contentType, got.status, got.header)
		}
	}
	failed := w.http("POST", plain, `{}`, jsonType, jsonValue, "Origin", page)
	if failed.status != 400 || failed.header.Get("Access-Control-Allow-Origin") != page ||
		!strings.Contains(failed.header.Get("Access-Control-Expose-Headers"), "millrace-outcome") {
		t.Errorf("an error: %d %v", failed.status, failed.header)
	}

	refused := w.preflight("https://evil.example.com", plain)
	const reason = `{"code":7,"message":"pages of the origin \"https://evil.example.com\" may not call: add it to cors-origins","details":[]}` + "\n"
	if refused.status != http.StatusForbidden || refused.body != reason {
		t.Errorf("%d %s", refused.status, refused.body)
	}
	for _, got := range []answer{refused, w.http("POST", plain, `{"cartId":"42"}`, jsonType, jsonValue, "Origin", "https://evil.example.com")} {
		for name := range got.header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%d: %s", got.status, name)
			}
		}
		if got.header.Get("Vary") != "Origin" {
			t.Errorf("%d: %v", got.status, got.header)
		}
	}
}

// Without origins nothing changes for callers, and the browser's question is refused.
func TestCORSIsOff(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	w.always(w.reply("Cart", `{}`))
	if got := w.preflight("http://localhost:5173", "/shop.v1.CartService/Plain"); got.status != http.StatusForbidden {
		t.Errorf("%d %s", got.status, got.body)
	}
	got := w.httpWith("/shop.v1.CartService/Plain", `{"cartId":"1"}`, []string{"Origin", "http://localhost:5173"})
	if got.status != 200 || got.header.Get("Vary") != "" || got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v", got.status, got.header)
	}
	if got := w.http("OPTIONS", "/shop.v1.CartService/Plain", ""); got.status != http.StatusMethodNotAllowed {
		t.Errorf("OPTIONS that is no question of CORS: %d", got.status)
	}
}

func TestCORSOrigins(t *testing.T) {
	for origins, tc := range map[string]struct{ allowed, refused []string }{
		"https://a.example.com": {
			[]string{"https://a.example.com", "https://a.example.com:443", "HTTPS://A.example.com"},
			[]string{"http://a.example.com", "https://a.example.com:8443", "https://b.a.example.com", "https://a.example.com.evil.org", "null"},
		},
		"https://*.example.com": {
			[]string{"https://a.example.com", "https://b.a.example.com"},
			[]string{"https://example.com", "https://evilexample.com", "https://.example.com.evil.org", "http://a.example.com"},
		},
		"http://192.168.1.7:*": {
			[]string{"http://192.168.1.7", "http://192.168.1.7:5173"}, []string{"https://192.168.1.7:5173", "http://192.168.1.70"},
		},
		"localhost": {
			[]string{
				"http://localhost", "http://localhost:5173", "https://localhost:8443", "http://127.0.0.1:3000", "http://[::1]:3000",
				"http://app.localhost:3000",
			},
			[]string{"http://localhost.evil.org", "http://notlocalhost", "null", "http://127.0.0.1.evil.org", ""},
		},
		"*": {[]string{"https://a.example.com", "null"}, nil},
	} {
		w := newWorld(t, &dispatcher{}, func(o *gateway.Options) { o.CORSOrigins = []string{origins} })
		for _, origin := range tc.allowed {
			if got := w.preflight(origin, "/"); got.status != http.StatusNoContent {
				t.Errorf("%s: %s is refused: %s", origins, origin, got.body)
			}
		}
		for _, origin := range tc.refused {
			if got := w.preflight(origin, "/"); got.status == http.StatusNoContent {
				t.Errorf("%s: %s is allowed", origins, origin)
			}
		}
	}
}

func TestCORSCredentials(t *testing.T) {
	w := newWorld(t, &dispatcher{}, func(o *gateway.Options) {
		o.CORSOrigins, o.CORSCredentials = []string{"localhost"}, true
	})
	got := w.preflight("http://localhost:1", "/")
	if got.header.Get("Access-Control-Allow-Credentials") != "true" || got.header.Get("Access-Control-Allow-Origin") != "http://localhost:1" {
		t.Errorf("%v", got.header)
	}
}

func TestCORSProblems(t *testing.T) {
	for text, want := range map[string]string{
		"https://a.example.com": "", "https://*.example.com:8443": "", "http://localhost:*": "", "localhost": "",
		"*": "* cannot be together with cors-credentials", "a.example.com": "is not an origin", "https://a.example.com/": "is not an origin",
		"https://a.example.com/app": "is not an origin", "https://a:1:*": "is not an origin", "https://a.*.com": "is not an origin",
	} {
		problem := gateway.Settings{CORSOrigins: []string{text}, CORSCredentials: true}.CORSProblem()
		if (problem == "") != (want == "") || !strings.Contains(problem, want) {
			t.Errorf("%s: %q, want %q", text, problem, want)
		}
	}
}

// A function cannot widen the policy of the gateway.
func TestCORSIsNotTheFunctions(t *testing.T) {
	w := newWorld(t, &dispatcher{}, nil)
	reply := w.reply("Line", `{}`)
	reply.Metadata = entities.Metadata{{Key: "access-control-allow-origin", Text: "*"}, {Key: "x-mine", Text: "1"}}
	w.always(reply)
	got := w.httpWith("/shop.v1.StreamService/Echo", `{}`, nil)
	if got.header.Get("Access-Control-Allow-Origin") != "" || got.header.Get("X-Mine") != "1" {
		t.Errorf("%v", got.header)
	}
}
