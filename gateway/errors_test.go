package gateway_test

import (
	"context"
	"net/http"
	"strconv"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
)

// Every row of the error table, over native gRPC and plain HTTP.
func TestErrorTable(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, nil)
	cc := w.dial()
	for _, tc := range []struct {
		reason entities.Reason
		chosen codes.Code
		code   codes.Code
		status int
		bare   bool
	}{
		{entities.FunctionRefused, 0, codes.Unknown, 500, true},
		{entities.FunctionRefused, codes.FailedPrecondition, codes.FailedPrecondition, 400, false},
		{entities.FunctionRefused, codes.Canceled, codes.Canceled, 499, false},
		{entities.FunctionRefused, codes.Unknown, codes.Unknown, 500, false},
		{entities.FunctionRefused, codes.InvalidArgument, codes.InvalidArgument, 400, false},
		{entities.FunctionRefused, codes.DeadlineExceeded, codes.DeadlineExceeded, 504, false},
		{entities.FunctionRefused, codes.NotFound, codes.NotFound, 404, false},
		{entities.FunctionRefused, codes.AlreadyExists, codes.AlreadyExists, 409, false},
		{entities.FunctionRefused, codes.PermissionDenied, codes.PermissionDenied, 403, false},
		{entities.FunctionRefused, codes.ResourceExhausted, codes.ResourceExhausted, 429, false},
		{entities.FunctionRefused, codes.Aborted, codes.Aborted, 409, false},
		{entities.FunctionRefused, codes.OutOfRange, codes.OutOfRange, 400, false},
		{entities.FunctionRefused, codes.Unimplemented, codes.Unimplemented, 501, false},
		{entities.FunctionRefused, codes.Internal, codes.Internal, 500, false},
		{entities.FunctionRefused, codes.Unavailable, codes.Unavailable, 503, false},
		{entities.FunctionRefused, codes.DataLoss, codes.DataLoss, 500, false},
		{entities.FunctionRefused, codes.Unauthenticated, codes.Unauthenticated, 401, false},
		{entities.FunctionRefused, 99, codes.Unknown, 500, true},
		{entities.FunctionFailed, 0, codes.Unknown, 500, false},
		{entities.InvalidCommand, 0, codes.InvalidArgument, 400, false},
		{entities.UnknownMethod, 0, codes.Unimplemented, 404, false},
		{entities.NotSupported, 0, codes.Unimplemented, 501, false},
		{entities.TooLarge, 0, codes.ResourceExhausted, 413, false},
		{entities.Overloaded, 0, codes.ResourceExhausted, 429, false},
		{entities.Unavailable, 0, codes.Unavailable, 503, false},
		{entities.Moved, 0, codes.Aborted, 503, false},
		{entities.LostOutcome, 0, codes.Unavailable, 503, false},
		{entities.IDReused, 0, codes.FailedPrecondition, 422, false},
		{entities.Cancelled, 0, codes.Canceled, 499, false},
		{entities.Deadline, 0, codes.DeadlineExceeded, 504, false},
		{entities.Halted, 0, codes.Unavailable, 503, false},
		{entities.Internal, 0, codes.Internal, 500, false},
		{entities.Internal + 100, 0, codes.Internal, 500, false},
	} {
		for outcome, outcomeText := range map[entities.OutcomeClass]string{
			entities.NotApplied: "not_applied", entities.Refused: "refused", entities.Unknown: "unknown",
			entities.Applied: "applied",
		} {
			failure := &entities.Error{
				Reason: tc.reason, Code: uint32(tc.chosen), Outcome: outcome, Message: "why & <what>",
				RetryAfter: 1500 * time.Millisecond,
			}
			fake.unary = func(context.Context, *entities.Command) (*entities.Reply, error) { return nil, failure }
			name := strconv.Itoa(int(tc.reason)) + "/" + tc.code.String() + "/" + outcomeText

			var trailer metadata.MD
			err := cc.Invoke(t.Context(), "/shop.v1.CartService/Plain", w.message("CartRequest", `{"cartId":"1"}`),
				dynamicpb.NewMessage(w.messageType("Cart")), grpc.Trailer(&trailer))
			st := status.Convert(err)
			if st.Code() != tc.code || st.Message() != failure.Message || trailer.Get("millrace-outcome")[0] != outcomeText {
				t.Errorf("%s: %v %v", name, err, trailer)
			}
			if hint, ok := st.Details()[0].(*errdetails.RetryInfo); !ok ||
				hint.GetRetryDelay().AsDuration() != failure.RetryAfter {
				t.Errorf("%s: %v", name, st.Details())
			}

			want := `{"code":` + strconv.Itoa(int(tc.code)) +
				`,"message":"why & <what>","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo",` +
				`"retryDelay":"1.500s"}]}` + "\n"
			if tc.bare {
				want = "why & <what>"
			}
			for _, path := range []string{"/shop.v1.CartService/AddItem", "/v1/carts/1/items"} {
				got := w.http(http.MethodPost, path, `{"cartId":"1"}`, jsonType, jsonValue)
				if got.status != tc.status || got.body != want || got.header.Get("Millrace-Outcome") != outcomeText ||
					got.header.Get("Retry-After") != "2" {
					t.Errorf("%s %s: %d %v %s", name, path, got.status, got.header, got.body)
				}
			}
		}
	}
}

// Errors without a reason are internal, except for those of a context.
func TestErrorsWithoutReason(t *testing.T) {
	fake := &dispatcher{}
	w := newWorld(t, fake, nil)
	for _, tc := range []struct {
		err  error
		code codes.Code
	}{
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{context.Canceled, codes.Canceled},
		{http.ErrBodyNotAllowed, codes.Internal},
	} {
		fake.unary = func(context.Context, *entities.Command) (*entities.Reply, error) { return nil, tc.err }
		err := w.dial().Invoke(t.Context(), "/shop.v1.CartService/Plain", w.message("CartRequest", `{"cartId":"1"}`),
			dynamicpb.NewMessage(w.messageType("Cart")))
		if status.Code(err) != tc.code {
			t.Errorf("%v: %v", tc.err, err)
		}
	}
}

// Without a hint there is none, and details are an empty list.
func TestErrorWithoutHint(t *testing.T) {
	w := newWorld(t, &dispatcher{unary: func(context.Context, *entities.Command) (*entities.Reply, error) {
		return nil, entities.Errorf(entities.NotSupported, entities.NotApplied, "later")
	}}, nil)
	got := w.http(http.MethodPost, "/v1/carts/1/items", `{}`, jsonType, jsonValue)
	if got.body != `{"code":12,"message":"later","details":[]}`+"\n" || got.header.Get("Retry-After") != "" {
		t.Errorf("%v %s", got.header, got.body)
	}
}

// TestACrashHasAReference: a caller finds the reason of a crash in the worker's log, and HTTP/JSON
// has the same form as for other errors. On the code before, the body was the bare text.
func TestACrashHasAReference(t *testing.T) {
	crash := entities.Errorf(entities.FunctionFailed, entities.NotApplied, "Unexpected entity failure")
	crash.Reference = "k7q2mz4a"
	w := newWorld(t, &dispatcher{
		unary: func(context.Context, *entities.Command) (*entities.Reply, error) { return nil, crash },
	}, nil)
	got := w.http(http.MethodPost, "/v1/carts/1/items", "{}", jsonType, jsonValue)
	if want := `{"code":2,"message":"Unexpected entity failure (reference k7q2mz4a)","details":[]}`; got.status != 500 ||
		got.body != want+"\n" || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %v %s; want %s", got.status, got.header, got.body, want)
	}
}
