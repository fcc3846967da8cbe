package httprule_test

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

// FuzzBinding compares the binding with the reference, and looks for panics and empty answers.
func FuzzBinding(f *testing.F) {
	service := compileSchema(f, schema)
	router, ref := routerOf(f, service), newReference(service)
	for _, r := range table {
		method, target, _ := strings.Cut(r.request, " ")
		path, query, _ := strings.Cut(target, "?")
		f.Add(method, path, query, []byte(r.body))
	}
	f.Fuzz(func(t *testing.T, method, path, query string, body []byte) {
		if !strings.HasPrefix(path, "/") || method == "*" || method == "" {
			return
		}
		got, want := bind(router, method, path, query, body), ref.bind(method, path, query, body)
		said := got.said
		if strings.HasPrefix(said, "400 ") && len(said) > len("400 path: ") {
			said = "400"
		}
		if said != want.said || (got.msg == nil) != (want.msg == nil) ||
			got.msg != nil && !proto.Equal(got.msg.Interface(), want.msg.Interface()) {
			t.Fatalf("%s %q ? %q\n%q\ngot  %s\nwant %s", method, path, query, body, got, want)
		}
		if got.msg == nil {
			return
		}
		match, _, _ := router.Match(method, path)
		if printed, err := match.Print(got.msg); err == nil && !json.Valid(printed) || err != nil && err.Error() == "" {
			t.Fatalf("%s %q ? %q\n%q\nprinted %q, %v", method, path, query, body, printed, err)
		}
	})
}
