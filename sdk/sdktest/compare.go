package sdktest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unsafe"

	"google.golang.org/protobuf/proto"
)

// difference compares two images and returns where they first differ and how; "" when they are
// equal.
//
// It sees unexported fields, compares messages as messages and times as instants, treats nil and
// empty maps and slices as equal, and ignores functions and channels, which cannot be stored.
func difference(live, rebuilt reflect.Value) string {
	if !live.IsValid() || !rebuilt.IsValid() {
		return ""
	}
	c := comparison{seen: map[[2]unsafe.Pointer]bool{}}
	return c.compare(strings.TrimPrefix(live.Type().String(), "*"), live, rebuilt)
}

type comparison struct {
	// seen are the pairs of pointers on the way, so that cycles end.
	seen map[[2]unsafe.Pointer]bool
}

var (
	messageType = reflect.TypeFor[proto.Message]() //nolint:gochecknoglobals // a constant
	timeType    = reflect.TypeFor[time.Time]()     //nolint:gochecknoglobals // a constant
)

func (c *comparison) compare(path string, live, rebuilt reflect.Value) string {
	switch {
	case live.Kind() == reflect.Pointer && live.Type().Implements(messageType):
		return compareMessages(path, live, rebuilt)
	case live.Type() == timeType:
		a, b := live.Interface().(time.Time), rebuilt.Interface().(time.Time) //nolint:errcheck,forcetypeassert // the type was compared
		if !a.Equal(b) {
			return differs(path, a, b)
		}
		return ""
	}
	switch live.Kind() {
	case reflect.Pointer, reflect.Interface:
		return c.compareRefs(path, live, rebuilt)
	case reflect.Struct:
		return c.compareStructs(path, live, rebuilt)
	case reflect.Map:
		return c.compareMaps(path, live, rebuilt)
	case reflect.Slice, reflect.Array:
		return c.compareLists(path, live, rebuilt)
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		return ""
	default:
		if !live.Equal(rebuilt) {
			return differs(path, live, rebuilt)
		}
		return ""
	}
}

func compareMessages(path string, live, rebuilt reflect.Value) string {
	a, b := live.Interface().(proto.Message), rebuilt.Interface().(proto.Message) //nolint:errcheck,forcetypeassert // the type was compared
	switch {
	case live.IsNil() && rebuilt.IsNil():
		return ""
	case live.IsNil():
		return differs(path, "nil", show(b))
	case rebuilt.IsNil():
		return differs(path, show(a), "nil")
	case !proto.Equal(a, b):
		return differs(path, show(a), show(b))
	default:
		return ""
	}
}

// compareRefs compares what pointers or interfaces refer to.
func (c *comparison) compareRefs(path string, live, rebuilt reflect.Value) string {
	if live.IsNil() || rebuilt.IsNil() {
		if live.IsNil() != rebuilt.IsNil() {
			return differs(path, live, rebuilt)
		}
		return ""
	}
	if live.Kind() == reflect.Pointer {
		pair := [2]unsafe.Pointer{live.UnsafePointer(), rebuilt.UnsafePointer()}
		if c.seen[pair] {
			return ""
		}
		c.seen[pair] = true
	} else if live.Elem().Type() != rebuilt.Elem().Type() {
		return differs(path, live.Elem().Type(), rebuilt.Elem().Type())
	}
	return c.compare(path, live.Elem(), rebuilt.Elem())
}

func (c *comparison) compareStructs(path string, live, rebuilt reflect.Value) string {
	live, rebuilt = addressable(live), addressable(rebuilt)
	for i := range live.NumField() {
		field := live.Type().Field(i)
		if d := c.compare(path+"."+field.Name, open(live.Field(i)), open(rebuilt.Field(i))); d != "" {
			return d
		}
	}
	return ""
}

func (c *comparison) compareMaps(path string, live, rebuilt reflect.Value) string {
	for _, key := range sortedKeys(rebuilt) {
		if !live.MapIndex(key).IsValid() {
			return fmt.Sprintf("%s has no key %v in memory, but after rebuilding it has", path, key)
		}
	}
	for _, key := range sortedKeys(live) {
		at := rebuilt.MapIndex(key)
		if !at.IsValid() {
			return fmt.Sprintf("%s has the key %v in memory, but after rebuilding it has not", path, key)
		}
		if d := c.compare(fmt.Sprintf("%s[%v]", path, key), live.MapIndex(key), at); d != "" {
			return d
		}
	}
	return ""
}

// sortedKeys returns the keys in the order of their text, so that the same difference is found each
// time.
func sortedKeys(m reflect.Value) []reflect.Value {
	keys := m.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return keys
}

func (c *comparison) compareLists(path string, live, rebuilt reflect.Value) string {
	if live.Len() != rebuilt.Len() {
		return fmt.Sprintf("the number of elements of %s is %d in memory, but %d after rebuilding", path, live.Len(),
			rebuilt.Len())
	}
	for i := range live.Len() {
		if d := c.compare(fmt.Sprintf("%s[%d]", path, i), live.Index(i), rebuilt.Index(i)); d != "" {
			return d
		}
	}
	return ""
}

// addressable returns the value, or a copy of it, in a place that has an address.
func addressable(v reflect.Value) reflect.Value {
	if v.CanAddr() {
		return v
	}
	place := reflect.New(v.Type()).Elem()
	place.Set(v)
	return place
}

// open returns a field of an addressable struct as if it were exported.
func open(field reflect.Value) reflect.Value {
	return reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem() //nolint:gosec // reads only
}

func differs(path string, live, rebuilt any) string {
	return fmt.Sprintf("%s is %v in memory, but %v after rebuilding", path, live, rebuilt)
}
