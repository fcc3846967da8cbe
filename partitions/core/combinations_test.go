package core

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/entities/record"
)

// allowed are the rows of the table beside State, by state: assigned, releasing, owner, batches
// sent, entities. A nil column allows everything.
var allowed = sync.OnceValues(func() (map[string][5][]string, error) {
	source, err := os.ReadFile("core.go")
	rows := map[string][5][]string{}
	for _, row := range regexp.MustCompile(`(?m)^//\t([A-Z][a-zA-Z]+)  +(.+)$`).FindAllStringSubmatch(string(source), -1) {
		var columns [5][]string
		for i, column := range regexp.MustCompile(`  +`).Split(row[2], len(columns)) {
			if column != "any" && column != "either" {
				columns[i] = strings.Split(column, " or ")
			}
		}
		rows[strings.ToLower(row[1])] = columns
	}
	return rows, err
})

// combination returns which column of the table a core contradicts; "" for none.
func combination(c *Core) string {
	rows, err := allowed()
	row, known := rows[strings.ReplaceAll(c.state.String(), " ", "")]
	if err != nil || !known {
		return fmt.Sprintf("the table beside State has no row for %s: %v", c.state, err)
	}
	flag := func(is bool) string {
		if is {
			return "yes"
		}
		return "no"
	}
	owner, entities := "this one", "some"
	if c.owner == (record.Owner{}) {
		owner = "none"
	}
	if len(c.entities) == 0 {
		entities = "none"
	}
	sent := [...]string{"none", "one", "more"}[min(len(c.sent), 2)]
	for i, have := range [...]string{flag(c.assigned), flag(c.releasing), owner, sent, entities} {
		if row[i] != nil && !slices.Contains(row[i], have) {
			return fmt.Sprintf("%s, and column %d is %q: want %q", c.state, i+1, have, row[i])
		}
	}
	return ""
}

// TestCombinationsShow: the table has a row for each state, and a core that contradicts it is
// found.
func TestCombinationsShow(t *testing.T) {
	rows, err := allowed()
	if err != nil || len(rows) != len(stateNames) {
		t.Fatalf("%d rows for %d states: %v", len(rows), len(stateNames), err)
	}
	c := activeCore(t, true)
	if fault := combination(c); fault != "" {
		t.Fatal(fault)
	}
	c.releasing = true
	if combination(c) == "" {
		t.Error("an active owner that releases was not found")
	}
	c.releasing, c.owner = false, record.Owner{}
	if combination(c) == "" {
		t.Error("an active core without an owner was not found")
	}
}
