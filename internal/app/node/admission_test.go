package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/record"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// changed is a function whose declaration differs from what it is made of, as that of another
// version does.
type changed struct {
	Local

	spec *cloudstate.EntitySpec
}

// Spec is the other declaration.
func (c changed) Spec() *cloudstate.EntitySpec { return c.spec }

// altered changes the file that declares the counter.
func altered(t *testing.T, f Local, change func(*descriptorpb.FileDescriptorProto)) Local {
	t.Helper()
	spec := proto.CloneOf(f.Spec())
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(spec.GetProto(), set); err != nil {
		t.Fatal(err)
	}
	for _, file := range set.GetFile() {
		if file.GetPackage() == "counter.v1" {
			change(file)
		}
	}
	var err error
	if spec.Proto, err = proto.Marshal(set); err != nil {
		t.Fatal(err)
	}
	return changed{f, spec}
}

// earlier is the counter before its method Get was added.
func earlier(t *testing.T) Local {
	t.Helper()
	return altered(t, local(t, "counter"), func(file *descriptorpb.FileDescriptorProto) {
		s := file.GetService()[0]
		s.Method = slices.DeleteFunc(s.GetMethod(), func(m *descriptorpb.MethodDescriptorProto) bool { return m.GetName() == "Get" })
	})
}

// join starts one more worker, with another function.
func (a *app) join(f Local, change func(*Config)) *Node {
	a.t.Helper()
	c := a.config()
	c.Worker = fmt.Sprintf("w%d", len(a.workers))
	if change != nil {
		change(c)
	}
	n := a.try(c, f)
	a.workers = append(a.workers, n)
	return n
}

func (a *app) try(c *Config, f Local) *Node {
	a.t.Helper()
	n, err := Start(a.t.Context(), Options{Config: c, Local: f, Log: a.world.Client(c.Worker)})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		n.Stop()
		_ = n.Wait() // looked at by the test where it matters
	})
	return n
}

// claims are the workers that have claimed a partition.
func (a *app) claims() map[string]int {
	a.t.Helper()
	client := a.world.Client("reader")
	defer client.Close()
	claimed := map[string]int{}
	for p := range int32(4) {
		where := broker.Partition{Topic: "millrace.journal", ID: p}
		end, err := client.End(a.t.Context(), where)
		if err != nil {
			a.t.Fatal(err)
		}
		reader, err := client.Read(where, 0)
		if err != nil {
			a.t.Fatal(err)
		}
		var parser record.Parser
		for next := int64(0); next < end; {
			batch, err := reader.Next(a.t.Context())
			if err != nil {
				a.t.Fatal(err)
			}
			for i := range batch.Records {
				var env record.Envelope
				if parser.Parse(batch.Records[i].Header(record.HeaderKey), &env) == nil && env.Claim != nil {
					claimed[env.Claim.Worker]++
				}
			}
			next = batch.Next
		}
		if err := reader.Close(); err != nil {
			a.t.Fatal(err)
		}
	}
	return claimed
}

func refused(t *testing.T, n *Node, want ...string) {
	t.Helper()
	err := n.Wait()
	if _, ok := errors.AsType[*NotOfAppError](err); !ok {
		t.Fatalf("the worker ended with %v, want a refusal", err)
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("refused with %q, want %q in it", err, text)
		}
	}
}

// TestAnotherServiceIsRefused: a worker of another service under the same app name joins nothing
// and claims nothing.
func TestAnotherServiceIsRefused(t *testing.T) {
	a := newApp(t, 1)
	c := a.config()
	c.Worker = "other"
	refused(t, a.try(c, local(t, "cart")), "owns nothing", "no entity type is served by both", "This worker serves: shop.v1.CartService",
		"Worker w0 serves: counter.v1.CounterService", "--app")
	if claims := a.claims(); claims["other"] != 0 || claims["w0"] == 0 {
		t.Errorf("claims %v, want none of the other worker", claims)
	}
	c = a.config()
	c.Worker = "renumbered"
	refused(t, a.try(c, altered(t, local(t, "counter"), func(file *descriptorpb.FileDescriptorProto) {
		for _, m := range file.GetMessageType() {
			if m.GetName() == "IncrementRequest" {
				m.GetField()[0].Number = proto.Int32(9)
			}
		}
	})), "field counter_id of message counter.v1.IncrementRequest: number 9 here, 1 there")
	if v, err := a.increment(a.workers[0].PublicAddress(), "x"); err != nil || v != 1 {
		t.Errorf("the app answers %d, %v", v, err)
	}
}

// TestJournalOfAnotherServiceIsRefused: no worker can be asked, and the journal knows.
func TestJournalOfAnotherServiceIsRefused(t *testing.T) {
	a := newApp(t, 1)
	a.workers[0].Stop() // what it has written are claims and releases
	if err := a.workers[0].Wait(); err != nil {
		t.Fatal(err)
	}
	c := a.config()
	c.Worker = "other"
	refused(t, a.try(c, local(t, "cart")), "none of the entity types in its journal is served here", "The journal millrace.journal serves: entities of type counter",
		"--services-changed")
	if claims := a.claims(); claims["other"] != 0 {
		t.Errorf("claims %v, want none of the other worker", claims)
	}
	c.ServicesChanged = true
	n := a.try(c, local(t, "cart"))
	eventually(t, "the renamed service to be ready", func() bool { return n.NotReady() == nil })
	n.Stop()
	if err := n.Wait(); err != nil {
		t.Fatal(err)
	}
	c.ServicesChanged = false // from then on the journal is its own
	n = a.try(c, local(t, "cart"))
	eventually(t, "the renamed service to be ready again", func() bool { return n.NotReady() == nil })
}

// TestOfTwoAtOnceOneLeaves: two workers that do not belong together have joined at the same time.
func TestOfTwoAtOnceOneLeaves(t *testing.T) {
	a := newApp(t, 1)
	n := a.workers[0] // serves the counter, and is called w0
	cart := discovery.EncodeOffers([]discovery.Offer{{
		Name: "shop.v1.CartService", Type: "cart",
		Kind: entities.EventSourced,
	}})
	self := broker.Member{Name: "w0", Serves: n.serves(), New: true}
	for name, c := range map[string]struct {
		other broker.Member
		stays bool
	}{
		"it was there":            {broker.Member{Name: "x", Serves: cart}, false},
		"new, with a larger name": {broker.Member{Name: "x", Serves: cart, New: true}, true},
		"new, with a smaller one": {broker.Member{Name: "a", Serves: cart, New: true}, false},
		"says nothing":            {broker.Member{Name: "a"}, true},
		"the same":                {broker.Member{Name: "a", Serves: n.serves()}, true},
	} {
		admit := n.admission().admit
		if err := admit(&broker.Table{Members: []broker.Member{c.other, self}}); (err == nil) != c.stays {
			t.Errorf("%s: %v, want that it stays: %t", name, err, c.stays)
		}
	}
	admit := n.admission().admit
	for _, table := range []*broker.Table{
		{Members: []broker.Member{self}},
		{Members: []broker.Member{self, {Name: "a", Serves: cart, New: true}}},
	} {
		if err := admit(table); err != nil {
			t.Errorf("a worker that was there leaves because of a newcomer: %v", err)
		}
	}
}

// TestRollingUpgrade: a worker with a method more joins, and its callers are told to retry while
// not all have it.
func TestRollingUpgrade(t *testing.T) {
	a := &app{t: t, world: newApp(t, 0).world}
	before := a.join(earlier(t), nil)
	eventually(t, "the first worker to be ready", func() bool { return before.NotReady() == nil })
	after := a.join(local(t, "counter"), nil)
	a.balanced()
	eventually(t, "both to know that there are two versions", func() bool {
		return before.routes.Current().Versions() == 2 && after.routes.Current().Versions() == 2
	})
	id := ""
	for i := 0; id == ""; i++ {
		if owner, _ := after.routes.Current().Owner(entities.Partition(fmt.Sprint("c", i), 4)); owner.Name == "w0" {
			id = fmt.Sprint("c", i)
		}
	}
	for _, n := range a.workers {
		if _, err := a.increment(n.PublicAddress(), id); err != nil {
			t.Errorf("what both serve fails at %s: %v", n.identity.Worker, err)
		}
		_, err := counterv1.NewCounterServiceClient(dial(t, n.PublicAddress())).Get(t.Context(),
			&counterv1.GetRequest{CounterId: id})
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "different versions") {
			t.Errorf("a new method at %s: %v, want that it is to be sent again", n.identity.Worker, err)
		}
	}
	page, err := after.service.Cluster(t.Context(), &adminv1.ClusterRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if p := page.GetPartlyServed(); page.GetVersions() != 2 || len(p) != 1 || p[0].GetService() != "counter.v1.CounterService" || p[0].GetMethod() != "Get" ||
		p[0].GetWorkers() != 1 || p[0].GetOfWorkers() != 2 || !slices.Equal(p[0].GetMissing(), []string{"w0"}) {
		t.Errorf("cluster status: %d versions, %v", page.GetVersions(), p)
	}
	if m := page.GetMembers(); m[0].GetServes() == "" || m[0].GetServes() == m[1].GetServes() {
		t.Errorf("the workers serve %q and %q", m[0].GetServes(), m[1].GetServes())
	}
	before.Stop()
	if err := before.Wait(); err != nil {
		t.Fatal(err)
	}
	a.workers = a.workers[1:]
	a.balanced()
	res, err := counterv1.NewCounterServiceClient(dial(t, after.PublicAddress())).Get(t.Context(),
		&counterv1.GetRequest{CounterId: id})
	if err != nil || res.GetValue() != 2 {
		t.Errorf("after the upgrade the method answers %v, %v", res, err)
	}
}
