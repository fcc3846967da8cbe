package definition

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Field is one key that a map of a definition may have.
type Field struct {
	Name string
	// Type is what the value is, in words.
	Type string
	// Help says what the key means.
	Help     string
	Required bool
}

// Object lists the keys of one kind of map. The checks and the reference of the YAML read it.
type Object struct {
	// Name is what the map is, in words: an index.
	Name   string
	Fields []Field
}

func (o *Object) names() []string {
	names := make([]string, len(o.Fields))
	for i, f := range o.Fields {
		names[i] = f.Name
	}
	return names
}

// Object checks that a node is a map with keys of an Object, and reports what is not. It returns
// whether it is a map.
func (r *Report) Object(n *Node, o *Object) bool {
	if n.Shape != MappingShape {
		r.Add(n, wrongShape, o.Name+" is a map", n.is())
		return false
	}
	names := o.names()
	for _, e := range n.Entries {
		if !slices.Contains(names, e.Key.Text) {
			r.Add(e.Key, unknownKey, short(e.Key.Text), nearest(e.Key.Text, "the keys here", names))
		}
	}
	for _, f := range o.Fields {
		if v := n.Get(f.Name); f.Required && (v == nil || v.IsNull()) {
			r.Add(n, keyMissing, f.Name, o.Name, f.Type)
		}
	}
	return true
}

// Text returns a scalar that is a text, "" for nil.
func (r *Report) Text(n *Node) string {
	if n == nil {
		return ""
	}
	other := boolText.MatchString(n.Text) || numberText.MatchString(n.Text)
	if n.Shape != ScalarShape || n.IsNull() || !n.Quoted && other {
		r.Add(n, wrongShape, "this is a text", n.is())
		return ""
	}
	return n.Text
}

var nameText = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

// Name returns a text that is a name: [a-z][a-z0-9_]*, at most 40 letters.
func (r *Report) Name(n *Node) string {
	text := r.Text(n)
	if n == nil || text == "" && n.Shape != ScalarShape {
		return ""
	}
	if text != "" && !nameText.MatchString(text) {
		r.Add(n, notAName, short(text))
		return ""
	}
	return text
}

// Bool returns true or false, false for nil.
func (r *Report) Bool(n *Node) bool {
	if n == nil {
		return false
	}
	if n.Shape != ScalarShape || n.Quoted || n.Text != "true" && n.Text != "false" {
		r.Add(n, wrongShape, "this is true or false", n.is())
		return false
	}
	return n.Text == "true"
}

// Int returns a whole number between two bounds, or what is taken for nil.
func (r *Report) Int(n *Node, least, most, absent int) int {
	if n == nil {
		return absent
	}
	if n.Shape != ScalarShape || n.Quoted || !integerText.MatchString(n.Text) {
		r.Add(n, wrongShape, "this is a whole number", n.is())
		return absent
	}
	v, err := strconv.Atoi(n.Text)
	if err != nil || v < least || v > most {
		r.Add(n, outOfRange, n.Text, strconv.Itoa(least), strconv.Itoa(most))
		return absent
	}
	return v
}

// Fraction returns a number between 0 and 1, or what is taken for nil.
func (r *Report) Fraction(n *Node, absent float64) float64 {
	if n == nil {
		return absent
	}
	if n.Shape != ScalarShape || n.Quoted || !numberText.MatchString(n.Text) {
		r.Add(n, wrongShape, "this is a number", n.is())
		return absent
	}
	v, err := strconv.ParseFloat(n.Text, 64)
	if err != nil || v < 0 || v > 1 {
		r.Add(n, outOfRange, short(n.Text), "0", "1")
		return absent
	}
	return v
}

var durationText = regexp.MustCompile(`^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$`)

// Duration returns a time such as 500ms, 30s, 10m, 24h or 7d between two bounds, or what is
// taken for nil.
func (r *Report) Duration(n *Node, least, most, absent time.Duration) time.Duration {
	if n == nil {
		return absent
	}
	v, ok := parseDuration(n.Text)
	if n.Shape != ScalarShape || !ok {
		r.Add(n, wrongShape, "this is a duration such as 500ms, 30s, 10m, 24h or 7d", n.is())
		return absent
	}
	if v < least || v > most {
		r.Add(n, outOfRange, n.Text, least.String(), most.String())
		return absent
	}
	return v
}

func parseDuration(text string) (time.Duration, bool) {
	if text == "" || len(text) > 32 || !durationText.MatchString(text) {
		return 0, false
	}
	days, rest, found := strings.Cut(text, "d")
	if !found {
		days, rest = "0", text
	}
	n, err := strconv.Atoi(days)
	if err != nil || n > 36500 {
		return 0, false
	}
	sum := time.Duration(n) * 24 * time.Hour
	if rest == "" {
		return sum, true
	}
	v, err := time.ParseDuration(rest)
	return sum + v, err == nil && v < 1<<61
}

// OneOf returns a text of a list, or what is taken for nil.
func (r *Report) OneOf(n *Node, absent string, words ...string) string {
	if n == nil {
		return absent
	}
	text := r.Text(n)
	if text == "" && n.Shape == ScalarShape && !n.Quoted {
		return absent
	}
	if !slices.Contains(words, text) {
		r.Add(n, notOneOf, short(text), nearest(text, "possible", words))
		return absent
	}
	return text
}

// Items returns the items of a list, none for nil. More than a limit are refused.
func (r *Report) Items(n *Node, things string, most int) []*Node {
	if n == nil {
		return nil
	}
	if n.Shape != ListShape {
		r.Add(n, wrongShape, "this is a list", n.is())
		return nil
	}
	if len(n.Items) > most {
		r.Add(n, tooMany, len(n.Items), things, most)
		return n.Items[:most]
	}
	return n.Items
}

// Entries returns the entries of a map, none for nil. More than a limit are refused.
func (r *Report) Entries(n *Node, things string, most int) []Entry {
	if n == nil {
		return nil
	}
	if n.Shape != MappingShape {
		r.Add(n, wrongShape, "this is a map", n.is())
		return nil
	}
	if len(n.Entries) > most {
		r.Add(n, tooMany, len(n.Entries), things, most)
		return n.Entries[:most]
	}
	return n.Entries
}
