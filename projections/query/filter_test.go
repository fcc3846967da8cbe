package query

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
)

// filtered has rows with all kinds of fields, of one customer.
func filtered(t testing.TB) *bench {
	b := orders(t, 1)
	b.put(`order_id: "a" customer_id: "c" status: OPEN total_cents: 100 note: "first note" tags: "red" tags: "blue" express: true weight: 1.5 patience: {seconds: 90} ratio: 0.1 raw: "\001\002" placed_at: {seconds: 10}`)
	b.put(`order_id: "b" customer_id: "c" status: SHIPPED total_cents: -5 note: "" tags: "red" weight: -2 ratio: 0.25 placed_at: {seconds: 11}`)
	b.put(`order_id: "c" customer_id: "c" total_cents: 9223372036854775807 note: "a*b \"quoted\"" weight: nan placed_at: {seconds: 12 nanos: 500}`)
	b.put(`order_id: "d" customer_id: "c" total_cents: 100 weight: inf patience: {seconds: -1 nanos: -500000000}`)
	return b
}

// TestFilters has a row for each form of a filter. Rows are in the order of placed_at; d has none
// and comes first.
func TestFilters(t *testing.T) {
	b := filtered(t)
	for filter, want := range map[string]string{
		``: "d a b c", `   `: "d a b c",
		`status = OPEN`: "a", `status != OPEN`: "d b c", `status = "SHIPPED"`: "b", `status >= OPEN`: "a b",
		`total_cents = 100`: "d a", `total_cents < 100`: "b", `total_cents <= 100`: "d a b", `total_cents > 100`: "c",
		`total_cents >= -5`: "d a b c", `total_cents = 9223372036854775807`: "c",
		`note = "first note"`: "a", `note = 'first note'`: "a", `note != "first note"`: "b c", `note = ""`: "b",
		`note = "first*"`: "a", `note = "*note"`: "a", `note != "first*"`: "b c", `note = first*`: "a",
		`note = "a\*b \"quoted\""`: "c", `note:*`: "a b c", `NOT note:*`: "d", `-note:*`: "d", `NOT note = "x"`: "d a b c",
		`tags:red`: "a b", `tags:"blue"`: "a", `tags:*`: "a b", `NOT tags:red`: "d c",
		`express = true`: "a", `express = false`: "d b c", `express != true`: "d b c",
		`weight > 1`: "d a", `weight = 1.5`: "a", `weight < 0`: "b", `weight != 1.5`: "d b c", `weight = -2e0`: "b",
		`patience = 90s`: "a", `patience < 0s`: "d", `patience = "-1.5s"`: "d", `patience >= 1.5s`: "a", `NOT patience:*`: "b c",
		`ratio = 0.25`: "b", `ratio = 0.1`: "", `ratio < 0.25 AND ratio > 0.05`: "a", `ratio > 0.1 AND ratio < 1`: "a b",
		`raw = "AQI="`:                                                          "a",
		`placed_at = 1970-01-01T00:00:11Z`:                                      "b",
		`placed_at > "1970-01-01T01:00:11+01:00"`:                               "c",
		`placed_at = 1970-01-01T00:00:12.0000005Z`:                              "c",
		`NOT placed_at:*`:                                                       "d",
		`status = OPEN AND total_cents = 100`:                                   "a",
		`status = OPEN OR status = SHIPPED`:                                     "a b",
		`(status = OPEN OR status = SHIPPED) AND total_cents < 0`:               "b",
		`status = OPEN OR (total_cents = 100 AND NOT express = true)`:           "d a",
		`NOT (status = OPEN OR status = SHIPPED)`:                               "d c",
		`  (  status=OPEN  )  `:                                                 "a",
		`status = OPEN AND status = SHIPPED`:                                    "",
		`placed_at > 1970-01-01T00:00:10Z AND placed_at < 1970-01-01T00:00:12Z`: "b",
	} {
		request := fmt.Sprintf(`customer_id: "c" page_size: 5 order_by: "placed_at" filter: %q`, filter)
		got, _ := b.ids("ListByCustomer", request)
		if got != want {
			t.Errorf("%s: %q, want %q", filter, got, want)
		}
	}
}

// TestFiltersAreRefused has each mistake with its exact text.
func TestFiltersAreRefused(t *testing.T) {
	b := filtered(t)
	const fields = "express, note, patience, placed_at, ratio, raw, status, tags, total_cents, weight"
	for filter, want := range map[string]string{
		`urgent`:                   `filter, column 1: "urgent" stands alone: compare a field with a value, as in urgent = "…"`,
		`status = OPEN urgent`:     `filter, column 15: AND or OR is missing before "urgent"`,
		`status = OPEN note = "x"`: `filter, column 15: AND or OR is missing before "note"`,
		`status = OPEN AND note = "x" OR express = true`: `filter, column 30: AND and OR need parentheses where both are used: (a OR b) AND c`,
		`customer_id = "x"`:  `filter, column 1: ListByCustomer cannot be filtered by "customer_id": use ` + fields,
		`nothing = "x"`:      `filter, column 1: ListByCustomer cannot be filtered by "nothing": use ` + fields,
		`status = 1`:         `filter, column 10: "1" is not a value of status: use one of STATUS_UNSPECIFIED, OPEN, SHIPPED`,
		`note = null`:        `filter, column 8: null is not a value: use NOT note:* for rows without the field`,
		`total_cents = null`: `filter, column 15: null is not a value, and total_cents is always there`,
		`tags = "red"`:       `filter, column 1: tags has several values: use tags:value for one of them`,
		`tags.x = "red"`:     `filter, column 1: tags has several values, so that "tags.x" has none: use tags:value`,
		`note.x = "red"`:     `filter, column 1: note has no field "x"`,
		strings.Repeat("tags:x OR ", 9) + "express = true OR tags:y": `filter, column 109: the filter costs more than 1000 units for each row: use fewer conditions on fields with several values`,
		`5 = total_cents`:                   `filter, column 1: "5" is not a field: a condition is written as field = value, with the field on the left`,
		`"a" = note`:                        `filter, column 1: "\"a\"" is not a field: a condition is written as field = value, with the field on the left`,
		`total_cents = x`:                   `filter, column 15: "x" is not a value of total_cents: write a whole number`,
		`total_cents = "5"`:                 `filter, column 15: "5" is not a value of total_cents: write it without quotes`,
		`total_cents = 9223372036854775808`: `filter, column 15: "9223372036854775808" is not a value of total_cents: it does not fit into int64`,
		`weight = NaN`:                      `filter, column 10: "NaN" is not a value of weight: write a number, as in 1.5`,
		`express = yes`:                     `filter, column 11: "yes" is not a value of express: write true or false`,
		`placed_at > 2026`:                  `filter, column 13: "2026" is not a value of placed_at: write a time of RFC 3339, as in 2026-01-31T12:00:00Z`,
		`patience > 5m`:                     `filter, column 12: "5m" is not a value of patience: write seconds, as in 1.5s`,
		`raw = "?"`:                         `filter, column 7: "?" is not a value of raw: write base64`,
		`note = "a*b"`:                      `filter, column 8: * stands once, at the beginning or at the end of a text: write \* for the character`,
		`note = *`:                          `filter, column 8: * alone is each text: leave the condition out, or use note:*`,
		`note < "a*"`:                       `filter, column 8: * stands with = and != only: write \* for the character`,
		`note:"x"`:                          `filter, column 1: note has one value: use note = value`,
		`express:*`:                         `filter, column 1: express is always there: compare it with a value`,
		`note == "x"`:                       `filter, column 6: == is written as =`,
		`note =`:                            `filter, column 7: a value is missing after note =`,
		`note = "x`:                         `filter, column 8: this quote is not closed: add "`,
		`note = "\n"`:                       `filter, column 9: a backslash stands before \, ", ' or * only`,
		`(note = "x"`:                       `filter, column 1: this parenthesis is not closed: add )`,
		`note = "x")`:                       `filter, column 11: this parenthesis is not opened: take it out`,
		`note = "x" AND`:                    `filter, column 15: a condition is missing at the end, as in: field = value`,
		`note = "x" and express = true`:     `filter, column 12: "and" is written in capitals: AND`,
		`note. = "x"`:                       `filter, column 6: the name of a field is missing after "note."`,
		`has(note)`:                         `filter, column 1: has is called as a function, and filters have none: compare a field`,
		`note = "é" AND ü = 1`:              `filter, column 16: "ü" is not a field: a condition is written as field = value, with the field on the left`,
		strings.Repeat("(", 17) + `note = "x"` + strings.Repeat(")", 17): `filter, column 17: conditions are nested more than 16 deep`,
		strings.Repeat("NOT ", 17) + `note = "x"`:                        `filter, column 65: conditions are nested more than 16 deep`,
		strings.Repeat("express = true OR ", 64) + "express = true":      `filter, column 1153: the filter has more than 64 conditions`,
		`note = "` + strings.Repeat("x", 4<<10) + `"`:                    `filter, column 4097: the filter has 4105 bytes, and 4096 are allowed`,
	} {
		_, err := b.call("ListByCustomer", fmt.Sprintf(`customer_id: "c" filter: %q`, filter))
		if err == nil || err.Error() != "orders.ListByCustomer: "+want {
			t.Errorf("%s:\n\t%v\n\t%s", filter, err, "orders.ListByCustomer: "+want)
			continue
		}
		if e := entities.AsError(err); e.Reason != entities.InvalidCommand || e.Outcome != entities.NotApplied {
			t.Errorf("%s: reason %v, outcome %v", filter, e.Reason, e.Outcome)
		}
	}
}

// FuzzFilter: a filter from outside is refused or evaluated, and neither ends the process; one that
// is accepted reads the same when it is written.
func FuzzFilter(f *testing.F) {
	for _, text := range []string{
		`status = OPEN AND (note = "a*" OR NOT tags:red)`, `-weight >= -1.5e3`, `placed_at < 2026-01-01T00:00:00Z`,
		`patience = 1.5s AND raw != "AQI="`, `note = 'x\'y' OR note:*`, `((`, `a b c`, "\x00", `note = "\`,
	} {
		f.Add(text)
	}
	view := viewOf(f, fmt.Sprintf(spec, 4))
	p := view.Projection
	row := dynamicpb.NewMessage(p.Row)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := filterOf(p, p.Queries[queryNamed(p, "ListByCustomer")], text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "filter, column ") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		for _, part := range all {
			first := part.holds(row)
			again, err := filterOf(p, p.Queries[queryNamed(p, "ListByCustomer")], part.text)
			if err != nil || len(again) == 0 {
				continue // it has a * that was escaped
			}
			if len(again) == 1 && again[0].holds(row) != first {
				t.Errorf("%q is written as %q, which means something else", text, part.text)
			}
		}
	})
}
