// Command mirror is a worker for tests of effects: every increment of the counter a-x asks, by an
// effect, for the same increment of the counter b-x. While the file that MIRROR_CLOSED names
// exists, counters b-… fail on every command, as those of a broken function do.
//
// An increment of a counter t-x by a time, in milliseconds since 1970, changes nothing and sets a
// timer for that time. When it fires, the counter's lowest byte is one more, and the rest is by how
// many milliseconds it was late.
package main

import (
	"cmp"
	"errors"
	"os"
	"strings"
	"time"

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
	if side == "t" {
		return timed(cmd, in)
	}
	by := cmp.Or(in.GetBy(), 1)
	value := cmd.State().GetValue() + by
	cmd.Update(&counterv1.State{Value: value})
	if side == "a" {
		cmd.Effect(counterv1.CounterService_Increment_FullMethodName,
			&counterv1.IncrementRequest{CounterId: "b-" + name, By: by})
	}
	return &counterv1.Counter{Value: value}, nil
}

func timed(cmd *sdk.ValueCommand[*counterv1.State], in *counterv1.IncrementRequest) (*counterv1.Counter, error) {
	if due := in.GetBy(); due > 0 {
		cmd.After(max(time.UnixMilli(due).Sub(cmd.Time()), 0), "t", counterv1.CounterService_Increment_FullMethodName,
			&counterv1.IncrementRequest{CounterId: in.GetCounterId(), By: -due})
		return &counterv1.Counter{}, nil
	}
	late := cmd.Time().Sub(time.UnixMilli(-in.GetBy())).Milliseconds()
	value := cmd.State().GetValue()&0xff + 1 + late<<8
	cmd.Update(&counterv1.State{Value: value})
	return &counterv1.Counter{Value: value}, nil
}

func get(cmd *sdk.ValueCommand[*counterv1.State], _ *counterv1.GetRequest) (*counterv1.Counter, error) {
	return &counterv1.Counter{Value: cmd.State().GetValue()}, nil
}

func closed() bool {
	_, err := os.Stat(os.Getenv("MIRROR_CLOSED")) //nolint:gosec // the test that starts this program names the file
	return err == nil
}
