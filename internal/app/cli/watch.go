package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// watchAgain is the pause before a watch that was broken off goes on.
const watchAgain = time.Second

// watchCommand shows how the rows of a query change.
func watchCommand() *cobra.Command {
	q := &querying{}
	var resume string
	cmd := &cobra.Command{
		Use: "watch NAME.QUERY", Short: "Follow the rows of a query",
		Long: `Print the rows of a query whose definition has watch, and then what changes of them, as one JSON document per line:
upsert has a row that is new or has changed, delete the key of one that does not belong to the query any more, synced
says that all so far is one state, bookmark that nothing has changed, and reset that all rows follow again. If the
worker goes away the watch goes on at the same place. At the end its token goes to standard error; --resume goes on
there.`,
		Example: "  millrace watch orders.ListOpen\n" +
			"  millrace watch orders.ListByCustomer -p customer_id=7 --filter 'total_cents > 1000'",
		Args: exactly(1, "a projection and its query, as in orders.ListOpen"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var types *functionTypes
			err := admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) (err error) {
				types, err = served(ctx, a)
				return err
			})
			if err != nil {
				return err
			}
			method, err := watchOf(types, args[0])
			if err != nil {
				return err
			}
			if q.address == "" {
				c, err := clientConfig(cmd)
				if err != nil {
					return err
				}
				q.address = c.Listen
			}
			return q.watch(cmd, types, method, resume)
		},
	}
	addClient(cmd)
	cmd.Flags().StringArrayVarP(&q.params, "param", "p", nil,
		"parameter of the query, as name=value; repeatable, as often as a list has items")
	cmd.Flags().StringVar(&q.filter, "filter", "", "only rows that it holds for (AIP-160)")
	cmd.Flags().StringVar(&q.mask, "fields", "", "only these fields of the rows, as in order_id,status")
	cmd.Flags().StringVar(&resume, "resume", "", "go on behind the token of an earlier watch")
	cmd.Flags().StringVar(&q.address, "address", "", "public address (default: from millrace.yaml or MILLRACE_LISTEN)")
	return cmd
}

// watchOf finds the method that watches a query, which may be named itself.
func watchOf(types *functionTypes, name string) (protoreflect.MethodDescriptor, error) {
	projection, query, _ := strings.Cut(name, ".")
	service, err := types.queries(projection)
	if err != nil {
		return nil, err
	}
	method := service.Methods().ByName(protoreflect.Name("Watch" + strings.TrimPrefix(strings.TrimPrefix(query, "Watch"), "List")))
	if method != nil && method.IsStreamingServer() {
		return method, nil
	}
	var watched []string
	for i := range service.Methods().Len() {
		if m := service.Methods().Get(i); m.IsStreamingServer() {
			watched = append(watched, projection+"."+string(m.Name()))
		}
	}
	if len(watched) == 0 {
		return nil, status.Errorf(codes.NotFound, "no query of projection %s has watch in its definition", projection)
	}
	return nil, status.Errorf(codes.NotFound, "%s is not watched; there are %s", name, strings.Join(watched, ", "))
}

// watch prints frames until it is interrupted, and goes on when the worker was away.
func (q *querying) watch(
	cmd *cobra.Command, types *functionTypes, m protoreflect.MethodDescriptor, token string,
) error {
	request, err := q.request(types, m)
	if err != nil {
		return err
	}
	conn, err := dial(q.address)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // only read
	ctx := cmd.Context()
	for away := false; ; {
		if token != "" {
			request.Set(m.Input().Fields().ByName("resume"), protoreflect.ValueOfString(token))
		}
		err := frames(ctx, conn, m, request, func(frame *dynamicpb.Message) error {
			if next := textOf(frame, "token"); next != "" {
				token = next
			}
			away = false
			return printFrame(cmd.OutOrStdout(), types, frame)
		})
		code := status.Code(err)
		switch {
		case ctx.Err() != nil:
			_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "token "+token)
			return context.Cause(ctx)
		case code != codes.Unavailable || token == "":
			return explain(err, q.address)
		case !away:
			away = true
			_, _ = fmt.Fprintln(cmd.ErrOrStderr(),
				visible("the watch was broken off and goes on: "+status.Convert(err).Message()))
		}
		select {
		case <-time.After(watchAgain):
		case <-ctx.Done():
		}
	}
}

// frames calls a watch, and gives each frame that comes to each, until there is an error.
func frames(ctx context.Context, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, request *dynamicpb.Message,
	each func(*dynamicpb.Message) error,
) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true},
		fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()))
	if err == nil {
		err = stream.SendMsg(request)
	}
	if err == nil {
		err = stream.CloseSend()
	}
	for err == nil {
		frame := dynamicpb.NewMessage(m.Output())
		if err = stream.RecvMsg(frame); err == nil {
			err = each(frame)
		}
	}
	if errors.Is(err, io.EOF) {
		return status.Error(codes.Unavailable, "the stream has ended")
	}
	return err
}

func printFrame(w io.Writer, types *functionTypes, frame *dynamicpb.Message) error {
	text, err := (protojson.MarshalOptions{Resolver: types}).Marshal(frame)
	if err != nil {
		return err
	}
	line, err := compact(text)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", visibleJSON(line))
	return err
}
