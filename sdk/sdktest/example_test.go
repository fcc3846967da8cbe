package sdktest_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/millrace-io/millrace/sdk"
	scriptv1 "github.com/millrace-io/millrace/sdk/internal/script/v1"
	"github.com/millrace-io/millrace/sdk/sdktest"
)

// In a test, t is the *testing.T.
func ExampleNew() {
	t := printingT{}
	service := journal(emitAll, appendText)

	s := sdktest.New(t, service, "e1").
		Given(&scriptv1.Appended{Text: "A"}).
		When(scriptv1.JournalService_Run_FullMethodName, emit("B")).
		ThenEvents(&scriptv1.Appended{Text: "B"}).
		ThenReply(&scriptv1.RunResponse{Text: "AB"})
	s.When(scriptv1.JournalService_Run_FullMethodName, then(emit(), refuse("not now"))).
		ThenRefused(codes.FailedPrecondition, "not now")
	fmt.Println("ok")
	// Output:
	// ok
}

// A handler that changes the state by itself is found, although every answer looks right.
func ExampleScenario_When() {
	service := journal(func(n *note, cmd *sdk.Command, _ *scriptv1.RunRequest) (*scriptv1.RunResponse, error) {
		cmd.Emit(&scriptv1.Appended{Text: "A"})
		n.Text = "B"
		return &scriptv1.RunResponse{Text: n.Text}, nil
	}, appendText)

	done := make(chan struct{})
	go func() {
		defer close(done)
		scenario := sdktest.New(&fakeT{ctx: context.Background(), output: os.Stdout}, service, "e1")
		scenario.When(scriptv1.JournalService_Run_FullMethodName, emit())
	}()
	<-done
	// Output:
	// When Run: the image in memory differs from one that is replayed from all its events or its stored value: sdktest_test.note.Text is B in memory, but A after rebuilding
	// a handler changed the state outside of sdk.On, or sdk.On depends on more than state and event
}

// A whole worker answers generated clients, and all clients of gRPC, gRPC-Web, Connect or
// HTTP/JSON.
func ExampleWorker() {
	t := &cleaningT{}
	defer t.end()

	w := sdktest.Worker(t, journal(emitAll, appendText))
	client := scriptv1.NewJournalServiceClient(w.Conn())
	for _, text := range []string{"A", "B"} {
		reply, err := client.Run(t.Context(), emit(text))
		fmt.Println(reply.GetText(), err)
		w.Advance(time.Hour) // long enough for the entity to leave memory
	}
	// Output:
	// A <nil>
	// AB <nil>
}

// cleaningT is a test that must not fail, and that has cleanup functions.
type cleaningT struct {
	printingT
	cleanups []func()
}

func (c *cleaningT) Cleanup(f func()) { c.cleanups = append(c.cleanups, f) }

func (*cleaningT) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func (c *cleaningT) end() {
	for _, f := range slices.Backward(c.cleanups) {
		f()
	}
}

// printingT is a test that must not fail.
type printingT struct{}

func (printingT) Helper() {}

func (printingT) Context() context.Context { return context.Background() }

func (printingT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
