package settings

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Size int `name:"size" default:"4MiB" unit:"bytes" min:"1" help:"a size"`
	Own  int `default:"7"`
}

type outer struct {
	Name string `name:"name" default:"x" help:"a name"`
	inner
	Wait  time.Duration `name:"wait" default:"1m" min:"1ns" max:"1h" process:"worker" help:"a time"`
	On    bool          `name:"is-on" default:"true" help:"a choice"`
	Part  float64       `name:"part" default:"0.5" help:"a share"`
	List  []string      `name:"list" default:"a,b" help:"a list"`
	Count int           `name:"count" default:"3" min:"2" max:"4" help:"a number"`
	Least int           `name:"least" default:"3" min:"2" help:"a number"`
	hook  func()
}

func TestOf(t *testing.T) {
	var all []string
	for _, s := range Of[outer]() {
		all = append(all, s.Name+"="+s.Default+"/"+s.Env())
		if s.WorkerOnly != (s.Name == "wait") || s.Bool != (s.Name == "is-on") || s.Help == "" {
			t.Errorf("setting %+v", s)
		}
	}
	const want = "name=x/MILLRACE_NAME size=4MiB/MILLRACE_SIZE wait=1m/MILLRACE_WAIT is-on=true/MILLRACE_IS_ON part=0.5/MILLRACE_PART " +
		"list=a,b/MILLRACE_LIST count=3/MILLRACE_COUNT least=3/MILLRACE_LEAST"
	if got := strings.Join(all, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Defaults sets everything; Fill keeps what is set, and every bool.
func TestDefaultsAndFill(t *testing.T) {
	want := outer{
		Name: "x", inner: inner{Size: 4 << 20, Own: 7}, Wait: time.Minute, On: true, Part: 0.5, List: []string{"a", "b"},
		Count: 3, Least: 3,
	}
	if got := Defaults[outer](); !reflect.DeepEqual(got, want) {
		t.Errorf("defaults %+v, want %+v", got, want)
	}
	got := outer{inner: inner{Own: 1}, Count: 2}
	Fill(&got)
	want.Own, want.Count, want.On = 1, 2, false
	if !reflect.DeepEqual(got, want) || got.hook != nil {
		t.Errorf("filled %+v, want %+v", got, want)
	}
}

// Every value survives formatting and parsing.
func TestRoundTrip(t *testing.T) {
	from, to := Defaults[outer](), outer{}
	for _, s := range Of[outer]() {
		if err := s.Set(&to, s.Get(&from)); err != nil {
			t.Errorf("setting %s does not read its own %q: %v", s.Name, s.Get(&from), err)
		}
	}
	to.Own = from.Own
	if !reflect.DeepEqual(to, from) {
		t.Errorf("came back as %+v, want %+v", to, from)
	}
}

func TestOutOfBounds(t *testing.T) {
	byName := map[string]Setting{}
	for _, s := range Of[outer]() {
		byName[s.Name] = s
	}
	for _, tc := range []struct{ name, value, want string }{
		{"count", "2", ""},
		{"count", "4", ""},
		{"count", "1", "1 is not between 2 and 4"},
		{"count", "-5", "-5 is not between 2 and 4"},
		{"count", "5", "5 is not between 2 and 4"},
		{"least", "1", "1 is below 2"},
		{"least", "1000", ""},
		{"wait", "0s", "must be above zero"},
		{"wait", "1h", ""},
		{"wait", "2h", "2h0m0s is above 1h0m0s"},
		{"size", "0", "must be above zero"},
		{"size", "1", ""},
		{"name", "", ""},
		{"list", "", ""},
	} {
		var v outer
		s := byName[tc.name]
		if err := s.Set(&v, tc.value); err != nil {
			t.Fatal(err)
		}
		if got := s.OutOfBounds(&v); got != tc.want {
			t.Errorf("%s %s: %q, want %q", tc.name, tc.value, got, tc.want)
		}
	}
}

func TestTextsThatAreNoValues(t *testing.T) {
	for _, s := range Of[outer]() {
		bad := map[string]string{
			"size": `"1kb" is not a size: write 900KiB`, "wait": `"1kb" is not a duration: write 500ms`, "is-on": `"1kb" is neither true nor false`,
			"part": `"1kb" is not a number between 0 and 1`, "count": `"1kb" is not a whole number`, "least": `"1kb" is not a whole number`,
		}[s.Name]
		var v outer
		err := s.Set(&v, "1kb")
		if (err == nil) != (bad == "") || err != nil && !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v, want %q", s.Name, err, bad)
		}
		if bad != "" && !reflect.DeepEqual(v, outer{}) {
			t.Errorf("%s: a bad value was set: %+v", s.Name, v)
		}
	}
	for name, texts := range map[string][]string{
		"size": {"-1", "9999999999GiB", ""}, "wait": {"-5s", "5"}, "part": {"-0.1", "1.1", "NaN"},
		"list": {",", " , ,", " "},
	} {
		for _, s := range Of[outer]() {
			for _, text := range texts {
				var v outer
				if s.Name == name && s.Set(&v, text) == nil {
					t.Errorf("%s took %q", name, text)
				}
			}
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "7": 7, "7B": 7, "1KiB": 1 << 10, "3 MiB": 3 << 20, "2GiB": 2 << 30} {
		if n, err := parseBytes(text); err != nil || n != want {
			t.Errorf("%s is %d, %v, want %d", text, n, err, want)
		}
	}
	for n, want := range map[int]string{
		0: "0B", 7: "7B", 1 << 10: "1KiB", 1025: "1025B", 900 << 10: "900KiB", 4 << 20: "4MiB", 1 << 30: "1GiB",
	} {
		if text := formatBytes(n); text != want {
			t.Errorf("%d prints as %s, want %s", n, text, want)
		}
	}
}
