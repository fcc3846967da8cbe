package e2e_test

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kafkaserver"

	"github.com/millrace-io/millrace/tests/kit"
)

// defaultKafkaRounds is how often a test kills a broker, or a worker on one, if the environment says nothing: each takes
// seconds.
const defaultKafkaRounds = 2

// kafkaCodes are what callers may see: UNAVAILABLE when it is not known whether the log took their command, ABORTED when it
// did not and the partition did not come back in time.
var kafkaCodes = []codes.Code{codes.Unavailable, codes.Aborted}

// TestCrashOfTheBrokerLosesNothing kills the broker under load, every second time the worker with it. Every event that was acknowledged is there, for callers and
// for a plain consumer of the topic.
func TestCrashOfTheBrokerLosesNothing(t *testing.T) {
	broker := kafkaserver.Start(t, kafkaserver.Options{})
	f := harness.StartRemote(t, harness.ShoppingCart)
	p := harness.Start(t, harness.Options{Command: "run", Args: []string{"--app", "shop", "--brokers", broker.Addr(), "--function", f.Address()}})
	l := newLoad(t, loadOptions{conn: p.Dial(t), carts: true, mayFail: kafkaCodes})
	l.start()
	n := kit.CrashRounds.NumberOr(t, defaultKafkaRounds)
	for i := range n {
		l.awaitAnswers()
		l.expectTrouble()
		if err := broker.Kill(); err != nil {
			t.Fatal(err)
		}
		both := i%2 == 1
		if both {
			p.Kill(t)
		}
		broker.MustRestart(t)
		if both {
			p.Restart(t)
		}
	}
	l.awaitAnswers()
	l.stop()
	l.check()
	p.Kill(t)
	p.Restart(t)
	l.check()
	t.Logf("a plain consumer has read %d events", checkTopic(t, broker.Addr(), l))
	l.report(n)
}

// TestCrashOfTheWorkerOnKafkaRepeatsNothing kills a worker that hosts its function in process. Callers who got no answer
// send their command again under its id: every command has happened once.
func TestCrashOfTheWorkerOnKafkaRepeatsNothing(t *testing.T) {
	broker := kafkaserver.Start(t, kafkaserver.Options{})
	p := harness.Start(t, harness.Options{Program: harness.Counter, Command: "run", Args: []string{"--app", "shop", "--brokers", broker.Addr()}})
	l := newLoad(t, loadOptions{conn: p.Dial(t), counters: true, ids: true, mayFail: kafkaCodes})
	l.start()
	n := kit.CrashRounds.NumberOr(t, defaultKafkaRounds)
	for range n {
		l.awaitAnswers()
		l.expectTrouble()
		p.Kill(t)
		p.Restart(t)
	}
	l.awaitAnswers()
	l.stop()
	l.check()
	l.report(n)
}

// checkTopic reads the journal as somebody who knows nothing of millrace: a key and a value. Every item that is certainly in
// a cart must have its event under the cart's key, as the function wrote it. It returns how many events those are.
func checkTopic(t *testing.T, address string, l *load) int {
	t.Helper()
	wanted := map[string]bool{}
	for _, c := range l.callers {
		for _, b := range c.baskets {
			for item := range b.items {
				event, err := proto.Marshal(&shopv1.ItemAdded{Item: &shopv1.Item{ItemId: item, Name: itemName, Quantity: 1}})
				if err != nil {
					t.Fatal(err)
				}
				wanted["cart/"+b.id+" "+string(event)] = true
			}
		}
	}
	events := len(wanted)
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumeTopics("shop.journal"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), progressTimeout)
	defer cancel()
	for len(wanted) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Errorf("%d of %d events are not in the topic, among them %q: %v", len(wanted), events, slices.Sorted(maps.Keys(wanted))[0], err)
			break
		}
		fetches.EachRecord(func(r *kgo.Record) { delete(wanted, string(r.Key)+" "+string(r.Value)) })
	}
	return events - len(wanted)
}
