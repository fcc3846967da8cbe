package definition

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Query is a list of rows, or the groups of an aggregate.
type Query struct {
	// Name is that of the method: ListByCustomer.
	Name string
	// Aggregate is set for groups; all that follows, but Allow and HTTP, is for lists.
	Aggregate *Aggregate
	// Params is a message with the parameters, nil when there are none.
	Params protoreflect.MessageDescriptor
	Where  *Expression
	// Filterable are the fields that a filter may name, sorted by name.
	Filterable []protoreflect.FieldDescriptor
	// Plans has one plan for each order, the default first.
	Plans                []*Plan
	AllowScan            bool
	DefaultPage, MaxPage int
	// Count: there is a method that counts; CountFrom is the aggregate that has the number, nil when
	// entries of the index are counted.
	Count     bool
	CountFrom *Aggregate
	// Watch: there is a method that streams changes, and can be resumed for so long; 0 for none.
	Watch time.Duration
	Allow *Expression
	// HTTP is the path of the method's HTTP/JSON form.
	HTTP string

	node *Node
	// only is the index that the query names; byName: it names one, and nil is the key.
	only   *Index
	byName bool
}

var (
	queryObject = &Object{Name: "a query", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "params", Type: "{name: type}", Help: "fields of the request"},
		{Name: "where", Type: "CEL over row and params", Help: "the rows"},
		{Name: "filterable", Type: "a list of fields", Help: "fields that a caller's filter may name"},
		{Name: "orderable", Type: "a list of orders", Help: "orders that a caller may ask for; the first is the default"},
		{Name: "index", Type: "an index", Help: "the index to use, key for the rows themselves; chosen when not given"},
		{Name: "allowScan", Type: "true or false", Help: "rows may be examined one by one"},
		{Name: "page", Type: "{default: 50, max: 500}", Help: "sizes of pages"},
		{Name: "count", Type: "true or false", Help: "there is a method Count…"},
		{Name: "watch", Type: "true, or {resume: 10m}", Help: "there is a method Watch…, and how long it can be resumed"},
		{Name: "aggregate", Type: "an aggregate", Help: "the query returns its groups instead of rows"},
		{Name: "allow", Type: "CEL over caller and params", Help: "who may call"},
		{Name: "http", Type: "a path", Help: "path of the HTTP/JSON form; {name} stands for a parameter"},
	}}
	pageObject = &Object{Name: "page", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "default", Type: "a whole number", Help: "rows of a page when the caller does not say"},
		{Name: "max", Type: "a whole number", Help: "rows of a page at most"},
	}}
	watchObject = &Object{Name: "watch", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "resume", Type: "a duration", Help: "how long after its end a watch can go on where it was"},
	}}
)

func (p *Projection) readQueries(s *Scope, n *Node) {
	for _, e := range s.Entries(n, "queries", MaxQueries) {
		if !camelText.MatchString(e.Key.Text) {
			s.Add(e.Key, notAQueryName, short(e.Key.Text))
			continue
		}
		if !s.Object(e.Value, queryObject) {
			continue
		}
		q := &Query{Name: e.Key.Text, DefaultPage: defaultPage, MaxPage: MaxPage, node: e.Key}
		if e.Value.Get("aggregate") != nil {
			p.readGroups(s, e.Value, q)
		} else {
			p.readList(s, e, q)
		}
		p.readAllow(s, e.Value.Get("allow"), q)
		p.readHTTP(s, e.Value.Get("http"), q)
		p.Queries = append(p.Queries, q)
	}
	p.checkMethods(s)
}

// readGroups reads a query of an aggregate.
func (p *Projection) readGroups(s *Scope, n *Node, q *Query) {
	for _, e := range n.Entries {
		if !slices.Contains([]string{"aggregate", "allow", "http"}, e.Key.Text) {
			s.Add(e.Key, notOfAggregate, short(e.Key.Text))
		}
	}
	name := s.Text(n.Get("aggregate"))
	i := slices.IndexFunc(p.Aggregates, func(a *Aggregate) bool { return a.Name == name })
	if i < 0 {
		var names []string
		for _, a := range p.Aggregates {
			names = append(names, a.Name)
		}
		s.Add(n.Get("aggregate"), unknownAggregate, short(name), nearest(name, "aggregates", names))
		return
	}
	q.Aggregate = p.Aggregates[i]
}

func (p *Projection) readList(s *Scope, e Entry, q *Query) {
	n := e.Value
	if !strings.HasPrefix(q.Name, "List") {
		s.Add(e.Key, listName, q.Name, "List"+q.Name)
	}
	q.AllowScan = s.Bool(n.Get("allowScan"))
	if page := n.Get("page"); page != nil && s.Object(page, pageObject) {
		q.MaxPage = s.Int(page.Get("max"), 1, MaxPage, MaxPage)
		q.DefaultPage = s.Int(page.Get("default"), 1, q.MaxPage, min(defaultPage, q.MaxPage))
	}
	q.Count = s.Bool(n.Get("count"))
	q.Watch = readWatch(s, n.Get("watch"))
	p.readFilterable(s, n.Get("filterable"), q)
	variables := []Variable{messageVariable("row", p.Row)}
	if params := n.Get("params"); params != nil {
		if q.Params = p.readParams(s, params, q); q.Params == nil {
			return
		}
		variables = append(variables, messageVariable("params", q.Params))
	}
	if where := n.Get("where"); where != nil {
		env, err := s.Environment(p.pkg, p.MaxItems, variables...)
		if err != nil {
			s.Add(where, expressionRefused, err.Error(), "this is a defect of millrace: report it")
			return
		}
		if q.Where = s.condition(where, env); q.Where == nil {
			return
		}
		before := len(s.problems)
		p.refuseLookedUp(s, where, q.Where)
		if len(s.problems) > before {
			return
		}
	}
	p.readPlans(s, n, q)
}

func readWatch(s *Scope, n *Node) time.Duration {
	const standard = 10 * time.Minute
	switch {
	case n == nil:
		return 0
	case n.Shape == MappingShape:
		if s.Object(n, watchObject) {
			return s.Duration(n.Get("resume"), time.Second, 24*time.Hour, standard)
		}
	case s.Bool(n):
		return standard
	}
	return 0
}

// readParams makes a message of the parameters.
func (p *Projection) readParams(s *Scope, n *Node, q *Query) protoreflect.MessageDescriptor {
	if n.Shape == MappingShape && len(n.Entries) > maxParams {
		s.Add(n, tooMany, len(n.Entries), "parameters", maxParams)
		return nil
	}
	for _, e := range n.Entries {
		if slices.Contains(fixedNames(), e.Key.Text) {
			s.Add(e.Key, paramTaken, e.Key.Text)
			return nil
		}
	}
	file := &descriptorpb.FileDescriptorProto{
		Name:    proto.String(capturedFolder + "params/" + p.head.Name + "/" + q.Name + ".proto"),
		Package: proto.String("millrace.query." + p.head.Name), Syntax: proto.String("proto3"),
	}
	message := &descriptorpb.DescriptorProto{Name: proto.String(q.Name + "Params")}
	file.MessageType = []*descriptorpb.DescriptorProto{message}
	if !s.fields(n, message, file, p.pkg, pageSizeNumber-1) {
		return nil
	}
	return s.register(n, p.pkg, file)
}

func (p *Projection) readFilterable(s *Scope, n *Node, q *Query) {
	for _, item := range s.Items(n, "fields", maxFields) {
		f := p.rowField(s, item)
		switch {
		case f == nil:
		case p.lookedUp(f):
			s.Add(item, lookedUpField, f.Name(), "in a filter", "put the value into the event, or filter by "+p.lookupKey(f))
		case f.IsMap(), f.Message() != nil && !isSortable(f):
			s.Add(item, notFilterable, f.Name(), typeName(f))
		case slices.Contains(q.Filterable, f):
			s.Add(item, namedTwice, f.Name())
		default:
			q.Filterable = append(q.Filterable, f)
		}
	}
	slices.SortFunc(q.Filterable, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Name(), b.Name()) })
}

// readPlans finds an index for each order.
func (p *Projection) readPlans(s *Scope, n *Node, q *Query) {
	orders, places := [][]Order{nil}, []*Node{q.node}
	if o := n.Get("orderable"); o != nil {
		orders, places = nil, nil
		for _, item := range s.Items(o, "orders", maxOrders) {
			order, ok := p.readOrder(s, item)
			if !ok {
				return
			}
			orders, places = append(orders, order), append(places, item)
		}
	}
	var only *Index
	at := n.Get("index")
	if at != nil {
		name := s.Text(at)
		i := slices.IndexFunc(p.Indexes, func(x *Index) bool { return x.Name == name })
		if i >= 0 {
			only = p.Indexes[i]
		} else if name != "key" {
			names := []string{"key"}
			for _, x := range p.Indexes {
				names = append(names, x.Name)
			}
			s.Add(at, unknownIndex, short(name), nearest(name, "indexes", names))
			return
		}
	}
	t := p.analyse(q.Where)
	q.only, q.byName = only, at != nil
	for i, order := range orders {
		pl := p.plan(t, order, only, at != nil)
		if pl == nil {
			p.notServed(s, places[i], t, order, only, at != nil)
			continue
		}
		if len(pl.Prefix) == 0 && len(pl.Residual) > 0 && !q.AllowScan {
			p.wouldScan(s, n, t, order, pl)
			continue
		}
		q.Plans = append(q.Plans, pl)
	}
	q.CountFrom = p.countFrom(q, t)
}

// notServed reports an order without an index.
func (p *Projection) notServed(s *Scope, at *Node, t *terms, order []Order, only *Index, byName bool) {
	switch {
	case byName && only != nil:
		s.Add(at, indexDoesNotServe, only.Name, orderText(p.order(only)), "take `index` out, or add "+p.wanted(t, order))
	case byName:
		s.Add(at, indexDoesNotServe, "key", orderText(p.order(nil)), "take `index` out, or add "+p.wanted(t, order))
	default:
		s.Add(at, orderNotServed, orderText(order), p.wanted(t, order))
	}
}

// wouldScan reports a where that no index has as its prefix.
func (p *Projection) wouldScan(s *Scope, n *Node, t *terms, order []Order, pl *Plan) {
	fix := "compare a field of an index with ==, or set allowScan: true"
	if len(t.equal) > 0 || len(t.bounds) > 0 {
		fix = "add the index " + p.wanted(t, order) + ", or set allowScan: true"
	}
	s.Add(n.Get("where"), needsScan, strings.Join(pl.Residual, " && "), fix)
}

// countFrom finds the aggregate whose groups are the equalities of a query and nothing else.
func (p *Projection) countFrom(q *Query, t *terms) *Aggregate {
	if !q.Count || len(t.bounds)+len(t.residual) > 0 {
		return nil
	}
	for _, a := range p.Aggregates {
		same := a.Count != "" && len(a.GroupBy) == len(t.equal)
		for _, c := range t.equal {
			same = same && slices.Contains(a.GroupBy, c.Field)
		}
		if same {
			return a
		}
	}
	return nil
}

func (p *Projection) readAllow(s *Scope, n *Node, q *Query) {
	if n == nil {
		return
	}
	variables := []Variable{
		{Name: "caller.sub", Type: cel.StringType},
		{Name: "caller.roles", Type: cel.ListType(cel.StringType)},
		{Name: "caller.claims", Type: cel.MapType(cel.StringType, cel.DynType)},
	}
	if q.Params != nil {
		variables = append(variables, messageVariable("params", q.Params))
	}
	env, err := s.Environment(p.pkg, p.MaxItems, variables...)
	if err != nil {
		s.Add(n, expressionRefused, err.Error(), "this is a defect of millrace: report it")
		return
	}
	q.Allow = s.condition(n, env)
}

func (p *Projection) readHTTP(s *Scope, n *Node, q *Query) {
	q.HTTP = "/v1/" + p.head.Name + ":" + strings.ToLower(q.Name[:1]) + q.Name[1:]
	if n == nil {
		return
	}
	path := s.Text(n)
	if path == "" {
		return
	}
	if !httpText.MatchString(path) {
		s.Add(n, wrongPath, short(path))
		return
	}
	for _, found := range pathVariable.FindAllStringSubmatch(path, -1) {
		var f protoreflect.FieldDescriptor
		if q.Params != nil {
			f = field(q.Params, found[1])
		}
		if f == nil || f.IsList() || f.Message() != nil {
			var names []string
			if q.Params != nil {
				names = fieldNames(q.Params)
			}
			s.Add(n, unknownParam, found[1], nearest(found[1], "parameters", names))
			return
		}
	}
	q.HTTP = path
}

// checkMethods refuses two methods of one name and two of one path.
func (p *Projection) checkMethods(s *Scope) {
	names, paths := map[string]string{"Get": "the method for one row"}, map[string]string{}
	for _, q := range p.Queries {
		for _, m := range q.methods() {
			if other := names[m]; other != "" {
				s.Add(q.node, methodTwice, m, other)
				continue
			}
			names[m] = "the query " + q.Name
		}
		if other := paths[q.HTTP]; other != "" {
			s.Add(q.node, pathTwice, q.HTTP, other)
		}
		if other := s.Schema.routes[routePattern(q.HTTP)]; other != "" {
			s.Add(q.node, routeTaken, q.HTTP, other)
		}
		paths[q.HTTP] = q.Name
	}
}

// routePattern is a path without the names of its variables.
func routePattern(path string) string { return pathVariable.ReplaceAllString(path, "{}") }

// methods lists the methods of a query: the list, the count, the watch.
func (q *Query) methods() []string {
	list := []string{q.Name}
	if q.Count {
		list = append(list, q.countMethod())
	}
	if q.Watch > 0 {
		list = append(list, q.watchMethod())
	}
	return list
}

func (q *Query) countMethod() string { return "Count" + strings.TrimPrefix(q.Name, "List") }
func (q *Query) watchMethod() string { return "Watch" + strings.TrimPrefix(q.Name, "List") }
