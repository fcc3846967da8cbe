package node

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// environment is one for Sources.
func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, pair := range pairs {
			if n, value, _ := strings.Cut(pair, "="); n == name {
				return value, true
			}
		}
		return "", false
	}
}

// configFile writes a configuration file and returns its path.
func configFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsAreValid(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	t.Chdir(t.TempDir())
	loaded, origin, err := Load(Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(loaded, Defaults()) {
		t.Errorf("Load of nothing is %+v, want the defaults %+v", loaded, Defaults())
	}
	for name, from := range origin {
		if from != "default" {
			t.Errorf("setting %s comes from %q, want default", name, from)
		}
	}
}

func TestEverySettingIsNamedAndExplained(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Settings() {
		if s.Name == "" || s.Help == "" || seen[s.Name] {
			t.Errorf("setting %+v has no name, no help, or the name of another one", s)
		}
		seen[s.Name] = true
	}
	if s := Settings()[0]; s.Env() != "MILLRACE_LISTEN" {
		t.Errorf("the variable of %s is %s", s.Name, s.Env())
	}
}

// Every setting survives the way through its text.
func TestSettingsRoundTrip(t *testing.T) {
	c := Defaults()
	c.Brokers = []string{"a:1", "b:2"}
	c.MaxCommit, c.PassivateAfter, c.Ephemeral = 123, 90*time.Second, true
	back := &Config{}
	for _, s := range Settings() {
		if err := s.Set(back, s.Get(c)); err != nil {
			t.Errorf("setting %s does not read its own %q: %v", s.Name, s.Get(c), err)
		}
	}
	if !reflect.DeepEqual(back, c) {
		t.Errorf("came back as %+v, want %+v", back, c)
	}
}

func TestStrongerSourceWins(t *testing.T) {
	file := configFile(t, "app: from-file\ndata: from-file\nworker: from-file\n")
	c, origin, err := Load(Sources{
		File:  file,
		Env:   environment("MILLRACE_APP=from-env", "MILLRACE_WORKER=from-env"),
		Flags: map[string]string{"app": "from-flag", "unrelated": "x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s (%s), %s (%s), %s (%s), %d (%s)", c.App, origin["app"], c.Worker, origin["worker"], c.Data,
		origin["data"], c.Partitions, origin["partitions"])
	want := fmt.Sprintf("from-flag (flag --app), from-env (environment MILLRACE_WORKER), from-file (%s:2), 16 (default)",
		file)
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestVariablesOfCloudstate(t *testing.T) {
	for _, tc := range []struct{ name, env, function, listen string }{
		{"none", "", "127.0.0.1:8080", "127.0.0.1:9000"},
		{"host", "USER_FUNCTION_HOST=shop", "shop:8080", "127.0.0.1:9000"},
		{"port", "USER_FUNCTION_PORT=7000", "127.0.0.1:7000", "127.0.0.1:9000"},
		{"both", "USER_FUNCTION_HOST=::1 USER_FUNCTION_PORT=7000", "[::1]:7000", "127.0.0.1:9000"},
		{"public port", "HTTP_PORT=80", "127.0.0.1:8080", "127.0.0.1:80"},
		{"empty ones", "HTTP_PORT= USER_FUNCTION_HOST= USER_FUNCTION_PORT=", "127.0.0.1:8080", "127.0.0.1:9000"},
		{"one empty", "USER_FUNCTION_HOST=shop USER_FUNCTION_PORT=", "shop:8080", "127.0.0.1:9000"},
		{"our own wins", "HTTP_PORT=80 MILLRACE_LISTEN=0.0.0.0:90 USER_FUNCTION_PORT=1 MILLRACE_FUNCTION=f:2", "f:2", "0.0.0.0:90"},
	} {
		c, _, err := Load(Sources{File: configFile(t, ""), Env: environment(strings.Fields(tc.env)...)})
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if c.Function != tc.function || c.Listen != tc.listen {
			t.Errorf("%s: function %s, listen %s, want %s and %s", tc.name, c.Function, c.Listen, tc.function, tc.listen)
		}
	}
}

func TestConfigurationFileHasAllForms(t *testing.T) {
	c, _, err := Load(Sources{File: configFile(t, `# a comment
app: shop
brokers:
  - a:1
  - b:2
ephemeral: false
partitions: 32
max-request: 1MiB
passivate-after: "1m30s"
worker:
`)})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.Brokers, c.Ephemeral, c.Partitions, c.MaxRequest, c.PassivateAfter, c.Worker == ""); got != "[a:1 b:2] false 32 1048576 1m30s true" {
		t.Errorf("read %s", got)
	}
	if c, _, err := Load(Sources{File: configFile(t, "app: shop\nbrokers: [a:1, 'b:2']")}); err != nil ||
		len(c.Brokers) != 2 {
		t.Errorf("brokers in a line: %v, %v", c, err)
	}
}

func TestDefaultFileIsReadWhereItIs(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile(DefaultFile, []byte("app: here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, origin, err := Load(Sources{})
	if err != nil || c.App != "here" || origin["app"] != "millrace.yaml:1" {
		t.Errorf("app %v from %s, %v", c, origin["app"], err)
	}
}

// dev lets pages of this machine call; every other source wins over that.
func TestDevAllowsPagesOfThisMachine(t *testing.T) {
	for want, from := range map[string]Sources{
		"localhost from default of dev":                  {Dev: true, File: configFile(t, "")},
		" from default":                                  {File: configFile(t, "")},
		" from flag --cors-origins":                      {Dev: true, File: configFile(t, ""), Flags: map[string]string{"cors-origins": ""}},
		"https://a.example.com from flag --cors-origins": {File: configFile(t, ""), Flags: map[string]string{"cors-origins": "https://a.example.com"}},
	} {
		c, origin, err := Load(from)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(c.CORSOrigins, ",") + " from " + origin["cors-origins"]; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if _, _, err := Load(Sources{File: configFile(t, ""), Flags: map[string]string{"cors-origins": "*", "cors-credentials": "true"}}); err == nil ||
		!strings.Contains(err.Error(), "setting cors-origins: * cannot be together with cors-credentials") {
		t.Errorf("%v", err)
	}
}

func TestWrongConfigurationIsExplained(t *testing.T) {
	for _, tc := range []struct {
		name, file, env string
		flags           map[string]string
		want            []string
	}{
		{name: "unknown key", file: "app: x\npartitons: 4\n", want: []string{`test.yaml:2: unknown key "partitons": did you mean "partitions"?`}},
		{name: "underscores", file: "max_request: 1MiB\n", want: []string{`did you mean "max-request"?`}},
		{name: "nothing like it", file: "colour: red\n", want: []string{`test.yaml:1: unknown key "colour": see ` + "`millrace config`"}},
		{name: "several, in order", file: "zzzz: 1\naaaa: 2\n", want: []string{"unknown key \"aaaa\": see `millrace config` for all keys\n"}},
		{name: "key twice", file: "app: x\napp: y\n", want: []string{`"app"`}},
		{name: "not YAML", file: "app: [\n", want: []string{"test.yaml"}},
		{name: "not a mapping", file: "- app\n", want: []string{"test.yaml:1: expected lines of the form `key: value`"}},
		{name: "nested", file: "app:\n  name: x\n", want: []string{`test.yaml:1: key "app": expected a plain value or a list of them`}},
		{name: "number in file", file: "\npartitions: many\n", want: []string{`test.yaml:2: setting partitions: "many" is not a whole number`}},
		{name: "bool in environment", env: "MILLRACE_EPHEMERAL=perhaps", want: []string{`environment MILLRACE_EPHEMERAL: setting ephemeral: "perhaps" is neither true nor false`}},
		{name: "duration in flag", flags: map[string]string{"call-timeout": "5"}, want: []string{`flag --call-timeout: setting call-timeout: "5" is not a duration: write 500ms`}},
		{name: "negative duration", flags: map[string]string{"call-timeout": "-5s"}, want: []string{`"-5s" is not a duration`}},
		{name: "size", flags: map[string]string{"max-key": "1kb"}, want: []string{`flag --max-key: setting max-key: "1kb" is not a size: write 900KiB`}},
		{name: "size too large", flags: map[string]string{"max-key": "9999999999GiB"}, want: []string{"is not a size"}},
		{name: "not a power of two", file: "app: a\npartitions: 12\n", want: []string{"test.yaml:2: setting partitions: 12 is not a power of two between 1 and 4096"}},
		{name: "name", env: "MILLRACE_APP=My-App", want: []string{`environment MILLRACE_APP: setting app: "My-App" is not a name`}},
		{name: "worker", flags: map[string]string{"worker": "a b"}, want: []string{`setting worker: "a b" is not a name`}},
		{name: "address", flags: map[string]string{"listen": "9000"}, want: []string{`flag --listen: setting listen: "9000" is not host:port`}},
		{name: "advertised", flags: map[string]string{"advertise": ":1", "advertise-public": "worker"}, want: []string{
			`flag --advertise: setting advertise: ":1" is not host:port`, `flag --advertise-public: setting advertise-public: "worker" is not host:port`,
		}},
		{name: "broker", flags: map[string]string{"brokers": "a:1,b"}, want: []string{`setting brokers: "b" is not host:port`}},
		{name: "port", flags: map[string]string{"listen": "127.0.0.1:abc"}, want: []string{`flag --listen: setting listen: "127.0.0.1:abc" is not host:port: "abc" is not a port`}},
		{name: "port too large", flags: map[string]string{"admin": "127.0.0.1:99999"}, want: []string{`"127.0.0.1:99999" is not host:port: "99999" is not a port`}},
		{name: "no port", flags: map[string]string{"function": "127.0.0.1:"}, want: []string{`setting function: "127.0.0.1:" is not host:port: "" is not a port`}},
		{name: "advertised port", flags: map[string]string{"advertise": "w:x"}, want: []string{`setting advertise: "w:x" is not host:port`}},
		{name: "list of nothing", flags: map[string]string{"brokers": ",,"}, want: []string{`flag --brokers: setting brokers: ",," has no items`}},
		{name: "empty variable", env: "MILLRACE_BROKERS=", want: []string{"environment MILLRACE_BROKERS: is set and empty: unset it, or give it a value"}},
		{name: "empty variables", env: "MILLRACE_DATA= MILLRACE_LISTEN=", want: []string{"environment MILLRACE_DATA:", "environment MILLRACE_LISTEN:"}},
		{name: "ephemeral on Kafka", flags: map[string]string{"brokers": "a:1", "ephemeral": "true"}, want: []string{"setting ephemeral: has no meaning with brokers"}},
		{name: "no data", flags: map[string]string{"data": ""}, want: []string{"setting data: is empty: name a directory, or set ephemeral"}},
		{name: "replication", flags: map[string]string{"replication": "-1"}, want: []string{"setting replication: -1 is not between 0 and 32767"}},
		{name: "zero", flags: map[string]string{"max-waiting": "0", "dedup-window": "0s"}, want: []string{"setting max-waiting: must be above zero", "setting dedup-window: 0s is below 2m"}},
		{name: "log", flags: map[string]string{"log-level": "loud", "log-format": "xml"}, want: []string{`setting log-level: "loud" is unknown: use`, `setting log-format: "xml" is unknown: use`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _, err := Load(Sources{
				File: configFile(t, tc.file), Env: environment(strings.Fields(tc.env)...),
				Flags: tc.flags,
			})
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			mustContain(t, "the error", err.Error(), tc.want...)
		})
	}
}

// TestByteOrderMarkIsNoKey: an editor may write one.
func TestByteOrderMarkIsNoKey(t *testing.T) {
	c, _, err := Load(Sources{File: configFile(t, "\ufeffapp: shop\n")})
	if err != nil || c.App != "shop" {
		t.Errorf("app %v, %v", c, err)
	}
}

func TestUnknownVariables(t *testing.T) {
	got := UnknownVariables([]string{
		"MILLRACE_LISTN=x", "MILLRACE_COLOUR=red", "MILLRACE_LISTEN=127.0.0.1:1", "PATH=/bin", "MILLRACE_MUTATION=gap",
		"MILLRACE_SIM_SEED=1", "MILLRACE_SERVICE_HOST=10.0.0.1", "MILLRACE_SERVICE_PORT_HTTP=80",
		"MILLRACE_PORT=tcp://10.0.0.1:80", "MILLRACE_ADMIN_PORT_9001_TCP_ADDR=10.0.0.1",
	})
	want := []string{
		"environment MILLRACE_COLOUR is not a setting: see `millrace config` for all",
		"environment MILLRACE_LISTN is not a setting: did you mean MILLRACE_LISTEN?",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestConfigurationFileMustBeReadable(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	if _, _, err := Load(Sources{File: missing}); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("a file that was named and is missing: %v", err)
	}
	if _, _, err := Load(Sources{File: configFile(t, strings.Repeat("#", maxFileBytes+1))}); err == nil ||
		!strings.Contains(err.Error(), "are too many for a configuration file") {
		t.Errorf("a file that is too large: %v", err)
	}
}

// What a struct holds by itself, without sources, is checked the same.
func TestValidateNamesEverything(t *testing.T) {
	err := (&Config{}).Validate()
	if err == nil {
		t.Fatal("an empty configuration was accepted")
	}
	mustContain(t, "the error", err.Error(), "setting app:", "setting partitions:", "setting listen:", "setting max-request:", "setting log-level:")
}
