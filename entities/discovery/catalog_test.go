package discovery_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// The transcripts are a function's declarations and sources, and what the catalog makes of them.
// Lines of the input:
//
//	entity <kind> <service> [<persistence id>] [timeout=<milliseconds>]
//	file <path>          what follows, up to the next file, is its source
//	omit <path>          leave the file out of the descriptors
//	twice <path>         send the file once more, changed
//	extension <number>   announce an optional part of the protocol
//
// Arguments: version=<major>.<minor>, no-protocol-check.
func TestCatalog(t *testing.T) {
	datadriven.Walk(t, "testdata/catalog", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			spec := readSpec(t, d)
			catalog, err := discovery.NewCatalog(spec, discovery.Options{Settings: discovery.Settings{ProtocolCheck: !d.HasArg("no-protocol-check")}})
			if rejected, ok := errors.AsType[*discovery.RejectedError](err); ok {
				return strings.Join(rejected.Problems, "\n") + "\n"
			}
			if err != nil {
				t.Fatalf("%v is no RejectedError", err)
			}
			return describe(catalog)
		})
	})
}

func describe(c *discovery.Catalog) string {
	var b strings.Builder
	for _, s := range c.Services() {
		fmt.Fprintf(&b, "%s: %s, type %s", s.Name, s.Kind, s.EntityType.Name)
		if s.EntityType.PassivateAfter > 0 {
			fmt.Fprintf(&b, ", passivated after %v", s.EntityType.PassivateAfter)
		}
		b.WriteString("\n")
		for _, m := range s.Methods {
			fmt.Fprintf(&b, "  %s %s -> %s", m.FullName, streamed(m.ClientStreams, m.InputType),
				streamed(m.ServerStreams, m.OutputType))
			if source, ok := m.Source(); ok {
				fmt.Fprintf(&b, ", from topic %q log %q as %s", source.Topic, source.EventLog, source.ConsumerGroup)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func streamed(is bool, typeURL string) string {
	name := strings.TrimPrefix(typeURL, "type.googleapis.com/")
	if is {
		return "stream " + name
	}
	return name
}

var kinds = map[string]entities.Kind{
	"event-sourced": entities.EventSourced,
	"value":         entities.Value,
	"action":        entities.Action,
	"replicated":    entities.Replicated,
}

func readSpec(t *testing.T, d *datadriven.TestData) *cloudstate.EntitySpec {
	t.Helper()
	spec := &cloudstate.EntitySpec{ServiceInfo: &cloudstate.ServiceInfo{ProtocolMinorVersion: 2}}
	if d.HasArg("version") {
		var version string
		d.ScanArgs(t, "version", &version)
		if _, err := fmt.Sscanf(version, "%d.%d", &spec.ServiceInfo.ProtocolMajorVersion,
			&spec.ServiceInfo.ProtocolMinorVersion); err != nil {
			d.Fatalf(t, "version %q: %v", version, err)
		}
	}
	sources := map[string]string{}
	var file string
	var omit, twice []string
	for line := range strings.Lines(d.Input) {
		words := strings.Fields(line)
		switch {
		case len(words) > 1 && words[0] == "entity":
			spec.Entities = append(spec.Entities, readEntity(t, d, words[1:]))
		case len(words) == 2 && words[0] == "file":
			file = words[1]
			sources[file] = "syntax = \"proto3\";\n"
		case len(words) == 2 && words[0] == "omit":
			omit = append(omit, words[1])
		case len(words) == 2 && words[0] == "twice":
			twice = append(twice, words[1])
		case file != "":
			sources[file] += line
		case len(words) > 0:
			d.Fatalf(t, "unknown line %q", line)
		}
	}
	set := compile(t, sources)
	for _, f := range set.GetFile() {
		if slices.Contains(twice, f.GetName()) {
			other := proto.CloneOf(f)
			other.Package = proto.String("other")
			set.File = append(set.File, other)
		}
	}
	set.File = slices.DeleteFunc(set.File, func(f *descriptorpb.FileDescriptorProto) bool {
		return slices.Contains(omit, f.GetName())
	})
	spec.Proto = marshal(t, set)
	return spec
}

func readEntity(t *testing.T, d *datadriven.TestData, words []string) *cloudstate.Entity {
	t.Helper()
	e := &cloudstate.Entity{EntityType: words[0], ServiceName: words[1]}
	if kind, ok := kinds[words[0]]; ok {
		e.EntityType = kind.Spec().Protocol
	}
	for _, w := range words[2:] {
		text, ok := strings.CutPrefix(w, "timeout=")
		if !ok {
			e.PersistenceId = w
			continue
		}
		millis, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			d.Fatalf(t, "%q: %v", w, err)
		}
		e.PassivationStrategy = &cloudstate.EntityPassivationStrategy{Strategy: &cloudstate.EntityPassivationStrategy_Timeout{
			Timeout: &cloudstate.TimeoutPassivationStrategy{Timeout: millis},
		}}
	}
	return e
}

const cartSource = `
syntax = "proto3";
package shop;
import "cloudstate/entity_key.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/any.proto";
import "google/protobuf/timestamp.proto";
service Carts {
  rpc Add(AddItem) returns (google.protobuf.Empty);
}
message AddItem {
  string cart = 1 [(cloudstate.entity_key) = true];
  google.protobuf.Any item = 2;
  google.protobuf.Timestamp at = 3;
}
`

func cartSpec(t testing.TB) *cloudstate.EntitySpec {
	t.Helper()
	return &cloudstate.EntitySpec{
		Proto: marshal(t, compile(t, map[string]string{"cart.proto": cartSource})),
		Entities: []*cloudstate.Entity{
			{EntityType: entities.EventSourced.Spec().Protocol, ServiceName: "shop.Carts", PersistenceId: "cart"},
		},
		ServiceInfo: &cloudstate.ServiceInfo{
			ProtocolMinorVersion: 2,
			MillraceExtensions:   []cloudstate.MillraceExtension{cloudstate.MillraceExtension_MILLRACE_FAILURE_CODE},
		},
	}
}

func cartCatalog(t testing.TB) *discovery.Catalog {
	t.Helper()
	c, err := discovery.NewCatalog(cartSpec(t), discovery.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Everything in a catalog is found by its name, and nothing else is.
func TestLookups(t *testing.T) {
	c := cartCatalog(t)
	s := c.Service("shop.Carts")
	if s == nil || c.EntityType("cart") != s || len(c.Services()) != 1 || c.Services()[0] != s {
		t.Fatalf("the service is not found by its names: %+v", s)
	}
	if m := c.Method("/shop.Carts/Add"); m == nil || s.Method("Add") != m || m.Service != s || !m.IsUnary() {
		t.Errorf("the method is not found by its names: %+v", m)
	}
	if c.Method("/shop.Carts/Remove") != nil || c.Method("shop.Carts/Add") != nil || s.Method("Remove") != nil ||
		c.Service("shop.Cart") != nil || c.EntityType("shop.Carts") != nil {
		t.Error("something was found that is not there")
	}
	want := entities.EntityType{Service: "shop.Carts", Name: "cart", Kind: entities.EventSourced}
	if types := c.EntityTypes(); len(types) != 1 || types[0] != want {
		t.Errorf("entity types are %+v, want %+v", types, want)
	}
	if !c.Announced(cloudstate.MillraceExtension_MILLRACE_FAILURE_CODE) ||
		c.Announced(cloudstate.MillraceExtension_MILLRACE_COMMAND_CONTEXT) {
		t.Error("the announced extensions are not those of the function")
	}
}

// The catalog's types serve JSON, well-known types and messages inside Any included.
func TestTypesServeJSON(t *testing.T) {
	c := cartCatalog(t)
	const text = `{"cart":"c1","item":{"@type":"type.googleapis.com/shop.AddItem","cart":"c2"},"at":"2026-01-02T03:04:05Z"}`
	in := dynamicpb.NewMessage(c.Method("/shop.Carts/Add").Input)
	if err := (protojson.UnmarshalOptions{Resolver: c.Types()}).Unmarshal([]byte(text), in); err != nil {
		t.Fatal(err)
	}
	out, err := protojson.MarshalOptions{Resolver: c.Types()}.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.ReplaceAll(string(out), " ", ""); got != text {
		t.Errorf("through JSON and back: %s", got)
	}
}

// Each file of the set follows its imports, and the set equals the registry. Nothing reaches the
// global registry.
func TestFilesAreInOrder(t *testing.T) {
	c := cartCatalog(t)
	seen := map[string]bool{}
	for _, f := range c.FileDescriptorSet().GetFile() {
		for _, dep := range f.GetDependency() {
			if !seen[dep] {
				t.Errorf("%s comes before its import %s", f.GetName(), dep)
			}
		}
		seen[f.GetName()] = true
		if _, err := c.Files().FindFileByPath(f.GetName()); err != nil {
			t.Error(err)
		}
	}
	if c.Files().NumFiles() != len(seen) {
		t.Errorf("%d files in the registry, %d in the set", c.Files().NumFiles(), len(seen))
	}
	if _, err := protoregistry.GlobalFiles.FindDescriptorByName("shop.Carts"); err == nil {
		t.Error("the function's descriptors are in the global registry")
	}
}

// Descriptors that no compiler makes are refused with a reason too.
func TestBrokenDescriptors(t *testing.T) {
	file := func(name string, imports ...string) *descriptorpb.FileDescriptorProto {
		return &descriptorpb.FileDescriptorProto{Name: proto.String(name), Dependency: imports}
	}
	clash := file("b")
	clash.MessageType = []*descriptorpb.DescriptorProto{{Name: proto.String("M")}}
	for _, tc := range []struct {
		files []*descriptorpb.FileDescriptorProto
		want  string
	}{
		{[]*descriptorpb.FileDescriptorProto{file("a", "b"), file("b", "c"), file("c", "b")}, "its descriptors import each other in a cycle, b -> c -> b: remove one import"},
		{[]*descriptorpb.FileDescriptorProto{clash, func() *descriptorpb.FileDescriptorProto {
			other := proto.CloneOf(clash)
			other.Name = proto.String("other")
			return other
		}()}, "its descriptors contradict each other"},
	} {
		spec := cartSpec(t)
		spec.Proto = marshal(t, &descriptorpb.FileDescriptorSet{File: tc.files})
		if _, err := discovery.NewCatalog(spec, discovery.Options{}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
	spec := cartSpec(t)
	spec.Proto = []byte("no descriptors")
	if _, err := discovery.NewCatalog(spec, discovery.Options{}); err == nil || !strings.Contains(err.Error(), "not a FileDescriptorSet") {
		t.Errorf("got %v", err)
	}
}

// Bytes from outside never cause a panic.
func FuzzNewCatalog(f *testing.F) {
	spec := cartSpec(f)
	f.Add(spec.GetProto(), "shop.Carts")
	f.Add([]byte("no descriptors"), "shop.Carts")
	for _, file := range []string{"a", "b"} {
		circle := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
			{Name: proto.String("a"), Dependency: []string{"b"}}, {Name: proto.String("b"), Dependency: []string{file}},
		}}
		f.Add(marshal(f, circle), "x")
	}
	f.Add(marshal(f, &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(descriptorpb.File_google_protobuf_descriptor_proto),
	}}), "google.protobuf.FieldOptions")
	f.Fuzz(func(_ *testing.T, raw []byte, service string) {
		spec := &cloudstate.EntitySpec{Proto: raw, Entities: []*cloudstate.Entity{
			{EntityType: entities.Value.Spec().Protocol, ServiceName: service},
		}}
		c, err := discovery.NewCatalog(spec, discovery.Options{})
		if err == nil {
			for _, m := range c.Services()[0].Methods {
				_, _ = m.Command(raw, nil)
			}
		}
	})
}
