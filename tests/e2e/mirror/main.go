// Command mirror is a worker for tests of effects: every increment of the counter a-x asks, by an effect, for the same
// increment of the counter b-x. While the file that MIRROR_CLOSED names exists, counters b-… fail on every command, as a
// function does that is broken for a while.
package main

import (
	"cmp"
	"errors"
	"os"
	"strings"

	"github.com/millrace-io/millrace"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/sdk"
)

func main() {
	millrace.Main(sdk.Value("counter",
		sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName, increment),
		sdk.HandleValue(counterv1.CounterService_Get_FullMethodName, get),
	))
}

func increment(cmd *sdk.ValueCommand[*counterv1.State], in *counterv1.IncrementRequest) (*counterv1.Counter, error) {
	side, name, _ := strings.Cut(in.GetCounterId(), "-")
	if side == "b" && closed() {
		panic(errors.New("closed for a while"))
	}
	by := cmp.Or(in.GetBy(), 1)
	value := cmd.State().GetValue() + by
	cmd.Update(&counterv1.State{Value: value})
	if side == "a" {
		cmd.Effect(counterv1.CounterService_Increment_FullMethodName, &counterv1.IncrementRequest{CounterId: "b-" + name, By: by})
	}
	return &counterv1.Counter{Value: value}, nil
}

func get(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.GetRequest) (*counterv1.Counter, error) {
	return &counterv1.Counter{Value: cmd.State().GetValue()}, nil
}

func closed() bool {
	_, err := os.Stat(os.Getenv("MIRROR_CLOSED"))
	return err == nil
}
