package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// call calls a method of the served function.
func call() *cobra.Command {
	var data, id, consistency, atLeast, maxStaleness, address string
	var headers []string
	cmd := &cobra.Command{
		Use:   "call SERVICE/METHOD",
		Short: "Call a method of the function, with JSON",
		Long: `Call a method of the function with a JSON request. Replies are printed as one JSON document per line,
the token of the answer on standard error. A method with streamed input takes any number of documents.`,
		Example: `  millrace call shop.v1.CartService/AddItem -d '{"cart_id":"42","item_id":"apple","quantity":2}'
  echo '{"cart_id":"42"}' | millrace call shop.v1.CartService/GetCart -d -`,
		Args: exactly(1, "the method to call, as in shop.v1.CartService/AddItem"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if data == "-" {
				content, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxMessage))
				if err != nil {
					return err
				}
				data = string(content)
			}
			if cmd.Flags().Changed("id") && id == "" {
				return usagef("--id is empty: use a unique id for each command, such as a UUID, or leave it out")
			}
			md := metadata.MD{}
			for _, h := range headers {
				name, value, found := strings.Cut(h, ":")
				if !found {
					return usagef("header %q: write it as name: value", h)
				}
				md.Append(strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value))
			}
			for name, value := range map[string]string{
				"millrace-command-id": id, "millrace-consistency": consistency, "millrace-min-token": atLeast, "millrace-max-staleness": maxStaleness,
			} {
				if value != "" {
					md.Append(name, value) // in addition to one from -H, which must be equal
				}
			}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				method, err := findMethod(ctx, a, args[0])
				if err != nil {
					return err
				}
				if address == "" {
					c, err := clientConfig(cmd)
					if err != nil {
						return err
					}
					address = c.Listen
				}
				return explain(invoke(metadata.NewOutgoingContext(ctx, md), cmd.OutOrStdout(), cmd.ErrOrStderr(), address,
					method, data), address)
			})
		},
	}
	addClient(cmd)
	cmd.Flags().StringVarP(&data, "data", "d", "{}", "request as JSON; - reads standard input")
	cmd.Flags().StringVar(&id, "id", "",
		"command id, to deduplicate retries: repeated with the same id, a command that stored something gets the same answer")
	cmd.Flags().StringVar(&consistency, "consistency", "",
		"consistency of a read: strong (default), eventual, bounded, at_least, local")
	cmd.Flags().StringVar(&atLeast, "at-least", "", "token of an earlier answer; the read includes what that answer saw")
	cmd.Flags().StringVar(&maxStaleness, "max-staleness", "", "longest staleness of a read, for example 500ms")
	cmd.Flags().StringVar(&address, "address", "",
		"public address (default: from millrace.yaml or MILLRACE_LISTEN)")
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil, "metadata to send, as name: value")
	return cmd
}

// findMethod looks a method up in the descriptors of the running process.
func findMethod(ctx context.Context, a adminv1.AdminServiceClient, name string) (protoreflect.MethodDescriptor, error) {
	res, err := a.Descriptors(ctx, &adminv1.DescriptorsRequest{})
	if err != nil {
		return nil, err
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(res.GetFileDescriptorSet(), set); err != nil {
		return nil, fmt.Errorf("descriptors of the function: %w", err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, fmt.Errorf("descriptors of the function: %w", err)
	}
	service, method, found := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	if !found {
		return nil, usagef("%q: write the method as package.Service/Method", name)
	}
	d, err := files.FindDescriptorByName(protoreflect.FullName(service))
	sd, isService := d.(protoreflect.ServiceDescriptor)
	if err != nil || !isService {
		return nil, status.Errorf(codes.NotFound, "no service %s is served; see `millrace status`", service)
	}
	md := sd.Methods().ByName(protoreflect.Name(method))
	if md == nil {
		var names []string
		for i := range sd.Methods().Len() {
			names = append(names, string(sd.Methods().Get(i).Name()))
		}
		return nil, status.Errorf(codes.NotFound, "service %s has no method %s; it has %s", service, method,
			strings.Join(names, ", "))
	}
	return md, nil
}

// invoke makes the call and prints the replies.
func invoke(ctx context.Context, stdout, stderr io.Writer, address string, method protoreflect.MethodDescriptor,
	data string,
) error {
	requests, err := readRequests(method, data)
	if err != nil {
		return err
	}
	conn, err := dial(address)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // only read
	desc := &grpc.StreamDesc{ClientStreams: method.IsStreamingClient(), ServerStreams: method.IsStreamingServer()}
	stream, err := conn.NewStream(ctx, desc, fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()))
	if err != nil {
		return err
	}
	for _, r := range requests {
		if err := stream.SendMsg(r); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		reply := dynamicpb.NewMessage(method.Output())
		if err := stream.RecvMsg(reply); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if err := printMessage(stdout, reply); err != nil {
			return err
		}
		if !method.IsStreamingServer() {
			break
		}
	}
	if token := answerToken(stream); token != "" {
		fmt.Fprintf(stderr, "token %s\n", token)
	}
	return nil
}

func answerToken(stream grpc.ClientStream) string {
	if header, err := stream.Header(); err == nil {
		if v := header.Get("millrace-token"); len(v) > 0 {
			return v[0]
		}
	}
	if v := stream.Trailer().Get("millrace-token"); len(v) > 0 {
		return v[0]
	}
	return ""
}

// readRequests reads JSON documents, exactly one unless the input streams.
func readRequests(method protoreflect.MethodDescriptor, data string) ([]proto.Message, error) {
	var requests []proto.Message
	documents := json.NewDecoder(strings.NewReader(data))
	for {
		var raw json.RawMessage
		if err := documents.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, usagef("request is not JSON: %w", err)
		}
		msg := dynamicpb.NewMessage(method.Input())
		if err := protojson.Unmarshal(raw, msg); err != nil {
			return nil, usagef("invalid %s: %s", method.Input().FullName(), plain(err))
		}
		requests = append(requests, msg)
	}
	if !method.IsStreamingClient() && len(requests) != 1 {
		return nil, usagef("%s takes one request, got %d", method.Name(), len(requests))
	}
	return requests, nil
}

// plain returns the message of protobuf's JSON decoder, which varies its spaces at random.
func plain(err error) string {
	return strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
}

// printMessage prints a reply: indented on a terminal, otherwise on one line.
func printMessage(w io.Writer, msg proto.Message) error {
	if !isTerminal(w) {
		return printLine(w, msg)
	}
	b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(msg)
	if err != nil {
		return err
	}
	var lines bytes.Buffer
	if err := json.Indent(&lines, b, "", "  "); err != nil { // protobuf's own white space is random
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", lines.Bytes())
	return err
}
