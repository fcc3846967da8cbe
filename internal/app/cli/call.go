package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// call calls a method of the served function.
func call() *cobra.Command {
	var data, id, consistency, atLeast, maxStaleness, address string
	var headers []string
	cmd := &cobra.Command{
		Use:   "call SERVICE/METHOD",
		Short: "Call a method of the function, with JSON",
		Long: `Call a method of the function with a JSON request. Replies are printed as one JSON document per line, and
the token of the answer on standard error. After an error the outcome says whether the command took effect. A method
with streamed input takes any number of documents. JSON is that of protobuf: 64-bit numbers are strings.`,
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
				name, value, err := headerArg(h)
				if err != nil {
					return err
				}
				md.Append(name, value)
			}
			for name, value := range map[string]string{
				"millrace-command-id": id, "millrace-consistency": consistency, "millrace-min-token": atLeast, "millrace-max-staleness": maxStaleness,
			} {
				if value != "" {
					md.Append(name, value) // in addition to one from -H, which must be equal
				}
			}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				f, err := served(ctx, a)
				if err != nil {
					return err
				}
				method, err := f.method(args[0])
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
				c := &calling{types: f, method: method, out: callOutput(cmd), stderr: cmd.ErrOrStderr()}
				return explain(c.run(metadata.NewOutgoingContext(ctx, md), address, data), address)
			})
		},
	}
	addClient(cmd)
	addOutputWith(cmd, "json")
	cmd.Flags().StringVarP(&data, "data", "d", "{}", "request as JSON; - reads standard input")
	cmd.Flags().StringVar(&id, "id", "",
		"command id, for deduplication: a retry with the same id takes no effect again, and gets the stored answer")
	cmd.Flags().StringVar(&consistency, "consistency", "",
		"consistency of a read: strong (default), eventual, bounded, at_least, local")
	cmd.Flags().StringVar(&atLeast, "at-least", "", "token of an earlier answer; the read includes what that answer saw")
	cmd.Flags().StringVar(&maxStaleness, "max-staleness", "", "longest staleness of a read, for example 500ms")
	cmd.Flags().StringVar(&address, "address", "",
		"public address (default: from millrace.yaml or MILLRACE_LISTEN)")
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil,
		"metadata to send, as name: value; the value of a name that ends in -bin is base64")
	return cmd
}

// headerArg reads name: value. Values of binary headers are bytes.
func headerArg(arg string) (name, value string, err error) {
	name, value, found := strings.Cut(arg, ":")
	name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
	switch {
	case !found:
		return "", "", usagef("header %q: write it as name: value", arg)
	case !headerName.MatchString(name):
		return "", "", usagef("header %q: a name has letters, digits, and any of - _ . only", arg)
	case strings.HasPrefix(name, "grpc-"):
		return "", "", usagef("header %q: names that begin with grpc- belong to the protocol", arg)
	}
	if !strings.HasSuffix(name, "-bin") {
		for _, r := range value {
			if r < ' ' || r > '~' {
				return "", "", usagef("header %q: a value has printable ASCII only; send other bytes, in base64, under a name that ends in -bin", arg)
			}
		}
		return name, value, nil
	}
	digits := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(value, "="))
	b, err := base64.RawStdEncoding.DecodeString(digits)
	if err != nil {
		return "", "", usagef("header %q: the value of a name that ends in -bin is base64: %w", arg, err)
	}
	return name, string(b), nil
}

var headerName = regexp.MustCompile(`^[0-9a-z_.-]+$`)

// callOutput is the output of a call: replies are JSON unless something else is asked for.
func callOutput(cmd *cobra.Command) output {
	o := outputOf(cmd, cmd.OutOrStdout())
	if chosen(cmd) == "" {
		o.format = formatJSON
	}
	return o
}

// calling is one call of a method.
type calling struct {
	types  *functionTypes
	method protoreflect.MethodDescriptor
	out    output
	stderr io.Writer
}

// run makes the call and prints the replies, and the token or the outcome.
func (c *calling) run(ctx context.Context, address, data string) error {
	if c.out.format == formatName {
		return usagef("a reply has no name: use -o json, yaml or table")
	}
	requests, err := c.requests(data)
	if err != nil {
		return err
	}
	conn, err := dial(address)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // only read
	desc := &grpc.StreamDesc{ClientStreams: c.method.IsStreamingClient(), ServerStreams: c.method.IsStreamingServer()}
	stream, err := conn.NewStream(ctx, desc, fmt.Sprintf("/%s/%s", c.method.Parent().FullName(), c.method.Name()),
		grpc.ForceCodec(encodedMessages{}))
	var printed error
	if err == nil {
		printed, err = c.exchange(stream, requests)
	}
	return errors.Join(err, printed, c.verdict(stream, explain(err, address)))
}

// verdict prints the token of an answer and, after an error of the call, its outcome: whether the
// command took effect. A call that broke off has none, so that this is unknown, unless it was never
// sent, or to a port that does not serve it.
func (c *calling) verdict(stream grpc.ClientStream, failed error) error {
	token, outcome := "", ""
	if stream != nil {
		token, outcome = answered(stream, "millrace-token"), answered(stream, "millrace-outcome")
	}
	_, unsent := errors.AsType[*unreachableError](failed)
	_, notServed := errors.AsType[usageError](failed) // at this address
	if unsent || notServed {
		outcome = "not_applied"
	} else if failed != nil {
		outcome = cmp.Or(outcome, "unknown")
	}
	var err error
	if token != "" {
		err = printf(c.stderr, "token %s\n", token)
	}
	if outcome != "" {
		err = errors.Join(err, printf(c.stderr, "outcome %s\n", outcome))
	}
	return err
}

// exchange sends the requests and prints the replies. After an error of printing the rest is
// received all the same, because the end of the call has its outcome.
func (c *calling) exchange(stream grpc.ClientStream, requests [][]byte) (printed, err error) {
	for _, r := range requests {
		if err := stream.SendMsg(&r); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	for {
		var reply []byte
		if err := stream.RecvMsg(&reply); errors.Is(err, io.EOF) {
			return printed, nil
		} else if err != nil {
			return printed, err
		}
		if printed == nil {
			printed = c.print(reply)
		}
		if !c.method.IsStreamingServer() {
			return printed, nil
		}
	}
}

// print prints a reply, and a warning if its types are not all known.
func (c *calling) print(reply []byte) error {
	text, warning := c.types.json(c.method.Output(), reply)
	if warning != "" {
		if err := printf(c.stderr, "warning: %s\n", warning); err != nil {
			return err
		}
	}
	return c.out.document(rawJSON(text), "", func(w io.Writer) error { return printFields(w, text) })
}

// printFields prints the fields of a reply, one on each line.
func printFields(w io.Writer, text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return errors.Join(err, printf(w, "%s\n", string(text)))
	}
	t := newTable(w)
	t.heads = []string{"FIELD", "VALUE"}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		shown := string(value)
		var plain string
		if json.Unmarshal(value, &plain) == nil {
			shown = plain
		}
		if err := t.row(fmt.Sprint(name), shown); err != nil {
			return err
		}
	}
	return t.flush()
}

// answered returns what the answer says under a name, in its header or its trailer.
func answered(stream grpc.ClientStream, name string) string {
	if v := stream.Trailer().Get(name); len(v) > 0 {
		return v[0]
	}
	if header, err := stream.Header(); err == nil {
		if v := header.Get(name); len(v) > 0 {
			return v[0]
		}
	}
	return ""
}

// requests reads JSON documents, exactly one unless the input streams, and encodes them.
func (c *calling) requests(data string) ([][]byte, error) {
	var requests [][]byte
	documents := json.NewDecoder(strings.NewReader(data))
	for {
		var raw json.RawMessage
		if err := documents.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, usagef("request is not JSON: %w", err)
		}
		msg, err := c.types.message(c.method.Input(), raw)
		if err != nil {
			return nil, usagef("invalid %s: %s", c.method.Input().FullName(), plain(err))
		}
		requests = append(requests, msg)
	}
	if !c.method.IsStreamingClient() && len(requests) != 1 {
		return nil, usagef("%s takes one request, got %d", c.method.Name(), len(requests))
	}
	return requests, nil
}

// plain returns the message of protobuf's JSON decoder, which varies its spaces at random.
func plain(err error) string {
	return strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
}

// encodedMessages is the codec of messages that are encoded already.
type encodedMessages struct{}

var errNotEncoded = errors.New("not an encoded message")

// Marshal takes a *[]byte.
func (encodedMessages) Marshal(v any) ([]byte, error) {
	if b, ok := v.(*[]byte); ok {
		return *b, nil
	}
	return nil, errNotEncoded
}

// Unmarshal copies into a *[]byte.
func (encodedMessages) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return errNotEncoded
	}
	*b = bytes.Clone(data)
	return nil
}

// Name is that of protobuf's encoding.
func (encodedMessages) Name() string { return "proto" }
