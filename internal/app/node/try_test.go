package node

import (
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestTryLines(t *testing.T) {
	const json = "curl -H 'content-type: application/json' -d "
	for _, tc := range []struct {
		serves, call, then string
	}{
		{"cart counter pricing", json + `'{"item_id":"apple","name":"Apple","quantity":2}' http://ADDRESS/v1/carts/42/items`, "get cart/42"},
		{"counter pricing", json + `'{"by":2}' http://ADDRESS/v1/counters/42:increment`, "get counter/42"},
		{"pricing", "curl http://ADDRESS/v1/prices/42", "status"},
	} {
		n := started(t, Options{Local: local(t, tc.serves)})
		lines := n.Try("millrace")
		flag := " --admin " + n.AdminAddress()
		want := []string{strings.ReplaceAll(tc.call, "ADDRESS", n.PublicAddress()), "millrace " + tc.then + flag}
		if tc.then != "status" {
			want = append(want, "millrace log tail --from-start"+flag)
		}
		if !slices.Equal(lines, want) {
			t.Errorf("%s:\ngot  %q\nwant %q", tc.serves, lines, want)
		}
	}
}

// What the line says is sent as curl would send it.
func TestTryLineWorks(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart")})
	parts := regexp.MustCompile(`^curl -H '([^:]+): (.*)' -d '(.*)' (http://\S+)$`).FindStringSubmatch(
		n.Try("millrace")[0])
	if parts == nil {
		t.Fatalf("the line is %s", n.Try("millrace")[0])
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, parts[4], strings.NewReader(parts[3]))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(parts[1], parts[2])
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), `"cartId":"42"`) {
		t.Errorf("%s, %v: %s", res.Status, err, body)
	}
}
