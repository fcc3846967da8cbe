package admin

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/examples/shoppingcart/cart"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/partitions/routing"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// process is a gateway without workers.
type process struct {
	catalog  *discovery.Catalog
	notReady error
}

// Self returns a page with one line.
func (process) Self() *adminv1.StatusResponse { return &adminv1.StatusResponse{Version: "test"} }

// NotReady returns what the test sets.
func (p process) NotReady() error { return p.notReady }

// Metrics returns none.
func (process) Metrics() []observe.Source { return nil }

// Catalog returns what the test sets.
func (p process) Catalog() (catalog *discovery.Catalog, hosting string) {
	return p.catalog, "by the test"
}

// App returns an app of two partitions.
func (process) App() App {
	return App{Name: "app", Layout: entities.LayoutOf("app", 2), Routes: routing.NewTable()}
}

// Worker returns nil.
func (process) Worker() *Worker { return nil }

// ReadSide returns nil.
func (process) ReadSide() *ReadSide { return nil }

// serving is a process that serves carts.
func serving(t *testing.T) process {
	t.Helper()
	f, err := inprocess.New(cart.Service)
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := discovery.NewCatalog(f.Spec(), discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return process{catalog: catalog}
}

// What cannot be read as JSON is shown in its stored form.
func TestContentOfAnUnknownType(t *testing.T) {
	s := NewService(serving(t))
	for name, p := range map[string]entities.Payload{
		"unknown type": {TypeURL: "type.googleapis.com/other.v1.Thing", Value: []byte{1}},
		"broken bytes": {TypeURL: "type.googleapis.com/shop.v1.ItemAdded", Value: []byte{255}},
	} {
		if c := s.content(p); c.GetJson() != "" || string(c.GetValue()) != string(p.Value) || c.GetTypeUrl() != p.TypeURL {
			t.Errorf("%s: %v", name, c)
		}
	}
}

// TestBeforeAnythingIsServed: a process that knows no function yet says what it waits for.
func TestBeforeAnythingIsServed(t *testing.T) {
	s := NewService(process{notReady: errors.New("waiting for the user function")})
	_, err := s.Descriptors(t.Context(), &adminv1.DescriptorsRequest{})
	if got := status.Convert(err); got.Code() != codes.Unavailable || got.Message() != "waiting for the user function" {
		t.Error(err)
	}
	if page := s.Page(t.Context()); page.GetReady() || page.GetNotReadyReason() != "waiting for the user function" ||
		page.GetVersion() != "test" {
		t.Errorf("status %v", page)
	}
}

// TestAGatewayNamesAWorker: what only a worker has is refused by a gateway, and the error names the
// workers.
func TestAGatewayNamesAWorker(t *testing.T) {
	s := NewService(serving(t))
	_, parked := s.ListParked(t.Context(), &adminv1.ListParkedRequest{})
	_, resolved := s.ResolveParked(t.Context(), &adminv1.ResolveParkedRequest{})
	_, halted := s.ListHalted(t.Context(), &adminv1.ListHaltedRequest{})
	for name, err := range map[string]error{
		"ListParked": parked, "ResolveParked": resolved, "ListHalted": halted,
		"Tail": s.Tail(&adminv1.TailRequest{}, nil), "Repair": s.Repair(&adminv1.RepairRequest{}, nil), "Verify": s.Verify(&adminv1.VerifyRequest{}, nil),
	} {
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s of a gateway: %v", name, err)
		}
	}
}
