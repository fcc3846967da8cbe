package definition

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxProblems bounds a report: a file that breaks one rule a thousand times is not read to its end.
const maxProblems = 100

// Problem is one finding of a check.
type Problem struct {
	// File, Line and Column say where; Line and Column begin with 1, and are 0 for a whole file.
	File         string
	Line, Column int
	// Rule names the rule that is broken, see Rules.
	Rule RuleID
	// Where is the path in the document: spec.queries.ListByCustomer.where.
	Where string
	// Message says what is wrong, Fix what to do.
	Message, Fix string
	// Warning: the definition can be applied all the same.
	Warning bool
}

// String returns the problem in one line.
func (p *Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Warning {
		b.WriteString("warning ")
	}
	b.WriteString(string(p.Rule))
	if p.Where != "" {
		b.WriteString(" " + p.Where)
	}
	b.WriteString(": " + p.Message)
	if p.Fix != "" {
		b.WriteString(": " + p.Fix)
	}
	return b.String()
}

// Report collects the problems of a check. The zero Report is empty.
type Report struct {
	problems []*Problem
	more     int
}

// Add enters a problem of a node. The arguments are those of the rule's message and of its fix, one
// after the other.
func (r *Report) Add(at *Node, id RuleID, args ...any) { r.add(at, 0, 0, id, args) }

// add is Add with a position inside of a text; line and column are added to those of the node's
// text.
func (r *Report) add(at *Node, line, column int, id RuleID, args []any) {
	if len(r.problems) == maxProblems {
		r.more++
		return
	}
	rule := ruleOf(id)
	n := strings.Count(rule.Message, "%") - 2*strings.Count(rule.Message, "%%")
	p := &Problem{
		File: at.file, Line: at.Line, Column: at.Column, Rule: id, Where: at.Path(), Warning: rule.Warning,
		Message: fmt.Sprintf(rule.Message, args[:n]...), Fix: fmt.Sprintf(rule.Fix, args[n:]...),
	}
	if line > 0 {
		p.Line, p.Column = line, column
	}
	if !slices.ContainsFunc(r.problems, func(o *Problem) bool { return *o == *p }) {
		r.problems = append(r.problems, p)
	}
}

// Problems returns all problems and warnings in the order of files and lines.
func (r *Report) Problems() []*Problem {
	sorted := slices.Clone(r.problems)
	slices.SortStableFunc(sorted, func(a, b *Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return sorted
}

// Err returns the problems that forbid the definitions, nil when there are warnings at most. Its
// text has a line for each.
func (r *Report) Err() error {
	wrong := slices.DeleteFunc(r.Problems(), func(p *Problem) bool { return p.Warning })
	if len(wrong) == 0 {
		return nil
	}
	return &InvalidError{Problems: wrong, More: r.more}
}

// failed reports whether there is a problem that is no warning.
func (r *Report) failed() bool {
	return slices.ContainsFunc(r.problems, func(p *Problem) bool { return !p.Warning })
}

// InvalidError says why definitions cannot be applied.
type InvalidError struct {
	Problems []*Problem
	// More counts the problems that were left out.
	More int
}

// Error returns a line for each problem.
func (e *InvalidError) Error() string {
	lines := make([]string, 0, len(e.Problems)+1)
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	if e.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more: put these right first", e.More))
	}
	return strings.Join(lines, "\n")
}

// nearest returns the fix for an unknown name: the name that was probably meant, or what there is.
func nearest(name, things string, known []string) string {
	known = slices.Sorted(slices.Values(known))
	best, least := "", max(1, len(name)/3)+1
	if len(name) <= 128 {
		for _, k := range known {
			if d := distance(strings.ToLower(name), strings.ToLower(k), least); d < least {
				best, least = k, d
			}
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("did you mean %s?", best)
	case len(known) == 0:
		return "there are no " + things
	case len(known) > 24:
		return fmt.Sprintf("%s are %s, and %d more", things, strings.Join(known[:24], ", "), len(known)-24)
	default:
		return fmt.Sprintf("%s are %s", things, strings.Join(known, ", "))
	}
}

// distance is the number of letters to insert, remove or replace, at most limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before := make([]int, len(b)+1)
	for j := range before {
		before[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			replace := before[j]
			if a[i] != b[j] {
				replace++
			}
			row[j+1] = min(replace, before[j+1]+1, row[j]+1)
		}
		before = row
	}
	return min(before[len(b)], limit)
}

// short is a text for a message, without its middle when it is long.
func short(text string) string {
	const longest = 60
	runes := []rune(text)
	if len(runes) <= longest {
		return text
	}
	return string(runes[:longest/2]) + "…" + string(runes[len(runes)-longest/4:])
}
