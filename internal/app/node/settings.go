package node

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/internal/settings"
)

// Settings lists every setting, in the order of Config.
func Settings() []settings.Setting { return settings.Of[Config]() }

// GatewaySettings lists those that do something in a gateway. It reads the others too, as they
// stand in a file that it shares with workers.
func GatewaySettings() []settings.Setting {
	return slices.DeleteFunc(Settings(), func(s settings.Setting) bool { return s.WorkerOnly })
}

// Sources are where settings come from. A flag wins over the environment, the environment over the
// file, the file over the default.
type Sources struct {
	// Flags holds those that were given.
	Flags map[string]string
	// Env looks up a variable. Nil: there are none.
	Env func(string) (string, bool)
	// File is the path of the configuration file; empty: DefaultFile if it exists.
	File string
	// App is the name of the app that the program gives itself; empty: none. Every other source
	// wins over it.
	App string
	// Dev takes the defaults of the command dev.
	Dev bool
}

// DefaultApp is the name of an app on the embedded log that has no other. With brokers there is no
// default: two services that both had it would be one app, and each would answer for a part of the
// other's entities.
const DefaultApp = "millrace"

// DefaultFile is read when it is there and no other file is named.
const DefaultFile = "millrace.yaml"

// Origin says for each setting where its value came from.
type Origin map[string]string

// Load returns the settings from all sources. Errors name the source of each wrong value, a file's
// with its line.
func Load(from Sources) (*Config, Origin, error) {
	file, err := readFile(from.File)
	if err != nil {
		return nil, nil, err
	}
	c, origin := &Config{}, Origin{}
	var errs []error
	for _, s := range Settings() {
		value := from.value(&s, file)
		origin[s.Name] = value.where
		if err := s.Set(c, value.value); err != nil {
			errs = append(errs, fmt.Errorf("%s: setting %s: %w", value.where, s.Name, err))
		}
		delete(file, s.Name)
	}
	c.nameApp()
	for _, name := range slices.Sorted(maps.Keys(file)) {
		errs = append(errs, fmt.Errorf("%s: unknown key %q%s", file[name].where, name, suggestion(name)))
	}
	if len(errs) == 0 {
		for _, p := range c.problems() {
			errs = append(errs, fmt.Errorf("%s: setting %s: %s", origin[p.setting], p.setting, p.text))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	return c, origin, nil
}

// Defaults returns the settings that apply unless others are given.
func Defaults() *Config {
	c := &Config{}
	for _, s := range Settings() { // fields that are no settings stay zero: their packages choose them
		if err := s.Set(c, s.Default); err != nil {
			panic("default of setting " + s.Name + ": " + err.Error())
		}
	}
	c.nameApp()
	return c
}

// nameApp gives an app on the embedded log its name where there is no other.
func (c *Config) nameApp() {
	if c.App == "" && len(c.Brokers) == 0 {
		c.App = DefaultApp
	}
}

// sourced is a value and where it came from.
type sourced struct{ value, where string }

// value returns what a setting is given by its strongest source.
func (from *Sources) value(s *settings.Setting, file map[string]sourced) sourced {
	v := sourced{s.Default, "default"}
	if from.Dev && s.Dev != "" {
		v = sourced{s.Dev, "default of dev"}
	}
	if s.Name == "app" && from.App != "" {
		v = sourced{from.App, "program"}
	}
	if f, ok := file[s.Name]; ok {
		v = f
	}
	if e, ok := from.environment(s, v.value); ok {
		v = e
	}
	if f, ok := from.Flags[s.Name]; ok {
		v = sourced{f, "flag --" + s.Name}
	}
	return v
}

// environment looks at the setting's own variable, and at those that Cloudstate's proxy and
// OpenTelemetry have for the same thing.
func (from *Sources) environment(s *settings.Setting, present string) (sourced, bool) {
	env := from.Env
	if env == nil {
		return sourced{}, false
	}
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
	case "trace-endpoint":
		for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
			if v, ok := env(name); ok && v != "" {
				return sourced{v, "environment " + name}, true
			}
		}
	case "listen":
		if p, ok := env("HTTP_PORT"); ok {
			return sourced{net.JoinHostPort(host, p), "environment HTTP_PORT"}, true
		}
	}
	return sourced{}, false
}

// suggestion names the setting that was probably meant.
func suggestion(name string) string {
	best, distance := "", min(3, (len(name)+1)/2) // two letters wrong at most, and not half of a short name
	for _, s := range Settings() {
		if d := editDistance(strings.ReplaceAll(name, "_", "-"), s.Name); d < distance {
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
