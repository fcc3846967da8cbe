package definitions

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/internal/mutation"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
	"github.com/millrace-io/millrace/sdk"
)

// maxHistory is how many changes the state shows. The journal has all of them.
const maxHistory = 256

// VersionText is a version as people write it: 4, or 4-dev.2.
func VersionText(v *definitionsv1.Version) string {
	if v.GetDev() == 0 {
		return strconv.Itoa(int(v.GetNumber()))
	}
	return fmt.Sprintf("%d-dev.%d", v.GetNumber(), v.GetDev())
}

// ParseVersion reads a version as people write it.
func ParseVersion(text string) (*definitionsv1.Version, error) {
	number, dev, isDev := strings.Cut(text, "-dev.")
	v := &definitionsv1.Version{}
	for _, part := range []struct {
		text  string
		field *int32
		given bool
	}{{number, &v.Number, true}, {dev, &v.Dev, isDev}} {
		if !part.given {
			continue
		}
		n, err := strconv.ParseInt(part.text, 10, 32)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a version: use a number, as in 4, or 4-dev.2", text)
		}
		*part.field = int32(n)
	}
	return v, nil
}

func compareVersions(a, b *definitionsv1.Version) int {
	return cmp.Or(cmp.Compare(a.GetNumber(), b.GetNumber()), cmp.Compare(a.GetDev(), b.GetDev()))
}

func less(a, b *definitionsv1.Version) bool { return compareVersions(a, b) < 0 }

func compareNames(a *definitionsv1.Definition, kind, name string) int {
	return cmp.Or(strings.Compare(a.GetKind(), kind), strings.Compare(a.GetName(), name))
}

// find returns a definition; nil if it was never applied.
func find(s *definitionsv1.State, kind, name string) *definitionsv1.Definition {
	for _, d := range s.GetDefinitions() {
		if compareNames(d, kind, name) == 0 {
			return d
		}
	}
	return nil
}

// liveOf returns a version that is not dropped, or nil.
func liveOf(def *definitionsv1.Definition, v *definitionsv1.Version) *definitionsv1.Live {
	return lastWhere(def, func(l *definitionsv1.Live) bool { return compareVersions(l.GetApplied().GetVersion(), v) == 0 })
}

// newestOf returns the latest version with a number that is not dropped, or nil.
func newestOf(def *definitionsv1.Definition, number int32) *definitionsv1.Live {
	return lastWhere(def, func(l *definitionsv1.Live) bool { return l.GetApplied().GetVersion().GetNumber() == number })
}

// promotedOf returns the version in force, or nil.
func promotedOf(def *definitionsv1.Definition) *definitionsv1.Live {
	return lastWhere(def, func(l *definitionsv1.Live) bool { return l.GetStage() == Promoted })
}

func lastWhere(def *definitionsv1.Definition, is func(*definitionsv1.Live) bool) *definitionsv1.Live {
	for _, v := range slices.Backward(def.GetVersions()) {
		if is(v) {
			return v
		}
	}
	return nil
}

// lastKept returns the version that was in force last, but for the present one.
func lastKept(def *definitionsv1.Definition) *definitionsv1.Live {
	var last *definitionsv1.Live
	for _, v := range def.GetVersions() {
		if v.GetStage() == Kept && (last == nil || v.GetPromoted() > last.GetPromoted()) {
			last = v
		}
	}
	return last
}

// usedBy returns a definition that uses another one, "" for none.
func usedBy(s *definitionsv1.State, def *definitionsv1.Definition) string {
	for _, other := range s.GetDefinitions() {
		if other == def || other.GetKind() != def.GetKind() {
			continue
		}
		for _, v := range other.GetVersions() {
			if slices.Contains(v.GetApplied().GetUses(), def.GetName()) {
				return other.GetName()
			}
		}
	}
	return ""
}

// numbers are the durable numbers of a version.
type numbers struct {
	dataset             uint32
	indexes, aggregates []*definitionsv1.Number
	// shares: the rows are those of a live version.
	shares bool
}

// number gives a draft its numbers. A number names the same thing for ever: rows of one fold, and
// in them one index or aggregate. So it is given again only while a live version has it.
func (a *app) number(d *definitionsv1.Draft) (numbers, error) {
	n := numbers{}
	if d.GetFoldHash() == "" {
		return n, nil
	}
	n.dataset = max(a.state.GetNextDataset(), 1)
	var sharing []*definitionsv1.Applied
	for _, v := range find(a.state, d.GetKind(), d.GetName()).GetVersions() {
		if v.GetApplied().GetFoldHash() == d.GetFoldHash() {
			sharing = append(sharing, v.GetApplied())
			n.dataset, n.shares = v.GetApplied().GetDataset(), true
		}
	}
	next := datasetOf(a.state, n.dataset)
	var errIndexes, errAggregates error
	n.indexes, errIndexes = numberAll(d.GetIndexes(), sharing, (*definitionsv1.Applied).GetIndexes, next.GetNextIndex())
	n.aggregates, errAggregates = numberAll(d.GetAggregates(), sharing, (*definitionsv1.Applied).GetAggregates,
		next.GetNextAggregate())
	return n, cmp.Or(errIndexes, errAggregates)
}

// numberAll gives numbers to indexes or aggregates: those of a live version that has the same, or
// the next ones.
func numberAll(drafts []*definitionsv1.Number, sharing []*definitionsv1.Applied,
	of func(*definitionsv1.Applied) []*definitionsv1.Number, next uint32,
) ([]*definitionsv1.Number, error) {
	var given []*definitionsv1.Number
	if next = max(next, 1); mutation.On(mutation.NumberOnce) {
		next = 1
	}
	for _, d := range drafts {
		n := &definitionsv1.Number{Name: d.GetName(), Form: d.GetForm()}
		for _, v := range sharing {
			for _, o := range of(v) {
				if o.GetName() == d.GetName() && o.GetForm() == d.GetForm() {
					n.Number = o.GetNumber()
				}
			}
		}
		if n.GetNumber() == 0 {
			n.Number = next
			next++
		}
		if n.GetNumber() > math.MaxUint16 {
			return nil, sdk.Refuse(codes.ResourceExhausted,
				"no number is left for %s: the rows have had %d: drop all versions and apply again", d.GetName(), math.MaxUint16)
		}
		given = append(given, n)
	}
	return given, nil
}

// datasetOf returns what is known of a dataset; nil for one that is not in use.
func datasetOf(s *definitionsv1.State, number uint32) *definitionsv1.Dataset {
	for _, d := range s.GetDatasets() {
		if d.GetDataset() == number {
			return d
		}
	}
	return nil
}

// What events do. Each is one revision.

func (a *app) applied(e *definitionsv1.Applied) {
	s := a.state
	def := find(s, e.GetKind(), e.GetName())
	if def == nil {
		def = &definitionsv1.Definition{Kind: e.GetKind(), Name: e.GetName()}
		i, _ := slices.BinarySearchFunc(s.GetDefinitions(), def, func(x, d *definitionsv1.Definition) int {
			return compareNames(x, d.GetKind(), d.GetName())
		})
		s.Definitions = slices.Insert(s.GetDefinitions(), i, def)
	}
	if less(def.GetHighest(), e.GetVersion()) {
		def.Highest = e.GetVersion()
	}
	def.Versions = append(def.GetVersions(), &definitionsv1.Live{
		Applied: e, Stage: Building, Since: e.GetAt(),
	})
	if e.GetDataset() != 0 {
		a.use(e)
	}
	a.note(e.GetAt(), e.GetBy(), e.GetKind(), e.GetName(), e.GetVersion(), "applied")
}

// use takes the numbers of a version.
func (a *app) use(e *definitionsv1.Applied) {
	s := a.state
	s.NextDataset = max(s.GetNextDataset(), e.GetDataset()+1)
	d := datasetOf(s, e.GetDataset())
	if d == nil {
		d = &definitionsv1.Dataset{Dataset: e.GetDataset(), NextIndex: 1, NextAggregate: 1}
		s.Datasets = append(s.GetDatasets(), d)
		sortDatasets(s)
	}
	for _, n := range e.GetIndexes() {
		d.NextIndex = max(d.GetNextIndex(), n.GetNumber()+1)
	}
	for _, n := range e.GetAggregates() {
		d.NextAggregate = max(d.GetNextAggregate(), n.GetNumber()+1)
	}
}

func sortDatasets(s *definitionsv1.State) {
	slices.SortFunc(s.GetDatasets(), func(x, y *definitionsv1.Dataset) int {
		return cmp.Compare(x.GetDataset(), y.GetDataset())
	})
}

func (a *app) promoted(e *definitionsv1.Promoted) {
	what := "promoted"
	if e.GetMissing() != "" {
		what += " without waiting for " + e.GetMissing()
	}
	a.note(e.GetAt(), e.GetBy(), e.GetKind(), e.GetName(), e.GetVersion(), what)
	def := find(a.state, e.GetKind(), e.GetName())
	a.inForce(promotedOf(def), liveOf(def, e.GetVersion()), e.GetAt(), false)
}

func (a *app) rolledBack(e *definitionsv1.RolledBack) {
	what := "rolled back to, from version " + VersionText(e.GetFrom())
	a.note(e.GetAt(), e.GetBy(), e.GetKind(), e.GetName(), e.GetTo(), what)
	def := find(a.state, e.GetKind(), e.GetName())
	a.inForce(liveOf(def, e.GetFrom()), liveOf(def, e.GetTo()), e.GetAt(), true)
}

// inForce puts a version in force in place of another one, which is nil for the first.
func (a *app) inForce(from, to *definitionsv1.Live, at *timestamppb.Timestamp, held bool) {
	if from != nil {
		from.Stage, from.Since, from.Held = Kept, at, held
	}
	if to != nil {
		to.Stage, to.Since, to.Held = Promoted, at, false
		to.Promoted = a.state.GetRevision()
	}
}

func (a *app) dropped(e *definitionsv1.Dropped) {
	what := "dropped"
	if e.GetReason() != "" {
		what += ": " + e.GetReason()
	}
	a.note(e.GetAt(), e.GetBy(), e.GetKind(), e.GetName(), e.GetVersion(), what)
	def := find(a.state, e.GetKind(), e.GetName())
	if def == nil {
		return
	}
	def.Versions = slices.DeleteFunc(def.GetVersions(), func(l *definitionsv1.Live) bool {
		return compareVersions(l.GetApplied().GetVersion(), e.GetVersion()) == 0
	})
	a.state.Datasets = slices.DeleteFunc(a.state.GetDatasets(), func(d *definitionsv1.Dataset) bool {
		return !a.inUse(d.GetDataset())
	})
}

func (a *app) inUse(dataset uint32) bool {
	for _, def := range a.state.GetDefinitions() {
		for _, v := range def.GetVersions() {
			if v.GetApplied().GetDataset() == dataset {
				return true
			}
		}
	}
	return false
}

func (a *app) pageKeyChosen(e *definitionsv1.PageKeyChosen) {
	a.state.Revision++
	a.state.PageKey = e.GetKey()
}

// note counts an event and writes it into the history.
func (a *app) note(at *timestamppb.Timestamp, by, kind, name string, v *definitionsv1.Version, what string) {
	s := a.state
	s.Revision++
	s.History = append(s.GetHistory(), &definitionsv1.Change{
		Revision: s.GetRevision(), At: at, By: by, Kind: kind, Name: name, Version: v, What: what,
	})
	if more := len(s.GetHistory()) - maxHistory; more > 0 {
		s.History = slices.Delete(s.GetHistory(), 0, more)
	}
}

// snapshot and restore: the state is its own snapshot.
func (a *app) snapshot() *definitionsv1.State { return a.state }

func (a *app) restore(s *definitionsv1.State) { a.state = s }
