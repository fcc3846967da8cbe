package definition

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// legacyFiles are what functions declare beside the shop: proto2, handlers, routes.
func legacyFiles() map[string]string {
	return map[string]string{
		"legacy.proto": `syntax = "proto2"; package legacy;
			message Defaults { optional string id = 1; optional int32 n = 2 [default = 7]; }
			message Needed { required string id = 1; }
			message Deep { optional string id = 1; optional Needed needed = 2; }
			message Grouped { optional string id = 1; optional group Part = 2 { optional string x = 1; } }
			enum Late { ONE = 1; }
			message Enumerated { optional string id = 1; optional Late late = 2; }`,
		"handlers.proto": `syntax = "proto3"; package millrace.projection.v1;
			message ApplyRequest {}
			message ApplyResponse {}`,
		"hand.proto": `syntax = "proto3"; package shop.v1;
			import "handlers.proto";
			import "google/api/annotations.proto";
			message Explained { string explain = 1; }
			service Folds {
				rpc Apply(millrace.projection.v1.ApplyRequest) returns (millrace.projection.v1.ApplyResponse);
				rpc Stream(stream millrace.projection.v1.ApplyRequest) returns (millrace.projection.v1.ApplyResponse);
				rpc Taken(ApplyIn) returns (ApplyIn) { option (google.api.http) = {get: "/v1/shops/{id}/orders"}; }
			}
			message ApplyIn { string id = 1; }`,
		"services.proto": `syntax = "proto3"; package millrace.query.orders;
			message M {}
			service Taken { rpc Do(M) returns (M); }`,
	}
}

// baseSpec is a spec without a problem, by its keys.
var baseSpec = []string{
	"row: shop.v1.OrderRow",
	"key: [order_id]",
	"from: [{entity: order, events: {OrderPlaced: {set: {customer_id: '${event.customer_id}'}}}}]",
}

// specOf is the document of a spec in which some keys are others: each line with a key takes the
// place of the line of that key.
func specOf(overrides string) string {
	lines := slices.Clone(baseSpec)
	for block := range strings.SplitSeq("\n"+overrides, "\n") {
		if block == "" {
			continue
		}
		if strings.HasPrefix(block, " ") || strings.HasPrefix(block, "-") {
			lines[len(lines)-1] += "\n  " + block
			continue
		}
		key, _, _ := strings.Cut(block, ":")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, key+":") })
		lines = append(lines, block)
	}
	return "apiVersion: millrace/v1\nkind: Projection\nmetadata: {name: orders, version: 2}\nspec:\n  " +
		strings.Join(lines, "\n  ") + "\n"
}

// TestEachRule checks the files of testdata/rules.txt: each block is a file, or what a spec has
// otherwise than baseSpec, and behind it the exact problems. Each rule must occur, and what is
// generated for TestLargeInputs too.
func TestEachRule(t *testing.T) {
	schema := schemaOf(t, legacyFiles())
	reached := map[RuleID]bool{}
	datadriven.RunTest(t, filepath.Join("testdata", "rules.txt"), func(_ *testing.T, d *datadriven.TestData) string {
		input := d.Input
		if d.Cmd == "spec" {
			input = specOf(d.Input)
		}
		set := Check([]Source{{"f.yaml", []byte(input)}}, Options{Schema: schema})
		var out strings.Builder
		for _, p := range set.Report.Problems() {
			reached[p.Rule] = true
			fmt.Fprintln(&out, p.String())
		}
		if out.Len() == 0 {
			return "ok\n"
		}
		return out.String()
	})
	for name, c := range largeInputs() {
		reached[c.rule] = true
		_ = name
	}
	reached[apiBroken] = true  // TestIncompatibleVersions
	reached[lookupLost] = true // TestLookupsOfAppliedProjections
	for _, r := range Rules() {
		if !reached[r.ID] {
			t.Errorf("rule %s (%s) has no case in testdata/rules.txt", r.ID, r.Message)
		}
	}
}

type largeInput struct {
	rule RuleID
	text string
	want string
}

// largeInputs break rules about sizes.
func largeInputs() map[string]largeInput {
	long := strings.Repeat("x", MaxFileBytes+1)
	many := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	return map[string]largeInput{
		"file":          {fileTooLarge, "# " + long, "f.yaml: D101: the file has 262147 bytes, and the limit is 262144: split it: a directory may have many files"},
		"old line ends": {oddBreak, "a: 1\r\nb: 2\rc: 3", "f.yaml:2:5: D111: the line ends with U+000D: end lines with LF or CR LF"},
		"encoding":      {notUTF8, "a: \xff", "f.yaml: D102: the file is not UTF-8: save it as UTF-8"},
		"expression": {
			expressionTooLong, specOf("visible: " + many("row.small == %d || ", 300) + "false"),
			"f.yaml:8:12: D302 spec.visible: the expression has 5895 bytes, and the limit is 4096: put the value into the event",
		},
		"projections": {
			tooManyDefinitions, many("---\napiVersion: millrace/v1\nkind: Projection\nmetadata: {name: p%d, version: 1}\nspec:\n  "+
				strings.Join(baseSpec, "\n  ")+"\n", MaxProjections+1),
			"f.yaml:514:1: D211: there are more than 64 definitions of kind Projection: drop some first",
		},
		"indexes": {
			tooMany, specOf("indexes: [" + many("{name: i%d, fields: [small]}, ", MaxIndexes+1) + "]"),
			"f.yaml:8:12: D207 spec.indexes: 17 indexes, and the limit is 16: take some out",
		},
	}
}

// TestLargeInputs checks files that are too large to stand in testdata.
func TestLargeInputs(t *testing.T) {
	schema := shopSchema(t)
	for name, c := range largeInputs() {
		t.Run(name, func(t *testing.T) {
			set := Check([]Source{{"f.yaml", []byte(c.text)}}, Options{Schema: schema})
			problems := set.Report.Problems()
			if len(problems) != 1 || problems[0].String() != c.want {
				t.Errorf("problems %v, want %s", problems, c.want)
			}
		})
	}
}
