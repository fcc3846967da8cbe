package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDataDirectoryRemembersWhatItBelongsTo(t *testing.T) {
	c := testConfig(t)
	made, err := openDirectory(c, false)
	if err != nil {
		t.Fatal(err)
	}
	if made.App != c.App || made.Partitions != c.Partitions || !strings.HasPrefix(made.Worker, "w-") {
		t.Errorf("made %+v for %+v", made, c)
	}
	c.Partitions = 64 // a default of another version, which no operator asked for
	found, err := openDirectory(c, false)
	if err != nil || found != made {
		t.Errorf("found %+v, %v, want %+v as it was made", found, err, made)
	}
	c.Worker = "another"
	if found, err = openDirectory(c, false); err != nil || found.Worker != "another" {
		t.Errorf("worker %s, %v, want the one that was asked for", found.Worker, err)
	}
}

func TestEphemeralNodeTouchesNoDirectory(t *testing.T) {
	c := testConfig(t)
	c.Data, c.Ephemeral = filepath.Join(t.TempDir(), "data"), true
	if id, err := openDirectory(c, false); err != nil || id.App != c.App || id.Worker == "" {
		t.Errorf("%+v, %v", id, err)
	}
	if _, err := os.Stat(c.Data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is there: %v", err)
	}
}

func TestDataDirectoryThatDoesNotFit(t *testing.T) {
	for _, tc := range []struct {
		name     string
		identity string
		change   func(*Config)
		want     []string
	}{
		{
			name: "another app", change: func(c *Config) { c.App = "other" },
			want: []string{`belongs to app "millrace", not "other"`, "start with --app millrace, or choose another directory with --data"},
		},
		{
			name: "other partitions", change: func(c *Config) { c.Partitions = 4 },
			want: []string{"has 2 partitions, not 4: leave --partitions out"},
		},
		{
			name: "newer version", identity: `{"version": 2, "app": "millrace"}`,
			want: []string{"has layout version 2, this program knows up to 1", "use the version of millrace that made it"},
		},
		{
			name: "damaged", identity: `{"version":`,
			want: []string{"identity.json is damaged", "choose another directory with --data"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := testConfig(t)
			if _, err := openDirectory(c, true); err != nil {
				t.Fatal(err)
			}
			if tc.identity != "" {
				if err := os.WriteFile(filepath.Join(c.Data, identityFile), []byte(tc.identity), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tc.change != nil {
				tc.change(c)
			}
			_, err := Start(t.Context(), Options{Config: c, PartitionsGiven: true, Local: local(t, "counter")})
			if err == nil {
				t.Fatal("the node started")
			}
			mustContain(t, "the error", err.Error(), append(tc.want, c.Data)...)
		})
	}
}

func TestDataDirectoryThatCannotBeWritten(t *testing.T) {
	for _, tc := range []struct {
		name string
		data func(dir string) string
		want string
	}{
		{"a file in its place", func(dir string) string { return filepath.Join(dir, "file") }, "make the data directory"},
		{"a file above it", func(dir string) string { return filepath.Join(dir, "file", "data") }, "make the data directory"},
		{"a directory in the place of its file", func(dir string) string { return dir }, "write to the data directory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, identityFile+".new"), 0o700); err != nil {
				t.Fatal(err)
			}
			c := testConfig(t)
			c.Data = tc.data(dir)
			_, err := openDirectory(c, false)
			if err == nil {
				t.Fatal("opened")
			}
			mustContain(t, "the error", err.Error(), tc.want, c.Data, "choose another with --data")
		})
	}
}
