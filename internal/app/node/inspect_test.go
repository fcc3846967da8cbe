package node

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

func adminOf(t *testing.T, n *Node) adminv1.AdminServiceClient {
	t.Helper()
	return adminv1.NewAdminServiceClient(dial(t, n.AdminAddress()))
}

// all takes everything from a stream.
func all[M any](t *testing.T, recv func() (M, error)) []M {
	t.Helper()
	var list []M
	for {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
}

func TestEntityIsShownAsStored(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart counter")})
	ask := adminOf(t, n)
	addItem(t, n, "42", "apple")
	addItem(t, n, "42", "pear")
	increment(t, n, "42")

	got, err := ask.GetEntity(t.Context(), &adminv1.GetEntityRequest{Type: "cart", Id: "42"})
	if err != nil {
		t.Fatal(err)
	}
	if !got.GetExists() || got.GetKind() != "event sourced" || got.GetSequence() != 2 || len(got.GetEvents()) != 2 ||
		got.GetState() != nil {
		t.Errorf("cart %v", got)
	}
	if e := got.GetEvents()[1]; e.GetSequence() != 2 || e.Offset != nil || e.GetContent().GetJson() != `{"item":{"itemId":"pear","quantity":1}}` {
		t.Errorf("second event %v", e)
	}
	mustContain(t, "the note", got.GetNote(), "no snapshot yet")

	got, err = ask.GetEntity(t.Context(), &adminv1.GetEntityRequest{Type: "counter", Id: "42"})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetState().GetJson() != `{"value":"1"}` || got.GetNote() != "the value as last stored" {
		t.Errorf("counter %v", got)
	}
}

// With a snapshot, what is shown is the snapshot and the events after it.
func TestEntityIsShownWithItsSnapshot(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart")})
	for i := range 102 {
		addItem(t, n, "42", fmt.Sprintf("item-%d", i))
	}
	got, err := adminOf(t, n).GetEntity(t.Context(), &adminv1.GetEntityRequest{Type: "cart", Id: "42"})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetStateSequence() != 100 || len(got.GetEvents()) != 2 ||
		!strings.Contains(got.GetState().GetJson(), "item-99") {
		t.Errorf("state up to %d, %d events", got.GetStateSequence(), len(got.GetEvents()))
	}
}

func TestWhatIsNotThereIsNotFound(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart counter pricing")})
	ask := adminOf(t, n)
	for name, tc := range map[string]struct{ typ, want string }{
		"an entity without records": {"cart", "cart/42 has no records"},
		"a type that is not served": {"card", `no entity type "card" is served here; there are: counter, cart`},
	} {
		_, getting := ask.GetEntity(t.Context(), &adminv1.GetEntityRequest{Type: tc.typ, Id: "42"})
		stream, err := ask.History(t.Context(), &adminv1.HistoryRequest{Type: tc.typ, Id: "42"})
		if err != nil {
			t.Fatal(err)
		}
		_, listing := stream.Recv()
		for _, err := range []error{getting, listing} {
			if s := status.Convert(err); s.Code() != codes.NotFound || !strings.Contains(s.Message(), tc.want) {
				t.Errorf("%s: %v, want %s", name, err, tc.want)
			}
		}
	}
}

func TestActionsHaveNoEntities(t *testing.T) {
	n := started(t, Options{Local: local(t, "pricing")})
	_, err := adminOf(t, n).GetEntity(t.Context(), &adminv1.GetEntityRequest{Type: "pricing.v1.PricingService", Id: "1"})
	if s := status.Convert(err); s.Code() != codes.NotFound || !strings.Contains(s.Message(), "only actions are") {
		t.Error(err)
	}
}

func TestHistoryListsRecordsInOrder(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart")})
	client := shopv1.NewCartServiceClient(dial(t, n.PublicAddress()))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "millrace-command-id", "c-1")
	if _, err := client.AddItem(ctx, &shopv1.AddItemRequest{CartId: "42", ItemId: "apple", Quantity: 1}); err != nil {
		t.Fatal(err)
	}
	for _, item := range []string{"pear", "plum"} {
		addItem(t, n, "42", item)
	}
	for limit, want := range map[int64][]string{
		0: {"1 event c-1", "2 event ", "3 event "},
		2: {"1 event c-1", "2 event "},
		9: {"1 event c-1", "2 event ", "3 event "},
	} {
		stream, err := adminOf(t, n).History(t.Context(), &adminv1.HistoryRequest{Type: "cart", Id: "42", Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range all(t, stream.Recv) {
			got = append(got, fmt.Sprintf("%d %s %s", r.GetSequence(), r.GetKind(), r.GetCommandId()))
			if r.GetTime().AsTime().IsZero() || r.GetContent().GetJson() == "" {
				t.Errorf("record %v has no time or no content", r)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: %q, want %q", limit, got, want)
		}
	}
}

func TestDescriptorsAreThoseOfTheFunction(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart")})
	res, err := adminOf(t, n).Descriptors(t.Context(), &adminv1.DescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(res.GetFileDescriptorSet(), set); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(set.GetFile(), func(f *descriptorpb.FileDescriptorProto) bool { return f.GetPackage() == "shop.v1" }) {
		t.Errorf("no file of package shop.v1 in %d files", len(set.GetFile()))
	}
}

// TestHistoryAsJSON: the service of the admin port is called with JSON too, and a stream is a
// document per line.
func TestHistoryAsJSON(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart")})
	addItem(t, n, "42", "apple")
	addItem(t, n, "42", "pear")
	ask := func(method, body string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.AdminAddress()+"/millrace.admin.v1.AdminService/"+method, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	code, text := ask("History", `{"type":"cart","id":"42"}`)
	if code != http.StatusOK || strings.Count(text, "\n") != 2 || strings.Count(text, `"kind":"event"`) != 2 {
		t.Errorf("%d %s", code, text)
	}
	if code, text := ask("GetEntity", `{"type":"cart","id":"7"}`); code != http.StatusNotFound || !strings.Contains(text, `"code":5`) || !strings.Contains(text, "cart/7 has no records") {
		t.Errorf("%d %s", code, text)
	}
}
