package definition

import (
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	projectionv1 "github.com/millrace-io/millrace/proto/gen/millrace/projection/v1"
)

// Numbers of the fields that requests have beside parameters, which are 1 and up.
const (
	pageSizeNumber  = 101
	pageTokenNumber = 102
	filterNumber    = 103
	orderByNumber   = 104
	readMaskNumber  = 105
	freshnessNumber = 106
	explainNumber   = 107
	resumeNumber    = 108
	onGapNumber     = 109
)

// Numbers of the fields of responses.
const (
	rowsNumber          = 1
	nextPageTokenNumber = 2
	tokenNumber         = 3
	staleNumber         = 4
	answerExplainNumber = 5
	// Of the frames of a watch only; its upsert is 1 and its delete 2.
	syncedNumber   = 6
	bookmarkNumber = 7
	resetNumber    = 8
	// Of the groups of an aggregate: behind the fields of the group, of which there are fewer.
	groupCountNumber = 51
	groupSumNumber   = 52
)

const (
	commonFile    = "millrace/projection/v1/query.proto"
	httpFile      = "google/api/annotations.proto"
	freshnessType = ".millrace.projection.v1.Freshness"
	explainType   = ".millrace.projection.v1.Explain"
)

// fixedNames are the names of fields that requests have beside parameters.
func fixedNames() []string {
	return []string{
		"page_size", "page_token", "filter", "order_by", "read_mask", "freshness", "explain", "resume", "on_gap",
	}
}

// describe makes the file of the generated service; nil, and the report says why, when it is not
// possible.
func (p *Projection) describe(s *Scope) *descriptorpb.FileDescriptorProto {
	b := &builder{projection: p, types: map[protoreflect.FullName]string{}, taken: map[string]bool{}}
	b.file = &descriptorpb.FileDescriptorProto{
		Name:       proto.String("millrace/query/" + p.head.Name + ".proto"),
		Package:    proto.String("millrace.query." + p.head.Name),
		Dependency: []string{httpFile, commonFile},
		Syntax:     proto.String("proto3"),
	}
	b.reserve()
	b.row = b.typeOf(p.Row)
	service := &descriptorpb.ServiceDescriptorProto{Name: proto.String(p.Service)}
	b.get(service)
	for _, q := range p.Queries {
		if q.Aggregate != nil {
			b.groups(service, q)
			continue
		}
		b.list(service, q)
		if q.Count {
			b.count(service, q)
		}
		if q.Watch > 0 {
			b.watch(service, q)
		}
	}
	b.file.Service = []*descriptorpb.ServiceDescriptorProto{service}
	slices.Sort(b.file.Dependency)
	if _, err := protodesc.NewFile(b.file, commonFiles{}); err != nil {
		s.Add(p.rowSpec, rowNotPossible, err.Error())
		return nil
	}
	return b.file
}

// commonFiles resolves what generated files import.
type commonFiles struct{}

// FindFileByPath returns Google's files and our common one.
func (commonFiles) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	switch path {
	case commonFile:
		return projectionv1.File_millrace_projection_v1_query_proto, nil
	case httpFile:
		return annotations.File_google_api_annotations_proto, nil
	}
	if file := wellKnown(path); file != nil {
		return file, nil
	}
	return nil, protoregistry.NotFound
}

// FindDescriptorByName returns a message or an enum of those files.
func (commonFiles) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	file := projectionv1.File_millrace_projection_v1_query_proto
	if name.Parent() == file.Package() {
		if found := topLevel(file, name.Name()); found != nil {
			return found, nil
		}
	}
	return findWellKnown(name)
}

// builder makes one file.
type builder struct {
	projection *Projection
	file       *descriptorpb.FileDescriptorProto
	// row is the name of the copy of the row's message.
	row string
	// types are the names of copies, taken the names in the file.
	types map[protoreflect.FullName]string
	taken map[string]bool
}

// reserve keeps the names of generated messages from those that are copied.
func (b *builder) reserve() {
	p := b.projection
	for _, name := range []string{p.Service, "GetRequest", "GetResponse", camel(p.head.Name) + "Key"} {
		b.taken[name] = true
	}
	for _, q := range p.Queries {
		for _, m := range q.methods() {
			b.taken[m+"Request"], b.taken[m+"Response"], b.taken[m+"Group"] = true, true, true
		}
	}
}

// name returns a name in the file for a message or enum: its own, or with its package before it.
func (b *builder) name(d protoreflect.Descriptor, also ...string) string {
	pkg := d.ParentFile().Package()
	own := strings.ReplaceAll(strings.TrimPrefix(string(d.FullName()), string(pkg)+"."), ".", "")
	free := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(n string) bool { return b.taken[n] })
	}
	name := own
	if !free(append(also, name)...) {
		name = camel(string(pkg)) + own
	}
	for b.taken[name] {
		name += "_"
	}
	return name
}

// typeOf returns the full name of the copy of a message or enum, which it makes when there is none.
func (b *builder) typeOf(d protoreflect.Descriptor) string {
	full := d.FullName()
	if full.Parent() == "google.protobuf" {
		b.depend(d.ParentFile().Path())
		return "." + string(full)
	}
	if name := b.types[full]; name != "" {
		return name
	}
	switch d := d.(type) {
	case protoreflect.MessageDescriptor:
		return b.message(d)
	case protoreflect.EnumDescriptor:
		return b.enum(d)
	default:
		return ""
	}
}

func (b *builder) depend(path string) {
	if !slices.Contains(b.file.GetDependency(), path) {
		b.file.Dependency = append(b.file.Dependency, path)
	}
}

func (b *builder) message(d protoreflect.MessageDescriptor) string {
	name := b.name(d)
	b.taken[name] = true
	full := "." + b.file.GetPackage() + "." + name
	b.types[d.FullName()] = full
	m := &descriptorpb.DescriptorProto{Name: proto.String(name)}
	b.file.MessageType = append(b.file.MessageType, m)
	b.copyFields(m, full, d)
	return full
}

// copyFields copies fields with their numbers, names and kinds.
func (b *builder) copyFields(m *descriptorpb.DescriptorProto, full string, d protoreflect.MessageDescriptor) {
	oneofs := map[string]int32{}
	for i := range d.Oneofs().Len() {
		if o := d.Oneofs().Get(i); !o.IsSynthetic() {
			oneofs[string(o.Name())] = int32(len(m.OneofDecl)) //nolint:gosec // few
			m.OneofDecl = append(m.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String(string(o.Name()))})
		}
	}
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		f := b.copyField(m, full, fd, int32(fd.Number()))
		if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
			f.OneofIndex = proto.Int32(oneofs[string(o.Name())])
		}
		m.Field = append(m.Field, f)
	}
	b.optionals(m)
}

// optionals gives fields with proto3_optional the oneofs that proto3 wants behind all others.
func (b *builder) optionals(m *descriptorpb.DescriptorProto) {
	for _, f := range m.GetField() {
		if f.GetProto3Optional() {
			f.OneofIndex = proto.Int32(int32(len(m.OneofDecl))) //nolint:gosec // few
			m.OneofDecl = append(m.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String("_" + f.GetName())})
		}
	}
}

// copyField copies a field under a number.
func (b *builder) copyField(
	m *descriptorpb.DescriptorProto, full string, fd protoreflect.FieldDescriptor, number int32,
) *descriptorpb.FieldDescriptorProto {
	f := &descriptorpb.FieldDescriptorProto{
		Name: proto.String(string(fd.Name())), Number: proto.Int32(number), JsonName: proto.String(fd.JSONName()),
		Type:  descriptorpb.FieldDescriptorProto_Type(fd.Kind()).Enum(),
		Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
	if fd.Cardinality() == protoreflect.Repeated {
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	}
	if fd.HasPresence() && fd.Message() == nil && (fd.ContainingOneof() == nil || fd.ContainingOneof().IsSynthetic()) {
		f.Proto3Optional = proto.Bool(true)
	}
	switch {
	case fd.IsMap():
		entry := &descriptorpb.DescriptorProto{
			Name:    proto.String(string(fd.Message().Name())),
			Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)},
		}
		m.NestedType = append(m.NestedType, entry)
		entryName := full + "." + entry.GetName()
		for _, part := range []protoreflect.FieldDescriptor{fd.MapKey(), fd.MapValue()} {
			copied := b.copyField(entry, entryName, part, int32(part.Number()))
			copied.Proto3Optional = nil
			entry.Field = append(entry.Field, copied)
		}
		f.TypeName = proto.String(entryName)
	case fd.Message() != nil:
		f.TypeName = proto.String(b.typeOf(fd.Message()))
	case fd.Enum() != nil:
		f.TypeName = proto.String(b.typeOf(fd.Enum()))
	}
	return f
}

// enum copies an enum. Names of values share one space with messages, so an enum whose values are
// taken stands in a message of its own.
func (b *builder) enum(d protoreflect.EnumDescriptor) string {
	e := &descriptorpb.EnumDescriptorProto{}
	taken := false
	numbers := map[protoreflect.EnumNumber]bool{}
	for i := range d.Values().Len() {
		v := d.Values().Get(i)
		taken = taken || b.taken[string(v.Name())]
		e.Value = append(e.Value, &descriptorpb.EnumValueDescriptorProto{
			Name: proto.String(string(v.Name())), Number: proto.Int32(int32(v.Number())),
		})
		if numbers[v.Number()] {
			e.Options = &descriptorpb.EnumOptions{AllowAlias: proto.Bool(true)}
		}
		numbers[v.Number()] = true
	}
	nested := taken || d.Parent() != d.ParentFile()
	name := b.name(d)
	b.taken[name] = true
	full := "." + b.file.GetPackage() + "." + name
	if nested {
		e.Name = proto.String("Value")
		b.file.MessageType = append(b.file.MessageType, &descriptorpb.DescriptorProto{
			Name: proto.String(name), EnumType: []*descriptorpb.EnumDescriptorProto{e},
		})
		full += ".Value"
	} else {
		e.Name = proto.String(name)
		b.file.EnumType = append(b.file.EnumType, e)
		for _, v := range e.GetValue() {
			b.taken[v.GetName()] = true
		}
	}
	b.types[d.FullName()] = full
	return full
}

// scalar makes a field of a request or response.
func scalar(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type) *descriptorpb.FieldDescriptorProto {
	return &descriptorpb.FieldDescriptorProto{
		Name: proto.String(name), Number: proto.Int32(number), Type: kind.Enum(),
		Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), JsonName: proto.String(jsonName(name)),
	}
}

func text(name string, number int32) *descriptorpb.FieldDescriptorProto {
	return scalar(name, number, descriptorpb.FieldDescriptorProto_TYPE_STRING)
}

func truth(name string, number int32) *descriptorpb.FieldDescriptorProto {
	return scalar(name, number, descriptorpb.FieldDescriptorProto_TYPE_BOOL)
}

func whole(name string, number int32) *descriptorpb.FieldDescriptorProto {
	return scalar(name, number, descriptorpb.FieldDescriptorProto_TYPE_INT64)
}

func messageField(name string, number int32, typeName string) *descriptorpb.FieldDescriptorProto {
	f := scalar(name, number, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE)
	f.TypeName = proto.String(typeName)
	return f
}

func repeated(f *descriptorpb.FieldDescriptorProto) *descriptorpb.FieldDescriptorProto {
	f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	return f
}

// jsonName is the name of a field in JSON, as protoc makes it.
func jsonName(name string) string {
	c := camel(name)
	return strings.ToLower(c[:1]) + c[1:]
}

// add enters a message and returns its full name.
func (b *builder) add(name string, fields ...*descriptorpb.FieldDescriptorProto) string {
	m := &descriptorpb.DescriptorProto{Name: proto.String(name), Field: fields}
	b.optionals(m)
	b.file.MessageType = append(b.file.MessageType, m)
	return "." + b.file.GetPackage() + "." + name
}

// method enters a method, with its HTTP/JSON form.
func (b *builder) method(s *descriptorpb.ServiceDescriptorProto, name, in, out, path string, stream bool) {
	options := &descriptorpb.MethodOptions{IdempotencyLevel: descriptorpb.MethodOptions_NO_SIDE_EFFECTS.Enum()}
	proto.SetExtension(options, annotations.E_Http, &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: path}})
	m := &descriptorpb.MethodDescriptorProto{
		Name: proto.String(name), InputType: proto.String(in), OutputType: proto.String(out), Options: options,
	}
	if stream {
		m.ServerStreaming = proto.Bool(true)
	}
	s.Method = append(s.Method, m)
}

// keyFields are the fields of the key, numbered from 1.
func (b *builder) keyFields() []*descriptorpb.FieldDescriptorProto {
	var fields []*descriptorpb.FieldDescriptorProto
	for i, f := range b.projection.Key {
		fields = append(fields, b.copyField(nil, "", f, int32(i+1)))
	}
	return fields
}

func (b *builder) get(s *descriptorpb.ServiceDescriptorProto) {
	in := b.add("GetRequest", append(b.keyFields(), b.readMask(),
		messageField("freshness", freshnessNumber, freshnessType), truth("explain", explainNumber))...)
	out := b.add("GetResponse", b.answer(messageField(b.rowsName(), rowsNumber, b.row))...)
	b.method(s, "Get", in, out, "/v1/"+b.projection.head.Name+":get", false)
}

func (b *builder) readMask() *descriptorpb.FieldDescriptorProto {
	b.depend("google/protobuf/field_mask.proto")
	return messageField("read_mask", readMaskNumber, ".google.protobuf.FieldMask")
}

// rowsName is the name of the field with rows: that of the projection, unless responses have it.
func (b *builder) rowsName() string {
	switch name := b.projection.head.Name; name {
	case "next_page_token", "token", "stale", "explain":
		return "rows"
	default:
		return name
	}
}

// answer adds what every response has.
func (b *builder) answer(fields ...*descriptorpb.FieldDescriptorProto) []*descriptorpb.FieldDescriptorProto {
	return append(fields, text("token", tokenNumber), truth("stale", staleNumber),
		messageField("explain", answerExplainNumber, explainType))
}

// params are the fields of the parameters, with their numbers.
func (b *builder) params(q *Query) []*descriptorpb.FieldDescriptorProto {
	var fields []*descriptorpb.FieldDescriptorProto
	if q.Params == nil {
		return fields
	}
	for i := range q.Params.Fields().Len() {
		f := q.Params.Fields().Get(i)
		fields = append(fields, b.copyField(nil, "", f, int32(f.Number())))
	}
	return fields
}

func (b *builder) list(s *descriptorpb.ServiceDescriptorProto, q *Query) {
	in := b.add(q.Name+"Request", append(b.params(q),
		scalar("page_size", pageSizeNumber, descriptorpb.FieldDescriptorProto_TYPE_INT32),
		text("page_token", pageTokenNumber),
		text("filter", filterNumber), text("order_by", orderByNumber), b.readMask(),
		messageField("freshness", freshnessNumber, freshnessType), truth("explain", explainNumber))...)
	rows := repeated(messageField(b.rowsName(), rowsNumber, b.row))
	out := b.add(q.Name+"Response", b.answer(rows, text("next_page_token", nextPageTokenNumber))...)
	b.method(s, q.Name, in, out, q.HTTP, false)
}

func (b *builder) count(s *descriptorpb.ServiceDescriptorProto, q *Query) {
	name := q.countMethod()
	in := b.add(name+"Request", append(b.params(q), text("filter", filterNumber),
		messageField("freshness", freshnessNumber, freshnessType), truth("explain", explainNumber))...)
	out := b.add(name+"Response", b.answer(whole("count", rowsNumber))...)
	b.method(s, name, in, out, b.pathOf(q, name, "count"), false)
}

func (b *builder) watch(s *descriptorpb.ServiceDescriptorProto, q *Query) {
	name, key := q.watchMethod(), camel(b.projection.head.Name)+"Key"
	full := "." + b.file.GetPackage() + "." + key
	if named(b.file.GetMessageType(), key) == nil {
		b.add(key, b.keyFields()...)
	}
	gap := scalar("on_gap", onGapNumber, descriptorpb.FieldDescriptorProto_TYPE_ENUM)
	gap.TypeName = proto.String(".millrace.projection.v1.OnGap")
	in := b.add(name+"Request", append(b.params(q), text("filter", filterNumber), b.readMask(),
		messageField("freshness", freshnessNumber, freshnessType), text("resume", resumeNumber), gap)...)
	frames := []*descriptorpb.FieldDescriptorProto{
		messageField("upsert", rowsNumber, b.row), messageField("delete", nextPageTokenNumber, full),
		messageField("synced", syncedNumber, ".millrace.projection.v1.Synced"),
		messageField("bookmark", bookmarkNumber, ".millrace.projection.v1.Bookmark"),
		messageField("reset", resetNumber, ".millrace.projection.v1.Reset"),
	}
	for _, f := range frames {
		f.OneofIndex = proto.Int32(0)
	}
	out := b.add(name+"Response", append(frames, text("token", tokenNumber), truth("stale", staleNumber))...)
	last := b.file.GetMessageType()[len(b.file.GetMessageType())-1]
	last.OneofDecl = []*descriptorpb.OneofDescriptorProto{{Name: proto.String("frame")}}
	b.method(s, name, in, out, b.pathOf(q, name, "watch"), true)
}

// pathOf returns the path of a query's count or watch.
func (b *builder) pathOf(q *Query, method, verb string) string {
	own := &Query{Name: q.Name}
	standard := "/v1/" + b.projection.head.Name + ":"
	if q.HTTP == standard+strings.ToLower(own.Name[:1])+own.Name[1:] || strings.Contains(q.HTTP, ":") {
		return standard + strings.ToLower(method[:1]) + method[1:]
	}
	return q.HTTP + ":" + verb
}

func (b *builder) groups(s *descriptorpb.ServiceDescriptorProto, q *Query) {
	a := q.Aggregate
	in := b.add(q.Name+"Request",
		messageField("freshness", freshnessNumber, freshnessType), truth("explain", explainNumber))
	var fields []*descriptorpb.FieldDescriptorProto
	for i, f := range a.GroupBy {
		fields = append(fields, b.copyField(nil, "", f, int32(i+1)))
	}
	if a.Count != "" {
		fields = append(fields, whole(a.Count, groupCountNumber))
	}
	for i, sum := range a.Sums {
		f := whole(sum.Name, int32(groupSumNumber+i))
		if isUnsigned(sum.Field) {
			f.Type = descriptorpb.FieldDescriptorProto_TYPE_UINT64.Enum()
		}
		fields = append(fields, f)
	}
	group := b.add(q.Name+"Group", fields...)
	out := b.add(q.Name+"Response", b.answer(repeated(messageField("groups", rowsNumber, group)))...)
	b.method(s, q.Name, in, out, q.HTTP, false)
}
