package definition

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Order is a field and a direction.
type Order struct {
	Field protoreflect.FieldDescriptor
	Desc  bool
}

// String writes it as in a file.
func (o Order) String() string {
	if o.Desc {
		return string(o.Field.Name()) + " desc"
	}
	return string(o.Field.Name())
}

// orderText writes a list of orders.
func orderText(orders []Order) string {
	texts := make([]string, len(orders))
	for i, o := range orders {
		texts[i] = o.String()
	}
	return strings.Join(texts, ", ")
}

// Index is an order of rows that queries can use. Behind its fields stands the key.
type Index struct {
	Name   string
	Fields []Order
	// IncludeAll: the index holds the rows, too.
	IncludeAll bool
	// Where: only rows for which it is true are in the index. Terms are its conjuncts in canonical
	// form.
	Where *Expression
	Terms []string
}

// Aggregate counts and adds rows by groups.
type Aggregate struct {
	Name    string
	GroupBy []protoreflect.FieldDescriptor
	// Count is the name of the count, "" for none.
	Count string
	Sums  []Sum
}

// Sum is a field that is added under a name. Sums are in the order of the file.
type Sum struct {
	Name  string
	Field protoreflect.FieldDescriptor
}

// Lookup fills fields of a row, when it is read, from the row of another projection.
type Lookup struct {
	Projection string
	By         protoreflect.FieldDescriptor
	// Fields are sorted by the name in this row.
	Fields []LookupField

	node *Node
}

// LookupField is a field of the row and the field of the other row that fills it.
type LookupField struct {
	Field protoreflect.FieldDescriptor
	From  string

	node *Node
}

var (
	indexObject = &Object{Name: "an index", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "name", Type: "a name", Help: "it is never changed", Required: true},
		{Name: "fields", Type: "a list of fields", Help: "the order; `desc` behind a field turns it round", Required: true},
		{Name: "include", Type: "all", Help: "all: the rows are stored in the index, too, so that lists read nothing else"},
		{Name: "where", Type: "CEL over row", Help: "only these rows are in the index"},
	}}
	aggregateObject = &Object{Name: "an aggregate", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "name", Type: "a name", Help: "it is never changed", Required: true},
		{Name: "groupBy", Type: "a list of fields", Help: "the groups", Required: true},
		{Name: "count", Type: "a name", Help: "the name of the number of rows"},
		{Name: "sum", Type: "{name: field}", Help: "integers that are added"},
	}}
	lookupObject = &Object{Name: "a lookup", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "projection", Type: "a projection", Help: "where the other row is", Required: true},
		{Name: "by", Type: "a field", Help: "text field of this row that holds the other row's key", Required: true},
		{Name: "fields", Type: "{field: field of the other row}", Help: "what is filled", Required: true},
	}}
)

func (p *Projection) readIndexes(s *Scope, n *Node) {
	for _, item := range s.Items(n, "indexes", MaxIndexes) {
		if !s.Object(item, indexObject) {
			continue
		}
		x := &Index{Name: s.Name(item.Get("name")), IncludeAll: s.OneOf(item.Get("include"), "", "all") == "all"}
		if slices.ContainsFunc(p.Indexes, func(o *Index) bool { return o.Name == x.Name }) && x.Name != "" {
			s.Add(item.Get("name"), namedTwice, x.Name)
			continue
		}
		if x.Name == "key" {
			s.Add(item.Get("name"), indexNamedKey)
			continue
		}
		fields, ok := p.readOrder(s, item.Get("fields"))
		x.Fields = fields
		if w := item.Get("where"); w != nil {
			x.Where = s.condition(w, p.row)
			if x.Where == nil {
				ok = false
			}
			p.refuseLookedUp(s, w, x.Where)
			x.Terms = p.analyse(x.Where).all
		}
		if x.Name != "" && ok && len(x.Fields) > 0 {
			p.Indexes = append(p.Indexes, x)
			p.nodes["index."+x.Name] = item
		}
	}
}

// readOrder reads fields with directions.
func (p *Projection) readOrder(s *Scope, n *Node) ([]Order, bool) {
	items := s.Items(n, "fields", maxIndexFields)
	if n != nil && n.Shape == ListShape && len(items) == 0 {
		s.Add(n, noFields)
	}
	var orders []Order
	for _, item := range items {
		name, direction, _ := strings.Cut(s.Text(item), " ")
		if name == "" {
			return nil, false
		}
		if direction != "" && direction != "desc" && direction != "asc" {
			s.Add(item, wrongDirection, short(direction))
			return nil, false
		}
		f := p.rowFieldNamed(s, item, name)
		switch {
		case f == nil:
			return nil, false
		case p.lookedUp(f):
			s.Add(item, lookedUpField, f.Name(), "in an index or an order",
				"put the value into the event, or sort by "+p.lookupKey(f))
			return nil, false
		case !isSortable(f):
			s.Add(item, notSortable, f.Name(), typeName(f))
			return nil, false
		case slices.ContainsFunc(orders, func(o Order) bool { return o.Field == f }):
			s.Add(item, namedTwice, f.Name())
			return nil, false
		}
		orders = append(orders, Order{Field: f, Desc: direction == "desc"})
	}
	return orders, len(orders) > 0
}

func (p *Projection) readAggregates(s *Scope, n *Node) {
	for _, item := range s.Items(n, "aggregates", MaxAggregates) {
		if !s.Object(item, aggregateObject) {
			continue
		}
		a := &Aggregate{Name: s.Name(item.Get("name"))}
		if slices.ContainsFunc(p.Aggregates, func(o *Aggregate) bool { return o.Name == a.Name }) && a.Name != "" {
			s.Add(item.Get("name"), namedTwice, a.Name)
			continue
		}
		groups, ok := p.readOrder(s, item.Get("groupBy"))
		for _, g := range groups {
			a.GroupBy = append(a.GroupBy, g.Field)
			if g.Desc {
				s.Add(item.Get("groupBy"), groupDirection, g.Field.Name())
			}
		}
		if c := item.Get("count"); c != nil {
			if a.Count = s.Name(c); a.Count != "" && p.isGroup(a, a.Count) {
				s.Add(c, namedTwice, a.Count)
			}
		}
		p.readSums(s, item.Get("sum"), a)
		if a.Count == "" && len(a.Sums) == 0 {
			s.Add(item, aggregateEmpty)
			ok = false
		}
		if a.Name != "" && ok {
			p.Aggregates = append(p.Aggregates, a)
		}
	}
}

func (p *Projection) readSums(s *Scope, n *Node, a *Aggregate) {
	for _, e := range s.Entries(n, "sums", maxIndexFields) {
		name, f := s.Name(e.Key), p.rowField(s, e.Value)
		switch {
		case name == "" || f == nil:
		case p.lookedUp(f):
			s.Add(e.Value, lookedUpField, f.Name(), "in an aggregate", "put the value into the event")
		case !isInteger(f):
			s.Add(e.Value, sumNotInteger, f.Name(), typeName(f))
		case name == a.Count || p.isGroup(a, name):
			s.Add(e.Key, namedTwice, name)
		default:
			a.Sums = append(a.Sums, Sum{Name: name, Field: f})
		}
	}
}

func (p *Projection) isGroup(a *Aggregate, name string) bool {
	return slices.ContainsFunc(a.GroupBy, func(f protoreflect.FieldDescriptor) bool { return string(f.Name()) == name })
}

func (p *Projection) readLookups(s *Scope, n *Node) {
	for _, item := range s.Items(n, "lookups", MaxLookups) {
		if !s.Object(item, lookupObject) {
			continue
		}
		l := &Lookup{Projection: s.Name(item.Get("projection")), node: item}
		if by := item.Get("by"); by != nil {
			l.By = p.rowField(s, by)
			if l.By != nil && (l.By.Kind() != protoreflect.StringKind || l.By.IsList()) {
				s.Add(by, lookupNotString, l.By.Name(), typeName(l.By))
				l.By = nil
			}
			if l.By != nil && p.lookedUp(l.By) {
				s.Add(by, lookedUpField, l.By.Name(), "as the key of a lookup", "put the value into the event")
			}
		}
		for _, e := range s.Entries(item.Get("fields"), "fields", maxFields) {
			f := p.rowFieldNamed(s, e.Key, e.Key.Text)
			switch {
			case f == nil:
			case p.isKey(f):
				s.Add(e.Key, lookedUpField, f.Name(), "in the key", "look up another field")
			case p.lookedUp(f) || f == l.By:
				s.Add(e.Key, namedTwice, f.Name())
			default:
				l.Fields = append(l.Fields, LookupField{Field: f, From: s.Text(e.Value), node: e.Value})
			}
		}
		slices.SortFunc(l.Fields, func(a, b LookupField) int {
			return strings.Compare(string(a.Field.Name()), string(b.Field.Name()))
		})
		if l.Projection != "" && l.By != nil {
			p.Lookups = append(p.Lookups, l)
		}
	}
}

// lookedUp says whether a field is filled when the row is read.
func (p *Projection) lookedUp(f protoreflect.FieldDescriptor) bool { return p.lookupOf(f) != nil }

func (p *Projection) lookupOf(f protoreflect.FieldDescriptor) *Lookup {
	for _, l := range p.Lookups {
		if slices.ContainsFunc(l.Fields, func(x LookupField) bool { return x.Field == f }) {
			return l
		}
	}
	return nil
}

func (p *Projection) lookupKey(f protoreflect.FieldDescriptor) string {
	return string(p.lookupOf(f).By.Name())
}

// refuseLookedUp refuses an expression over rows that reads a looked-up field.
func (p *Projection) refuseLookedUp(s *Scope, n *Node, e *Expression) {
	if e == nil {
		return
	}
	for _, name := range rowFieldsOf(e) {
		if f := field(p.Row, name); f != nil && p.lookedUp(f) {
			s.Add(n, lookedUpField, f.Name(), "in a filter", "put the value into the event, or filter by "+p.lookupKey(f))
		}
	}
}

// keepLookups refuses a version that lacks what an applied projection looks up in it.
func (p *Projection) keepLookups(s *Scope) {
	for _, d := range s.Applied {
		other, ok := d.(*Projection)
		if !ok || find(s.Definitions, other.head) != nil {
			continue // of another kind, or itself replaced and linked
		}
		for _, l := range other.Lookups {
			if l.Projection != p.head.Name {
				continue
			}
			for _, x := range l.Fields {
				from := field(p.Row, x.From)
				if len(p.Key) != 1 || from == nil || p.lookedUp(from) || typeName(from) != typeName(x.Field) {
					s.Add(p.rowSpec, lookupLost, other.head.Name, x.From, typeName(x.Field), other.head.Name)
				}
			}
		}
	}
}

// link checks the projection that a lookup names.
func (l *Lookup) link(s *Scope) {
	target, _ := s.Find(projectionName, l.Projection).(*Projection)
	if target == nil {
		s.Add(l.node.Get("projection"), unknownProjection, l.Projection,
			nearest(l.Projection, "projections", s.Names(projectionName)))
		return
	}
	if len(target.Key) != 1 {
		s.Add(l.node.Get("projection"), lookupManyRows, l.Projection)
		return
	}
	for _, x := range l.Fields {
		from := field(target.Row, x.From)
		switch {
		case from == nil:
			s.Add(x.node, unknownField, "the row of "+l.Projection, short(x.From),
				nearest(x.From, "its fields", fieldNames(target.Row)))
		case target.lookedUp(from):
			s.Add(x.node, lookupOfLookup, x.From, l.Projection)
		case typeName(from) != typeName(x.Field):
			s.Add(x.node, lookupType, x.Field.Name(), typeName(x.Field), x.From, l.Projection, typeName(from))
		}
	}
}
