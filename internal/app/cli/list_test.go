package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/sdk"
)

// reminding is a counter that remembers, a day later and each morning, and tells another counter.
func reminding() *sdk.Service {
	return sdk.Value("counter",
		sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], in *counterv1.IncrementRequest) (*counterv1.Counter, error) {
				cmd.After(24*time.Hour, "later", counterv1.CounterService_Get_FullMethodName,
					&counterv1.GetRequest{CounterId: cmd.EntityID()})
				cmd.Every("0 6 * * *", "morning", counterv1.CounterService_Get_FullMethodName,
					&counterv1.GetRequest{CounterId: cmd.EntityID()})
				if in.GetCounterId() == "a" {
					cmd.Effect(counterv1.CounterService_Increment_FullMethodName, &counterv1.IncrementRequest{CounterId: "b"})
				}
				cmd.Update(&counterv1.State{Value: 1})
				return &counterv1.Counter{Value: 1}, nil
			}),
		sdk.HandleValue(counterv1.CounterService_Get_FullMethodName,
			func(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.GetRequest) (*counterv1.Counter, error) {
				return &counterv1.Counter{Value: cmd.State().GetValue()}, nil
			}))
}

// Pending timers are listed with name, due time, schedule and target; the log says what its records
// about timers, effects and settlements are about.
func TestTimersAndRecords(t *testing.T) {
	t.Chdir(t.TempDir())
	p := Program{Local: function(t, reminding())}
	s := p.serveIn(t, "dev", "--ephemeral", "--partitions", "2")
	s.connect(t)
	const method = "counter.v1.CounterService/Increment"
	if r := p.runIn(t, false, "", "call", method, "-d", `{"counter_id":"a"}`); r.code != exitOK {
		t.Fatal(r.stderr)
	}
	tail := newScreen(true)
	ctx, enough := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { // ends with enough; received below
		ended <- p.Run(ctx, []string{"log", "tail", "--from-start"}, strings.NewReader(""), tail, newScreen(true))
	}()
	tail.await(t, `settled +1 +done \d`)
	tail.await(t, `timer-set +counter/b +1 +"morning" due [-\d]+ [:.\d]+ by schedule "0 6 \* \* \*"  to counter.v1.CounterService/Get`)
	tail.await(t, `effect +counter/a +1 +to counter.v1.CounterService/Increment  counter.v1.IncrementRequest`)
	enough()
	if code := <-ended; code != exitOK {
		t.Errorf("exit code %d", code)
	}
	r := p.runIn(t, true, "", "timers", "counter/a")
	mustContain(t, "the timers", r.stdout, "ENTITY     NAME     DUE", "counter/a  later ", "counter/a  morning", "0 6 * * *",
		"counter.v1.CounterService/Get", `counter.v1.GetRequest {"counterId":"a"}`)
	if r := p.runIn(t, false, "", "timers", "-o", "name"); len(strings.Fields(r.stdout)) != 4 {
		t.Errorf("all timers: %s%s", r.stdout, r.stderr)
	}
	first := p.runIn(t, false, "", "timers", "counter", "--limit", "3", "-o", "name")
	token := strings.Fields(first.stderr)
	rest := p.runIn(t, false, "", "timers", "counter", "--page-token", token[len(token)-1], "-o", "name")
	if all := strings.Fields(first.stdout + rest.stdout); len(all) != 4 || len(strings.Fields(rest.stdout)) != 1 {
		t.Errorf("page by page: %q", all)
	}
	s.stop(t)
}
