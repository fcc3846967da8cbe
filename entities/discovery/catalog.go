package discovery

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/settings"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// Settings say what a function may serve. Zero means the default of MaxKey, not of ProtocolCheck.
type Settings struct {
	// ProtocolCheck refuses functions that announce another protocol version than 0.2, or none.
	ProtocolCheck bool `name:"protocol-check" default:"true" process:"worker" help:"refuse a function that does not report Cloudstate protocol 0.2; some SDKs report none"`
	// MaxKey is the longest entity id in bytes.
	MaxKey int `name:"max-key" default:"1KiB" unit:"bytes" min:"1" help:"maximum length of an entity id"`
}

// Options say how a function's answer is checked.
type Options struct {
	Settings
	// Runtime admits names that belong to the runtime (see IsReserved): for its own functions, and
	// for what another worker, which has refused them from its user's function, says that it
	// serves.
	Runtime bool
}

// Catalog is everything that one function serves, or several (Compose).
//
// What holds for every catalog, because NewCatalog refuses anything else:
//
//	D1  Each service is declared once, has a descriptor, and is of a known kind.
//	D2  A stateful service is the only one of its entity type: the type names its state in the log.
//	D3  Each method of a stateful service finds the id of its entity in its input, and streams only
//	    what its kind allows.
//	D4  Two methods never take the same messages of one source.
type Catalog struct {
	options Options
	spec    *cloudstate.EntitySpec
	// version is computed once: workers compare it with every answer of their peers.
	version string
	info    *cloudstate.ServiceInfo
	// set has the files in the order in which they can be registered, files is what that makes.
	set   *descriptorpb.FileDescriptorSet
	files *protoregistry.Files
	types *dynamicpb.Types
	// services are sorted by name; byType has the stateful ones only.
	services   []*Service
	byName     map[string]*Service
	byType     map[string]*Service
	byMethod   map[string]*Method
	extensions map[cloudstate.MillraceExtension]bool
}

// Service is one service of the user function.
type Service struct {
	// Name is the full name of the protobuf service.
	Name string
	Kind entities.Kind
	// EntityType is the service as the engine knows it. An action has one too, but no entities
	// under it.
	EntityType entities.EntityType
	Descriptor protoreflect.ServiceDescriptor
	// Methods are in the order of their declaration.
	Methods []*Method
	// Hash is that of Offer. It is computed when the whole catalog is known to be right, because it
	// reads all messages that the methods reach.
	Hash uint64

	byName map[string]*Method
}

// Method returns the method with a bare name, nil when the service has none such.
func (s *Service) Method(name string) *Method { return s.byName[name] }

// Method is one method of the user function.
type Method struct {
	Service *Service
	// Name is the bare name, FullName the path of a gRPC call: /shop.v1.CartService/AddItem.
	Name, FullName string
	Descriptor     protoreflect.MethodDescriptor
	Input, Output  protoreflect.MessageDescriptor
	// InputType and OutputType are type URLs: type.googleapis.com/shop.v1.AddItemRequest.
	InputType, OutputType        string
	ClientStreams, ServerStreams bool
	// Eventing is the method's declaration of sources and destinations, nil when it has none.
	Eventing *cloudstate.Eventing

	// key finds the entity in an input, shape tells whether bytes decode as one: both without
	// decoding, because every command passes here on its way to the log.
	key   keyFields
	shape *shape
}

// IsUnary reports whether the method has one message in each direction.
func (m *Method) IsUnary() bool { return !m.ClientStreams && !m.ServerStreams }

// RefusedMessage is the full name of the message by which an entity learns that an effect of its
// own was refused.
const RefusedMessage = "millrace.effect.v1.Refused"

// LearnsRefusals reports whether the method takes a RefusedMessage. Only the engine may call it: a
// caller that could would make an entity undo what was not refused.
func (m *Method) LearnsRefusals() bool { return m.Input.FullName() == RefusedMessage }

// NewCatalog reads a function's answer to discovery. Its only error is a *RejectedError.
func NewCatalog(spec *cloudstate.EntitySpec, opts Options) (*Catalog, error) {
	settings.Fill(&opts)
	var wrong problems
	checkVersion(spec.GetServiceInfo(), opts, &wrong)
	set, files, err := parseDescriptors(spec.GetProto())
	if err != nil {
		wrong.addf("%s", err)
		return nil, wrong.err()
	}

	c := &Catalog{
		options:    opts,
		spec:       spec,
		version:    versionOf(spec),
		info:       spec.GetServiceInfo(),
		set:        set,
		files:      files,
		types:      dynamicpb.NewTypes(files),
		byName:     map[string]*Service{},
		byType:     map[string]*Service{},
		byMethod:   map[string]*Method{},
		extensions: map[cloudstate.MillraceExtension]bool{},
	}
	for _, x := range c.info.GetMillraceExtensions() {
		c.extensions[x] = true
	}
	shapes := shapes{}
	for _, e := range spec.GetEntities() {
		c.add(e, opts, shapes, &wrong)
	}
	slices.SortFunc(c.services, func(a, b *Service) int { return strings.Compare(a.Name, b.Name) })
	checkConsumers(c.services, &wrong)
	if err := wrong.err(); err != nil {
		return nil, err
	}
	for _, s := range c.services {
		s.Hash = s.sum()
	}
	return c, nil
}

// checkVersion compares the protocol version that a function announces. Version 0.1 had other
// messages under the same names, so a mismatch would show only as calls that fail.
func checkVersion(info *cloudstate.ServiceInfo, opts Options, wrong *problems) {
	major, minor := info.GetProtocolMajorVersion(), info.GetProtocolMinorVersion()
	if !opts.ProtocolCheck || (major == ProtocolMajor && minor == ProtocolMinor) {
		return
	}
	wrong.addf(
		"it speaks Cloudstate protocol %d.%d, and this proxy speaks %d.%d: use a support library of that version, or turn the version check off",
		major, minor, ProtocolMajor, ProtocolMinor)
}

// add enters one declared service, or says what is wrong with it. After a problem it goes on, so
// that the author of the function learns of all of them at once; the catalog is given away only
// if there was none.
func (c *Catalog) add(e *cloudstate.Entity, opts Options, shapes shapes, wrong *problems) {
	name := e.GetServiceName()
	kind := entities.KindOf(e.GetEntityType())
	if kind == entities.KindUnspecified {
		wrong.addf("service %s has the entity type %q, which is not supported: use one of %s",
			name, e.GetEntityType(), strings.Join(protocols(), ", "))
		return
	}
	if !opts.Runtime && IsReserved(name) {
		wrong.addf(
			"service %s has a name that belongs to the runtime: take a package that is not millrace or below it, and does not begin with an underscore", name)
		return
	}
	if c.byName[name] != nil {
		wrong.addf("service %s is declared twice: declare it once", name)
		return
	}
	// The function names services and sends files; nothing else says that they belong together.
	found, err := c.files.FindDescriptorByName(protoreflect.FullName(name))
	desc, isService := found.(protoreflect.ServiceDescriptor)
	if err != nil || !isService {
		wrong.addf("service %s is not in the descriptors that the function sent: add the file that declares it", name)
		return
	}

	s := &Service{
		Name:       name,
		Kind:       kind,
		Descriptor: desc,
		EntityType: entities.EntityType{
			Service:        name,
			Name:           typeName(e),
			Kind:           kind,
			PassivateAfter: passivateAfter(e),
		},
		byName: map[string]*Method{},
	}
	c.byName[name] = s
	c.services = append(c.services, s)
	c.claimType(s, wrong)
	for i := range desc.Methods().Len() {
		m := newMethod(s, desc.Methods().Get(i), opts, shapes, wrong)
		s.Methods = append(s.Methods, m)
		s.byName[m.Name] = m
		c.byMethod[m.FullName] = m
	}
}

// claimType makes a stateful service the only one under its entity type, because the type names its
// state in the log.
func (c *Catalog) claimType(s *Service, wrong *problems) {
	if !s.Kind.Spec().HasEntities {
		return
	}
	name := s.EntityType.Name
	if strings.Contains(name, "/") {
		wrong.addf(
			"service %s has the persistence id %q: take the slash out, it separates type and id in an entity's key",
			s.Name, name)
	}
	if !c.options.Runtime && IsReservedType(name) {
		wrong.addf(
			"service %s has the persistence id %q: take another one, those that begin with an underscore belong to the runtime",
			s.Name, name)
	}
	if other := c.byType[name]; other != nil {
		wrong.addf(
			"services %s and %s have the same persistence id %q and would share their state: give each its own", other.Name,
			s.Name, name)
		return
	}
	c.byType[name] = s
}

// newMethod reads one method, and says all that is wrong with it.
func newMethod(s *Service, desc protoreflect.MethodDescriptor, opts Options, shapes shapes, wrong *problems) *Method {
	m := &Method{
		Service:       s,
		Name:          string(desc.Name()),
		FullName:      fmt.Sprintf("/%s/%s", s.Name, desc.Name()),
		Descriptor:    desc,
		Input:         desc.Input(),
		Output:        desc.Output(),
		InputType:     typeURLPrefix + string(desc.Input().FullName()),
		OutputType:    typeURLPrefix + string(desc.Output().FullName()),
		ClientStreams: desc.IsStreamingClient(),
		ServerStreams: desc.IsStreamingServer(),
		shape:         shapes.of(desc.Input()),
	}
	if options, ok := desc.Options().(*descriptorpb.MethodOptions); ok &&
		proto.HasExtension(options, cloudstate.E_Eventing) {
		m.Eventing, _ = proto.GetExtension(options, cloudstate.E_Eventing).(*cloudstate.Eventing)
	}
	checkStreaming(m, wrong)
	checkEventing(m, wrong)
	checkHTTP(m, wrong)
	if s.Kind.Spec().HasEntities {
		m.key = newKeyFields(m, opts.MaxKey, wrong)
	}
	return m
}

// checkStreaming holds a method to what its kind can stream: a stream to an entity would be several
// commands, of which each is decided and stored by itself.
func checkStreaming(m *Method, wrong *problems) {
	switch kind := m.Service.Kind; kind.Spec().Streams {
	case entities.UnaryOnly:
		if !m.IsUnary() {
			wrong.addf(
				"method %s streams, and methods of %s entities cannot: make it unary, or move it to an action", m.FullName, kind)
		}
	case entities.OutputStreams:
		if m.ClientStreams {
			wrong.addf(
				"method %s streams its input, and methods of %s entities can only stream their output: take the stream off its input", m.FullName, kind)
		}
	case entities.AllStreams:
	}
}

// typeName is the persistence id, or the service's name where the id names nothing. It is the first
// part of every key in the log: another name is another, empty, set of entities.
func typeName(e *cloudstate.Entity) string {
	if id := e.GetPersistenceId(); id != "" && id != anonymousPersistenceID {
		return id
	}
	return e.GetServiceName()
}

// passivateAfter is the declared idle time; 0 when there is none, or when it is not positive.
func passivateAfter(e *cloudstate.Entity) time.Duration {
	millis := e.GetPassivationStrategy().GetTimeout().GetTimeout()
	const longest = math.MaxInt64 / int64(time.Millisecond)
	return time.Duration(min(max(millis, 0), longest)) * time.Millisecond
}

// Method returns the method of a gRPC path such as /shop.v1.CartService/AddItem, nil when it is not
// served.
func (c *Catalog) Method(fullMethod string) *Method { return c.byMethod[fullMethod] }

// Services returns all services, sorted by name.
func (c *Catalog) Services() []*Service { return c.services }

// Service returns the service with a full name, nil when it is not served.
func (c *Catalog) Service(name string) *Service { return c.byName[name] }

// EntityType returns the stateful service whose entities have this type (persistence id), nil when
// there is none.
func (c *Catalog) EntityType(name string) *Service { return c.byType[name] }

// EntityTypes returns the stateful services as the engine knows them, sorted by service.
func (c *Catalog) EntityTypes() []entities.EntityType {
	types := make([]entities.EntityType, 0, len(c.byType))
	for _, s := range c.services {
		if s.Kind.Spec().HasEntities {
			types = append(types, s.EntityType)
		}
	}
	return types
}

// Files returns the function's descriptors with everything that they import.
func (c *Catalog) Files() *protoregistry.Files { return c.files }

// Types resolves messages and extensions of Files to dynamic types, for JSON and for transcoding.
func (c *Catalog) Types() *dynamicpb.Types { return c.types }

// FileDescriptorSet returns the content of Files, each file after those that it imports.
func (c *Catalog) FileDescriptorSet() *descriptorpb.FileDescriptorSet { return c.set }

// Spec returns the function's answer to discovery that the catalog was made from.
func (c *Catalog) Spec() *cloudstate.EntitySpec { return c.spec }

// Version names what the function serves: functions that answer discovery alike have the same.
func (c *Catalog) Version() string { return c.version }

// versionOf is a hash of the answer as it was sent, comments and options of its files included: a
// function that was built anew from the same sources has the same version.
func versionOf(spec *cloudstate.EntitySpec) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec)
	if err != nil {
		return "" // it came over the wire, so that it can be written
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// Info returns the function's description of itself; nil without one.
func (c *Catalog) Info() *cloudstate.ServiceInfo { return c.info }

// Announced reports whether the function understands an optional part of the protocol.
func (c *Catalog) Announced(x cloudstate.MillraceExtension) bool { return c.extensions[x] }
