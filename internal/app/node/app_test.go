package node

import (
	"strings"
	"testing"
)

// TestAppIsNamedWithBrokers: two services without a name would be one app, and each would answer
// for a part of the other's entities.
func TestAppIsNamedWithBrokers(t *testing.T) {
	brokers := map[string]string{"brokers": "127.0.0.1:9092"}
	for _, c := range []struct {
		name         string
		from         Sources
		want, origin string
	}{
		{"embedded log", Sources{}, "millrace", "default"},
		{"embedded log of a program with a name", Sources{App: "shop"}, "shop", "program"},
		{"flag", Sources{Flags: map[string]string{"brokers": "b:1", "app": "shop"}, App: "other"}, "shop", "flag --app"},
		{"environment", Sources{Flags: brokers, Env: environment("MILLRACE_APP=shop"), App: "other"}, "shop", "environment MILLRACE_APP"},
		{"program", Sources{Flags: brokers, App: "shop"}, "shop", "program"},
		{"the old default, but asked for", Sources{Flags: map[string]string{"brokers": "b:1", "app": "millrace"}}, "millrace", "flag --app"},
	} {
		got, origin, err := Load(c.from)
		if err != nil || got.App != c.want || origin["app"] != c.origin {
			t.Errorf("%s: %v, origin %q, error %v; want %s by %s", c.name, got, origin["app"], err, c.want, c.origin)
		}
	}
	_, _, err := Load(Sources{Flags: brokers})
	if err == nil {
		t.Fatal("with brokers an app without a name was taken")
	}
	for _, want := range []string{"setting app", "--app shop", "MILLRACE_APP", "configuration file", "millrace.App"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %s", err, want)
		}
	}
}
