package node

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"regexp"
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
	errs = append(errs, from.emptyVariables()...)
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
// OpenTelemetry have for the same thing, which count as unset when they are empty.
func (from *Sources) environment(s *settings.Setting, present string) (sourced, bool) {
	get := func(name string) string {
		if from.Env == nil {
			return ""
		}
		v, _ := from.Env(name)
		return v
	}
	if v := get(s.Env()); v != "" {
		return sourced{v, "environment " + s.Env()}, true
	}
	host, port, _ := net.SplitHostPort(present)
	switch s.Name {
	case "function":
		h, p := get("USER_FUNCTION_HOST"), get("USER_FUNCTION_PORT")
		if h != "" || p != "" {
			return sourced{net.JoinHostPort(cmp.Or(h, host), cmp.Or(p, port)), "environment USER_FUNCTION_HOST, USER_FUNCTION_PORT"}, true
		}
	case "trace-endpoint":
		for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
			if v := get(name); v != "" {
				return sourced{v, "environment " + name}, true
			}
		}
	case "listen":
		if p := get("HTTP_PORT"); p != "" {
			return sourced{net.JoinHostPort(host, p), "environment HTTP_PORT"}, true
		}
	}
	return sourced{}, false
}

// emptyVariables refuses variables of settings that are set and empty: mostly that is a manifest
// whose own variable is not set, and the default would be something else than what was meant.
func (from *Sources) emptyVariables() []error {
	var errs []error
	for _, s := range Settings() {
		if _, given := from.Flags[s.Name]; given || from.Env == nil {
			continue
		}
		if v, isSet := from.Env(s.Env()); isSet && v == "" {
			errs = append(errs, fmt.Errorf("environment %s: is set and empty: unset it, or give it a value", s.Env()))
		}
	}
	return errs
}

// foreign matches variables with our prefix that are no settings: those that Kubernetes makes for a
// service whose name begins with millrace, and those of our own tests.
var foreign = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT$|_PORT_\d+_|` +
	`^MILLRACE_(MUTATION|FAILPOINT|SIM|FIRE|EFFECTS|MODEL|READERS|TIMERS|PAUSE|KIT|PEER|TEST)(_|$)`)

// UnknownVariables names the variables of an environment, as NAME=value, that look like settings
// and are none, each with the one that was probably meant.
func UnknownVariables(environ []string) []string {
	known := map[string]bool{}
	for _, s := range Settings() {
		known[s.Env()] = true
	}
	var unknown []string
	for _, pair := range environ {
		variable, _, _ := strings.Cut(pair, "=")
		name, ours := strings.CutPrefix(variable, "MILLRACE_")
		if !ours || known[variable] || foreign.MatchString(variable) {
			continue
		}
		text := "environment " + variable + " is not a setting: see `millrace config` for all"
		if best := nearest(strings.ToLower(name)); best != nil {
			text = fmt.Sprintf("environment %s is not a setting: did you mean %s?", variable, best.Env())
		}
		unknown = append(unknown, text)
	}
	slices.Sort(unknown)
	return unknown
}

// suggestion names the setting that was probably meant.
func suggestion(name string) string {
	if best := nearest(name); best != nil {
		return fmt.Sprintf(": did you mean %q?", best.Name)
	}
	return ": see `millrace config` for all keys"
}

// nearest returns the setting whose name is nearest to a name, nil if none is near.
func nearest(name string) (best *settings.Setting) {
	distance := min(3, (len(name)+1)/2) // two letters wrong at most, and not half of a short name
	for _, s := range Settings() {
		if d := editDistance(strings.ReplaceAll(name, "_", "-"), s.Name); d < distance {
			best, distance = &s, d
		}
	}
	return best
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
