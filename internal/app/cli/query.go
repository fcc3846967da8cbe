package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// querying are the flags of a query.
type querying struct {
	params                []string
	filter, orderBy, mask string
	pageSize              int32
	pageToken             string
	all                   bool
	atLeast, consistency  string
	maxStaleness          string
	explain               bool
	address               string
}

// queryCommand calls a query of a projection.
func queryCommand() *cobra.Command {
	q := &querying{}
	cmd := &cobra.Command{
		Use: "query NAME.QUERY", Short: "Read the rows of a projection",
		Long: `Call a query of the projection NAME: Get, one that lists rows or counts them, or an aggregate. Without a query, those
of the projection are listed. Rows are printed as a table on a terminal and as one JSON document per line in a pipe;
the token of the answer goes to standard error. With --at-least and the token of an earlier call or query, the rows
include what that one has written or seen.

A filter is an expression of AIP-160 over the fields that the query allows, as in status = STATUS_OPEN AND
total_cents > 1000.`,
		Example: "  millrace query orders.ListByCustomer -p customer_id=7\n" +
			"  millrace query orders.ListByCustomer -p customer_id=7 --filter 'total_cents > 1000' --order-by 'placed_at desc'\n" +
			"  millrace query orders.Get -p order_id=42 --at-least TOKEN\n" +
			"  millrace query orders.CountByStatus --explain\n" +
			"  millrace query orders",
		Args: exactly(1, "a projection and its query, as in orders.ListByCustomer"),
		RunE: func(cmd *cobra.Command, args []string) error {
			md := metadata.MD{}
			for name, value := range map[string]string{
				"millrace-consistency": q.consistency, "millrace-min-token": q.atLeast, "millrace-max-staleness": q.maxStaleness,
			} {
				if value != "" {
					md.Append(name, value)
				}
			}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				types, err := served(ctx, a)
				if err != nil {
					return err
				}
				projection, name, one := strings.Cut(args[0], ".")
				service, err := types.queries(projection)
				if err != nil {
					return err
				}
				if !one {
					return listQueries(outputOf(cmd, cmd.OutOrStdout()), projection, service)
				}
				method := service.Methods().ByName(protoreflect.Name(name))
				if method == nil {
					return status.Errorf(codes.NotFound, "projection %s has no query %s; it has %s", projection, name,
						strings.Join(methodNames(service), ", "))
				}
				if method.IsStreamingServer() {
					return usagef("%s is a stream of changes, not a query: use `millrace watch %s`", args[0], args[0])
				}
				if q.address == "" {
					c, err := clientConfig(cmd)
					if err != nil {
						return err
					}
					q.address = c.Listen
				}
				return q.run(metadata.NewOutgoingContext(ctx, md), cmd, types, method)
			})
		},
	}
	addClient(cmd)
	addOutput(cmd)
	cmd.Flags().StringArrayVarP(&q.params, "param", "p", nil,
		"parameter of the query, as name=value; repeatable, as often as a list has items")
	cmd.Flags().StringVar(&q.filter, "filter", "", "only rows that it holds for (AIP-160)")
	cmd.Flags().StringVar(&q.orderBy, "order-by", "", "one of the orders of the query, as in 'placed_at desc'")
	cmd.Flags().StringVar(&q.mask, "fields", "", "only these fields of the rows, as in order_id,status")
	cmd.Flags().Int32Var(&q.pageSize, "page-size", 0, "rows of a page (default: that of the query)")
	cmd.Flags().StringVar(&q.pageToken, "page-token", "", "continue at the token that an earlier page printed")
	cmd.Flags().BoolVar(&q.all, "all", false, "all pages")
	cmd.Flags().StringVar(&q.atLeast, "at-least", "", "token of an earlier answer; the read includes what that answer saw")
	cmd.Flags().StringVar(&q.consistency, "consistency", "",
		"consistency of the read: eventual, bounded, at_least, strong (default: that of the projection)")
	cmd.Flags().StringVar(&q.maxStaleness, "max-staleness", "", "longest staleness of a bounded read, for example 500ms")
	cmd.Flags().BoolVar(&q.explain, "explain", false, "print on standard error what was read, and how much")
	cmd.Flags().StringVar(&q.address, "address", "", "public address (default: from millrace.yaml or MILLRACE_LISTEN)")
	return cmd
}

// queryPackage is the package below which the services of projections are.
const queryPackage = "millrace.query"

// queries returns the service of a projection.
func (f *functionTypes) queries(projection string) (protoreflect.ServiceDescriptor, error) {
	services := map[string]protoreflect.ServiceDescriptor{}
	f.files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if file.Package().Parent() == queryPackage && file.Services().Len() > 0 {
			services[string(file.Package().Name())] = file.Services().Get(0)
		}
		return true
	})
	if s := services[projection]; s != nil {
		return s, nil
	}
	names := slices.Sorted(maps.Keys(services))
	if len(names) == 0 {
		return nil, status.Errorf(codes.NotFound, "projection %s is not served, and no other one is", projection)
	}
	return nil, status.Errorf(codes.NotFound, "projection %s is not served; there are %s", projection,
		strings.Join(names, ", "))
}

func methodNames(service protoreflect.ServiceDescriptor) []string {
	names := make([]string, service.Methods().Len())
	for i := range names {
		names[i] = string(service.Methods().Get(i).Name())
	}
	return names
}

// queryRow is a query with its parameters.
type queryRow struct {
	Query      string   `json:"query"`
	Params     []string `json:"params"`
	Returns    string   `json:"returns"`
	Filterable bool     `json:"filter"`
}

// firstCommon is the number of the first field of requests that is not a parameter.
const firstCommon = 101

// listQueries prints the queries of a projection.
func listQueries(o output, projection string, service protoreflect.ServiceDescriptor) error {
	var rows []*queryRow
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		row := &queryRow{
			Query: projection + "." + string(m.Name()), Params: []string{}, Returns: answerOf(m),
			Filterable: m.Input().Fields().ByName("filter") != nil,
		}
		for _, f := range paramsOf(m) {
			row.Params = append(row.Params, string(f.Name()))
		}
		rows = append(rows, row)
	}
	return printAll(o, kindOf[*queryRow]{
		columns: []column[*queryRow]{
			{"QUERY", func(r *queryRow) string { return r.Query }},
			{"PARAMETERS", func(r *queryRow) string { return strings.Join(r.Params, ", ") }},
			{"RETURNS", func(r *queryRow) string { return r.Returns }},
		},
		name: func(r *queryRow) string { return r.Query },
	}, rows)
}

// answerOf says what a query returns.
func answerOf(m protoreflect.MethodDescriptor) string {
	first := m.Output().Fields().ByNumber(1)
	switch {
	case m.IsStreamingServer():
		return "changes"
	case first == nil || first.Message() == nil:
		return "a number"
	case first.IsList() && m.Input().Fields().ByName("page_token") == nil:
		return "groups"
	case first.IsList():
		return "rows"
	default:
		return "a row"
	}
}

// paramsOf returns the fields of a request that are parameters, in their order.
func paramsOf(m protoreflect.MethodDescriptor) []protoreflect.FieldDescriptor {
	var params []protoreflect.FieldDescriptor
	for i := range m.Input().Fields().Len() {
		if f := m.Input().Fields().Get(i); f.Number() < firstCommon {
			params = append(params, f)
		}
	}
	return params
}

// request makes the request of the flags.
func (q *querying) request(types *functionTypes, m protoreflect.MethodDescriptor) (*dynamicpb.Message, error) {
	values := map[string]any{}
	for _, p := range q.params {
		name, value, found := strings.Cut(p, "=")
		f := m.Input().Fields().ByName(protoreflect.Name(name))
		switch {
		case !found:
			return nil, usagef("-p %q: write it as name=value", p)
		case f == nil || f.Number() >= firstCommon:
			return nil, usagef("-p %s: %s has no parameter %s; it has %s", p, m.Name(), name, paramTexts(m))
		case f.IsList():
			list, _ := values[name].([]any)
			values[name] = append(list, jsonOf(f, value))
		case values[name] != nil:
			return nil, usagef("-p %s: %s is given twice", p, name)
		default:
			values[name] = jsonOf(f, value)
		}
	}
	for _, flag := range []struct {
		flag, field string
		value       any
		given       bool
	}{
		{"filter", "filter", q.filter, q.filter != ""},
		{"order-by", "order_by", q.orderBy, q.orderBy != ""},
		{"fields", "read_mask", nil, q.mask != ""},
		{"page-size", "page_size", q.pageSize, q.pageSize != 0},
		{"page-token", "page_token", q.pageToken, q.pageToken != ""},
		{"all", "page_token", q.pageToken, q.all},
		{"explain", "explain", true, q.explain},
	} {
		switch {
		case !flag.given:
		case m.Input().Fields().ByName(protoreflect.Name(flag.field)) == nil:
			return nil, usagef("--%s is not for %s, which returns %s", flag.flag, m.Name(), answerOf(m))
		default:
			values[flag.field] = flag.value
		}
	}
	text, err := json.Marshal(values)
	if err != nil {
		return nil, err
	}
	request := dynamicpb.NewMessage(m.Input())
	if err := (protojson.UnmarshalOptions{Resolver: types}).Unmarshal(text, request); err != nil {
		return nil, usagef("the parameters are not those of %s, which has %s: %s", m.Name(), paramTexts(m), plain(err))
	}
	if paths := pathsOf(q.mask); len(paths) > 0 { // as JSON they would be in another case
		mask := request.Mutable(m.Input().Fields().ByName("read_mask")).Message()
		list := mask.Mutable(mask.Descriptor().Fields().ByName("paths")).List()
		for _, path := range paths {
			list.Append(protoreflect.ValueOfString(path))
		}
	}
	return request, nil
}

// pathsOf reads the fields of --fields.
func pathsOf(mask string) []string {
	return strings.FieldsFunc(mask, func(r rune) bool { return r == ',' || r == ' ' })
}

// jsonOf is a parameter as protobuf's JSON has it: text does for all types but two.
func jsonOf(f protoreflect.FieldDescriptor, value string) any {
	if f.Kind() == protoreflect.BoolKind {
		if b, err := strconv.ParseBool(value); err == nil {
			return b
		}
	}
	return value
}

// paramTexts lists the parameters of a query with their types.
func paramTexts(m protoreflect.MethodDescriptor) string {
	var texts []string
	for _, f := range paramsOf(m) {
		kind := f.Kind().String()
		switch {
		case f.Message() != nil:
			kind = strings.ToLower(string(f.Message().Name()))
		case f.Enum() != nil:
			kind = string(f.Enum().Name())
		}
		texts = append(texts, string(f.Name())+" ("+kind+")")
	}
	if len(texts) == 0 {
		return "none"
	}
	return strings.Join(texts, ", ")
}

// run calls the query, page by page with --all, and prints what it returns.
func (q *querying) run(ctx context.Context, cmd *cobra.Command, types *functionTypes,
	m protoreflect.MethodDescriptor,
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
	p := newAnswers(outputOf(cmd, cmd.OutOrStdout()), cmd.ErrOrStderr(), types, m, q.mask)
	for {
		answer := dynamicpb.NewMessage(m.Output())
		method := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
		if err := conn.Invoke(ctx, method, request, answer); err != nil {
			return errors.Join(explain(err, q.address), p.rows.end())
		}
		if err := p.print(answer); err != nil {
			return err
		}
		next := textOf(answer, "next_page_token")
		if next == "" || !q.all {
			return p.end(answer, next)
		}
		request.Set(m.Input().Fields().ByName("page_token"), protoreflect.ValueOfString(next))
	}
}
