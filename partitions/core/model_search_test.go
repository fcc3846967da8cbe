//go:build !race

package core

import (
	"fmt"
	"slices"
	"strings"
)

// finding is the result of a search.
type finding struct {
	states int
	// fault is what must never happen, trace the shortest way to it.
	fault string
	trace []string
	// unfinished: there are more states than the search may visit.
	unfinished bool
}

func (f *finding) verdict() string {
	switch {
	case f.fault != "":
		return "VIOLATION: " + f.fault
	case f.unfinished:
		return "OK so far"
	default:
		return "OK"
	}
}

// visit is how a state was reached: from which state, by which action.
type visit struct {
	from int32
	by   action
}

// search visits every state of a scenario, breadth first, so that the first violation has the
// shortest trace. States are compared by 128 bits of a hash.
func search(s *scenario, limit int) finding {
	s.prepare()
	var (
		walk    = newPath(newWorld(s))
		visits  = []visit{{from: -1}}
		seen    = map[[16]byte]struct{}{}
		buf     []byte
		mark    [16]byte
		choices []action
	)
	mark, buf = walk.worlds[0].fingerprint(buf)
	seen[mark] = struct{}{}
	for at := int32(0); int(at) < len(visits); at++ {
		x := walk.to(visits, at)
		choices = x.actions(choices[:0])
		for _, a := range choices {
			y := x.step(a)
			fault := y.check()
			mark, buf = y.fingerprint(buf)
			if _, known := seen[mark]; known && fault == "" {
				continue
			}
			visits = append(visits, visit{at, a})
			if fault != "" {
				return finding{states: len(visits), fault: fault, trace: tell(s, visits)}
			}
			if len(visits) >= limit {
				return finding{states: len(visits), unfinished: true}
			}
			seen[mark] = struct{}{}
		}
	}
	return finding{states: len(visits)}
}

// path holds the states on the way to one visit. States that are still to be visited are kept as
// visits only, because states are large: the next one in the order of the search shares nearly all
// of its way with the one before, so few steps are taken twice.
type path struct {
	worlds []*world
	ids    []int32
	way    []int32
}

func newPath(start *world) *path { return &path{worlds: []*world{start}, ids: []int32{0}} }

// to returns the state of a visit.
func (p *path) to(visits []visit, id int32) *world {
	p.way = p.way[:0]
	for i := id; i >= 0; i = visits[i].from {
		p.way = append(p.way, i)
	}
	slices.Reverse(p.way)
	same := 0
	for same < min(len(p.way), len(p.ids)) && p.way[same] == p.ids[same] {
		same++
	}
	p.worlds, p.ids = p.worlds[:same], p.ids[:same]
	for _, i := range p.way[same:] {
		p.worlds = append(p.worlds, p.worlds[len(p.worlds)-1].step(visits[i].by))
		p.ids = append(p.ids, i)
	}
	return p.worlds[len(p.worlds)-1]
}

// tell repeats the way to the last visit and writes down what happens.
func tell(s *scenario, visits []visit) []string {
	var way []action
	for i := int32(len(visits) - 1); i > 0; i = visits[i].from {
		way = append(way, visits[i].by)
	}
	slices.Reverse(way)
	x := newWorld(s)
	var lines []string
	for i, a := range way {
		var notes []string
		x.notes = &notes
		x = x.step(a)
		line := fmt.Sprintf("%2d. %s", i+1, a)
		if len(notes) > 0 {
			line += ": " + strings.Join(notes, "; ")
		}
		lines = append(lines, line)
	}
	return lines
}
