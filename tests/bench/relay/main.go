// Command relay is the worker of the benchmark's part parked: the name of a counter decides which
// effects an increment has.
//
//	a-x    as many effects as it is incremented by, each an increment of one of the counters b-0 to b-1023
//	lost-x as many effects without an entity key, which are parked at once
//	dead-x as many effects for entities of another service, whose function does not answer
//
// A read of the counter "delivered" returns how often the function has run for counters b-… in this
// process.
package main

import (
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/millrace-io/millrace"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/sdk"
	"github.com/millrace-io/millrace/tests/conformance/proto/vemodel"
)

// targets is the number of counters that effects go to.
const targets = 1024

var delivered atomic.Int64 //nolint:gochecknoglobals // one figure of the process

func main() {
	millrace.Main(
		sdk.Value("counter",
			sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName, increment),
			sdk.HandleValue(counterv1.CounterService_Get_FullMethodName, get)),
		sdk.Value("dead", sdk.HandleValue(vemodel.ValueEntityTckModel_Process_FullMethodName, hang)))
}

func increment(cmd *sdk.ValueCommand[*counterv1.State], in *counterv1.IncrementRequest) (*counterv1.Counter, error) {
	before := cmd.State().GetValue()
	value := before + in.GetBy()
	cmd.Update(&counterv1.State{Value: value})
	side, _, _ := strings.Cut(in.GetCounterId(), "-")
	if side == "b" {
		delivered.Add(1)
		return &counterv1.Counter{Value: value}, nil
	}
	for n := before; n < value; n++ {
		switch side {
		case "a":
			target := "b-" + strconv.FormatInt(n%targets, 10)
			cmd.Effect(counterv1.CounterService_Increment_FullMethodName, &counterv1.IncrementRequest{CounterId: target, By: 1})
		case "lost":
			cmd.Effect(counterv1.CounterService_Increment_FullMethodName, &counterv1.IncrementRequest{By: 1})
		case "dead":
			id := in.GetCounterId() + "-" + strconv.FormatInt(n, 10)
			cmd.Effect(vemodel.ValueEntityTckModel_Process_FullMethodName, &vemodel.Request{Id: id})
		}
	}
	return &counterv1.Counter{Value: value}, nil
}

func get(cmd *sdk.ValueCommand[*counterv1.State], in *counterv1.GetRequest) (*counterv1.Counter, error) {
	if in.GetCounterId() == "delivered" {
		return &counterv1.Counter{Value: delivered.Load()}, nil
	}
	return &counterv1.Counter{Value: cmd.State().GetValue()}, nil
}

// hang never answers.
func hang(*sdk.ValueCommand[*vemodel.Persisted], *vemodel.Request) (*vemodel.Response, error) {
	select {}
}
