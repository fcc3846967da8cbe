package discovery

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/entities"
)

// Offer is one service as the workers of an app announce it to each other: enough to see whether
// two workers belong together.
type Offer struct {
	// Name is the full name of the service, Type its entity type; "" for an action.
	Name, Type string
	Kind       entities.Kind
	// Hash is that of the service's methods and all messages that they reach. It does not depend on
	// comments, on options, or on the order of files and declarations.
	Hash uint64
}

// String is the offer as shown to people: shop.v1.CartService (event sourced cart).
func (o Offer) String() string {
	if o.Type == "" {
		return fmt.Sprintf("%s (%s)", o.Name, o.Kind)
	}
	return fmt.Sprintf("%s (%s %s)", o.Name, o.Kind, o.Type)
}

// Offers lists all services of the catalog, by name.
func (c *Catalog) Offers() []Offer {
	offers := make([]Offer, 0, len(c.services))
	for _, s := range c.services {
		o := Offer{Name: s.Name, Kind: s.Kind, Hash: s.Hash}
		if s.Kind.Spec().HasEntities {
			o.Type = s.EntityType.Name
		}
		offers = append(offers, o)
	}
	return offers
}

// sum is a hash of a canonical text of the service. It is compared between workers of different
// releases, so the text must not change. (A test has its value for an example.)
func (s *Service) sum() uint64 {
	var lines []string
	for _, m := range s.Methods {
		lines = append(lines, fmt.Sprintf("method %s %s %t %s %t", m.Name, m.Input.FullName(), m.ClientStreams,
			m.Output.FullName(), m.ServerStreams))
	}
	messages, enums := s.reached()
	for _, m := range messages {
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			lines = append(lines, fmt.Sprintf("field %s %d %s %s", m.FullName(), f.Number(), f.Name(), shapeOf(f)))
		}
		lines = append(lines, "message "+string(m.FullName()))
	}
	for _, e := range enums {
		for i := range e.Values().Len() {
			v := e.Values().Get(i)
			lines = append(lines, fmt.Sprintf("value %s %d %s", e.FullName(), v.Number(), v.Name()))
		}
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return binary.BigEndian.Uint64(sum[:])
}

// reached returns the messages and enums that the service's methods are made of.
func (s *Service) reached() (map[protoreflect.FullName]protoreflect.MessageDescriptor,
	map[protoreflect.FullName]protoreflect.EnumDescriptor,
) {
	messages, enums := map[protoreflect.FullName]protoreflect.MessageDescriptor{},
		map[protoreflect.FullName]protoreflect.EnumDescriptor{}
	var open []protoreflect.MessageDescriptor
	for _, m := range s.Methods {
		open = append(open, m.Input, m.Output)
	}
	for len(open) > 0 {
		m := open[len(open)-1]
		open = open[:len(open)-1]
		if messages[m.FullName()] != nil {
			continue
		}
		messages[m.FullName()] = m
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if f.Message() != nil {
				open = append(open, f.Message())
			}
			if f.Enum() != nil {
				enums[f.Enum().FullName()] = f.Enum()
			}
		}
	}
	return messages, enums
}

// shapeOf is how a field's values are written: two fields with the same shape read each other's.
func shapeOf(f protoreflect.FieldDescriptor) string {
	shape := f.Cardinality().String() + " " + f.Kind().String()
	switch {
	case f.Message() != nil:
		shape += " " + string(f.Message().FullName())
	case f.Enum() != nil:
		shape += " " + string(f.Enum().FullName())
	}
	return shape
}

// Belong returns why a worker with these services cannot be one of an app whose other workers serve
// others, nil when it can. A worker may serve more or less than another, as during a rolling
// upgrade, but not something unrelated, and not the same service in a conflicting form. Hashes that
// differ are no reason: see Conflict.
func Belong(own, others []Offer) error {
	for _, a := range own {
		for _, b := range others {
			switch {
			case a.Name == b.Name && (a.Type != b.Type || a.Kind != b.Kind):
				return fmt.Errorf("%s is %s there", a, b)
			case a.Type != "" && a.Type == b.Type && a.Name != b.Name:
				return fmt.Errorf("entities of type %s are those of %s here and of %s there", a.Type, a.Name, b.Name)
			}
		}
	}
	common := func(ofEntities bool) bool {
		return slices.ContainsFunc(own, func(a Offer) bool {
			return (a.Type != "" || !ofEntities) && slices.ContainsFunc(others, func(b Offer) bool { return a.Name == b.Name })
		})
	}
	switch {
	case len(own) == 0 || len(others) == 0:
		return nil
	case hasEntities(own) && hasEntities(others) && !common(true):
		return errors.New("no entity type is served by both")
	case !common(false):
		return errors.New("no service is served by both")
	}
	return nil
}

// hasEntities reports whether a worker has anything in the log under its services' types. Workers
// that serve actions only belong to any app that has one of them.
func hasEntities(offers []Offer) bool {
	return slices.ContainsFunc(offers, func(o Offer) bool { return o.Type != "" })
}

// Describe is a list of offers for people.
func Describe(offers []Offer) string {
	if len(offers) == 0 {
		return "nothing"
	}
	texts := make([]string, len(offers))
	for i, o := range offers {
		texts[i] = o.String()
	}
	return strings.Join(texts, ", ")
}

// Conflict returns what two catalogs declare otherwise of the services that both have, nil for
// nothing. One may have methods, fields and enum values that the other has not. What both have must
// be the same, so that each reads what the other writes.
func Conflict(own, other *Catalog) error {
	for _, a := range own.services {
		b := other.byName[a.Name]
		if b == nil {
			continue
		}
		if err := a.conflict(b); err != nil {
			return err
		}
	}
	return nil
}

// conflict compares in the order of names, so that both workers report the same difference.
func (s *Service) conflict(other *Service) error {
	for _, a := range s.Methods {
		b := other.byName[a.Name]
		if b != nil && (a.InputType != b.InputType || a.OutputType != b.OutputType || a.ClientStreams != b.ClientStreams ||
			a.ServerStreams != b.ServerStreams) {
			return fmt.Errorf("method %s: %s here, %s there", a.FullName, a.signature(), b.signature())
		}
	}
	// Only what both reach: a message that one of them has no method for is never sent to it.
	messages, enums := s.reached()
	theirs, theirEnums := other.reached()
	for _, name := range sortedNames(messages) {
		if b := theirs[name]; b != nil {
			if err := messageConflict(messages[name], b); err != nil {
				return err
			}
		}
	}
	for _, name := range sortedNames(enums) {
		if b := theirEnums[name]; b != nil {
			if err := enumConflict(enums[name], b); err != nil {
				return err
			}
		}
	}
	return nil
}

// sortedNames gives a map an order, for messages that do not change from run to run.
func sortedNames[T any](of map[protoreflect.FullName]T) []protoreflect.FullName {
	names := make([]protoreflect.FullName, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// signature is how a method is declared, for an error.
func (m *Method) signature() string {
	stream := func(streams bool, of protoreflect.MessageDescriptor) string {
		if streams {
			return "stream " + string(of.FullName())
		}
		return string(of.FullName())
	}
	return fmt.Sprintf("(%s) returns (%s)", stream(m.ClientStreams, m.Input), stream(m.ServerStreams, m.Output))
}

// messageConflict compares what two versions of a message both have. A field is the same by its
// number on the wire and by its name in JSON, so both are compared.
func messageConflict(a, b protoreflect.MessageDescriptor) error {
	for i := range a.Fields().Len() {
		f := a.Fields().Get(i)
		if g := b.Fields().ByNumber(f.Number()); g != nil && shapeOf(f) != shapeOf(g) {
			return fmt.Errorf("field %d of message %s: %s (%s) here, %s (%s) there", f.Number(), a.FullName(),
				f.Name(), shapeOf(f), g.Name(), shapeOf(g))
		}
		if g := b.Fields().ByName(f.Name()); g != nil && f.Number() != g.Number() {
			return fmt.Errorf("field %s of message %s: number %d here, %d there", f.Name(), a.FullName(),
				f.Number(), g.Number())
		}
	}
	return nil
}

// enumConflict compares by name only: two names of one number are an alias, which both can read.
func enumConflict(a, b protoreflect.EnumDescriptor) error {
	for i := range a.Values().Len() {
		v := a.Values().Get(i)
		if w := b.Values().ByName(v.Name()); w != nil && v.Number() != w.Number() {
			return fmt.Errorf("value %s of enum %s: number %d here, %d there", v.Name(), a.FullName(),
				v.Number(), w.Number())
		}
	}
	return nil
}

// MaxOffers is the largest size of encoded offers. All members' lists are kept in one record of the
// group, which must stay below 1 MB: with a thousand workers this is 256 kB of it.
const MaxOffers = 256

const offersVersion = 1

var errOffers = errors.New("list of a worker's services is damaged")

// EncodeOffers writes a list of offers for the group of an app.
//
//	version (1 byte) · digest of the whole list (8 bytes) ·
//	each: name, type (empty where it is the name), kind (1 byte), hash (8 bytes)
//
// A list that would be longer than MaxOffers ends after the digest: then it says only that two
// workers serve the same, or not.
func EncodeOffers(offers []Offer) string {
	var list []byte
	for _, o := range offers {
		typ := o.Type
		if typ == o.Name {
			typ = ""
		}
		list = appendName(appendName(list, o.Name), typ)
		list = binary.BigEndian.AppendUint64(append(list, byte(o.Kind)), o.Hash)
	}
	sum := sha256.Sum256(list)
	b := append([]byte{offersVersion}, sum[:8]...)
	if len(b)+len(list) <= MaxOffers {
		b = append(b, list...)
	}
	return string(b)
}

// appendName writes a text with its length before it.
func appendName(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// OffersDigest is the digest of an encoded list for people: lists with the same have the same
// offers. It is "" for none.
func OffersDigest(encoded string) string {
	if len(encoded) < 9 {
		return ""
	}
	return hex.EncodeToString([]byte(encoded[1:9]))
}

// DecodeOffers reads what EncodeOffers wrote. The list is nil where it was left out.
func DecodeOffers(encoded string) ([]Offer, error) {
	b := []byte(encoded)
	if len(b) < 9 || b[0] != offersVersion {
		return nil, errOffers
	}
	b = b[9:]
	var offers []Offer
	for len(b) > 0 {
		var o Offer
		var ok bool
		if o.Name, b, ok = takeName(b); !ok {
			return nil, errOffers
		}
		if o.Type, b, ok = takeName(b); !ok || len(b) < 9 {
			return nil, errOffers
		}
		o.Kind, o.Hash, b = entities.Kind(b[0]), binary.BigEndian.Uint64(b[1:]), b[9:]
		if o.Type == "" && o.Kind.Spec().HasEntities {
			o.Type = o.Name
		}
		offers = append(offers, o)
	}
	return offers, nil
}

// takeName reads a text that appendName has written. The list comes from another process, so every
// length is checked.
func takeName(b []byte) (name string, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) { //nolint:gosec // used is at most the length
		return "", nil, false
	}
	return string(b[used : used+int(n)]), b[used+int(n):], true //nolint:gosec // looked at
}
