package cli

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/examples/counter/counter"
	"github.com/millrace-io/millrace/examples/shoppingcart/cart"
	"github.com/millrace-io/millrace/projections/definition"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	projectionv1 "github.com/millrace-io/millrace/proto/gen/millrace/projection/v1"
	"github.com/millrace-io/millrace/sdk"
)

// rowsOf is a process that serves the queries of definitions with answers that the test gives, on
// one port.
type rowsOf struct {
	adminv1.UnimplementedAdminServiceServer
	set   *descriptorpb.FileDescriptorSet
	files map[string]protoreflect.MethodDescriptor
	// answers are JSON by method and page token.
	answers map[string]string

	mu sync.Mutex
	// requests are the requests as JSON, with the metadata that the process reads.
	requests []string
}

// Descriptors returns those of the queries.
func (s *rowsOf) Descriptors(context.Context, *adminv1.DescriptorsRequest) (*adminv1.DescriptorsResponse, error) {
	encoded, err := proto.Marshal(s.set)
	return &adminv1.DescriptorsResponse{FileDescriptorSet: encoded}, err
}

func (s *rowsOf) serve(_ any, stream grpc.ServerStream) error {
	name, _ := grpc.MethodFromServerStream(stream)
	m := s.files[name]
	if m == nil {
		return status.Error(codes.Unimplemented, "unknown service "+name)
	}
	request := dynamicpb.NewMessage(m.Input())
	if err := stream.RecvMsg(request); err != nil {
		return err
	}
	text, err := protojson.Marshal(request)
	if err != nil {
		return err
	}
	line, err := compact(text)
	if err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(stream.Context())
	for _, name := range []string{"millrace-consistency", "millrace-min-token", "millrace-max-staleness"} {
		for _, v := range md.Get(name) {
			line = append(line, " "+name+"="+v...)
		}
	}
	s.mu.Lock()
	s.requests = append(s.requests, string(line))
	s.mu.Unlock()
	if m.IsStreamingServer() {
		return s.watch(stream, m, textOf(request, "resume"))
	}
	answer := dynamicpb.NewMessage(m.Output())
	scripted := s.answers[strings.TrimSuffix(string(m.Name())+" "+textOf(request, "page_token"), " ")]
	if textOf(request, "item") == "none" {
		return status.Error(codes.NotFound, "no such row\x1b[2J")
	}
	if err := protojson.Unmarshal([]byte(scripted), answer); err != nil {
		return err
	}
	return stream.SendMsg(answer)
}

// watch sends frames, and ends: as a process that goes away, or for good behind a token.
func (s *rowsOf) watch(stream grpc.ServerStream, m protoreflect.MethodDescriptor, resume string) error {
	scripted := s.answers[strings.TrimSuffix(string(m.Name())+" "+resume, " ")]
	for line := range strings.Lines(scripted) {
		frame := dynamicpb.NewMessage(m.Output())
		if err := protojson.Unmarshal([]byte(line), frame); err != nil {
			return err
		}
		if err := stream.SendMsg(frame); err != nil {
			return err
		}
	}
	if resume == "" {
		return status.Error(codes.Unavailable, "the process ends\x1b[2J")
	}
	return status.Error(codes.OutOfRange, "not any more")
}

// asked returns the requests since the last call.
func (s *rowsOf) asked() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := strings.Join(s.requests, "\n")
	s.requests = nil
	return all
}

// serveRows starts the process, and makes the commands of this test find it.
func serveRows(t *testing.T, answers map[string]string, definitions string, services ...*sdk.Service) *rowsOf {
	t.Helper()
	spec, err := sdk.EntitySpec(services...)
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := discovery.NewCatalog(spec, discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	schema, err := definition.SchemaOf(catalog)
	if err != nil {
		t.Fatal(err)
	}
	checked := definition.Check([]definition.Source{{Name: "a.yaml", Text: []byte(definitions)}}, definition.Options{Schema: schema})
	if err := checked.Report.Err(); err != nil {
		t.Fatal(err)
	}
	s := &rowsOf{
		set: &descriptorpb.FileDescriptorSet{}, files: map[string]protoreflect.MethodDescriptor{}, answers: answers,
	}
	seen := map[string]bool{}
	var add func(file protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		if !seen[file.Path()] {
			seen[file.Path()] = true
			s.set.File = append(s.set.File, protodesc.ToFileDescriptorProto(file))
		}
	}
	common := projectionv1.File_millrace_projection_v1_query_proto
	add(common)
	for _, path := range []string{"google/api/annotations.proto", "google/protobuf/field_mask.proto"} {
		file, err := protoregistry.GlobalFiles.FindFileByPath(path)
		if err != nil {
			t.Fatal(err)
		}
		add(file)
	}
	for _, d := range checked.Definitions {
		s.set.File = append(s.set.File, d.API())
	}
	files, err := protodesc.NewFiles(s.set)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range checked.Definitions {
		file, err := files.FindFileByPath(d.API().GetName())
		if err != nil {
			t.Fatal(err)
		}
		service := file.Services().Get(0)
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			s.files["/"+string(service.FullName())+"/"+string(m.Name())] = m
		}
	}
	serveAdmin(t, s, grpc.UnknownServiceHandler(s.serve))
	return s
}

// serveAdmin serves an admin service, and makes the commands of this test find it.
func serveAdmin(t *testing.T, s adminv1.AdminServiceServer, options ...grpc.ServerOption) {
	t.Helper()
	server := grpc.NewServer(options...)
	adminv1.RegisterAdminServiceServer(server, s)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }() // Stop ends it; received below
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Setenv("MILLRACE_ADMIN", l.Addr().String())
	t.Setenv("MILLRACE_LISTEN", l.Addr().String())
}

// queried are definitions with all forms of queries.
var queried = strings.NewReplacer("  indexes: [{name: by_item", `  aggregates: [{name: by_out, groupBy: [checked_out], count: carts}]
  indexes: [{name: by_item`, "      where: row.last_item == params.item\n", `      where: row.last_item == params.item
      filterable: [checked_out]
      count: true
      watch: true
    CountByOut: {aggregate: by_out}
`).Replace(carts)

// TestQuery runs queries against scripted answers.
func TestQuery(t *testing.T) {
	t.Chdir(t.TempDir())
	s := serveRows(t, map[string]string{
		"Get":             `{"carts":{"cartId":"7","lastItem":"apple"},"token":"T1"}`,
		"ListByItem":      `{"carts":[{"cartId":"7","lastItem":"a\u001bb"},{"cartId":"long-id","lastItem":"apple","checkedOut":true}],"token":"T2","nextPageToken":"P2"}`,
		"ListByItem P2":   `{"carts":[{"cartId":"9","lastItem":"pear"}],"token":"T3","stale":true,"explain":{"index":"by_item","entriesExamined":"3","rows":"1","partitions":[{"partition":3,"worker":"w-1","position":"12","lag":"1","age":"0.5s"}]}}`,
		"ListByItem last": `{"carts":[{"cartId":"9","lastItem":"pear"}],"token":"T4"}`,
		"ListByItem none": `{}`,
		"CountByItem":     `{"count":"12"}`,
		"CountByOut":      `{"groups":[{"carts":"2"},{"checkedOut":true,"carts":"1"}]}`,
	}, queried, cart.Service, counter.Service)
	p := tool(t)
	for name, c := range map[string]struct {
		terminal bool
		line     string
		asked    string
		want     string
	}{
		"a row": {
			true, "query carts.Get -p cart_id=7 --at-least T0",
			`{"cartId":"7"} millrace-min-token=T0`,
			"CART ID  LAST ITEM  CHECKED OUT\n7        apple      false\nstderr: token T1\n",
		},
		"a page": {
			true, "query carts.ListByItem -p item=apple --page-size 2",
			`{"item":"apple","pageSize":2}`,
			"CART ID  LAST ITEM  CHECKED OUT\n7        a\\x1bb     false\nlong-id  apple      true\n" +
				"stderr: token T2\nthere are more: continue with --page-token P2, or use --all\n",
		},
		"all pages, as JSON": {
			false, "query carts.ListByItem -p item=apple --all --explain --filter checked_out=true",
			`{"item":"apple","filter":"checked_out=true","explain":true}` + "\n" +
				`{"item":"apple","pageToken":"P2","filter":"checked_out=true","explain":true}`,
			`{"cartId":"7","lastItem":"a\u001bb","checkedOut":false}` + "\n" +
				`{"cartId":"long-id","lastItem":"apple","checkedOut":true}` + "\n" +
				`{"cartId":"9","lastItem":"pear","checkedOut":false}` + "\n" +
				"stderr: index        by_item\nexamined     3 entries for 1 row\n" +
				"partition 3  worker w-1, position 12, lag 1, age 500ms\n" +
				"stale: rows may be older than the projection promises; --explain shows how old\ntoken T3\n",
		},
		"names": {
			false, "query carts.ListByItem -p item=x -o name --page-token last --consistency bounded --max-staleness 1s",
			`{"item":"x","pageToken":"last"} millrace-consistency=bounded millrace-max-staleness=1s`,
			"9\nstderr: token T4\n",
		},
		"some fields": {
			false, "query carts.Get -p cart_id=7 --fields last_item,checked_out",
			`{"cartId":"7","readMask":"lastItem,checkedOut"}`,
			`{"lastItem":"apple","checkedOut":false}` + "\nstderr: token T1\n",
		},
		"no rows":  {true, "query carts.ListByItem -p item=x --page-token none", `{"item":"x","pageToken":"none"}`, "stderr: no rows\n"},
		"a number": {false, "query carts.CountByItem -p item=x", `{"item":"x"}`, `{"count":"12"}` + "\n"},
		"groups":   {true, "query carts.CountByOut", `{}`, "CHECKED OUT  CARTS\nfalse        2\ntrue         1\n"},
		"queries": {
			true, "query carts", "",
			"QUERY              PARAMETERS  RETURNS\ncarts.Get          cart_id     a row\ncarts.ListByItem   item        rows\n" +
				"carts.CountByItem  item        a number\ncarts.WatchByItem  item        changes\ncarts.CountByOut               groups\n",
		},
		"no such row":        {false, "query carts.CountByItem -p item=none", `{"item":"none"}`, "stderr: millrace: no such row\\x1b[2J (NOT_FOUND)\nexit code 3\n"},
		"no such projection": {false, "query orders.Get", "", "stderr: millrace: projection orders is not served; there are carts, counters (NOT_FOUND)\nexit code 3\n"},
		"no such query":      {false, "query counters.List", "", "stderr: millrace: projection counters has no query List; it has Get (NOT_FOUND)\nexit code 3\n"},
		"no such parameter":  {false, "query counters.Get -p key=1", "", "stderr: millrace: -p key=1: Get has no parameter key; it has id (string)\nexit code 2\n"},
		"twice":              {false, "query counters.Get -p id=1 -p id=2", "", "stderr: millrace: -p id=2: id is given twice\nexit code 2\n"},
		"not a parameter":    {false, "query counters.Get -p id", "", "stderr: millrace: -p \"id\": write it as name=value\nexit code 2\n"},
		"no filter":          {false, "query counters.Get -p id=1 --filter x=1", "", "stderr: millrace: --filter is not for Get, which returns a row\nexit code 2\n"},
		"no pages":           {false, "query carts.CountByOut --all", "", "stderr: millrace: --all is not for CountByOut, which returns groups\nexit code 2\n"},
		"a stream":           {false, "query carts.WatchByItem -p item=1", "", "stderr: millrace: carts.WatchByItem is a stream of changes, not a query: use `millrace watch carts.WatchByItem`\nexit code 2\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := p.runIn(t, c.terminal, "", strings.Fields(c.line)...)
			if got := scrub(r); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if asked := s.asked(); asked != c.asked {
				t.Errorf("asked %s, want %s", asked, c.asked)
			}
		})
	}
}

// TestWatch: frames are printed as they come, and when the process goes away the watch goes on at
// the last token.
func TestWatch(t *testing.T) {
	t.Chdir(t.TempDir())
	p := tool(t)
	s := serveRows(t, map[string]string{
		"WatchByItem":    `{"upsert": {"cartId": "7", "lastItem": "a\u001bb"}}` + "\n" + `{"synced": {}, "token": "T1"}` + "\n",
		"WatchByItem T1": `{"delete": {"cartId": "7"}}` + "\n" + `{"bookmark": {"age": "1s"}}` + "\n",
	}, queried, cart.Service, counter.Service)
	for _, c := range []struct{ line, asked, want string }{
		{
			"watch carts.ListByItem -p item=apple --filter checked_out=true --fields cart_id",
			`{"item":"apple","filter":"checked_out=true","readMask":"cartId"}` + "\n" +
				`{"item":"apple","filter":"checked_out=true","readMask":"cartId","resume":"T1"}`,
			`{"upsert":{"cartId":"7","lastItem":"a\u001bb"}}` + "\n" + `{"synced":{},"token":"T1"}` + "\n" +
				`{"delete":{"cartId":"7"}}` + "\n" + `{"bookmark":{"age":"1s"}}` + "\n" +
				"stderr: the watch was broken off and goes on: the process ends\\x1b[2J\n" +
				"millrace: not any more (OUT_OF_RANGE)\nexit code 1\n",
		},
		{
			"watch carts.WatchByItem -p item=x --resume T1", `{"item":"x","resume":"T1"}`,
			`{"delete":{"cartId":"7"}}` + "\n" + `{"bookmark":{"age":"1s"}}` + "\n" +
				"stderr: millrace: not any more (OUT_OF_RANGE)\nexit code 1\n",
		},
		{"watch carts.Get", "", "stderr: millrace: carts.Get is not watched; there are carts.WatchByItem (NOT_FOUND)\nexit code 3\n"},
		{"watch counters.Get", "", "stderr: millrace: no query of projection counters has watch in its definition (NOT_FOUND)\nexit code 3\n"},
	} {
		r := p.runIn(t, false, "", strings.Fields(c.line)...)
		if got := scrub(r); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.line, got, c.want)
		}
		if asked := s.asked(); asked != c.asked {
			t.Errorf("%s asked %s, want %s", c.line, asked, c.asked)
		}
	}
}
