package counter_test

import (
	"testing"

	"github.com/millrace-io/millrace/examples/counter/counter"
	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

const (
	increment = counterv1.CounterService_Increment_FullMethodName
	get       = counterv1.CounterService_Get_FullMethodName
)

func TestIncrementAddsByAndByOneWithoutIt(t *testing.T) {
	s := sdktest.New(t, counter.Service, "hits")
	s.When(increment, &counterv1.IncrementRequest{CounterId: "hits"}).
		ThenReply(&counterv1.Counter{Value: 1}).
		ThenState(&counterv1.State{Value: 1})
	s.When(increment, &counterv1.IncrementRequest{CounterId: "hits", By: 41}).
		ThenReply(&counterv1.Counter{Value: 42}).
		ThenState(&counterv1.State{Value: 42})
	s.When(increment, &counterv1.IncrementRequest{CounterId: "hits", By: -2}).
		ThenReply(&counterv1.Counter{Value: 40})
}

func TestGetChangesNothing(t *testing.T) {
	s := sdktest.New(t, counter.Service, "hits")
	s.When(get, &counterv1.GetRequest{CounterId: "hits"}).ThenReply(&counterv1.Counter{}).ThenState(nil)
	s.Given(&counterv1.State{Value: 7}).
		When(get, &counterv1.GetRequest{CounterId: "hits"}).
		ThenReply(&counterv1.Counter{Value: 7}).
		ThenState(&counterv1.State{Value: 7})
}
