package gateway

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// docs/headers.md shows the table of request headers.
func TestHeadersAreDocumented(t *testing.T) {
	var table strings.Builder
	table.WriteString("| header | set by | read by | what it says | several values | malformed |\n")
	table.WriteString("| --- | --- | --- | --- | --- | --- |\n")
	for _, h := range requestHeaders {
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s | %s | %s |\n", h.name, h.sender, h.read, h.meaning,
			h.repeated, h.malformed)
	}
	page, err := os.ReadFile("../docs/headers.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "\n"+table.String()+"\n") {
		t.Fatalf("docs/headers.md does not have this table, which is that of requestHeaders:\n%s", table.String())
	}
}
