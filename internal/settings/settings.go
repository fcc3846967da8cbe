// Package settings reads and prints struct fields that a user can set. A field is declared once, in
// the package that uses it:
//
//	MaxRequest int `name:"max-request" default:"4MiB" unit:"bytes" min:"1" help:"maximum size of a request or a reply"`
//
// The name is that of the flag, of the key in the configuration file and, in capitals, of the
// environment variable. The types are string, bool, int, time.Duration, float64, which is a share
// between 0 and 1, and []string. An int with unit bytes reads as 4MiB. An int or time.Duration may
// have min and max. With process:"worker" a gateway does not have the setting. A dev tag is the
// default of the command dev. A field without a name is not a setting, but may have a default.
// Structs within the struct are read as parts of it.
package settings

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Setting is one field with a name.
type Setting struct {
	Name, Default, Help string
	// Dev is the default of dev where that has another one.
	Dev string
	// Bool settings need no value on the command line.
	Bool bool
	// List settings have items, separated by commas.
	List bool
	// WorkerOnly settings do nothing in a gateway.
	WorkerOnly bool
	field      field
}

// Of returns the settings of a struct, in the order of its fields.
func Of[T any]() []Setting {
	var all []Setting
	for _, f := range fieldsOf(reflect.TypeFor[T](), nil) {
		if name := f.Tag.Get("name"); name != "" {
			all = append(all, Setting{
				Name: name, Default: f.Tag.Get("default"), Dev: f.Tag.Get("dev"), Help: f.Tag.Get("help"),
				Bool: f.Type.Kind() == reflect.Bool, List: f.Type.Kind() == reflect.Slice,
				WorkerOnly: f.Tag.Get("process") == "worker", field: f,
			})
		}
	}
	return all
}

// Env returns the environment variable of the setting.
func (s *Setting) Env() string {
	return "MILLRACE_" + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
}

// Get returns the setting's value in the struct at p as text.
func (s *Setting) Get(p any) string { return s.field.format(s.field.of(p)) }

// Set gives the setting of the struct at p a value.
func (s *Setting) Set(p any, text string) error { return s.field.parse(s.field.of(p), text) }

// OutOfBounds returns why the value in the struct at p is out of bounds; "" if it is not.
func (s *Setting) OutOfBounds(p any) string {
	value, f := s.field.of(p), s.field
	low, hasLow := f.bound("min")
	high, hasHigh := f.bound("max")
	tooLow, tooHigh := hasLow && value.Int() < low.Int(), hasHigh && value.Int() > high.Int()
	aboveZero := hasLow && low.Int() == 1 // the smallest that is above zero, in every unit
	switch {
	case !tooLow && !tooHigh:
		return ""
	case tooLow && aboveZero:
		return "must be above zero"
	case tooHigh && (aboveZero || !hasLow):
		return fmt.Sprintf("%s is above %s", f.format(value), f.format(high))
	case tooLow && !hasHigh:
		return fmt.Sprintf("%s is below %s", f.format(value), f.format(low))
	}
	return fmt.Sprintf("%s is not between %s and %s", f.format(value), f.format(low), f.format(high))
}

// Defaults returns a struct in which every field that has a default has it.
func Defaults[T any]() T {
	var v T
	fill(reflect.ValueOf(&v).Elem(), true)
	return v
}

// Fill sets every zero field of the struct at p to its default, except bools, for which false is a
// value.
func Fill(p any) { fill(reflect.ValueOf(p).Elem(), false) }

func fill(v reflect.Value, bools bool) {
	for _, f := range fieldsOf(v.Type(), nil) {
		text, has := f.Tag.Lookup("default")
		value := v.FieldByIndex(f.Index)
		if !has || !value.IsZero() || value.Kind() == reflect.Bool && !bools {
			continue
		}
		if err := f.parse(value, text); err != nil {
			panic(fmt.Sprintf("default of %s.%s: %v", v.Type(), f.Name, err))
		}
	}
}

// field is one of a struct, or of a struct within it; Index is its path.
type field struct{ reflect.StructField }

func fieldsOf(t reflect.Type, path []int) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		f.Index = append(append([]int{}, path...), i)
		if f.Type.Kind() == reflect.Struct {
			all = append(all, fieldsOf(f.Type, f.Index)...)
		} else {
			all = append(all, field{f})
		}
	}
	return all
}

func (f *field) of(p any) reflect.Value { return reflect.ValueOf(p).Elem().FieldByIndex(f.Index) }

func (f *field) bound(tag string) (value reflect.Value, has bool) {
	text, has := f.Tag.Lookup(tag)
	if !has {
		return value, false
	}
	value = reflect.New(f.Type).Elem()
	if err := f.parse(value, text); err != nil {
		panic(fmt.Sprintf("%s of %s: %v", tag, f.Name, err))
	}
	return value, true
}

func (f *field) format(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case int:
		if f.Tag.Get("unit") == "bytes" {
			return formatBytes(value)
		}
	case float64:
		return strconv.FormatFloat(value, 'g', -1, 64)
	case []string:
		return strings.Join(value, ",")
	}
	return fmt.Sprint(v.Interface())
}

func (f *field) parse(into reflect.Value, text string) error {
	value, err := f.read(into.Interface(), text)
	if err == nil {
		into.Set(reflect.ValueOf(value))
	}
	return err
}

// read returns the value of a text; like has its type.
func (f *field) read(like any, text string) (any, error) {
	switch like.(type) {
	case string:
		return text, nil
	case bool:
		v, err := strconv.ParseBool(text)
		return v, explain(err != nil, "%q is neither true nor false", text)
	case int:
		if f.Tag.Get("unit") == "bytes" {
			return parseBytes(text)
		}
		v, err := strconv.Atoi(text)
		return v, explain(err != nil, "%q is not a whole number", text)
	case float64:
		v, err := strconv.ParseFloat(text, 64)
		// also refuses NaN
		return v, explain(err != nil || !(v >= 0 && v <= 1),
			"%q is not a number between 0 and 1, as in 0.05", text)
	case time.Duration:
		v, err := time.ParseDuration(text)
		return v, explain(err != nil || v < 0, "%q is not a duration: write 500ms, 30s, 24h", text)
	case []string:
		var list []string
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				list = append(list, item)
			}
		}
		return list, explain(len(list) == 0 && text != "", "%q has no items", text)
	}
	panic("setting " + f.Name + " has an unsupported type")
}

func explain(isWrong bool, format, text string) error {
	if !isWrong {
		return nil
	}
	return fmt.Errorf(format, text)
}

var byteUnits = []struct { //nolint:gochecknoglobals // a table
	name string
	size int
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// parseBytes reads 4MiB, 900KiB or a plain number of bytes.
func parseBytes(text string) (int, error) {
	number, unit := text, 1
	for _, u := range byteUnits {
		if rest, found := strings.CutSuffix(text, u.name); found {
			number, unit = strings.TrimSpace(rest), u.size
			break
		}
	}
	v, err := strconv.Atoi(number)
	if err != nil || v < 0 || v > (1<<62)/unit {
		return 0, fmt.Errorf("%q is not a size: write 900KiB, 4MiB, 1GiB", text)
	}
	return v * unit, nil
}

// formatBytes prints a size in its largest whole unit.
func formatBytes(n int) string {
	for _, u := range byteUnits {
		if n%u.size == 0 && (n > 0 || u.size == 1) {
			return strconv.Itoa(n/u.size) + u.name
		}
	}
	return strconv.Itoa(n) + "B"
}
