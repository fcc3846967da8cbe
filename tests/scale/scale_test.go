package main

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func small(t *testing.T, args ...string) (options, bool) {
	t.Helper()
	o, asJSON, err := parse(append([]string{"-workers", "2,5", "-partitions", "16,300", "-catch-up", "40"}, args...),
		io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return o, asJSON
}

// TestGroups simulates small groups. The group checks itself after every rebalance (check.go): one
// owner for each partition, as in the table that all members read, bounded moves, even shares and
// enough followers when stable. Here the figures are checked.
func TestGroups(t *testing.T) {
	for _, seed := range []string{"1", "2"} {
		o, _ := small(t, "-seed", seed)
		for _, partitions := range o.Partitions {
			for _, workers := range o.Workers {
				f, err := play(o, workers, partitions)
				if err != nil {
					t.Fatalf("%d workers, %d partitions, seed %s: %v", workers, partitions, seed, err)
				}
				holdSteps(t, f)
			}
		}
	}
}

func holdSteps(t *testing.T, f *figures) {
	t.Helper()
	for i := range f.Steps {
		s := &f.Steps[i]
		share := (f.Partitions + f.Workers - 2) / max(1, f.Workers-1) // of a group with one worker less
		switch s.Name {
		case "start", "full restart":
			if s.Claims < f.Partitions {
				t.Errorf("%s: %d claims for %d partitions", s.Name, s.Claims, f.Partitions)
			}
		case "join":
			if s.Released > share || s.Claims != s.Released || s.Cold > 0 {
				t.Errorf("a join takes %d of %d partitions from their owners, %d claims, %d of them cold", s.Released,
					f.Partitions, s.Claims, s.Cold)
			}
		case "death", "leave":
			if s.Cold > 0 && f.Workers > 2 {
				t.Errorf("%s: %d partitions go to workers that are not warm", s.Name, s.Cold)
			}
		}
		if s.MostHops > 2 {
			t.Errorf("%s: a command asked %d workers", s.Name, s.MostHops)
		}
	}
	if f.Router.Hops != f.Router.Commands {
		t.Errorf("%d commands with the present table asked %d workers", f.Router.Commands, f.Router.Hops)
	}
	if f.Rest.Wire.Record < f.Rest.Table || f.Rest.ReadFactor != 1 {
		t.Errorf("at rest: %+v", f.Rest)
	}
}

// TestTableIsLookedUp: if the table does not fit into every assignment, members look up the one
// that exists.
func TestTableIsLookedUp(t *testing.T) {
	o, _ := small(t)
	f, err := play(o, 40, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if w := f.Rest.Wire; w.Everywhere || w.Lookups != 39*w.Page {
		t.Errorf("the table is in every assignment: %v; %d bytes of look-ups, a page has %d", w.Everywhere, w.Lookups, w.Page)
	}
	holdSteps(t, f)
}

// TestSeedDecides: counts depend only on the seed.
func TestSeedDecides(t *testing.T) {
	o, _ := small(t)
	var got [2]*figures
	for i := range got {
		f, err := play(o, 5, 300)
		if err != nil {
			t.Fatal(err)
		}
		f.Measured = measured{}
		got[i] = f
	}
	if !reflect.DeepEqual(got[0], got[1]) {
		t.Errorf("two runs with one seed:\n%+v\n%+v", got[0], got[1])
	}
}

// TestChecksNotice: the checks find a partition with two owners, and one with an owner that is not
// in the table.
func TestChecksNotice(t *testing.T) {
	o, _ := small(t)
	g := newGroup(o, 16)
	g.start("a", nil)
	g.start("b", nil)
	if err := g.begin(); err != nil {
		t.Fatal(err)
	}
	a, b := g.members[0], g.members[1]
	kept := a.owned
	a.owned = append(slices.Clip(kept), b.owned[0])
	if err := g.check(); err == nil || !strings.Contains(err.Error(), "own partition") {
		t.Errorf("two owners: %v", err)
	}
	a.owned = kept[1:]
	if err := g.check(); err == nil {
		t.Error("an owner that has lost a partition was not noticed")
	}
}

// TestPrints: both forms have every group.
func TestPrints(t *testing.T) {
	o, asJSON := small(t, "-json", "-workers", "3", "-partitions", "16", "-most", "4096")
	var out bytes.Buffer
	if err := run(o, asJSON, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var read struct {
		Groups []figures `json:"groups"`
	}
	if err := json.Unmarshal(out.Bytes(), &read); err != nil || len(read.Groups) != 1 ||
		len(read.Groups[0].Steps) != 6 || read.Groups[0].Rest.FitsUpTo != 4096 {
		t.Errorf("%v: %+v", err, read)
	}
	out.Reset()
	if err := run(o, false, &out, io.Discard); err != nil || !strings.Contains(out.String(), "3 × 16") {
		t.Errorf("%v: %s", err, out.String())
	}
	for _, args := range [][]string{{"-workers", "1"}, {"-partitions", "many"}, {"-claims", "0"}} {
		if _, _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}
