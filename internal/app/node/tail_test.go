package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// tailed is a record as these tests compare it.
func tailed(r *adminv1.TailResponse) string {
	text := strings.TrimSpace(r.GetKind() + " " + r.GetEntity())
	if r.GetVoid() {
		text += " VOID"
	}
	return text
}

func readTail(t *testing.T, n *Node, r *adminv1.TailRequest) []string {
	t.Helper()
	stream, err := adminOf(t, n).Tail(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, res := range all(t, stream.Recv) {
		got = append(got, tailed(res))
	}
	return got
}

// partitionOf finds an entity id in the test's two partitions.
func partitionOf(id string) int32 { return entities.Partition(id, 2) }

// apart are two entity ids in partitions 0 and 1.
func apart(t *testing.T) (zero, one string) {
	t.Helper()
	for i := 0; zero == "" || one == ""; i++ {
		if id := fmt.Sprint(i); partitionOf(id) == 0 {
			zero = id
		} else {
			one = id
		}
	}
	return zero, one
}

func TestTailReadsWhatIsThere(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart counter")})
	zero, one := apart(t)
	addItem(t, n, zero, "apple")
	increment(t, n, zero)
	addItem(t, n, one, "apple")
	cart0, counter0, cart1 := "event cart/"+zero, "state counter/"+zero, "event cart/"+one
	partition := int32(1)
	for name, tc := range map[string]struct {
		request *adminv1.TailRequest
		want    []string
	}{
		"everything":  {&adminv1.TailRequest{}, []string{"claim", cart0, counter0, "claim", cart1}},
		"limit":       {&adminv1.TailRequest{Limit: 2}, []string{"claim", cart0}},
		"partition":   {&adminv1.TailRequest{Partition: &partition}, []string{"claim", cart1}},
		"entity":      {&adminv1.TailRequest{Entity: "cart/" + zero}, []string{cart0}},
		"type":        {&adminv1.TailRequest{Type: "cart"}, []string{cart0, cart1}},
		"from end":    {&adminv1.TailRequest{FromEnd: true}, nil},
		"type, limit": {&adminv1.TailRequest{Type: "cart", Limit: 1}, []string{cart0}},
	} {
		if got := readTail(t, n, tc.request); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// TestTailOfWhatIsNotThere: a tail that ends says that it has found no record, and which types
// there are.
func TestTailOfWhatIsNotThere(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart counter")})
	empty := int32(1)
	for want, request := range map[string]*adminv1.TailRequest{
		`no records of entity type "nope" in partition 1: it has none of any type`: {Type: "nope", Partition: &empty},
		`cart/nope has no records`: {Entity: "cart/nope"},
	} {
		checkNotFound(t, n, request, want)
	}
	zero, one := apart(t)
	addItem(t, n, zero, "apple")
	increment(t, n, one)
	checkNotFound(t, n, &adminv1.TailRequest{Type: "nope"},
		`no records of entity type "nope" in the journal; it has records of: cart, counter`)
	if got := readTail(t, n, &adminv1.TailRequest{Type: "nope", FromEnd: true}); got != nil {
		t.Errorf("from the end: %q", got)
	}
}

func checkNotFound(t *testing.T, n *Node, r *adminv1.TailRequest, want string) {
	t.Helper()
	stream, err := adminOf(t, n).Tail(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = stream.Recv(); status.Code(err) != codes.NotFound || status.Convert(err).Message() != want {
		t.Errorf("%v: %v, want %s", r, err, want)
	}
}

func TestTailRefusesNonsense(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart")})
	tooMuch := int32(2)
	for want, request := range map[string]*adminv1.TailRequest{
		"partition 2: the journal has 0 to 1": {Partition: &tooMuch},
		"cart":                                {Entity: "cart"},
	} {
		stream, err := adminOf(t, n).Tail(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", request, err, want)
		}
	}
}

// A tail that follows sends what was there and what comes, from every partition, and ends at its
// limit.
func TestTailFollows(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart")})
	zero, one := apart(t)
	addItem(t, n, zero, "apple")
	stream, err := adminOf(t, n).Tail(t.Context(), &adminv1.TailRequest{Follow: true, Type: "cart", Limit: 3})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, id := range []string{"", one, zero} {
		if id != "" {
			addItem(t, n, id, "pear")
		}
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, tailed(r))
	}
	if want := []string{"event cart/" + zero, "event cart/" + one, "event cart/" + zero}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if rest := all(t, stream.Recv); len(rest) != 0 {
		t.Errorf("%d records beyond the limit", len(rest))
	}
}

// A tail that follows ends with its caller, and with the node.
func TestTailEnds(t *testing.T) {
	n := started(t, Options{Local: local(t, "cart")})
	ctx, cancel := context.WithCancel(t.Context())
	gone, err := adminOf(t, n).Tail(ctx, &adminv1.TailRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	staying, err := adminOf(t, n).Tail(t.Context(), &adminv1.TailRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, stream := range []adminv1.AdminService_TailClient{gone, staying} {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	end(t, n)
	for err = nil; err == nil; {
		_, err = staying.Recv()
	}
}

// Records of a former owner are shown and marked, foreign records too, and neither shows in an
// entity.
func TestTailMarksWhatDoesNotCount(t *testing.T) {
	world := simlog.New(simlog.Options{})
	c := testConfig(t)
	c.Ephemeral, c.Partitions = true, 1
	journal := broker.Partition{Topic: "millrace.journal"}
	client := world.Client("before")
	if err := client.Create(t.Context(), broker.TopicSpec{Name: journal.Topic, Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	former := func(kind record.Kind, ordinal uint64) broker.Record {
		env := record.Envelope{Kind: kind, Epoch: 1, Nonce: 7, Ordinal: ordinal, Sequence: ordinal, TypeURL: "type.googleapis.com/shop.v1.CheckedOut"}
		if kind == record.Claim {
			env.TypeURL, env.Claim = "", &record.ClaimInfo{Worker: "former"}
		}
		r := broker.Record{Headers: []broker.Header{{Key: record.HeaderKey, Value: env.Append(nil)}}}
		if kind == record.Event {
			r.Key = []byte("cart/42")
		}
		return r
	}
	world.Inject(journal, former(record.Claim, 0), former(record.Event, 1), broker.Record{Key: []byte("x"), Value: []byte("y")})

	n := started(t, Options{Config: c, Local: local(t, "cart"), Log: world.Client("now")})
	world.Inject(journal, former(record.Event, 2))

	stream, err := adminOf(t, n).Tail(t.Context(), &adminv1.TailRequest{Follow: true, Limit: 7})
	if err != nil {
		t.Fatal(err)
	}
	var got, notes []string
	for _, r := range all(t, stream.Recv) {
		got = append(got, tailed(r))
		notes = append(notes, r.GetNote())
	}
	if want := []string{
		"claim", "event cart/42", "foreign x", "claim VOID", "claim",
		"barrier", // the worker has read what is defined
		"event cart/42 VOID",
	}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	mustContain(t, "the notes", strings.Join(notes, "\n"), "claimed by former", "record has no envelope", "declares the layout of the journal", "claimed by w-")

	listed, err := adminOf(t, n).History(t.Context(), &adminv1.HistoryRequest{Type: "cart", Id: "42"})
	if err != nil {
		t.Fatal(err)
	}
	if records := all(t, listed.Recv); len(records) != 1 {
		t.Errorf("the cart's history has %d records, want the one that counts", len(records))
	}
}

// A record before the first claim of the log counts for no reader, and a tail from the beginning
// says so.
func TestTailBeforeAnyClaim(t *testing.T) {
	world := simlog.New(simlog.Options{})
	c := testConfig(t)
	c.Ephemeral, c.Partitions = true, 1
	journal := broker.Partition{Topic: "millrace.journal"}
	client := world.Client("before")
	if err := client.Create(t.Context(), broker.TopicSpec{Name: journal.Topic, Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	env := record.Envelope{Kind: record.Event, Epoch: 1, Nonce: 7, Ordinal: 1, Sequence: 1, TypeURL: "type.googleapis.com/shop.v1.CheckedOut"}
	world.Inject(journal,
		broker.Record{Key: []byte("cart/42"), Headers: []broker.Header{{Key: record.HeaderKey, Value: env.Append(nil)}}})
	n := started(t, Options{Config: c, Local: local(t, "cart"), Log: world.Client("now")})
	if got := readTail(t, n, &adminv1.TailRequest{Limit: 1}); !slices.Equal(got, []string{"event cart/42 VOID"}) {
		t.Errorf("%q, want an event that does not count", got)
	}
}
