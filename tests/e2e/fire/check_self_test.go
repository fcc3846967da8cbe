package fire

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// TestCheckerNamesBrokenPromises shows the checker a broken promise of every kind, and histories
// that are as they should be: a checker that cannot fail is useless.
func TestCheckerNamesBrokenPromises(t *testing.T) {
	shows := func(all ...int) contents {
		var s set
		for _, slot := range all {
			s = s.with(slot)
		}
		return contents{set: s}
	}
	clock := int64(0)
	// in makes a command that is called after everything before it and has returned before everything
	// after it.
	in := func(k kind, slot int, f fate, c contents) *command {
		clock += 2
		return &command{kind: k, slot: slot, fate: f, showed: c, called: clock - 1, returned: clock}
	}
	gave := func(slot int, all ...int) *command { return in(give, slot, done, shows(all...)) }
	saw := func(all ...int) *command { return in(look, 0, done, shows(all...)) }
	last := func(all ...int) *command {
		c := saw(all...)
		c.last = true
		return c
	}
	lost := func(k kind, slot int) *command { return in(k, slot, unknown, contents{}) }
	missing := func(slot int) *command {
		c := in(take, slot, refused, contents{})
		c.missing = true
		return c
	}
	// overlapping lets all but the first begin before the first has returned.
	overlapping := func(all ...*command) []*command {
		for _, c := range all {
			c.called = all[0].called
		}
		return all
	}
	// of makes a look one that may be of an earlier state.
	of := func(f freshness, bound time.Duration, after *command, all ...int) *command {
		c := saw(all...)
		c.freshness, c.bound, c.after = f, bound, after
		return c
	}
	first, second := gave(0, 0), gave(1, 0, 1) // for tokens; histories begin with them
	double := contents{set: set{1}, twice: " item 0 twice"}
	shutWith := func(k kind) *command { return in(k, 0, done, contents{set: set{1}, closed: true}) }
	for name, tc := range map[string]struct {
		history []*command
		want    string
	}{
		"in order":                          {[]*command{gave(0, 0), gave(1, 0, 1), saw(0, 1), last(0, 1)}, ""},
		"unknown, and it happened":          {[]*command{gave(0, 0), lost(give, 1), saw(0), saw(0, 1), last(0, 1)}, ""},
		"unknown, and it did not":           {[]*command{lost(give, 1), gave(0, 0), last(0)}, ""},
		"not applied":                       {[]*command{in(give, 0, never, contents{}), last()}, ""},
		"taken out":                         {[]*command{gave(0, 0), in(take, 0, done, shows()), missing(0), last()}, ""},
		"perhaps taken out":                 {[]*command{gave(0, 0), lost(take, 0), saw(0), saw(), last()}, ""},
		"refused after the end":             {[]*command{gave(0, 0), shutWith(shut), in(give, 1, refused, contents{}), shutWith(look)}, ""},
		"either order":                      {overlapping(gave(0, 0, 1), gave(1, 1)), ""},
		"lost write":                        {[]*command{gave(0, 0), gave(1, 0, 1), last(1)}, lostWrite},
		"a write that was lost for a while": {[]*command{gave(0, 0), gave(1, 1), last(0, 1)}, stale},
		"applied twice":                     {[]*command{in(give, 0, done, double), last(0)}, twice},
		"stale read":                        {[]*command{gave(0, 0), saw(), last(0)}, stale},
		"stale refusal":                     {[]*command{gave(0, 0), missing(0), last(0)}, stale},
		"what was taken out is shown":       {[]*command{gave(0, 0), in(take, 0, done, shows()), saw(0), last()}, stale},
		"what was taken out is back":        {[]*command{gave(0, 0), in(take, 0, done, shows()), last(0)}, lostWrite},
		"false not applied":                 {[]*command{in(give, 0, never, contents{}), saw(0), last(0)}, falseNever},
		"refused, and it happened":          {[]*command{in(give, 0, refused, contents{}), last(0)}, falseNever},
		"what was never given":              {[]*command{gave(0, 0), last(0, 7)}, phantom},
		"before it was given":               {[]*command{saw(0), gave(0, 0), last(0)}, phantom},
		"seen and gone again":               {[]*command{lost(give, 0), saw(0), saw(), last(0)}, disorder},
		"both first":                        {overlapping(gave(0, 0), gave(1, 1)), disorder},
		"given after the end":               {[]*command{gave(0, 0), shutWith(shut), gave(1, 0, 1)}, disorder},
		"refused without a reason":          {[]*command{gave(0, 0), in(give, 1, refused, contents{}), last(0)}, disorder},
		"an earlier state":                  {[]*command{gave(0, 0), gave(1, 0, 1), of(eventual, 0, nil), of(eventual, 0, nil, 0), last(0, 1)}, ""},
		"a state that never was":            {[]*command{gave(0, 0), gave(1, 0, 1), of(eventual, 0, nil, 1), last(0, 1)}, disorder},
		"a state that was never there":      {[]*command{gave(0, 0), of(eventual, 0, nil, 0, 7), last(0)}, phantom},
		"a state that was never committed":  {[]*command{gave(0, 0), in(give, 1, never, contents{}), of(eventual, 0, nil, 0, 1), last(0)}, falseNever},
		"states out of any order":           {[]*command{lost(give, 0), lost(give, 1), of(eventual, 0, nil, 0), of(eventual, 0, nil, 1), last(0, 1)}, disorder},
		"within the bound":                  {[]*command{gave(0, 0), gave(1, 0, 1), of(bounded, 2, nil, 0), last(0, 1)}, ""},
		"beyond the bound":                  {[]*command{gave(0, 0), gave(1, 0, 1), of(bounded, 2, nil), last(0, 1)}, beyond},
		"taken out longer ago":              {[]*command{gave(0, 0), in(take, 0, done, shows()), saw(), of(bounded, 2, nil, 0), last()}, beyond},
		"since its token":                   {[]*command{first, second, gave(2, 0, 1, 2), of(atLeast, 0, second, 0, 1), last(0, 1, 2)}, ""},
		"newer than its token":              {[]*command{first, second, of(atLeast, 0, first, 0, 1), last(0, 1)}, ""},
		"before its token":                  {[]*command{first, second, of(atLeast, 0, second, 0), last(0, 1)}, before},
		"before its token, by a look":       {[]*command{first, second, of(atLeast, 0, of(atLeast, 0, second, 0, 1), 0), last(0, 1)}, before},
		"not applied, and it happened":      {[]*command{gave(0, 0), in(take, 0, never, contents{}), saw(), last()}, falseNever},
	} {
		found := check(name, tc.history)
		switch {
		case tc.want == "" && len(found) > 0:
			t.Errorf("%s: found %v", name, found)
		case tc.want != "" && !slices.ContainsFunc(found, func(v violation) bool { return v.promise == tc.want }):
			t.Errorf("%s: found %v, want %q", name, found, tc.want)
		}
	}
}

// TestAgesAreMeasured: the minimum age of an answer follows from what it lacks.
func TestAgesAreMeasured(t *testing.T) {
	write := &command{kind: give, slot: 0, fate: done, called: 10, returned: 20, showed: contents{set: set{1}}}
	fresh := &command{
		kind: look, freshness: bounded, bound: 100, fate: done, called: 50, returned: 60,
		showed: contents{set: set{1}},
	}
	old := &command{kind: look, freshness: bounded, bound: 100, fate: done, called: 50, returned: 60}
	anything := &command{kind: look, freshness: eventual, fate: done, called: 50, returned: 60}
	early := &command{kind: look, freshness: bounded, bound: 100, fate: done, called: 15, returned: 60}
	if got := ages([]*command{write, fresh, old, anything, early}); !slices.Equal(got,
		[]age{{100, 0}, {100, 30}, {0, 30}, {100, 0}}) {
		t.Errorf("the ages are %v", got)
	}
}

// TestCallsAreCounted: shares by door, seconds without an answer, the longest time without one.
func TestCallsAreCounted(t *testing.T) {
	c := newCalls()
	second := int64(time.Second)
	c.note(true, 0, second/2, "") // no caller is at work yet
	c.begin()
	c.note(true, second/2, second/2+1, "")
	c.note(true, 0, second, "Unavailable")
	c.note(false, 0, 4*second, "")
	c.end()
	c.note(true, 0, 9*second, "")
	for what, pair := range map[string][2]int64{
		"calls of gateways": {int64(c.all[1]), 2}, "answered": {int64(c.answered[1]), 1}, "calls of workers": {int64(c.answered[0]), 1},
		"seconds": {c.seconds, 4}, "silent seconds": {c.silent, 3}, "longest time": {int64(c.silence), 4*second - second/2 - 1},
		"p50": {int64(c.quantile(0.5)), int64(callTimeout + 2*takenStep)},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %d, want %d", what, pair[0], pair[1])
		}
	}
}

// TestRemainsAreHeldAgainstLaterLooks shows what is remembered of an entity a later loss, and a
// later effect of what was not applied.
func TestRemainsAreHeldAgainstLaterLooks(t *testing.T) {
	r := remains{must: set{}.with(0), may: set{}.with(0).with(1), never: set{}.with(2)}
	for name, tc := range map[string]struct {
		saw  contents
		want string
	}{
		"the same":        {contents{set: set{}.with(0)}, ""},
		"a late effect":   {contents{set: set{}.with(0).with(1)}, ""},
		"a loss":          {contents{set: set{}.with(1)}, lostWrite},
		"a denied effect": {contents{set: set{}.with(0).with(2)}, falseNever},
		"a stray":         {contents{set: set{}.with(0).with(3)}, phantom},
		"a second effect": {contents{set: set{}.with(0), twice: "item 0 twice"}, twice},
		"an odd item":     {contents{set: set{}.with(0), phantom: "item x"}, phantom},
		"shut by itself":  {contents{set: set{}.with(0), closed: true}, phantom},
	} {
		found := r.compare("e", tc.saw)
		if (tc.want == "") != (len(found) == 0) || tc.want != "" && found[0].promise != tc.want {
			t.Errorf("%s: found %v, want %q", name, found, tc.want)
		}
	}
}

// TestScriptsAreRead: what a script shows says how often each of its commands took effect.
func TestScriptsAreRead(t *testing.T) {
	for numbers, want := range map[string]contents{
		"":      {},
		"0 3":   {set: set{}.with(0).with(3)},
		"3 0 3": {set: set{}.with(0).with(3), twice: " item 3 2 times"},
		"0 999": {set: set{}.with(0), phantom: ` 1 of item "999"`},
	} {
		if got := scripted(numbers); got.twice != want.twice || got.phantom != want.phantom || got.phantom == "" &&
			got.set != want.set {
			t.Errorf("%q shows %+v, want %+v", numbers, got, want)
		}
	}
}

// TestErrorsAreHeldAgainstWhatFails: an error is a broken promise where nothing fails, and an
// unknown outcome is one while only the function fails.
func TestErrorsAreHeldAgainstWhatFails(t *testing.T) {
	give, again, read := &command{kind: give}, &command{kind: give, id: "x"}, &command{kind: look}
	for name, tc := range map[string]struct {
		now     trouble
		command *command
		code    codes.Code
		outcome string
		allowed bool
	}{
		"anything, unknown":             {anything, give, codes.Unavailable, "unknown", true},
		"anything, a code of its own":   {anything, give, codes.Internal, "unknown", false},
		"anything, a refusal":           {anything, give, codes.Unavailable, "refused", false},
		"nothing, an error":             {nothing, give, codes.Unavailable, "not_applied", false},
		"nothing, an error of a read":   {nothing, read, codes.Unavailable, "not_applied", false},
		"nothing, too long":             {nothing, give, codes.DeadlineExceeded, "", true},
		"function, not applied":         {functionOnly, give, codes.Unavailable, "not_applied", true},
		"function, unknown":             {functionOnly, give, codes.Unavailable, "unknown", false},
		"function, a read":              {functionOnly, read, codes.Unknown, "unknown", true},
		"function, an earlier attempt":  {functionOnly, again, codes.Unavailable, "unknown", true},
		"function, a code of its own":   {functionOnly, again, codes.Internal, "not_applied", false},
		"function, it took its time":    {functionOnly, give, codes.DeadlineExceeded, "unknown", true},
		"nothing, an id and a new code": {nothing, again, codes.Internal, "", false},
	} {
		if got := tc.now.allows(tc.command, tc.code, tc.outcome); got != tc.allowed {
			t.Errorf("%s: allowed %v, want %v", name, got, tc.allowed)
		}
	}
}

// TestRebuiltStoreIsComparedWithItself: an entity that changed, a record that is missing, and one
// that no command wrote.
func TestRebuiltStoreIsComparedWithItself(t *testing.T) {
	record := func(offset int64, kind string) *adminv1.TailResponse {
		return &adminv1.TailResponse{Offset: offset, Kind: kind}
	}
	see := func(sequence uint64, records ...*adminv1.TailResponse) shown {
		return shown{
			entities: map[string]*adminv1.GetEntityResponse{"cart/a": {Sequence: sequence}},
			journal:  map[int32][]*adminv1.TailResponse{0: records},
		}
	}
	before := see(1, record(0, "claim"), record(1, "event"))
	for name, tc := range map[string]struct {
		later shown
		want  string
	}{
		"the same":          {see(1, record(0, "claim"), record(1, "event")), ""},
		"a claim more":      {see(1, record(0, "claim"), record(1, "event"), record(2, "settled"), record(3, "claim")), ""},
		"an event more":     {see(1, record(0, "claim"), record(1, "event"), record(2, "event")), phantom},
		"another entity":    {see(2, record(0, "claim"), record(1, "event")), lostWrite},
		"a record less":     {see(1, record(0, "claim")), lostWrite},
		"another record":    {see(1, record(0, "claim"), record(1, "state")), lostWrite},
		"nothing of it all": {shown{}, lostWrite},
	} {
		found := before.compare(tc.later)
		if (tc.want == "") != (len(found) == 0) || tc.want != "" && found[0].promise != tc.want {
			t.Errorf("%s: found %v, want %q", name, found, tc.want)
		}
	}
}

// TestPlainReaderFindsEvents: a record counts with the cart's key and the event as the function
// wrote it.
func TestPlainReaderFindsEvents(t *testing.T) {
	j := newJournal()
	event, err := proto.Marshal(&shopv1.ItemAdded{Item: &shopv1.Item{ItemId: "3", Quantity: 1}})
	if err != nil {
		t.Fatal(err)
	}
	j.add(0, 0, []byte("cart/a"), event, nil)
	if found := j.missing("cart/a", set{}.with(3)); len(found) != 0 {
		t.Errorf("it is there, and %v", found)
	}
	for name, items := range map[string]set{"cart/a": set{}.with(4), "cart/b": set{}.with(3)} {
		if found := j.missing(name, items); len(found) != 1 || found[0].promise != lostWrite {
			t.Errorf("%s %v is not there, and %v", name, items, found)
		}
	}
}
