package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/examples/counter/counter"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	"github.com/millrace-io/millrace/internal/app/node"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kafkaserver"
	"github.com/millrace-io/millrace/tests/kit"
)

// TestTwoServicesAreNotOneApp starts two services under one app name on one broker. The second is
// refused, with both lists, and has claimed nothing; so is one without a name. The first goes on as
// if nothing had happened.
func TestTwoServicesAreNotOneApp(t *testing.T) {
	broker := kafkaserver.Start(t, kafkaserver.Options{})
	first := harness.Start(t, harness.Options{Program: harness.Counter, Command: "run", Args: []string{"--app", "shared", "--brokers", broker.Addr(), "--worker", "first"}})
	counters := counterv1.NewCounterServiceClient(first.Dial(t))
	sum := int64(0)
	add := func() {
		sum++
		if got, err := counters.Increment(t.Context(),
			&counterv1.IncrementRequest{CounterId: "account", By: 1}); err != nil || got.GetValue() != sum {
			t.Fatalf("the first service answers %v, %v; want %d", got, err, sum)
		}
	}
	add()
	second := harness.Launch(t, harness.Options{Program: harness.ShoppingCart, Command: "run", Args: []string{"--app", "shared", "--brokers", broker.Addr(), "--worker", "second"}})
	if code := second.AwaitExit(t); code != exitError {
		t.Errorf("the second service ended with %d, want %d", code, exitError)
	}
	contains(t, second.Output(t), "owns nothing", "This worker serves: shop.v1.CartService (event sourced cart)", "Worker first serves: counter.v1.CounterService", "--app")
	nameless := harness.Launch(t,
		harness.Options{Program: harness.ShoppingCart, Command: "run", Args: []string{"--brokers", broker.Addr()}})
	if code := nameless.AwaitExit(t); code == 0 {
		t.Error("a worker without an app name was started on Kafka")
	}
	contains(t, nameless.Output(t), "--app shop", "MILLRACE_APP")
	add()
	tail, err := adminv1.NewAdminServiceClient(first.DialAdmin(t)).Tail(t.Context(), &adminv1.TailRequest{})
	if err != nil {
		t.Fatal(err)
	}
	claims := 0
	for {
		r, err := tail.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(r.GetNote(), "claimed by second") {
			t.Errorf("partition %d, offset %d: %s", r.GetPartition(), r.GetOffset(), r.GetNote())
		}
		if strings.Contains(r.GetNote(), "claimed by first") {
			claims++
		}
	}
	if claims == 0 {
		t.Error("the journal has no claims: the test looks in the wrong place")
	}
}

// TestRollingUpgradeOnKafka replaces a worker by one whose service has a method more, under a
// caller that uses a gateway: what both versions serve is answered throughout, and the cluster
// shows that there are two.
func TestRollingUpgradeOnKafka(t *testing.T) {
	broker := kafkaserver.Start(t, kafkaserver.Options{})
	settings := func(worker string) map[string]string {
		return map[string]string{
			"app": "counters", "brokers": broker.Addr(), "worker": worker, "data": t.TempDir(), "ephemeral": "false", "peer": "127.0.0.1:0", "partitions": "4",
		}
	}
	before := harness.StartHosting(t, earlierCounter(t), settings("before"))
	harness.AwaitReady(t, before)
	door := harness.Start(t,
		harness.Options{Command: "gateway", Args: []string{"--app", "counters", "--brokers", broker.Addr()}})
	caller := counterv1.NewCounterServiceClient(door.Dial(t))
	stop, called := make(chan struct{}), make(chan error, 1)
	go func() { // ends with stop, received below
		for i := int64(1); ; i++ {
			select {
			case <-stop:
				called <- nil
				return
			default:
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), kit.Patience)
			got, err := caller.Increment(ctx, &counterv1.IncrementRequest{CounterId: "x", By: 1})
			cancel()
			if err != nil || got.GetValue() != i {
				called <- fmt.Errorf("call %d: %v, %w", i, got, err)
				return
			}
		}
	}()
	after := harness.StartHosting(t, counterFunction(t), settings("after"))
	harness.AwaitReady(t, after)
	admin := adminv1.NewAdminServiceClient(door.DialAdmin(t))
	kit.Await(t, "the cluster to show two versions", func() bool {
		seen, err := admin.Cluster(t.Context(), &adminv1.ClusterRequest{})
		partly := seen.GetPartlyServed()
		return err == nil && seen.GetVersions() == 2 && len(partly) == 1 && partly[0].GetMethod() == "Get" &&
			partly[0].GetWorkers() == 1 && partly[0].GetOfWorkers() == 2
	})
	before.Stop()
	if err := before.Wait(); err != nil {
		t.Fatal(err)
	}
	kit.Await(t, "the upgrade to be through", func() bool {
		seen, err := admin.Cluster(t.Context(), &adminv1.ClusterRequest{})
		return err == nil && seen.GetVersions() == 1 && len(seen.GetMembers()) == 1
	})
	kit.Await(t, "the new method at the gateway", func() bool {
		got, err := caller.Get(t.Context(), &counterv1.GetRequest{CounterId: "x"})
		return err == nil && got.GetValue() > 0
	})
	close(stop)
	if err := <-called; err != nil {
		t.Error(err)
	}
}

func counterFunction(t *testing.T) node.Local {
	t.Helper()
	f, err := inprocess.New(counter.Service)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// earlier is a function that declares less than it is made of.
type earlier struct {
	node.Local

	spec *cloudstate.EntitySpec
}

// Spec is the declaration of the version before.
func (e earlier) Spec() *cloudstate.EntitySpec { return e.spec }

// earlierCounter is the counter before its method Get was added.
func earlierCounter(t *testing.T) node.Local {
	t.Helper()
	f := counterFunction(t)
	spec := proto.CloneOf(f.Spec())
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(spec.GetProto(), set); err != nil {
		t.Fatal(err)
	}
	for _, file := range set.GetFile() {
		for _, s := range file.GetService() {
			s.Method = slices.DeleteFunc(s.GetMethod(), func(m *descriptorpb.MethodDescriptorProto) bool {
				return m.GetName() == "Get"
			})
		}
	}
	var err error
	if spec.Proto, err = proto.Marshal(set); err != nil {
		t.Fatal(err)
	}
	return earlier{f, spec}
}
