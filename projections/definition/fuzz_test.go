package definition

import (
	"strings"
	"testing"
	"time"
)

// mostTime is what no input takes, with the race detector on a busy machine either: the slowest
// takes 0.1 s alone. A reader whose time grows with the square of the length would take minutes.
const mostTime = time.Minute

// FuzzDocument reads any text as a file of definitions: whatever it is, the check ends, soon,
// without a panic, says the same twice, and points into the text.
func FuzzDocument(f *testing.F) {
	for _, file := range directory(f, "orders") {
		f.Add(string(file.Text))
	}
	texts := hostileTexts()
	for _, name := range sortedNames(texts) {
		f.Add(texts[name][:min(len(texts[name]), 1<<10)]) // TestHostileTexts has them whole
	}
	schema := shopSchema(f)
	f.Fuzz(func(t *testing.T, text string) {
		began := time.Now()
		defer func() {
			if took := time.Since(began); took > mostTime {
				t.Errorf("it took %s", took)
			}
		}()
		first := Check([]Source{{"f.yaml", []byte(text)}}, Options{Schema: schema})
		again := Check([]Source{{"f.yaml", []byte(text)}}, Options{Schema: schema})
		lines := strings.Count(text, "\n") + 1
		one, two := first.Report.Problems(), again.Report.Problems()
		if len(one) != len(two) {
			t.Fatalf("%d problems, then %d", len(one), len(two))
		}
		for i, p := range one {
			if *p != *two[i] {
				t.Errorf("first %s, then %s", p, two[i])
			}
			if p.Line > lines+1 || p.Line < 0 || p.Column < 0 {
				t.Errorf("%s is no place in %d lines", p, lines)
			}
		}
	})
}

// FuzzExpression compiles any text as an expression of a clause.
func FuzzExpression(f *testing.F) {
	for _, text := range []string{
		"row.total_cents > 0", "event.lines.map(l, l.cents)", "sum([1, 2])", "uuid5(entity.id, 'x')", "'a' + r'\\x' + '''b'''",
		"row.tags.all(a, row.tags.exists(b, a == b))", "[[[[[[[[1]]]]]]]]", "row.note.matches('(a*)*')", "has(row.note) ? 1 : 2",
		"((((((((((((((((((((((((((((((1))))))))))))))))))))))))))))))", "-------------------1", "a.b.c.d.e", "1u + 2", "{1: 2}[1]",
		"timestamp('x')", "duration('1h')", "row.placed_at.getHours('UTC')", "math.greatest(1, 2)", "'%s'.format([1])", "\x00",
	} {
		f.Add(text)
	}
	s := &Scope{Report: &Report{}, Options: Options{Schema: shopSchema(f), Kinds: Standard()}}
	p := &Projection{pkg: "shop.v1", Row: s.Schema.message("shop.v1.OrderRow", "")}
	event := messageVariable("event", s.Schema.message("shop.v1.OrderPlaced", ""))
	env := p.clauseEnvironment(s, &Node{}, []Variable{event})
	f.Fuzz(func(t *testing.T, text string) {
		began := time.Now()
		defer func() {
			if took := time.Since(began); took > mostTime {
				t.Errorf("it took %s", took)
			}
		}()
		s.Report = &Report{}
		e := s.Expression(&Node{Line: 1, Column: 1}, 0, text, env)
		if (e == nil) != s.failed() {
			t.Errorf("expression %v with problems %v", e, s.Problems())
		}
		if e == nil {
			return
		}
		// -(0) is written as -0, which is the literal 0: so the form of the form is compared.
		once := s.Expression(&Node{}, 0, e.Canonical, env)
		if once == nil || once.Type.String() != e.Type.String() {
			t.Fatalf("the canonical form %s is another expression (%v)", e.Canonical, s.Problems())
		}
		if twice := s.Expression(&Node{}, 0, once.Canonical, env); twice == nil || twice.Canonical != once.Canonical {
			t.Errorf("the canonical form %s has another one (%v)", once.Canonical, s.Problems())
		}
		if _, err := e.Env.Program(e.AST); err != nil {
			t.Errorf("no program: %v", err)
		}
	})
}

// hostileTexts are texts of the largest size that are hard on parsers.
func hostileTexts() map[string]string {
	fill := func(piece string) string { return strings.Repeat(piece, MaxFileBytes/len(piece)) }
	bomb := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 20 {
		name, above := string(rune('b'+i)), string(rune('a'+i))
		bomb += name + ": &" + name + " [" + strings.Repeat("*"+above+", ", 10) + "]\n"
	}
	var stairs strings.Builder
	for i := 0; stairs.Len() < MaxFileBytes-1000; i++ {
		stairs.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return map[string]string{
		"brackets": fill("["), "braces": fill("{"), "dashes": fill("- "), "questions": fill("? "), "colons": fill("a: "),
		"anchors": fill("&a "), "aliases": fill("*a "), "tags": fill("!a "), "quotes": fill("'"), "double quotes": fill(`"\"`),
		"lines": fill("\n"), "documents": fill("---\n"), "comments": fill("#\n"), "spaces": fill(" "), "pipes": fill("|\n"),
		"keys": fill("a: 1\n"), "items": fill("- a\n"), "flow": "[" + fill("a,")[1:], "flow keys": "{" + fill("a: b,")[1:],
		"pairs": fill("[]"), "bomb": bomb, "stairs": stairs.String(), "carriage returns": fill("\r"), "directives": fill("%a b\n"),
		"long key": fill("x")[:200] + ": 1", "merge": "a: &a {b: c}\n" + fill("d: {<<: *a}\n")[:1000], "escapes": `"` + fill(`\u0041`),
		"nested pairs": fill("{[{["), "question pairs": fill("? a\n: b\n"), "folded": ">\n" + fill("  a\n\n")[:MaxFileBytes-10],
		"expression": "a: '${" + fill("${")[:MaxFileBytes-20] + "'",
	}
}

// TestHostileTexts checks that the largest texts are read in bounded time.
func TestHostileTexts(t *testing.T) {
	schema := shopSchema(t)
	texts := hostileTexts()
	for _, name := range sortedNames(texts) {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			set := Check([]Source{{"f.yaml", []byte(texts[name])}}, Options{Schema: schema})
			if took := time.Since(began); took > mostTime {
				t.Errorf("it took %s", took)
			} else {
				t.Log(took, len(set.Report.Problems()))
			}
			if len(set.Definitions) > 0 {
				t.Error("it is a definition")
			}
		})
	}
}
