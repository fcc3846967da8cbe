package httprule

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// segmentKind is what a segment of a template matches.
type segmentKind byte

const (
	literal segmentKind = iota
	star                // one segment
	deep                // all that follow, perhaps none
)

// segment is one segment of a template. text is that of a literal, decoded.
type segment struct {
	kind segmentKind
	text string
}

// template is a parsed path template.
type template struct {
	segments []segment
	verb     string // decoded; "": none
	spans    []span
}

// span is the part of a template that a variable captures: the segments from first up to, and not
// with, end. In a path, those of an open span are all from first on.
type span struct {
	name       string // the field path, as written
	first, end int
	// open: the last segment is **, so that the span has any number of segments.
	open bool
}

// multi reports whether the variable is one of several segments, in which %2F is not decoded.
func (s span) multi() bool { return s.open || s.end-s.first != 1 }

// parseTemplate parses the path of a rule.
//
//	Template = "/" Segments [ Verb ] ;
//	Segments = Segment { "/" Segment } ;
//	Segment  = "*" | "**" | LITERAL | Variable ;
//	Variable = "{" FieldPath [ "=" Segments ] "}" ;
//	FieldPath = IDENT { "." IDENT } ;
//	Verb     = ":" LITERAL ;
//
// Besides, "/" alone is the root.
func parseTemplate(text string) (template, error) {
	var t template
	path, found := strings.CutPrefix(text, "/")
	if !found {
		return t, errors.New("a path begins with a slash")
	}
	path, verb, err := cutVerb(path)
	if err != nil {
		return t, err
	}
	t.verb = verb
	if path == "" && verb == "" {
		return t, nil
	}
	parts, err := splitTemplate(path)
	if err != nil {
		return t, err
	}
	for _, part := range parts {
		if err := t.add(part); err != nil {
			return t, err
		}
	}
	for i, s := range t.segments {
		if s.kind == deep && i != len(t.segments)-1 {
			return t, errors.New("** is not the last segment")
		}
	}
	return t, nil
}

// add adds one part of a template: a segment, or a variable with all of its segments.
func (t *template) add(part string) error {
	inner, isVariable := strings.CutPrefix(part, "{")
	if !isVariable {
		s, err := parseSegment(part)
		t.segments = append(t.segments, s)
		return err
	}
	inner, closed := strings.CutSuffix(inner, "}")
	if !closed {
		return fmt.Errorf("%q has text after its brace", part)
	}
	name, pattern, given := strings.Cut(inner, "=")
	if !given {
		pattern = "*"
	}
	v := span{name: name, first: len(t.segments)}
	for text := range strings.SplitSeq(pattern, "/") {
		s, err := parseSegment(text)
		if err != nil {
			return err
		}
		v.open = v.open || s.kind == deep
		t.segments = append(t.segments, s)
	}
	v.end = len(t.segments)
	t.spans = append(t.spans, v)
	return nil
}

// parseSegment parses one segment that is no variable. A literal is compared with decoded segments,
// so it is decoded, too.
func parseSegment(text string) (segment, error) {
	switch {
	case text == "":
		return segment{}, errors.New("it has an empty segment")
	case text == "*":
		return segment{kind: star}, nil
	case text == "**":
		return segment{kind: deep}, nil
	case strings.ContainsAny(text, "{}*"):
		return segment{}, fmt.Errorf("%q is neither *, ** or text nor a variable", text)
	}
	decoded, err := url.PathUnescape(text)
	return segment{kind: literal, text: decoded}, err
}

// cutVerb splits a template at the last colon of its last segment. A colon inside of a variable's
// braces belongs to its pattern.
func cutVerb(path string) (rest, verb string, err error) {
	last := max(strings.LastIndexByte(path, '/'), strings.LastIndexByte(path, '}'))
	colon := strings.LastIndexByte(path, ':')
	if colon <= last {
		return path, "", nil
	}
	if verb, err = url.PathUnescape(path[colon+1:]); err == nil && verb == "" {
		err = errors.New("its verb is empty")
	}
	return path[:colon], verb, err
}

// splitTemplate splits at the slashes outside of braces.
func splitTemplate(path string) ([]string, error) {
	var parts []string
	start, inside := 0, false
	for i := range len(path) {
		switch c := path[i]; {
		case c == '{' && inside:
			return nil, errors.New("a variable contains another")
		case c == '{':
			inside = true
		case c == '}' && !inside:
			return nil, errors.New("it closes a brace that is not open")
		case c == '}':
			inside = false
		case c == '/' && !inside:
			parts = append(parts, path[start:i])
			start = i + 1
		}
	}
	if inside {
		return nil, errors.New("it does not close a brace")
	}
	return append(parts, path[start:]), nil
}
