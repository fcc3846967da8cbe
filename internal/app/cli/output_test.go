package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// forged is a text of others that clears the screen, begins a line of its own, and turns the rest
// around.
const forged = "x\x1b[2J\r\nFORGED \u009b31m\u202e\u2028\x7f\x00 end"

// fill sets every field of a message: texts to forged, lists to two items.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		value := func() protoreflect.Value {
			switch f.Kind() {
			case protoreflect.StringKind:
				return protoreflect.ValueOfString(forged)
			case protoreflect.BytesKind:
				return protoreflect.ValueOfBytes([]byte(forged))
			case protoreflect.BoolKind:
				return protoreflect.ValueOfBool(true)
			case protoreflect.DoubleKind:
				return protoreflect.ValueOfFloat64(2)
			case protoreflect.EnumKind:
				return protoreflect.ValueOfEnum(2)
			case protoreflect.Int32Kind:
				return protoreflect.ValueOfInt32(1)
			case protoreflect.Uint32Kind:
				return protoreflect.ValueOfUint32(1)
			case protoreflect.Int64Kind:
				return protoreflect.ValueOfInt64(1)
			default:
				return protoreflect.ValueOfUint64(1)
			}
		}
		switch {
		case strings.HasSuffix(string(f.Name()), "page_token"): // the page is the last one
		case f.Kind() == protoreflect.MessageKind && depth == 0:
		case f.Kind() == protoreflect.MessageKind && f.IsList():
			for range 2 {
				fill(m.Mutable(f).List().AppendMutable().Message(), depth-1)
			}
		case f.Kind() == protoreflect.MessageKind && f.Message().FullName() == "google.protobuf.Timestamp":
			m.Set(f, protoreflect.ValueOfMessage((&timestamppb.Timestamp{Seconds: 1_700_000_000}).ProtoReflect()))
		case f.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(f).Message(), depth-1)
		case f.IsList():
			m.Mutable(f).List().Append(value())
			m.Mutable(f).List().Append(value())
		default:
			m.Set(f, value())
		}
	}
	if c, ok := m.Interface().(*adminv1.Content); ok {
		c.TypeUrl, c.Json = "type.googleapis.com/"+forged, ""
		if depth%2 == 0 {
			text, _ := json.Marshal(forged)
			c.Json = `{"text":` + string(bytes.ReplaceAll(text, []byte(`\u2028`), []byte("\u2028"))) + `}`
		}
	}
}

// serveFilled is an admin port whose answers are full of forged text. It returns its address.
func serveFilled(t *testing.T) string {
	t.Helper()
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		name, _ := grpc.MethodFromServerStream(stream)
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(
			protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(name, "/"), "/", ".")))
		if err != nil {
			return err
		}
		message := func(of protoreflect.MessageDescriptor) proto.Message {
			mt, _ := protoregistry.GlobalTypes.FindMessageByName(of.FullName())
			return mt.New().Interface()
		}
		method, _ := d.(protoreflect.MethodDescriptor)
		if err := stream.RecvMsg(message(method.Input())); err != nil {
			return err
		}
		reply := message(method.Output())
		fill(reply.ProtoReflect(), 4)
		for range 2 {
			if err := stream.SendMsg(reply); err != nil {
				return err
			}
			if !method.IsStreamingServer() {
				break
			}
		}
		return nil
	}))
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
	return l.Addr().String()
}

// printing are the commands that print data which a process has told them.
// TestEveryCommandHasOutput finds one that is missing.
var printing = []string{
	"get a/b", "list", "list a", "timers", "timers a/b", "history a/b", "log tail", "log verify", "parked", "parked --refused", "repair",
	"repair 1 --accept-loss", "repair 1 --append-image", "repair 1 --append-image --yes", "status",
	"cluster status", "partitions", "definitions", "definitions --history", "projection list", "projection status",
	"diff defs", "apply -f defs",
} // --append-image without --yes shows numbers only

// silent are commands that print no data: they act, or only say that they have done so; check, gen,
// config and version print what no other process has told them (see TestProblemsAreVisible), and
// query has a test of its own.
var silent = []string{
	"call", "check", "completion", "config", "dev", "drain", "exit-codes",
	"gateway", "gen", "gen proto", "help", "new", "parked drop", "parked replay", "projection", "projection drop", "projection pause",
	"projection promote", "projection rebuild", "projection resume", "projection rollback", "query", "run", "version", "watch",
	"cluster", "log",
}

// Text of others never reaches the terminal raw, in any form, on standard output or error; and it
// begins no line.
func TestTextOfOthersIsVisible(t *testing.T) {
	t.Chdir(t.TempDir())
	p, address := tool(t), serveFilled(t)
	if err := os.CopyFS("defs", os.DirFS(folder(t, map[string]string{"carts.yaml": carts}))); err != nil {
		t.Fatal(err)
	}
	for _, line := range printing {
		for _, form := range append([]format{""}, formats...) {
			t.Run(line+" "+string(form), func(t *testing.T) {
				args := append(strings.Fields(line), "--admin", address)
				if form != "" {
					args = append(args, "-o", string(form))
				}
				r := p.runIn(t, true, "", args...)
				refused := strings.HasSuffix(line, "defs") && r.code == exitPrecondition
				if r.code != exitOK && r.code != exitDifferences && !refused {
					t.Fatalf("exit code %d: %s", r.code, r.stderr)
				}
				if !strings.Contains(r.stdout+r.stderr, "FORGED") && form != formatName && !strings.HasSuffix(line, "--append-image") {
					t.Errorf("nothing of the answer is shown:\n%s%s", r.stdout, r.stderr)
				}
				checkVisible(t, r.stdout+r.stderr)
				if form == formatJSON {
					for d := json.NewDecoder(strings.NewReader(r.stdout)); d.More(); {
						var v any
						if err := d.Decode(&v); err != nil {
							t.Fatalf("not JSON: %v\n%s", err, r.stdout)
						}
					}
				}
			})
		}
	}
}

func checkVisible(t *testing.T, text string) {
	t.Helper()
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		if i := strings.IndexFunc(line, func(r rune) bool {
			return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == unicode.ReplacementChar
		}); i >= 0 {
			t.Fatalf("a hidden character at %d of %q", i, line)
		}
		if strings.HasPrefix(line, "FORGED") {
			t.Fatalf("a forged line: %q", line)
		}
	}
}

// Every command that prints data has -o, and is in the list of the test above.
func TestEveryCommandHasOutput(t *testing.T) {
	listed := map[string]bool{}
	for _, line := range printing {
		words := strings.Fields(line)
		listed[words[0]] = true
		if len(words) > 1 {
			listed[words[0]+" "+words[1]] = true
		}
	}
	for _, name := range silent {
		listed[name] = true
	}
	for _, cmd := range tool(t).root().Commands() {
		for _, c := range append(cmd.Commands(), cmd) {
			name := strings.TrimPrefix(c.CommandPath(), "millrace ")
			if !listed[name] {
				t.Errorf("%s is in neither list: does it print data?", name)
			}
		}
	}
	for _, line := range append([]string{"call", "config", "version"}, printing...) {
		cmd, _, err := tool(t).root().Find(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		if cmd.Flags().ShorthandLookup("o") == nil {
			t.Errorf("%s has no -o", line)
		}
	}
}

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{
		"cart/42 ö 世界 👍":   "cart/42 ö 世界 👍",
		"a\tb\nc\r":        `a\tb\nc\r`,
		"\x1b[2J\x7f":      `\x1b[2J\x7f`,
		"\u009b31m\u202ex": `\u009b31m\u202ex`,
		"\xff\xfe":         `\xff\xfe`,
		"\ufffd":           "\ufffd",
	} {
		if got := visible(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got, want := visibleLines("two\nlines\x1b"), "two\n  lines"+`\x1b`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Whole numbers are numbers where every reader takes them exactly; stored messages are JSON.
func TestJSONOfMessages(t *testing.T) {
	offset := int64(7)
	for want, m := range map[string]proto.Message{
		`{"partition":1,"offset":7,"kind":"event","sequence":9007199254740991,"content":{"typeUrl":"x/y.Z","json":{"a":"1"}},"commandId":"<&>","principal":"","note":""}`: &adminv1.HistoryResponse{
			Partition: 1, Offset: &offset, Kind: "event", Sequence: 1<<53 - 1, CommandId: "<&>",
			Content: &adminv1.Content{TypeUrl: "x/y.Z", Value: []byte{1}, Json: `{"a": "1"}`},
		},
		`{"partition":0,"kind":"","sequence":"18446744073709551615","content":{"typeUrl":"x/y.Z","value":"AQ=="},"commandId":"\u009b","principal":"","note":""}`: &adminv1.HistoryResponse{
			Sequence: math.MaxUint64, CommandId: "\u009b", Content: &adminv1.Content{TypeUrl: "x/y.Z", Value: []byte{1}},
		},
		`{"limit":0,"pageToken":"","refused":false}`:                                    &adminv1.ListParkedRequest{},
		`{"partition":0,"choice":"REPAIR_CHOICE_RETRY"}`:                                &adminv1.RepairRequest{Choice: adminv1.RepairChoice_REPAIR_CHOICE_RETRY},
		`{"name":"a","state":"","lastError":"","lastErrorTime":"2023-11-14T22:13:20Z"}`: &adminv1.TaskStatus{Name: "a", LastErrorTime: &timestamppb.Timestamp{Seconds: 1_700_000_000}},
	} {
		got, err := marshalJSON(m)
		if err != nil || string(got) != want {
			t.Errorf("got  %s (%v)\nwant %s", got, err, want)
		}
	}
}

func TestYAML(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":1,"b":"x","c":[],"d":{},"e":null,"f":true}`: "a: 1\nb: x\nc: []\nd: {}\ne: null\nf: true\n",
		`{"a":{"b":[1,{"c":"d","e":[["f"]]}]}}`:           "a:\n  b:\n    - 1\n    - c: d\n      e:\n        -\n          - f\n",
		`{"yes":"no","n":"1","t":"a: b","u":"\u001b"}`:    "\"yes\": \"no\"\n\"n\": \"1\"\nt: \"a: b\"\nu: \"\\u001b\"\n",
		`"x"`: "x\n",
	} {
		got, err := marshalYAML(rawJSON(text))
		if err != nil || string(got) != want {
			t.Errorf("%s:\n%s(%v), want\n%s", text, got, err, want)
		}
	}
	got, err := marshalYAML([]any{rawJSON(`{"a":1,"b":[2]}`)})
	if want := "- a: 1\n  b:\n    - 2\n"; err != nil || string(got) != want {
		t.Errorf("%s(%v), want\n%s", got, err, want)
	}
}

// A table keeps few rows: widths of later blocks are at least those of earlier ones.
func TestTableInBlocks(t *testing.T) {
	var out bytes.Buffer
	table := newTable(&out)
	table.heads = []string{"A", "B"}
	for i := range blockRows + 1 {
		if err := table.row(fmt.Sprint(i), "b"); err != nil {
			t.Fatal(err)
		}
		if len(table.block) > blockRows {
			t.Fatalf("%d rows are kept", len(table.block))
		}
	}
	if err := table.flush(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if lines[0] != "A    B" || lines[1] != "0    b" || lines[blockRows+1] != "1000  b" {
		t.Errorf("%q, %q, %q", lines[0], lines[1], lines[blockRows+1])
	}
}
