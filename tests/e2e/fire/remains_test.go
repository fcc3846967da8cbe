package fire

import "fmt"

// remains is what is kept of an entity to which there are no commands any more: enough to see later
// whether something was lost after all, or came back.
type remains struct {
	// must is what is in it, may what may be in it, never what was denied.
	must, may, never set
	// shut: it is closed; mayShut: it may be.
	shut, mayShut bool
}

// summarize returns what is left of a history that ends with a look.
func summarize(history []*command) remains {
	last := history[len(history)-1]
	r := remains{must: last.showed.set, may: last.showed.set, shut: last.showed.closed, mayShut: last.showed.closed}
	for _, c := range history {
		switch {
		case c.kind == give && !c.happened():
			r.never = r.never.with(c.slot)
		case c.fate != unknown:
		case c.kind == give:
			r.may = r.may.with(c.slot)
		case c.kind == take:
			r.must = r.must.without(c.slot)
		case c.kind == shut:
			r.mayShut = true
		}
	}
	return r
}

// compare compares a later look with what is known.
func (r remains) compare(entity string, saw contents) []violation {
	var found []violation
	name := func(promise, format string, args ...any) {
		found = append(found, violation{promise, entity, fmt.Sprintf(format, args...)})
	}
	if saw.twice != "" {
		name(twice, "%s", saw.twice)
	}
	if saw.phantom != "" {
		name(phantom, "%s", saw.phantom)
	}
	for slot := range slots {
		switch has := saw.set.has(slot); {
		case !has && r.must.has(slot):
			name(lostWrite, "%d was there when everything was over, and is gone", slot)
		case has && r.never.has(slot):
			name(falseNever, "%d is there, and was refused or said to be not applied", slot)
		case has && !r.may.has(slot):
			name(phantom, "%d is there, and was not when everything was over", slot)
		}
	}
	if r.shut && !saw.closed {
		name(lostWrite, "it was shut, and is open")
	}
	if saw.closed && !r.mayShut {
		name(phantom, "it is shut, and was never told to")
	}
	return found
}
