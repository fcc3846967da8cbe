package definition

import (
	"cmp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var (
	sourceObject = &Object{Name: "a source", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "entity", Type: "an entity type", Help: "the type whose records are folded", Required: true},
		{Name: "events", Type: "{Event: clause}", Help: "what each type of event does"},
		{Name: "ignore", Type: "a list of events", Help: "types of events that do nothing"},
		{Name: "snapshot", Type: "a clause over state", Help: "what a snapshot does; rows are built from it with build: image"},
		{Name: "state", Type: "a clause over state", Help: "what a new value of a value entity does"},
		{Name: "deleted", Type: "a clause", Help: "what happens when a value entity is deleted"},
		{Name: "apply", Type: "{handler: Service/Method}", Help: "a method of the function that folds, instead of clauses"},
	}}
	clauseObject = &Object{Name: "a clause", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "set", Type: "{field: value}", Help: "creates the row if need be"},
		{Name: "update", Type: "{field: value}", Help: "changes the row if it is there"},
		{Name: "delete", Type: "true, or {key field: value}", Help: "removes the row"},
		{Name: "all", Type: "{set, update or delete}", Help: "touches every row of the entity"},
		{Name: "forEach", Type: "{in: '${…}', as: name}", Help: "one row for each item"},
	}}
	stateObject = &Object{Name: "a clause", Fields: append(slices.Clone(clauseObject.Fields), //nolint:gochecknoglobals // a constant table
		Field{Name: "type", Type: "a message", Help: "the message of the state; <Entity> or <Entity>State when not given"},
		Field{Name: "deleted", Type: "CEL over state", Help: "of a snapshot: true for states of deleted entities"},
	)}
	allObject = &Object{Name: "all", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "set", Type: "{field: value}", Help: "changes every row"},
		{Name: "update", Type: "{field: value}", Help: "changes every row"},
		{Name: "delete", Type: "true", Help: "removes every row"},
	}}
	forEachObject = &Object{Name: "forEach", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "in", Type: "'${…}'", Help: "a list, or a map for its sorted keys", Required: true},
		{Name: "as", Type: "a name", Help: "the variable of the item", Required: true},
		{Name: "maxItems", Type: "a whole number", Help: "how long the list may be; 10000 at most"},
	}}
	applyObject = &Object{Name: "apply", Fields: []Field{ //nolint:gochecknoglobals // a constant table
		{Name: "handler", Type: "Service/Method", Help: "a unary action with the messages of millrace.projection.v1", Required: true},
	}}
)

const maxRowsPerEntity = 10_000

func (p *Projection) readSources(s *Scope, n *Node) {
	items := s.Items(n, "sources", maxSources)
	if n != nil && n.Shape == ListShape && len(items) == 0 {
		s.Add(n, noSources)
	}
	for _, item := range items {
		if src := p.readSource(s, item); src != nil {
			p.Sources = append(p.Sources, src)
		}
	}
	slices.SortStableFunc(p.Sources, func(a, b *ProjectionSource) int {
		return strings.Compare(a.Entity.Name, b.Entity.Name)
	})
}

func (p *Projection) readSource(s *Scope, n *Node) *ProjectionSource {
	if !s.Object(n, sourceObject) || n.Get("entity") == nil {
		return nil
	}
	at := n.Get("entity")
	name := s.Text(at)
	found := s.Schema.entity(name)
	switch {
	case name == "":
		return nil
	case strings.HasPrefix(name, "_"):
		s.Add(at, reservedEntity, short(name))
		return nil
	case found == nil:
		s.Add(at, unknownEntity, short(name), nearest(name, "entity types", s.Schema.entityNames()))
		return nil
	case slices.ContainsFunc(p.Sources, func(o *ProjectionSource) bool { return o.Entity.Name == name }):
		s.Add(at, sourceTwice, name)
		return nil
	}
	src := &ProjectionSource{Entity: *found}
	p.nodes["from."+name] = n
	if a := n.Get("apply"); a != nil {
		p.readHandler(s, src, n, a)
		return src
	}
	if p.wrongClauses(s, src, n) {
		return nil
	}
	p.readEvents(s, src, n)
	if c := n.Get("snapshot"); c != nil {
		src.Snapshot = p.readState(s, src, c)
	}
	if c := n.Get("state"); c != nil {
		src.State = p.readState(s, src, c)
	}
	if c := n.Get("deleted"); c != nil {
		src.Deleted = p.readClause(s, c, clauseObject, &Clause{Type: "deleted"}, nil)
	}
	return src
}

// wrongClauses refuses clauses that the kind of entity has no records for.
func (p *Projection) wrongClauses(s *Scope, src *ProjectionSource, n *Node) bool {
	wrong, have := []string{"events", "ignore", "snapshot"}, "state and deleted"
	needed := "state"
	if src.Entity.Events {
		wrong, have, needed = []string{"state", "deleted"}, "events and snapshot", "events"
	}
	bad := false
	for _, key := range wrong {
		if c := n.Get(key); c != nil {
			s.Add(c, clauseOfOtherKind, key, src.Entity.Name, have)
			bad = true
		}
	}
	if !bad && n.Get(needed) == nil {
		s.Add(n, keyMissing, needed, "the source "+src.Entity.Name, "a clause")
	}
	return bad
}

func (p *Projection) readHandler(s *Scope, src *ProjectionSource, n, a *Node) {
	for _, key := range []string{"events", "ignore", "snapshot", "state", "deleted"} {
		if c := n.Get(key); c != nil {
			s.Add(c, handlerAndClauses, key)
		}
	}
	if !s.Object(a, applyObject) || a.Get("handler") == nil {
		return
	}
	at := a.Get("handler")
	s.Add(at, notYet, "fold by a handler", "use events, or the definition stays UNSUPPORTED")
	name := s.Text(at)
	service, method, _ := strings.Cut(name, "/")
	found, _ := s.Schema.resolve(service, p.pkg).(protoreflect.ServiceDescriptor)
	if found == nil {
		s.Add(at, unknownService, short(service), nearest(service, "services", s.Schema.services))
		return
	}
	m := found.Methods().ByName(protoreflect.Name(method))
	if m == nil {
		var names []string
		for i := range found.Methods().Len() {
			names = append(names, string(found.Methods().Get(i).Name()))
		}
		s.Add(at, unknownMethod, found.FullName(), short(method), nearest(method, "its methods", names))
		return
	}
	const in, out = "millrace.projection.v1.ApplyRequest", "millrace.projection.v1.ApplyResponse"
	if m.IsStreamingClient() || m.IsStreamingServer() || m.Input().FullName() != in || m.Output().FullName() != out {
		s.Add(at, wrongHandler, name, in, out)
		return
	}
	src.Handler = string(found.FullName()) + "/" + string(m.Name())
}

func (p *Projection) readEvents(s *Scope, src *ProjectionSource, n *Node) {
	seen := map[string]bool{}
	for _, e := range s.Entries(n.Get("events"), "events", maxEvents) {
		c := p.eventType(s, src, e.Key)
		if c == nil {
			continue
		}
		if seen[c.Type] {
			s.Add(e.Key, eventTwice, c.Type)
			continue
		}
		seen[c.Type] = true
		if c = p.readClause(s, e.Value, clauseObject, c, []Variable{messageVariable("event", c.Message)}); c != nil {
			src.Events = append(src.Events, c)
		}
	}
	for _, item := range s.Items(n.Get("ignore"), "events", maxEvents) {
		c := p.eventType(s, src, item)
		switch {
		case c == nil:
		case seen[c.Type]:
			s.Add(item, eventTwice, c.Type)
		default:
			seen[c.Type] = true
			src.Ignored = append(src.Ignored, c.Type)
		}
	}
	slices.SortFunc(src.Events, func(a, b *Clause) int { return cmp.Compare(a.Type, b.Type) })
	slices.Sort(src.Ignored)
}

// eventType finds the message of an event, or takes a whole type URL for a dynamic one.
func (p *Projection) eventType(s *Scope, src *ProjectionSource, at *Node) *Clause {
	name := s.Text(at)
	if name == "" {
		return nil
	}
	name = strings.TrimPrefix(name, "type.googleapis.com/")
	if strings.Contains(name, "/") {
		return &Clause{Type: name}
	}
	pkg := packageOf(src.Entity.Service)
	m := s.Schema.message(name, pkg)
	if m == nil {
		s.Add(at, unknownEvent, short(name), pkg, nearest(name, "messages", s.Schema.messagesNear(name, pkg)))
		return nil
	}
	return &Clause{Type: string(m.FullName()), Message: m}
}

// readState reads the clause of a snapshot or of a value.
func (p *Projection) readState(s *Scope, src *ProjectionSource, n *Node) *Clause {
	c := &Clause{node: n}
	pkg := packageOf(src.Entity.Service)
	if at := n.Get("type"); at != nil {
		if c = p.eventType(s, src, at); c == nil {
			return nil
		}
	} else {
		short := camel(src.Entity.Name)
		for _, name := range []string{short, short + "State"} {
			m := s.Schema.message(name, pkg)
			if m == nil {
				continue
			}
			if c.Message != nil {
				s.Add(n, stateAmbiguous, src.Entity.Name, c.Type, string(m.FullName()))
				return nil
			}
			c.Message, c.Type = m, string(m.FullName())
		}
		if c.Message == nil {
			s.Add(n, stateUnknown, src.Entity.Name, short, short+"State", pkg)
			return nil
		}
	}
	variables := []Variable{messageVariable("state", c.Message)}
	if at := n.Get("deleted"); at != nil && n.Shape == MappingShape {
		if !src.Entity.Events {
			s.Add(at, goneOfValue)
		} else if env := p.clauseEnvironment(s, n, variables); env != nil {
			c.Gone = s.condition(at, env)
		}
	}
	return p.readClause(s, n, stateObject, c, variables)
}

// clauseEnvironment is what expressions of a clause know.
func (p *Projection) clauseEnvironment(s *Scope, n *Node, variables []Variable) *Environment {
	all := append(slices.Clone(variables), messageVariable("row", p.Row),
		Variable{Name: "entity.id", Type: cel.StringType}, Variable{Name: "entity.type", Type: cel.StringType},
		Variable{Name: "meta.time", Type: cel.TimestampType}, Variable{Name: "meta.sequence", Type: cel.IntType},
		Variable{Name: "meta.principal", Type: cel.StringType}, Variable{Name: "meta.command_id", Type: cel.StringType},
		Variable{Name: "meta.correlation_id", Type: cel.StringType})
	env, err := s.Environment(p.pkg, p.MaxItems, all...)
	if err != nil {
		s.Add(n, expressionRefused, err.Error(), "this is a defect of millrace: report it")
		return nil
	}
	return env
}

// readClause reads one action.
func (p *Projection) readClause(
	s *Scope, n *Node, object *Object, c *Clause, variables []Variable,
) *Clause {
	if !s.Object(n, object) {
		return nil
	}
	c.node = n
	body := n
	if all := n.Get("all"); all != nil {
		c.All = true
		if !s.Object(all, allObject) {
			return nil
		}
		if only := one(n, "set", "update", "delete", "forEach"); len(only) > 0 {
			s.Add(n, severalActions, "all", only[0])
			return nil
		}
		body = all
	}
	actions := one(body, "set", "update", "delete")
	switch len(actions) {
	case 0:
		s.Add(n, noAction)
		return nil
	case 1:
		c.Action = Action(actions[0])
	default:
		s.Add(n, severalActions, actions[0], actions[1])
		return nil
	}
	if f := n.Get("forEach"); f != nil {
		item, ok := p.readForEach(s, f, c, variables)
		if !ok {
			return nil
		}
		variables = append(slices.Clone(variables), item)
	}
	env := p.clauseEnvironment(s, n, variables)
	if env == nil {
		return nil
	}
	p.readFields(s, body.Get(string(c.Action)), c, env)
	return c
}

// one returns those of some keys that a map has.
func one(n *Node, keys ...string) []string {
	var there []string
	for _, key := range keys {
		if n.Get(key) != nil {
			there = append(there, key)
		}
	}
	return there
}

func (p *Projection) readForEach(s *Scope, n *Node, c *Clause, variables []Variable) (Variable, bool) {
	if !s.Object(n, forEachObject) || n.Get("in") == nil || n.Get("as") == nil {
		return Variable{}, false
	}
	if len(p.Key) < 2 {
		s.Add(n, forEachWithoutKey)
		return Variable{}, false
	}
	env := p.clauseEnvironment(s, n, variables)
	name := s.Name(n.Get("as"))
	if env == nil || name == "" {
		return Variable{}, false
	}
	if name == "row" || name == "event" || name == "state" || name == "entity" || name == "meta" {
		s.Add(n.Get("as"), variableTaken, name)
		return Variable{}, false
	}
	at := n.Get("in")
	pieces, _ := split(s.Text(at))
	if len(pieces) != 1 || !pieces[0].expression {
		s.Add(at, notOneExpression)
		return Variable{}, false
	}
	e := s.Expression(at, pieces[0].offset, pieces[0].text, env)
	if e == nil {
		return Variable{}, false
	}
	c.ForEach = &ForEach{In: e, As: name, MaxItems: s.Int(n.Get("maxItems"), 1, maxRowsPerEntity, maxRowsPerEntity)}
	item := Variable{Name: name, Type: cel.DynType}
	switch e.Type.Kind() {
	case types.ListKind, types.MapKind:
		item.Type = e.Type.Parameters()[0]
	case types.DynKind:
	default:
		s.addAtOffset(at, pieces[0].offset, notIterable, e.Type.String())
		return Variable{}, false
	}
	if item.Type.Kind() == types.StructKind {
		item.Message = s.Schema.message(item.Type.TypeName(), "")
	}
	return item, true
}

// readFields reads what an action sets, and whether it says which row is meant.
func (p *Projection) readFields(s *Scope, n *Node, c *Clause, env *Environment) {
	if c.Action == DeleteRow && n.Shape == ScalarShape {
		if !s.Bool(n) {
			s.Add(n, deleteFalse)
		}
		if len(p.Key) > 1 && !c.All {
			s.Add(n, rowNotNamed, string(c.Action), p.Key[1].Name())
		}
		return
	}
	if n.Shape != MappingShape {
		s.Add(n, wrongShape, "this is a map of fields of the row", n.is())
		return
	}
	before := len(s.problems)
	for _, e := range s.Entries(n, "fields", maxFields) {
		f := p.rowFieldNamed(s, e.Key, e.Key.Text)
		if f == nil {
			continue
		}
		if p.lookedUp(f) {
			s.Add(e.Key, lookedUpField, f.Name(), "in a clause that sets it", "take it out here or out of lookup")
			continue
		}
		v := s.Value(e.Value, f, env)
		switch {
		case v == nil:
			continue
		case p.isKey(f) && !p.checkKeyField(s, e, c, v):
			continue
		case !p.isKey(f) && c.Action == DeleteRow:
			s.Add(e.Key, deleteSets, f.Name())
			continue
		}
		c.Fields = append(c.Fields, v)
	}
	slices.SortFunc(c.Fields, func(a, b *Value) int { return cmp.Compare(a.Field.Name(), b.Field.Name()) })
	if len(s.problems) > before || c.All {
		return
	}
	for _, f := range p.Key[1:] {
		if !slices.ContainsFunc(c.Fields, func(v *Value) bool { return v.Field == f }) {
			s.Add(n, rowNotNamed, string(c.Action), f.Name())
		}
	}
}

// checkKeyField says whether a clause may set a field of the key.
func (p *Projection) checkKeyField(s *Scope, e Entry, c *Clause, v *Value) bool {
	switch {
	case v.Field == p.Key[0]:
		if v.Expression == nil || v.Expression.Canonical != "entity.id" {
			s.Add(e.Key, keyNotEntityID, v.Field.Name())
			return false
		}
	case c.All:
		s.Add(e.Key, keyChanged, v.Field.Name())
		return false
	case v.Clear:
		s.Add(e.Key, keyCleared, v.Field.Name())
		return false
	}
	return true
}

// clauses returns all clauses of a source.
func (src *ProjectionSource) clauses() []*Clause {
	all := slices.Clone(src.Events)
	for _, c := range []*Clause{src.Snapshot, src.State, src.Deleted} {
		if c != nil {
			all = append(all, c)
		}
	}
	return all
}

// checkBuild checks what a build from the image needs: amendment 7 of the design.
func (p *Projection) checkBuild(s *Scope) {
	if p.Rollout.Build != "image" {
		return
	}
	owner := map[string]string{}
	for _, src := range p.Sources {
		at := p.nodes["from."+src.Entity.Name]
		image := src.Snapshot
		if !src.Entity.Events {
			image = src.State
		}
		if image == nil {
			s.Add(at, imageNeedsClause, src.Entity.Name)
			continue
		}
		deletes := slices.ContainsFunc(src.Events, func(c *Clause) bool { return c.Action == DeleteRow })
		if deletes && image.Gone == nil {
			s.Add(image.node, imageNeedsDeleted, src.Entity.Name)
		}
		p.checkImageFields(s, src, image, owner)
	}
}

// checkImageFields wants sources to set different fields, and warns of those that the image has
// not.
func (p *Projection) checkImageFields(s *Scope, src *ProjectionSource, image *Clause, owner map[string]string) {
	for _, c := range src.clauses() {
		if c.Action == UpdateRow && len(p.Sources) > 1 {
			s.Add(c.node, imageUpdate, src.Entity.Name)
		}
		for _, v := range c.Fields {
			name := string(v.Field.Name())
			if p.isKey(v.Field) {
				continue
			}
			if other := owner[name]; other != "" && other != src.Entity.Name {
				s.Add(v.node, imageShared, name, other, src.Entity.Name)
			}
			owner[name] = src.Entity.Name
			if !slices.ContainsFunc(image.Fields, func(o *Value) bool { return o.Field == v.Field }) {
				s.Add(v.node, imageLacks, name)
			}
		}
	}
}
