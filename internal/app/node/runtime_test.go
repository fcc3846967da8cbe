package node

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/host"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	pricingv1 "github.com/millrace-io/millrace/examples/pricing/pricing/v1"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// The tests host two functions of the runtime: an entity of its own, which is the counter under
// another name, and a query service, which is made of the pricing service.
const (
	ownService   = "millrace.test.v1.CounterService"
	ownType      = "_test"
	queryService = "millrace.query.pricing.PricingService"
)

// renamed returns what a function declares with every name of a package replaced.
func renamed(t *testing.T, spec *cloudstate.EntitySpec, from, to string) *cloudstate.EntitySpec {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(spec.GetProto(), set); err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	path := func(pkg string) string { return strings.ReplaceAll(pkg, ".", "/") }
	changed := strings.NewReplacer(from, to, path(from), path(to)).Replace(string(text))
	if err := protojson.Unmarshal([]byte(changed), set); err != nil {
		t.Fatal(err)
	}
	next := proto.CloneOf(spec)
	if next.Proto, err = proto.Marshal(set); err != nil {
		t.Fatal(err)
	}
	for _, e := range next.GetEntities() {
		e.ServiceName = strings.Replace(e.GetServiceName(), from, to, 1)
	}
	return next
}

// ownCounter is the counter as an entity of the runtime.
type ownCounter struct {
	Local

	spec *cloudstate.EntitySpec
}

func newOwnCounter(t *testing.T) Local {
	t.Helper()
	f := local(t, "counter")
	spec := renamed(t, f.Spec(), "counter.v1", "millrace.test.v1")
	spec.GetEntities()[0].PersistenceId = ownType
	return ownCounter{f, spec}
}

// Spec declares it under its other name.
func (o ownCounter) Spec() *cloudstate.EntitySpec { return o.spec }

// OpenEntity opens a counter.
func (o ownCounter) OpenEntity(_, id string) (host.LocalEntity, error) {
	return o.Local.OpenEntity(counterv1.CounterService_ServiceDesc.ServiceName, id)
}

// newQueries is a query service that answers every call with the position that it asks for.
func newQueries(t *testing.T, pkg string) Local {
	t.Helper()
	return &answers{
		spec: renamed(t, local(t, "pricing").Spec(), "pricing.v1", pkg),
		handle: func(_ context.Context, cmd *entities.Command) (*entities.Reply, error) {
			b, err := proto.Marshal(&pricingv1.QuoteResponse{Price: &pricingv1.Price{Quantity: int32(cmd.AfterIn(1))}})
			return &entities.Reply{Payload: entities.Payload{Value: b}, Token: "token of the rows"}, err
		},
	}
}

func countOwn(t *testing.T, n *Node, id string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := proto.Marshal(&counterv1.IncrementRequest{CounterId: id})
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.callOwn(ctx, ownService, "Increment", request)
	if err != nil {
		t.Fatal(err)
	}
	var now counterv1.Counter
	if err := proto.Unmarshal(b, &now); err != nil {
		t.Fatal(err)
	}
	return now.GetValue()
}

func serveOwn(t *testing.T, n *Node, owner string, f Local) {
	t.Helper()
	if err := n.serveOwn(owner, f); err != nil {
		t.Fatal(err)
	}
}

// TestRuntimeEntities: an entity of the runtime is stored and owned like any other, before the
// user's function is there, too; callers cannot call it, and lists do not show it.
func TestRuntimeEntities(t *testing.T) {
	c := testConfig(t)
	c.Function = freeAddress(t)
	n := launch(t, Options{Config: c})
	serveOwn(t, n, "test", newOwnCounter(t))
	receive(t, "the node to wait for its function", n.Waiting())
	if got := countOwn(t, n, "a"); got != 1 {
		t.Errorf("without a user function it stands at %d, want 1", got)
	}
	serveRemote(t, c.Function, services("counter")...)
	awaitReady(t, n)
	if got := countOwn(t, n, "a"); got != 2 {
		t.Errorf("with a user function it stands at %d, want 2", got)
	}
	if got := increment(t, n, "a"); got != 1 {
		t.Errorf("the user's counter stands at %d, want 1", got)
	}
	if err := call(t, n.PublicAddress(), ownService+"/Increment"); status.Code(err) != codes.Unimplemented {
		t.Errorf("a caller of the public port got %v", err)
	}
	s := n.Status(t.Context())
	if len(s.GetServices()) != 1 || s.GetServices()[0].GetName() == ownService {
		t.Errorf("the status lists %v", s.GetServices())
	}
	admin := adminv1.NewAdminServiceClient(dial(t, n.AdminAddress()))
	got, err := admin.GetEntity(t.Context(), &adminv1.GetEntityRequest{Type: ownType, Id: "a"})
	if err != nil || !got.GetExists() {
		t.Errorf("asked for, it is %v, %v", got, err)
	}
	_, err = admin.GetEntity(t.Context(), &adminv1.GetEntityRequest{Type: "absent", Id: "a"})
	if err == nil || !strings.HasSuffix(err.Error(), "there are: counter") {
		t.Errorf("the types that are named are %v", err)
	}
	counts, err := admin.CountEntities(t.Context(), &adminv1.CountEntitiesRequest{})
	for err == nil {
		var page *adminv1.CountEntitiesResponse
		page, err = counts.Recv()
		for _, c := range page.GetTypes() {
			if c.GetType() == ownType {
				t.Errorf("the counts have %v", c)
			}
		}
	}
	if got := n.Try("millrace"); len(got) == 0 || !strings.Contains(got[0], "/v1/counters/") {
		t.Errorf("the first lines to try are %q", got)
	}
}

// TestQueriesAreServed: a service that is made of a definition comes while the process runs, and
// callers reach it by every protocol, with the freshness that they ask for; it goes the same way.
func TestQueriesAreServed(t *testing.T) {
	n := started(t, Options{Local: local(t, "counter")})
	serveOwn(t, n, "test", newOwnCounter(t))
	serveOwn(t, n, "queries", newQueries(t, "millrace.query.pricing"))
	served := n.gateway
	quoteEverywhere(t, n.PublicAddress())
	if err := n.serveOwn("queries", newQueries(t, "millrace.query.pricing")); err != nil || n.gateway != served {
		t.Errorf("the same again: %v", err)
	}
	if hosting := n.Status(t.Context()).GetServices()[1].GetHosting(); hosting != "by the runtime" {
		t.Errorf("the status says %q", hosting)
	}
	serveOwn(t, n, "queries", newQueries(t, "millrace.query.offers"))
	err := call(t, n.PublicAddress(), queryService+"/Quote")
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a service that is gone: %v", err)
	}
	if got := increment(t, n, "a"); got != 1 {
		t.Errorf("the user's counter stands at %d, want 1", got)
	}
}

// call calls a method with an empty request.
func call(t *testing.T, address, method string) error {
	t.Helper()
	return dial(t, address).Invoke(t.Context(), "/"+method, &emptypb.Empty{}, &emptypb.Empty{})
}

// quoteEverywhere calls the query service over gRPC, Connect and HTTP/JSON, and by reflection.
func quoteEverywhere(t *testing.T, address string) {
	t.Helper()
	conn := dial(t, address)
	position := entities.Token{
		App: "millrace", Generation: entities.Generation, Positions: []entities.Position{{Partition: 1, Next: 3}},
	}
	token := position.Encode()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "millrace-min-token", token)
	var res pricingv1.QuoteResponse
	var header metadata.MD
	if err := conn.Invoke(ctx, "/"+queryService+"/Quote", &pricingv1.QuoteRequest{ItemId: "x"}, &res,
		grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	told := strings.Join(header.Get("millrace-token"), "")
	if got := res.GetPrice().GetQuantity(); got != 3 || told != "token of the rows" {
		t.Errorf("gRPC: position %d, want 3; headers %v", got, header)
	}
	for _, path := range []string{"/v1/prices/x", "/" + queryService + "/Quote"} {
		method, body := http.MethodGet, ""
		if strings.HasPrefix(path, "/millrace") {
			method, body = http.MethodPost, "{}"
		}
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Millrace-Min-Token", token)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Price struct{ Quantity int } }
		err = json.NewDecoder(answer.Body).Decode(&got)
		_ = answer.Body.Close()
		if err != nil || got.Price.Quantity != 3 || answer.Header.Get("Millrace-Token") != "token of the rows" {
			t.Errorf("%s %s: %s, %v, %v, %v", method, path, answer.Status, got, answer.Header, err)
		}
	}
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	list, err := stream.Recv()
	if err != nil || !strings.Contains(list.String(), queryService) || strings.Contains(list.String(), ownService) {
		t.Errorf("reflection: %v, %v", list, err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
}

// TestRuntimeOfSeveralWorkers: entities of the runtime have one owner among all workers; a worker
// without the runtime's functions, or with other ones, joins all the same; and a gateway serves the
// queries of the workers.
func TestRuntimeOfSeveralWorkers(t *testing.T) {
	a := newApp(t, 2)
	for _, n := range a.workers {
		serveOwn(t, n, "test", newOwnCounter(t))
		serveOwn(t, n, "queries", newQueries(t, "millrace.query.pricing"))
	}
	for want := range 6 {
		for _, id := range []string{"c0", "c1", "c2", "c3"} {
			if got := countOwn(t, a.workers[want%2], id); got != int64(want+1) {
				t.Errorf("%s stands at %d, want %d", id, got, want+1)
			}
		}
	}
	a.add() // it does not have them
	a.balanced()
	if got := a.workers[0].routes.Current().Versions(); got != 1 {
		t.Errorf("the workers serve %d versions, want 1: only users' services count", got)
	}
	serveOwn(t, a.workers[2], "test", newOwnCounter(t))
	serveOwn(t, a.workers[2], "queries", newQueries(t, "millrace.query.pricing"))
	g := startGateway(t, a)
	eventually(t, "the gateway to learn of the queries", func() bool {
		return g.catalog.Load().Service(queryService) != nil
	})
	quoteEverywhere(t, g.PublicAddress())
	if err := call(t, g.PublicAddress(), ownService+"/Increment"); status.Code(err) != codes.Unimplemented {
		t.Errorf("the gateway has the runtime's entity called: %v", err)
	}
	for _, s := range g.Status(t.Context()).GetServices() {
		if s.GetName() == ownService {
			t.Error("the gateway lists the runtime's entity")
		}
	}
}

// TestAJournalOfTheRuntimeOnly: entities of the runtime do not say which app a journal belongs to.
func TestAJournalOfTheRuntimeOnly(t *testing.T) {
	a := newApp(t, 1)
	first := a.workers[0]
	serveOwn(t, first, "test", newOwnCounter(t))
	countOwn(t, first, "a")
	for _, name := range []string{ownType, "counter"} {
		if got := discovery.IsReservedType(name); got != (name == ownType) {
			t.Errorf("%s is the runtime's: %t", name, got)
		}
	}
	types := map[string]bool{}
	for p := range first.topic.Partitions {
		some, err := first.lastTypes(t.Context(), broker.Partition{Topic: first.topic.Name, ID: p})
		if err != nil {
			t.Fatal(err)
		}
		for name := range some {
			types[name] = true
		}
	}
	if len(types) != 1 || !types["counter"] {
		t.Errorf("the journal speaks of %v, want the counter that the claims name", types)
	}
}
