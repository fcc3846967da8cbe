package e2e_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kafkaserver"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// TestTwoServicesAreNotOneApp starts two services under one app name on one broker. The second is refused, with both lists, and has
// claimed nothing; so is one without a name. The first goes on as if nothing had happened.
func TestTwoServicesAreNotOneApp(t *testing.T) {
	broker := kafkaserver.Start(t, kafkaserver.Options{})
	first := harness.Start(t, harness.Options{Program: harness.Counter, Command: "run", Args: []string{"--app", "shared", "--brokers", broker.Addr(), "--worker", "first"}})
	counter := counterv1.NewCounterServiceClient(first.Dial(t))
	sum := int64(0)
	add := func() {
		sum++
		if got, err := counter.Increment(t.Context(), &counterv1.IncrementRequest{CounterId: "account", By: 1}); err != nil || got.GetValue() != sum {
			t.Fatalf("the first service answers %v, %v; want %d", got, err, sum)
		}
	}
	add()
	second := harness.Launch(t, harness.Options{Program: harness.ShoppingCart, Command: "run", Args: []string{"--app", "shared", "--brokers", broker.Addr(), "--worker", "second"}})
	if code := second.AwaitExit(t); code != exitError {
		t.Errorf("the second service ended with %d, want %d", code, exitError)
	}
	contains(t, second.Output(t), "has taken nothing", "This worker serves: shop.v1.CartService (event sourced cart)", "Worker first serves: counter.v1.CounterService", "--app")
	nameless := harness.Launch(t, harness.Options{Program: harness.ShoppingCart, Command: "run", Args: []string{"--brokers", broker.Addr()}})
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
