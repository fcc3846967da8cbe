package query

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a filter.
const (
	maxFilterBytes = 4 << 10
	maxFilterTerms = 64
	maxFilterDepth = 16
)

// filterError is a mistake in a filter, at a byte.
type filterError struct {
	at   int
	text string
}

func faultf(at int, format string, args ...any) *filterError {
	return &filterError{at, fmt.Sprintf(format, args...)}
}

// in says where the mistake is: the column counts characters from 1.
func (e *filterError) in(filter string) error {
	return fmt.Errorf("filter, column %d: %s", utf8.RuneCountInString(filter[:min(e.at, len(filter))])+1, e.text)
}

// connective says how the parts of an expression are connected.
type connective uint8

const (
	oneTerm connective = iota
	allOf
	anyOf
	notOf
)

// filterExpr is an expression of a filter: a term, or others with a connective.
type filterExpr struct {
	connective connective
	parts      []*filterExpr
	term       *filterTerm
}

// filterTerm is a comparison.
type filterTerm struct {
	at       int
	field    string
	operator string
	value    literal
}

// literal is a value as it was written.
type literal struct {
	at       int
	text     string
	isQuoted bool
	// stars are the places in text of * that are not escaped.
	stars []int
}

// parseFilter reads a filter of the strict subset of AIP-160.
func parseFilter(text string) (*filterExpr, *filterError) {
	if len(text) > maxFilterBytes {
		return nil, faultf(maxFilterBytes, "the filter has %d bytes, and %d are allowed", len(text), maxFilterBytes)
	}
	if !utf8.ValidString(text) {
		return nil, faultf(0, "the filter is not UTF-8")
	}
	p := &filterParser{text: text}
	e, err := p.expression()
	if err != nil {
		return nil, err
	}
	if p.skip(); p.pos < len(p.text) {
		return nil, faultf(p.pos, "this parenthesis is not opened: take it out")
	}
	return e, nil
}

type filterParser struct {
	text  string
	pos   int
	terms int
	depth int
}

func (p *filterParser) skip() {
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
}

// word returns the word at the position, without passing it.
func (p *filterParser) word() string {
	end := p.pos
	for end < len(p.text) && isWordByte(p.text[end]) {
		end++
	}
	return p.text[p.pos:end]
}

func isWordByte(b byte) bool {
	return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

// expression reads parts that are connected by AND, or by OR, up to a closing parenthesis.
func (p *filterParser) expression() (*filterExpr, *filterError) {
	first, err := p.factor()
	if err != nil {
		return nil, err
	}
	all := &filterExpr{parts: []*filterExpr{first}}
	for {
		p.skip()
		if p.pos == len(p.text) || p.text[p.pos] == ')' {
			break
		}
		at, word := p.pos, p.word()
		var next connective
		switch {
		case word == "AND":
			next = allOf
		case word == "OR":
			next = anyOf
		case strings.EqualFold(word, "and"), strings.EqualFold(word, "or"):
			return nil, faultf(at, "%q is written in capitals: %s", word, strings.ToUpper(word))
		default:
			return nil, faultf(at, "AND or OR is missing before %q", clip(p.text[at:]))
		}
		if all.connective != oneTerm && all.connective != next {
			return nil, faultf(at, "AND and OR need parentheses where both are used: (a OR b) AND c")
		}
		all.connective = next
		p.pos += len(word)
		part, err := p.factor()
		if err != nil {
			return nil, err
		}
		all.parts = append(all.parts, part)
	}
	if len(all.parts) == 1 {
		return first, nil
	}
	return all, nil
}

// factor reads a term, an expression in parentheses, or the opposite of one.
func (p *filterParser) factor() (*filterExpr, *filterError) {
	p.skip()
	if p.pos == len(p.text) {
		return nil, faultf(p.pos, "a condition is missing at the end, as in: field = value")
	}
	at := p.pos
	isNot := p.text[p.pos] == '-'
	if word := p.word(); word == "NOT" {
		isNot = true
		p.pos += len(word)
	} else if isNot {
		p.pos++
	}
	if !isNot && p.text[p.pos] != '(' {
		return p.condition()
	}
	if p.depth++; p.depth > maxFilterDepth {
		return nil, faultf(at, "conditions are nested more than %d deep", maxFilterDepth)
	}
	defer func() { p.depth-- }()
	if isNot {
		part, err := p.factor()
		if err != nil {
			return nil, err
		}
		return &filterExpr{connective: notOf, parts: []*filterExpr{part}}, nil
	}
	p.pos++
	e, err := p.expression()
	if err != nil {
		return nil, err
	}
	if p.skip(); p.pos == len(p.text) {
		return nil, faultf(at, "this parenthesis is not closed: add )")
	}
	p.pos++
	return e, nil
}

// condition reads a term.
func (p *filterParser) condition() (*filterExpr, *filterError) {
	if p.terms++; p.terms > maxFilterTerms {
		return nil, faultf(p.pos, "the filter has more than %d conditions", maxFilterTerms)
	}
	t := &filterTerm{at: p.pos}
	begin := p.text[p.pos]
	if !isWordByte(begin) || begin >= '0' && begin <= '9' {
		return nil, faultf(p.pos, "%q is not a field: a condition is written as field = value, with the field on the left",
			clip(p.text[p.pos:]))
	}
	for {
		word := p.word()
		if word == "" {
			return nil, faultf(p.pos, "the name of a field is missing after %q", t.field)
		}
		p.pos += len(word)
		t.field += word
		if p.pos == len(p.text) || p.text[p.pos] != '.' {
			break
		}
		t.field += "."
		p.pos++
	}
	if p.pos < len(p.text) && p.text[p.pos] == '(' {
		return nil, faultf(t.at, "%s is called as a function, and filters have none: compare a field", t.field)
	}
	p.skip()
	if err := p.operator(t); err != nil {
		return nil, err
	}
	p.skip()
	var err *filterError
	if t.value, err = p.literal(t); err != nil {
		return nil, err
	}
	return &filterExpr{term: t}, nil
}

// filterOperators are longest first.
var filterOperators = []string{"!=", "<=", ">=", "=", "<", ">", ":"} //nolint:gochecknoglobals // a constant table

func (p *filterParser) operator(t *filterTerm) *filterError {
	rest := p.text[p.pos:]
	i := slices.IndexFunc(filterOperators, func(o string) bool { return strings.HasPrefix(rest, o) })
	switch {
	case strings.HasPrefix(rest, "=="):
		return faultf(p.pos, "== is written as =")
	case i < 0:
		return faultf(t.at, "%q stands alone: compare a field with a value, as in %s = \"…\"", t.field, t.field)
	}
	t.operator = filterOperators[i]
	p.pos += len(t.operator)
	return nil
}

// literal reads a value: a quoted text, or everything up to a blank or a parenthesis.
func (p *filterParser) literal(t *filterTerm) (literal, *filterError) {
	l := literal{at: p.pos}
	if p.pos < len(p.text) && (p.text[p.pos] == '"' || p.text[p.pos] == '\'') {
		return p.quoted(l)
	}
	end := p.pos
	for end < len(p.text) && strings.IndexByte(" \t\r\n()\"'", p.text[end]) < 0 {
		end++
	}
	if l.text = p.text[p.pos:end]; l.text == "" {
		return l, faultf(p.pos, "a value is missing after %s %s", t.field, t.operator)
	}
	for i := range len(l.text) {
		if l.text[i] == '*' {
			l.stars = append(l.stars, i)
		}
	}
	p.pos = end
	return l, nil
}

func (p *filterParser) quoted(l literal) (literal, *filterError) {
	l.isQuoted = true
	quote := p.text[p.pos]
	var b strings.Builder
	for p.pos++; p.pos < len(p.text); p.pos++ {
		switch c := p.text[p.pos]; c {
		case quote:
			p.pos++
			l.text = b.String()
			return l, nil
		case '\\':
			p.pos++
			if p.pos == len(p.text) || strings.IndexByte(`\"'*`, p.text[p.pos]) < 0 {
				return l, faultf(p.pos-1, `a backslash stands before \, ", ' or * only`)
			}
			b.WriteByte(p.text[p.pos])
		case '*':
			l.stars = append(l.stars, b.Len())
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return l, faultf(l.at, "this quote is not closed: add %c", quote)
}

// clip shortens what is quoted in an error: to its first word, and to a few characters.
func clip(text string) string {
	text, _, _ = strings.Cut(text, " ")
	const most = 40
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}
