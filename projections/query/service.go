package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/plural"
	"github.com/millrace-io/millrace/internal/settings"
	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	projectionv1 "github.com/millrace-io/millrace/proto/gen/millrace/projection/v1"
)

// Settings bound what queries may cost.
type Settings struct {
	// Queries are those at a time, Waiting those that wait for their turn.
	Queries int `default:"256"`
	Waiting int `default:"1024"`
	// Deadline is that of a call without one, and the longest.
	Deadline time.Duration `default:"10s"`
	// MaxExamined is how many entries of an index one call examines over all partitions.
	MaxExamined int `default:"20000"`
	// MaxReply is the size of the rows of a reply, in bytes.
	MaxReply int `default:"4194304"`
	// Watches are those at a time.
	Watches int `default:"10000"`
}

// Options are what a Service needs.
type Options struct {
	Settings
	// App is the name of the app: tokens are bound to it.
	App       string
	Executor  Executor
	Freshness Freshness
	Clock     clock.Clock
	// Dev serves queries that have `allow`. They are refused otherwise, because there is no
	// authentication yet.
	Dev bool
}

// View is one version of a projection.
type View struct {
	Projection *definition.Projection
	// Version is its version in words: 4, or 4-dev.2.
	Version string
	// Dataset is the number of its rows. Indexes and Aggregates are the numbers of
	// Projection.Indexes and Projection.Aggregates, in their order.
	Dataset             uint32
	Indexes, Aggregates []uint16
	// Promoted: it is the one that answers. Of the others, the newest answers that the projection
	// is not there yet, while none is promoted. Kept: it was promoted, and lists that began in it go
	// on in it.
	Promoted, Kept bool
	// Progress says how far a version is that is not promoted; may be nil.
	Progress func() string
}

// Service answers queries. Its methods may be called from many goroutines.
type Service struct {
	o Options
	// running has a place for each query that runs, places one for each that runs or waits.
	running, places chan struct{}
	// watching has a place for each watch.
	watching chan struct{}

	defining sync.Mutex
	serves   atomic.Pointer[served]
	// ending is closed when no watch is served any more.
	ending    chan struct{}
	endedOnce sync.Once
	// redefined is closed by the next Define.
	redefined atomic.Pointer[chan struct{}]
}

// served is what a set of views serves. It never changes.
type served struct {
	catalog *discovery.Catalog
	methods map[string]*method // by service/method
	// kept are those of versions that were promoted, for lists that began there.
	kept   map[keptMethod]*method
	sealer sealer
}

// New returns a service without projections.
func New(o Options) *Service {
	settings.Fill(&o)
	if o.Clock == nil {
		o.Clock = clock.Wall{}
	}
	redefined := make(chan struct{})
	s := &Service{
		o: o, running: make(chan struct{}, o.Queries), places: make(chan struct{}, o.Queries+o.Waiting),
		watching: make(chan struct{}, o.Watches), ending: make(chan struct{}),
	}
	s.serves.Store(&served{})
	s.redefined.Store(&redefined)
	return s
}

// Catalog returns the generated services of all projections; nil if there are none.
func (s *Service) Catalog() *discovery.Catalog { return s.serves.Load().catalog }

// Define replaces the set of projections. pageKey seals page tokens; all processes of the app have
// the same. Calls in progress go on with the set that they began with. With an error nothing has
// changed.
func (s *Service) Define(views []*View, pageKey []byte) error {
	s.defining.Lock()
	defer s.defining.Unlock()
	if len(pageKey) != KeySize {
		return fmt.Errorf("the key of page tokens has %d bytes instead of %d", len(pageKey), KeySize)
	}
	now := &served{methods: map[string]*method{}, kept: map[keptMethod]*method{}}
	var err error
	if now.sealer, err = newSealer([KeySize]byte(pageKey)); err != nil {
		return err
	}
	answering := answeringViews(views)
	if len(answering) > 0 {
		if now.catalog, err = catalogOf(answering); err != nil {
			return err
		}
	}
	var all []*projection
	promoted := map[string]*projection{}
	for _, v := range answering {
		p := newProjection(v)
		all = append(all, p)
		if v.Promoted {
			promoted[v.Projection.Head().Name] = p
		}
	}
	for _, p := range all {
		p.lookups = newLookups(p.definition, promoted)
		for _, m := range now.catalog.Service(p.service).Methods {
			now.methods[p.service+"/"+m.Name] = p.method(m)
		}
	}
	for _, v := range views {
		if !v.Kept || promoted[v.Projection.Head().Name] == nil {
			continue
		}
		p := newProjection(v)
		p.lookups = newLookups(p.definition, promoted)
		now.keep(p, promoted[v.Projection.Head().Name])
	}
	s.serves.Store(now)
	next := make(chan struct{})
	close(*s.redefined.Swap(&next))
	return nil
}

// defined returns a channel that is closed when the set of projections is another one than now.
func (s *Service) defined() <-chan struct{} { return *s.redefined.Load() }

// EndWatches ends all watches, and refuses others: the process ends. Clients go on elsewhere with
// their tokens.
func (s *Service) EndWatches() { s.endedOnce.Do(func() { close(s.ending) }) }

// keptMethod names a list of a version that was promoted.
type keptMethod struct {
	dataset  uint32
	fullName string
}

// keep adds the lists of a version that the promoted one has, too, with the same request and the
// same rows.
func (s *served) keep(p, promoted *projection) {
	if p.problem != nil || p.service != promoted.service || p.view.Dataset == promoted.view.Dataset ||
		!sameFields(p.definition.Row, promoted.definition.Row) {
		return
	}
	for _, of := range s.catalog.Service(p.service).Methods {
		before, now := p.method(of), promoted.method(of)
		if before.form == listForm && now.form == listForm && sameParams(before.query.Params, now.query.Params) {
			s.kept[keptMethod{p.view.Dataset, before.fullName}] = before
		}
	}
}

func sameParams(a, b protoreflect.MessageDescriptor) bool {
	if a == nil || b == nil {
		return a == b
	}
	return sameFields(a, b) && sameFields(b, a)
}

// sameFields says whether each field of one message is in another one, of the same type.
func sameFields(a, b protoreflect.MessageDescriptor) bool {
	for i := range a.Fields().Len() {
		f := a.Fields().Get(i)
		g := b.Fields().ByNumber(f.Number())
		if g == nil || g.Name() != f.Name() || g.Kind() != f.Kind() || g.Cardinality() != f.Cardinality() ||
			f.Message() != nil && g.Message().FullName() != f.Message().FullName() {
			return false
		}
	}
	return true
}

// answeringViews returns one view for each projection, sorted by name: the promoted one, else the
// newest.
func answeringViews(views []*View) []*View {
	var answering []*View
	for _, v := range views {
		i := slices.IndexFunc(answering, func(o *View) bool {
			return o.Projection.Head().Name == v.Projection.Head().Name
		})
		switch {
		case i < 0:
			answering = append(answering, v)
		case v.Promoted, !answering[i].Promoted && v.Projection.Head().Version >= answering[i].Projection.Head().Version:
			answering[i] = v
		}
	}
	slices.SortFunc(answering, func(a, b *View) int {
		return strings.Compare(a.Projection.Head().Name, b.Projection.Head().Name)
	})
	return answering
}

// protocol is the one of services whose methods are called, and have no state.
const protocol = "cloudstate.action.ActionProtocol"

// catalogOf makes the catalog of the generated files.
func catalogOf(views []*View) (*discovery.Catalog, error) {
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(projectionv1.File_millrace_projection_v1_query_proto),
	}}
	spec := &cloudstate.EntitySpec{ServiceInfo: &cloudstate.ServiceInfo{
		ServiceName: "queries", ServiceRuntime: "millrace",
	}}
	for _, v := range views {
		file := v.Projection.API()
		set.File = append(set.File, file)
		spec.Entities = append(spec.Entities, &cloudstate.Entity{
			EntityType: protocol, ServiceName: serviceOf(v.Projection),
		})
	}
	var err error
	if spec.Proto, err = (proto.MarshalOptions{Deterministic: true}).Marshal(set); err != nil {
		return nil, err
	}
	return discovery.NewCatalog(spec, discovery.Options{Runtime: true})
}

func serviceOf(p *definition.Projection) string {
	return p.API().GetPackage() + "." + p.Service
}

// projection is a view with all that is compiled of it.
type projection struct {
	view       *View
	definition *definition.Projection
	service    string
	key        *table
	queries    map[*definition.Query]*compiled
	lookups    []*lookup
	// problem is why this version of millrace cannot serve it; nil: it can.
	problem error
}

// compiled are the programs of a query's where.
type compiled struct {
	// conjuncts are in the order of the file.
	conjuncts []compiledConjunct
}

// compiledConjunct is a part of a where. operand is set if condition is.
type compiledConjunct struct {
	definition.Conjunct

	holds, operand *mapping.Bare
}

var errNumbers = errors.New("not every index and aggregate has a number")

func newProjection(v *View) *projection {
	p := &projection{view: v, definition: v.Projection, service: serviceOf(v.Projection)}
	p.problem = p.compile()
	return p
}

func (p *projection) compile() error {
	v := p.view
	if len(v.Indexes) != len(v.Projection.Indexes) || len(v.Aggregates) != len(v.Projection.Aggregates) {
		return errNumbers
	}
	var err error
	if p.key, err = tableOf(v.Projection, nil); err != nil {
		return err
	}
	p.queries = map[*definition.Query]*compiled{}
	for _, q := range v.Projection.Queries {
		c := &compiled{}
		for _, part := range v.Projection.Conjuncts(q) {
			one := compiledConjunct{Conjunct: part}
			if one.holds, err = mapping.CompileBare(q.Where, part.Text, v.Projection.Row); err != nil {
				return err
			}
			if part.Condition != nil {
				if one.operand, err = mapping.CompileBare(q.Where, part.Condition.Operand, v.Projection.Row); err != nil {
					return err
				}
			}
			c.conjuncts = append(c.conjuncts, one)
		}
		p.queries[q] = c
	}
	return nil
}

// form is what a method does.
type form uint8

const (
	getForm form = iota
	listForm
	countForm
	groupsForm
	watchForm
)

// method is a method of a generated service.
type method struct {
	p          *projection
	form       form
	query      *definition.Query // nil for getForm
	name       string            // as in errors: orders.ListByCustomer
	fullName   string
	input      protoreflect.MessageDescriptor
	outputType string
}

func (p *projection) method(of *discovery.Method) *method {
	m := &method{
		p: p, name: p.definition.Head().Name + "." + of.Name, fullName: of.FullName, input: of.Input,
		outputType: of.OutputType,
	}
	for _, q := range p.definition.Queries {
		switch {
		case q.Name == of.Name && q.Aggregate != nil:
			m.form, m.query = groupsForm, q
		case q.Name == of.Name:
			m.form, m.query = listForm, q
		case q.Count && "Count"+strings.TrimPrefix(q.Name, "List") == of.Name:
			m.form, m.query = countForm, q
		case q.Watch > 0 && "Watch"+strings.TrimPrefix(q.Name, "List") == of.Name:
			m.form, m.query = watchForm, q
		}
	}
	return m
}

// call is a query that is answered.
type call struct {
	service *Service
	served  *served
	method  *method
	request *request
	demand  demand
	// page is what the page token of the request has, nil for the first page.
	page *page

	plan plan
	// read are the partitions that the answer is of.
	read               []reading
	stale              bool
	examined, returned int64
	// dropped: the token of the caller's session is not one of this journal.
	dropped atomic.Bool
}

// Handle answers a command of a generated service. The error is an *entities.Error.
func (s *Service) Handle(ctx context.Context, cmd *entities.Command) (*entities.Reply, error) {
	serves := s.serves.Load()
	m := serves.methods[cmd.Service+"/"+cmd.Method]
	if m == nil {
		return nil, entities.Errorf(entities.UnknownMethod, entities.NotApplied,
			"%s/%s is not a query of this app", cmd.Service, cmd.Method)
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Deadline)
	defer cancel()
	if err := s.enter(ctx, m); err != nil {
		return nil, err
	}
	defer s.leave()
	for {
		c := &call{service: s, served: serves, method: m}
		reply, err := c.answer(ctx, cmd)
		if err == nil {
			return reply, nil
		}
		now := s.serves.Load()
		of := now.methods[cmd.Service+"/"+cmd.Method]
		if _, gone := errors.AsType[*NotHereError](err); !gone || now == serves || of == nil {
			return nil, asError(ctx, m.name, err)
		}
		// Another version was promoted meanwhile, and the rows of the one before were dropped.
		serves, m = now, of
	}
}

// enter waits for the turn of a query.
func (s *Service) enter(ctx context.Context, m *method) error {
	select {
	case s.places <- struct{}{}:
	default:
		return entities.Overload("%s: %s run, and %d more wait", m.name, plural.Of(s.o.Queries, "query"), s.o.Waiting)
	}
	select {
	case s.running <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-s.places
		return asError(ctx, m.name, ctx.Err())
	}
}

func (s *Service) leave() {
	<-s.running
	<-s.places
}

// prepare reads the request, and looks whether it can be served.
func (c *call) prepare(cmd *entities.Command) error {
	m := c.method
	if problem := m.p.problem; problem != nil {
		return entities.Errorf(entities.NotSupported, entities.NotApplied,
			"%s: this version of millrace cannot serve version %s of the projection: %w", m.name, m.p.view.Version, problem)
	}
	var err error
	if c.request, err = m.decode(cmd.Payload.Value); err != nil {
		return err
	}
	if c.demand, err = m.demandOf(c.service.o.App, c.request, cmd); err != nil {
		return err
	}
	c.takeSession(cmd)
	if m.query != nil && m.query.Allow != nil && !c.service.o.Dev {
		return permissionDenied(m)
	}
	if v := m.p.view; !v.Promoted {
		progress := "it is being built"
		if v.Progress != nil {
			progress = v.Progress()
		}
		return unavailable("%s: version %s of the projection is not promoted yet (%s)", m.name, v.Version, progress)
	}
	return nil
}

func (c *call) answer(ctx context.Context, cmd *entities.Command) (*entities.Reply, error) {
	if err := c.prepare(cmd); err != nil {
		return nil, err
	}
	switch c.method.form {
	case getForm:
		return c.get(ctx)
	case countForm:
		return c.count(ctx)
	case groupsForm:
		return c.groups(ctx)
	default:
		if err := c.sameDataset(cmd.Payload.Value); err != nil {
			return nil, err
		}
		return c.list(ctx)
	}
}
