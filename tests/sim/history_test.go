package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// operation is what a client asked for, and what it knows.
type operation struct {
	number    int
	key, text string
	id        string
	// called and returned are moments in the order of events; returned is 0 while there is no answer.
	called, returned int64
	result           result
	attempts         int
}

// result is an answer.
type result struct {
	class class
	text  string
}

type class uint8

const (
	// unknown: it may have happened, or may happen yet.
	unknown class = iota
	// done: it happened.
	done
	// refused: the function said no.
	refused
	// never: it did not happen, and will not.
	never
)

func (o *operation) String() string {
	return fmt.Sprintf("#%d %s %q id %q", o.number, o.key, o.text, o.id)
}

// model is a number under commands.
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
		case unknown:
			return true, next
		case refused:
			// Functions may refuse anything; only a comparison says why.
			return r.text == "no" || (refuses && r.text == answer), value
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
	case "add", "send":
		next = value + number(1)
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

// linearizable checks a history. What never happened must not be in it.
func linearizable(history []*operation, end int64) error {
	var events []porcupine.Operation
	for _, o := range history {
		returned, r := o.returned, o.result
		switch r.class {
		case never:
			continue
		case unknown:
			returned = end
		case done, refused:
		}
		events = append(events, porcupine.Operation{ClientId: o.number, Input: o, Call: o.called, Output: r, Return: returned})
	}
	const patience = 10 * time.Second
	switch porcupine.CheckOperationsTimeout(model, events, patience) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("the history of %d operations is too long to be checked in %v", len(events), patience)
	default:
		return fmt.Errorf("the answers are not those of any order of the commands")
	}
}
