package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/millrace-io/millrace/entities"
)

// operation is a client's request and what the client knows of its outcome.
type operation struct {
	number    int
	key, text string
	id        string
	// called and returned are moments in the order of events; returned is 0 while there is no
	// answer.
	called, returned int64
	result           result
	attempts         int
	// consistency is that of a read; bound and after are its arguments, least is the least value
	// that it must return.
	consistency entities.Consistency
	bound       time.Duration
	after       []entities.Position
	least       int
	// calledAt and returnedAt are the times of call and return, token is the position of the
	// answer.
	calledAt, returnedAt time.Time
	token                []entities.Position
}

// result is an answer.
type result struct {
	class class
	text  string
}

type class uint8

const (
	// unknown: it may have happened, or may still happen.
	unknown class = iota
	// done: it happened.
	done
	// refused: the function refused it.
	refused
	// never: it did not happen, and will not.
	never
	// took: it happened, and its answer is that of another entity's command.
	took
)

func (o *operation) String() string {
	return fmt.Sprintf("#%d %s %q id %q", o.number, o.key, o.text, o.id)
}

// kept reports whether the answer to a command is stored. A refusal is stored only if it is that of
// a forward's target.
func (o *operation) kept() bool {
	if o.result.class == refused {
		return o.forwards() && o.id != "" && o.result.text != noText
	}
	return o.result.class == done
}

// repeatable reports whether a command gets the same answer again.
func (o *operation) repeatable() bool { return o.id != "" && o.text != "get" && o.kept() }

// forwards reports whether the answer is that of another entity's command.
func (o *operation) forwards() bool { _, _, ok := o.target(); return ok }

// target is the command that a command is forwarded to.
func (o *operation) target() (key, text string, ok bool) {
	words := strings.Fields(o.text)
	switch words[0] {
	case "pass":
		return words[2], "add " + words[1], true
	case "note", "bare":
		return words[1], strings.Join(words[2:], " "), true
	default:
		return "", "", false
	}
}

// events returns an operation for porcupine: a forward is one of its own entity and one of its
// target.
func (o *operation) events(end int64) []porcupine.Operation {
	if o.consistency.Relaxed() {
		return nil
	}
	returned, r := o.returned, o.result
	switch r.class {
	case never:
		return nil
	case unknown:
		returned = end
	case done, refused, took:
	}
	own := porcupine.Operation{ClientId: o.number, Input: o, Call: o.called, Output: r, Return: returned}
	key, text, ok := o.target()
	if !ok {
		return []porcupine.Operation{own}
	}
	there := own
	there.Input = &operation{number: o.number, key: key, text: text, id: o.id}
	if o.text[0] != 'p' { // it changes nothing here
		return []porcupine.Operation{there}
	}
	if r.class == done {
		own.Output = result{class: took}
	}
	return []porcupine.Operation{own, there}
}

// model is a number that commands change.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		var keys []string
		for _, o := range history {
			key := o.Input.(*operation).key
			if byKey[key] == nil {
				keys = append(keys, key)
			}
			byKey[key] = append(byKey[key], o)
		}
		parts := make([][]porcupine.Operation, 0, len(keys))
		for _, key := range keys {
			parts = append(parts, byKey[key])
		}
		return parts
	},
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		value, o, r := state.(int), input.(*operation), output.(result)
		next, answer, refuses := apply(value, o.text)
		switch r.class {
		case unknown, took:
			return true, next
		case refused:
			// Functions may refuse anything; only a comparison says why.
			return r.text == noText || (refuses && r.text == answer), value
		default:
			return !refuses && r.text == answer, next
		}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%v -> %v", input, output) },
}

// apply is what a command does to a number.
func apply(value int, text string) (next int, answer string, refuses bool) {
	words := strings.Fields(text)
	number := func(i int) int {
		n, err := strconv.Atoi(words[i])
		if err != nil {
			panic(err)
		}
		return n
	}
	switch words[0] {
	case "add", "send", "pass":
		next = value + number(1)
		return next, strconv.Itoa(next), false
	case "big":
		next = value + number(1)
		return next, strconv.Itoa(next), false
	case "wide":
		next = value + number(1)
		return next, pad(strconv.Itoa(next), number(2)), false
	case "post", "fan":
		next = value + number(1)*number(3)
		return next, strconv.Itoa(next), false
	case "cas":
		if value != number(1) {
			return value, "it is " + strconv.Itoa(value), true
		}
		return number(2), words[2], false
	default:
		return value, strconv.Itoa(value), false
	}
}

// linearizable checks a history, except for entities that also change in other ways. Operations
// that never happened are left out.
func linearizable(history []*operation, end int64, leaveOut func(key string) bool) error {
	var events []porcupine.Operation
	for _, o := range history {
		events = append(events, o.events(end)...)
	}
	const patience = 10 * time.Second
	for _, one := range model.Partition(events) {
		key := one[0].Input.(*operation).key
		if leaveOut(key) {
			continue
		}
		switch porcupine.CheckOperationsTimeout(model, one, patience) {
		case porcupine.Ok:
		case porcupine.Unknown:
			return fmt.Errorf("the history of %s, of %d operations, is too long to be checked in %v", key, len(one), patience)
		default:
			return fmt.Errorf("the answers of %s are not those of any order of its commands", key)
		}
	}
	return nil
}
