package definition

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Limits of projections.
const (
	MaxProjections = 64
	MaxIndexes     = 16
	MaxQueries     = 32
	MaxAggregates  = 8
	MaxLookups     = 4
	MaxPage        = 500
	maxSources     = 16
	maxEvents      = 256
	maxFields      = 256
	maxKeyFields   = 4
	maxIndexFields = 8
	maxParams      = 32
	maxOrders      = 16
	// defaultPage is the size of a page that names none.
	defaultPage = 50
)

const projectionName = "Projection"

// Projection is a checked definition of kind Projection.
type Projection struct {
	head Head
	// Row is the message of the rows. Inline says that its fields stand in the file.
	Row    protoreflect.MessageDescriptor
	Inline bool
	// Key are the fields of the key. The first is the entity id.
	Key     []protoreflect.FieldDescriptor
	Visible *Expression
	Sources []*ProjectionSource
	Strict  bool
	// MaxItems says how long lists are, by the full names of their fields.
	MaxItems   map[string]int
	Lookups    []*Lookup
	Indexes    []*Index
	Aggregates []*Aggregate
	Queries    []*Query
	// Service is the bare name of the generated service.
	Service     string
	OnError     string
	Consistency Consistency
	Rollout     Rollout

	pkg     string
	api     *descriptorpb.FileDescriptorProto
	schema  *Schema
	row     *Environment
	nodes   map[string]*Node
	rowSpec *Node
	root    *Node
}

// Consistency says which levels of freshness the queries have.
type Consistency struct {
	Default      string
	MaxStaleness time.Duration
	Allow        []string
}

// Rollout says how a new version is built and takes over.
type Rollout struct {
	Build, Promote string
	// Sample is the part of the rows that is compared, MaxDiff how many may differ; -1 for any.
	Sample       float64
	MaxDiff      int
	KeepPrevious time.Duration
}

// ProjectionSource is one entity type of `from`.
type ProjectionSource struct {
	Entity EntityType
	// Events are the clauses of events, sorted by type. Ignored are types that are known and left out.
	Events  []*Clause
	Ignored []string
	// Snapshot is the clause of snapshots, State that of values; Deleted that of a deleted value.
	Snapshot, State, Deleted *Clause
	// Handler is the method that folds instead of clauses: service/method.
	Handler string
}

// Action says what a clause does with a row.
type Action string

// The actions of clauses.
const (
	// SetRow creates the row if need be, UpdateRow changes it if it is there, DeleteRow removes it.
	SetRow    Action = "set"
	UpdateRow Action = "update"
	DeleteRow Action = "delete"
)

// Clause is what one type of record does to the rows of its entity.
type Clause struct {
	// Type is the full name of the message, or the whole type URL; Message is nil for a dynamic one.
	Type    string
	Message protoreflect.MessageDescriptor
	Action  Action
	// All: every row of the entity. ForEach is a list or a map, one action for each of its items.
	All     bool
	ForEach *ForEach
	// Fields are what is set, sorted by the names of the fields. Those of the key, but the first, say
	// which row is meant.
	Fields []*Value
	// Gone is true of states that stand for a deleted entity, of snapshots only.
	Gone *Expression

	node *Node
}

// ForEach repeats an action.
type ForEach struct {
	In       *Expression
	As       string
	MaxItems int
}

// projectionKind is the kind Projection.
type projectionKind struct{}

func (projectionKind) Name() string  { return projectionName }
func (projectionKind) Limit() int    { return MaxProjections }
func (projectionKind) Spec() *Object { return projectionObject }

// Head says which projection it is.
func (p *Projection) Head() Head { return p.head }

// API is the file of the generated service.
func (p *Projection) API() *descriptorpb.FileDescriptorProto { return p.api }

// Read makes a projection of a document.
func (projectionKind) Read(s *Scope, d *Document) Definition {
	p := &Projection{head: d.Head, schema: s.Schema, nodes: map[string]*Node{}, rowSpec: d.Spec.Get("row"), root: d.Root}
	if p.head.Name == "" {
		return nil
	}
	if n := d.Spec.Get("join"); n != nil {
		s.Add(n, joinRefused)
	}
	p.Service = camel(p.head.Name) + "Query"
	if n := d.Spec.Get("service"); n != nil {
		p.readService(s, n)
	}
	p.pkg = p.packageFor(s, d.Spec)
	p.readMaxItems(s, d.Spec.Get("maxItems"))
	if !p.readRow(s, d.Spec.Get("row")) || !p.readKey(s, d.Spec.Get("key")) {
		return nil
	}
	env, err := s.Environment(p.pkg, p.MaxItems, messageVariable("row", p.Row))
	if err != nil {
		s.Add(d.Spec, expressionRefused, err.Error(), "this is a defect of millrace: report it")
		return nil
	}
	p.row = env
	p.readLookups(s, d.Spec.Get("lookup"))
	if n := d.Spec.Get("visible"); n != nil {
		p.Visible = s.condition(n, p.row)
		p.refuseLookedUp(s, n, p.Visible)
	}
	p.Strict = s.Bool(d.Spec.Get("strict"))
	p.OnError = s.OneOf(d.Spec.Get("onError"), "park-key", "park-key", "skip", "stop")
	p.readSources(s, d.Spec.Get("from"))
	p.readIndexes(s, d.Spec.Get("indexes"))
	p.readAggregates(s, d.Spec.Get("aggregates"))
	p.readConsistency(s, d.Spec.Get("consistency"))
	p.readRollout(s, d.Spec.Get("rollout"))
	p.checkBuild(s)
	p.readQueries(s, d.Spec.Get("queries"))
	return p
}

// Link checks lookups, and makes the generated API and compares it with the applied one.
func (p *Projection) Link(s *Scope) {
	for _, l := range p.Lookups {
		l.link(s)
	}
	p.keepLookups(s)
	if s.failed() {
		return
	}
	p.api = p.describe(s)
	if before, _ := find(s.Applied, p.head).(*Projection); before != nil && p.api != nil && before.api != nil {
		p.checkAPI(s, before)
	}
}

func find(list []Definition, h Head) Definition {
	for _, d := range list {
		if o := d.Head(); o.Kind == h.Kind && o.Name == h.Name {
			return d
		}
	}
	return nil
}

var projectionObject = &Object{Name: "the spec of a projection", Fields: []Field{ //nolint:gochecknoglobals // a constant table
	{Name: "row", Type: "a message, or fields", Help: "message of the rows, or {name: type} for fields of its own", Required: true},
	{Name: "key", Type: "a list of fields", Help: "fields of the row; the first is the entity id", Required: true},
	{Name: "from", Type: "a list of sources", Help: "entity types whose records are folded", Required: true},
	{Name: "visible", Type: "CEL over row", Help: "rows for which this is false are kept, and neither indexed nor returned"},
	{Name: "strict", Type: "true or false", Help: "an event that is neither mapped nor ignored is an error"},
	{Name: "maxItems", Type: "{message.field: number}", Help: "how long lists are, for the estimated cost of expressions"},
	{Name: "lookup", Type: "a list of lookups", Help: "fields of the row that are filled when it is read"},
	{Name: "join", Type: "", Help: "reserved; not supported"},
	{Name: "indexes", Type: "a list of indexes", Help: "orders of rows that queries can use"},
	{Name: "aggregates", Type: "a list of aggregates", Help: "counts and sums by groups"},
	{Name: "queries", Type: "{Name: query}", Help: "methods of the generated service"},
	{Name: "service", Type: "a name", Help: "the generated service; <Name>Query if not given"},
	{Name: "onError", Type: "park-key, skip or stop", Help: "what happens when a record cannot be folded"},
	{Name: "consistency", Type: "a map", Help: "levels of freshness of the queries"},
	{Name: "rollout", Type: "a map", Help: "how a new version is built and takes over"},
}}

// condition reads a bare expression that is true or false.
func (s *Scope) condition(n *Node, env *Environment) *Expression {
	text, ok := s.bare(n)
	if !ok {
		return nil
	}
	e := s.Expression(n, 0, text, env)
	if e == nil {
		return nil
	}
	if k := e.Type.Kind(); k != types.BoolKind && k != types.DynKind {
		s.Add(n, notACondition, e.Type.String())
		return nil
	}
	return e
}

// bare returns the text of an expression without ${ }.
func (s *Scope) bare(n *Node) (string, bool) {
	if n.Shape == ScalarShape && !n.Quoted && boolText.MatchString(n.Text) {
		return n.Text, true
	}
	text := s.Text(n)
	if n.Quoted && strings.TrimSpace(text) == "" {
		s.Add(n, emptyExpression)
		return "", false
	}
	if strings.HasPrefix(strings.TrimSpace(text), "${") {
		s.Add(n, bracesNotNeeded)
		return "", false
	}
	return text, text != ""
}

func (p *Projection) readService(s *Scope, n *Node) {
	name := s.Text(n)
	if name == "" {
		return
	}
	if !camelText.MatchString(name) {
		s.Add(n, notAServiceName, short(name))
		return
	}
	p.Service = name
	if full := "millrace.query." + p.head.Name + "." + name; slices.Contains(s.Schema.services, full) {
		s.Add(n, serviceTaken, full)
	}
}

// packageFor returns the package in which names of expressions are looked for: that of the row,
// or of the first source's service.
func (p *Projection) packageFor(s *Scope, spec *Node) string {
	if n := spec.Get("row"); n != nil && n.Shape == ScalarShape {
		if i := strings.LastIndexByte(n.Text, '.'); i > 0 && protoreflect.FullName(n.Text).IsValid() {
			return n.Text[:i]
		}
	}
	if n := spec.Get("from"); n != nil && n.Shape == ListShape && len(n.Items) > 0 {
		if e := n.Items[0].Get("entity"); e != nil {
			if found := s.Schema.entity(e.Text); found != nil {
				return packageOf(found.Service)
			}
		}
	}
	return ""
}

func (p *Projection) readMaxItems(s *Scope, n *Node) {
	p.MaxItems = map[string]int{}
	for _, e := range s.Entries(n, "lists", maxFields) {
		message, name := cutLast(e.Key.Text)
		m := s.Schema.message(message, p.pkg)
		if m == nil {
			s.Add(e.Key, unknownMessage, short(message), nearest(message, "messages", s.Schema.messagesNear(message, p.pkg)))
			continue
		}
		f := field(m, name)
		switch {
		case f == nil:
			s.Add(e.Key, unknownField, m.FullName(), short(name), nearest(name, "its fields", fieldNames(m)))
		case !f.IsList() && !f.IsMap():
			s.Add(e.Key, notAList, f.FullName(), typeName(f))
		default:
			p.MaxItems[string(f.FullName())] = s.Int(e.Value, 1, 1_000_000, assumedSize)
		}
	}
}

func cutLast(name string) (before, after string) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return "", name
	}
	return name[:i], name[i+1:]
}

func (p *Projection) readRow(s *Scope, n *Node) bool {
	switch {
	case n == nil:
		return false
	case n.Shape == MappingShape:
		p.Inline = true
		p.Row = p.inlineRow(s, n)
		return p.Row != nil
	}
	name := s.Text(n)
	if name == "" {
		return false
	}
	if p.Row = s.Schema.message(name, p.pkg); p.Row == nil {
		s.Add(n, unknownMessage, short(name), nearest(name, "messages", s.Schema.messagesNear(name, p.pkg)))
		return false
	}
	if of, why := notProto3(p.Row, map[protoreflect.FullName]bool{}); of != "" {
		s.Add(n, rowNotProto3, of, why)
		return false
	}
	return true
}

// notProto3 returns what of a message, or of what it holds, cannot be copied into a proto3 file.
func notProto3(m protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) (of, why string) {
	if seen[m.FullName()] || m.FullName().Parent() == "google.protobuf" {
		return "", ""
	}
	seen[m.FullName()] = true
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		name := string(f.FullName())
		switch {
		case f.Kind() == protoreflect.GroupKind:
			return name, "it is a group"
		case f.Cardinality() == protoreflect.Required:
			return name, "it is required"
		case f.HasDefault():
			return name, "it has a default"
		case f.Enum() != nil && f.Enum().FullName().Parent() != "google.protobuf" && f.Enum().Values().Get(0).Number() != 0:
			return string(f.Enum().FullName()), "its first value is not 0"
		case f.Message() != nil:
			if of, why := notProto3(f.Message(), seen); of != "" {
				return of, why
			}
		}
	}
	return "", ""
}

// inlineRow makes a message of fields that stand in the file.
func (p *Projection) inlineRow(s *Scope, n *Node) protoreflect.MessageDescriptor {
	file := &descriptorpb.FileDescriptorProto{
		Name:    proto.String(capturedFolder + "rows/" + p.head.Name + ".proto"),
		Package: proto.String("millrace.query." + p.head.Name), Syntax: proto.String("proto3"),
	}
	message := &descriptorpb.DescriptorProto{Name: proto.String(camel(p.head.Name) + "Row")}
	file.MessageType = []*descriptorpb.DescriptorProto{message}
	if !s.fields(n, message, file, p.pkg, 1<<29-1) {
		return nil
	}
	return s.register(n, p.pkg, file)
}

func (p *Projection) readKey(s *Scope, n *Node) bool {
	if n == nil {
		return false
	}
	items := s.Items(n, "fields of the key", maxKeyFields)
	for _, item := range items {
		f := p.rowField(s, item)
		if f == nil {
			continue
		}
		switch {
		case len(p.Key) == 0 && (f.Kind() != protoreflect.StringKind || f.IsList()):
			s.Add(item, keyNotString, f.Name(), typeName(f))
		case !isSortable(f) || f.Kind() == protoreflect.DoubleKind || f.Kind() == protoreflect.FloatKind:
			s.Add(item, keyNotSortable, f.Name(), typeName(f))
		case f.HasPresence() && f.Message() == nil:
			s.Add(item, keyOptional, f.Name())
		case slices.Contains(fixedNames(), string(f.Name())):
			s.Add(item, keyTaken, f.Name())
		case slices.Contains(p.Key, f):
			s.Add(item, namedTwice, f.Name())
		default:
			p.Key = append(p.Key, f)
			continue
		}
		return false
	}
	if n.Shape == ListShape && len(items) == 0 {
		s.Add(n, keyEmpty)
	}
	return len(p.Key) > 0 && len(p.Key) == len(items)
}

// rowField reads the name of a field of the row.
func (p *Projection) rowField(s *Scope, n *Node) protoreflect.FieldDescriptor {
	name := s.Text(n)
	if name == "" {
		return nil
	}
	return p.rowFieldNamed(s, n, name)
}

func (p *Projection) rowFieldNamed(s *Scope, n *Node, name string) protoreflect.FieldDescriptor {
	f := field(p.Row, name)
	if f == nil {
		s.Add(n, unknownField, p.rowName(), short(name), nearest(name, "its fields", fieldNames(p.Row)))
	}
	return f
}

func (p *Projection) rowName() string {
	if p.Inline {
		return "the row"
	}
	return string(p.Row.FullName())
}

// isKey says whether a field belongs to the key.
func (p *Projection) isKey(f protoreflect.FieldDescriptor) bool { return slices.Contains(p.Key, f) }

var consistencyObject = &Object{Name: "consistency", Fields: []Field{ //nolint:gochecknoglobals // a constant table
	{Name: "default", Type: "a level", Help: "the level of a call that names none: eventual, bounded, at_least or strong"},
	{Name: "maxStaleness", Type: "a duration", Help: "age above which an answer is marked as stale, and the default of bounded"},
	{Name: "allow", Type: "a list of levels", Help: "the levels that a call may ask for; all when not given"},
}}

func levels() []string { return []string{"eventual", "bounded", "at_least", "strong"} }

func (p *Projection) readConsistency(s *Scope, n *Node) {
	p.Consistency = Consistency{Default: "eventual", MaxStaleness: 2 * time.Second, Allow: levels()}
	if n == nil || !s.Object(n, consistencyObject) {
		return
	}
	c := &p.Consistency
	c.MaxStaleness = s.Duration(n.Get("maxStaleness"), time.Millisecond, time.Hour, c.MaxStaleness)
	if allow := n.Get("allow"); allow != nil {
		c.Allow = nil
		for _, item := range s.Items(allow, "levels", len(levels())) {
			c.Allow = append(c.Allow, s.OneOf(item, "", levels()...))
		}
		slices.Sort(c.Allow)
		c.Allow = slices.Compact(c.Allow)
	}
	c.Default = s.OneOf(n.Get("default"), c.Default, levels()...)
	if !slices.Contains(c.Allow, c.Default) {
		at := n.Get("default")
		if at == nil {
			at = n.Get("allow")
		}
		s.Add(at, levelNotAllowed, c.Default)
	}
}

var (
	rolloutObject = &Object{Name: "rollout", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "build", Type: "log or image", Help: "what the rows are built from: all records, or snapshots and states"},
		{Name: "promote", Type: "auto or manual", Help: "whether a version takes over by itself when it is ready"},
		{Name: "verify", Type: "{sample: 0.01, maxDiff: 0}", Help: "part of the rows that is compared with the version before"},
		{Name: "keepPrevious", Type: "a duration", Help: "how long the version before is kept for a rollback"},
	}}
	verifyObject = &Object{Name: "verify", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "sample", Type: "a number from 0 to 1", Help: "part of the rows"},
		{Name: "maxDiff", Type: "a whole number", Help: "more rows that differ refuse the promotion"},
	}}
)

func (p *Projection) readRollout(s *Scope, n *Node) {
	p.Rollout = Rollout{Build: "log", Promote: "auto", MaxDiff: -1, KeepPrevious: 24 * time.Hour}
	if n == nil || !s.Object(n, rolloutObject) {
		return
	}
	r := &p.Rollout
	r.Build = s.OneOf(n.Get("build"), r.Build, "log", "image")
	r.Promote = s.OneOf(n.Get("promote"), r.Promote, "auto", "manual")
	r.KeepPrevious = s.Duration(n.Get("keepPrevious"), 0, 365*24*time.Hour, r.KeepPrevious)
	if build := n.Get("build"); r.Build == "image" {
		s.Add(build, notYet, "build from the image", "the rows are the same, built from all records of the log")
	}
	if v := n.Get("verify"); v != nil && s.Object(v, verifyObject) {
		s.Add(v, notYet, "compare rows", "a version is promoted when it is complete; to look first, write promote: manual")
		r.Sample = s.Fraction(v.Get("sample"), 0)
		r.MaxDiff = s.Int(v.Get("maxDiff"), 0, 1<<31-1, -1)
	}
}

// camel makes a name of a proto file of a name in small letters: by_customer is ByCustomer.
func camel(name string) string {
	var b strings.Builder
	for part := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '_' || r == '-' || r == '.' }) {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}

func boolWord(b bool) string { return strconv.FormatBool(b) }
