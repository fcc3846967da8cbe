// Package counter is the smallest service with a state: a value entity that is one number.
package counter

import (
	"cmp"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/sdk"
)

// Service is the counter service, ready to be run.
var Service = sdk.Value("counter",
	sdk.HandleValue(counterv1.CounterService_Increment_FullMethodName, increment),
	sdk.HandleValue(counterv1.CounterService_Get_FullMethodName, get),
)

func increment(cmd *sdk.ValueCommand[*counterv1.State], in *counterv1.IncrementRequest) (*counterv1.Counter, error) {
	value := cmd.State().GetValue() + cmp.Or(in.GetBy(), 1)
	cmd.Update(&counterv1.State{Value: value})
	return &counterv1.Counter{Value: value}, nil
}

func get(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.GetRequest) (*counterv1.Counter, error) {
	return &counterv1.Counter{Value: cmd.State().GetValue()}, nil
}
