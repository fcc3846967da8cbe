package node

import (
	"encoding"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Setting is one field of Config as flags, environment and file see it.
type Setting struct {
	Name, Default, Help string
	// Bool settings need no value on the command line.
	Bool  bool
	index int
}

// Settings lists every setting, in the order of Config.
func Settings() []Setting {
	t := reflect.TypeFor[Config]()
	settings := make([]Setting, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		settings = append(settings, Setting{
			Name: f.Tag.Get("name"), Default: f.Tag.Get("default"), Help: f.Tag.Get("help"), Bool: f.Type.Kind() == reflect.Bool, index: i,
		})
	}
	return settings
}

// Env returns the environment variable of the setting.
func (s *Setting) Env() string {
	return "MILLRACE_" + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
}

// Get returns the setting's value as text.
func (s *Setting) Get(c *Config) string {
	switch v := reflect.ValueOf(c).Elem().Field(s.index).Interface().(type) {
	case encoding.TextMarshaler:
		b, _ := v.MarshalText() // these never fail
		return string(b)
	case []string:
		return strings.Join(v, ",")
	default:
		return fmt.Sprint(v)
	}
}

// Set gives the setting a value.
func (s *Setting) Set(c *Config, value string) error {
	field := reflect.ValueOf(c).Elem().Field(s.index)
	if u, ok := field.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(value))
	}
	switch field.Kind() { //nolint:exhaustive // the kinds of Config
	case reflect.String:
		field.SetString(value)
	case reflect.Bool:
		v, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", value)
		}
		field.SetBool(v)
	case reflect.Int:
		v, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", value)
		}
		field.SetInt(int64(v))
	case reflect.Slice:
		var list []string
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.TrimSpace(item); item != "" {
				list = append(list, item)
			}
		}
		field.Set(reflect.ValueOf(list))
	default:
		panic("setting " + s.Name + " has a type that no text can be read into")
	}
	return nil
}

// Sources are where settings come from. A flag wins over the environment, the environment over the file, the file over the
// default.
type Sources struct {
	// Flags holds those that were given.
	Flags map[string]string
	// Env looks a variable up.
	Env func(string) (string, bool)
	// File is the path of the configuration file; empty: DefaultFile if it exists.
	File string
}

// DefaultFile is read when it is there and no other file is named.
const DefaultFile = "millrace.yaml"

// Origin says for each setting where its value came from.
type Origin map[string]string

// Load returns the settings from all sources. Errors name the source of each wrong value, a file's with its line.
func Load(from Sources) (*Config, Origin, error) {
	c, origin := &Config{}, Origin{}
	var errs []error
	file, err := readFile(from.File)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range Settings() {
		value, source := s.Default, "default"
		if f, ok := file[s.Name]; ok {
			value, source = f.value, f.where
			delete(file, s.Name)
		}
		if v, ok := fromEnvironment(&s, from.Env, value); ok {
			value, source = v.value, v.where
		}
		if v, ok := from.Flags[s.Name]; ok {
			value, source = v, "flag --"+s.Name
		}
		if err := s.Set(c, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: setting %s: %w", source, s.Name, err))
		}
		origin[s.Name] = source
	}
	for name, f := range file {
		errs = append(errs, fmt.Errorf("%s: unknown key %q%s", f.where, name, suggestion(name)))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	return c, origin, c.Validate()
}

type sourced struct{ value, where string }

// fromEnvironment looks at the setting's own variable, and at those that Cloudstate's proxy has for the same thing.
func fromEnvironment(s *Setting, env func(string) (string, bool), present string) (sourced, bool) {
	if v, ok := env(s.Env()); ok {
		return sourced{v, "environment " + s.Env()}, true
	}
	host, port, _ := net.SplitHostPort(present)
	switch s.Name {
	case "function":
		h, hasHost := env("USER_FUNCTION_HOST")
		p, hasPort := env("USER_FUNCTION_PORT")
		if hasHost {
			host = h
		}
		if hasPort {
			port = p
		}
		if hasHost || hasPort {
			return sourced{net.JoinHostPort(host, port), "environment USER_FUNCTION_HOST, USER_FUNCTION_PORT"}, true
		}
	case "listen":
		if p, ok := env("HTTP_PORT"); ok {
			return sourced{net.JoinHostPort(host, p), "environment HTTP_PORT"}, true
		}
	}
	return sourced{}, false
}

// maxFileBytes bounds a configuration file.
const maxFileBytes = 1 << 20

// readFile reads a flat YAML mapping of settings.
func readFile(path string) (map[string]sourced, error) {
	named := path != ""
	if !named {
		path = DefaultFile
	}
	content, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if errors.Is(err, os.ErrNotExist) && !named {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(content) > maxFileBytes {
		return nil, fmt.Errorf("%s: %d bytes are no configuration of millrace, at most %d are read", path, len(content), maxFileBytes)
	}
	parsed, err := parser.ParseBytes(content, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	values := map[string]sourced{}
	for _, doc := range parsed.Docs {
		if doc.Body == nil {
			continue
		}
		if err := readMapping(path, doc.Body, values); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func readMapping(path string, body ast.Node, values map[string]sourced) error {
	var pairs []*ast.MappingValueNode
	switch n := body.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	case *ast.CommentGroupNode, *ast.NullNode:
		return nil
	default:
		return fmt.Errorf("%s:%d: expected lines of the form `key: value`", path, body.GetToken().Position.Line)
	}
	for _, pair := range pairs {
		where := fmt.Sprintf("%s:%d", path, pair.Key.GetToken().Position.Line)
		value, err := scalar(pair.Value)
		if err != nil {
			return fmt.Errorf("%s: key %q: %w", where, pair.Key.GetToken().Value, err)
		}
		name := pair.Key.GetToken().Value
		if _, twice := values[name]; twice {
			return fmt.Errorf("%s: key %q is there twice", where, name)
		}
		values[name] = sourced{value, where}
	}
	return nil
}

func scalar(n ast.Node) (string, error) {
	switch v := n.(type) {
	case *ast.SequenceNode:
		items := make([]string, 0, len(v.Values))
		for _, item := range v.Values {
			s, err := scalar(item)
			if err != nil {
				return "", err
			}
			items = append(items, s)
		}
		return strings.Join(items, ","), nil
	case *ast.StringNode:
		return v.Value, nil
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, nil
	case *ast.NullNode:
		return "", nil
	default:
		return "", errors.New("expected a plain value or a list of them")
	}
}

// suggestion names the setting that was probably meant.
func suggestion(name string) string {
	best, distance := "", 3
	for _, s := range Settings() {
		if d := editDistance(name, s.Name); d < distance {
			best, distance = s.Name, d
		}
	}
	if best == "" {
		return ": see `millrace config` for all keys"
	}
	return fmt.Sprintf(": did you mean %q?", best)
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := previous
			if a[i] != b[j] {
				cost = 1 + min(previous, row[j], row[j+1])
			}
			previous, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
