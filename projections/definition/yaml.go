package definition

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	// MaxFileBytes is the largest file that is read.
	MaxFileBytes = 256 << 10
	// maxDepth bounds how deep mappings and lists may be nested.
	maxDepth = 32
	// maxBrackets bounds how deep flow collections may be nested before the text is parsed at all.
	maxBrackets = 256
)

// Shape says what a node is.
type Shape uint8

// The shapes of nodes.
const (
	ScalarShape Shape = iota
	MappingShape
	ListShape
)

// Node is one value of a document, with its position.
type Node struct {
	Shape Shape
	// Line and Column begin with 1.
	Line, Column int
	// Text is the text of a scalar, Quoted whether it is surely one: in quotes or a block.
	Text   string
	Quoted bool
	// Entries are those of a mapping in the order of the file, Items those of a list.
	Entries []Entry
	Items   []*Node

	file   string
	source *source
	parent *Node
	name   string
	block  bool
}

// Entry is a key and its value.
type Entry struct{ Key, Value *Node }

// source is the text of a file by lines.
type source struct{ lines []string }

// Path returns the place of the node in its document: spec.from[0].entity.
func (n *Node) Path() string {
	if n.parent == nil {
		return ""
	}
	above := n.parent.Path()
	if above == "" || strings.HasPrefix(n.name, "[") {
		return above + n.name
	}
	return above + "." + n.name
}

// Get returns the value of a key of a mapping, nil when there is none.
func (n *Node) Get(key string) *Node {
	for _, e := range n.Entries {
		if e.Key.Text == key {
			return e.Value
		}
	}
	return nil
}

var (
	integerText = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*)$`)
	numberText  = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
	switchText  = regexp.MustCompile(`^(?i:on|off|yes|no|y|n)$`)
	boolText    = regexp.MustCompile(`^(?i:true|false)$`)
	nullText    = regexp.MustCompile(`^(~|(?i:null))$`)
	errorLine   = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?`)
)

// IsNull reports whether the node is null.
func (n *Node) IsNull() bool {
	return n.Shape == ScalarShape && !n.Quoted && (n.Text == "null" || n.Text == "~" || n.Text == "")
}

// is says what a node is, for messages.
func (n *Node) is() string {
	switch {
	case n.Shape == MappingShape:
		return "a map"
	case n.Shape == ListShape:
		return "a list"
	case n.IsNull():
		return "nothing"
	case n.Quoted:
		return "the text '" + short(n.Text) + "'"
	case boolText.MatchString(n.Text):
		return "the truth value " + n.Text
	case numberText.MatchString(n.Text):
		return "the number " + short(n.Text)
	default:
		return "the text " + short(n.Text)
	}
}

// Parse reads the documents of one file. A document without content is left out. What is wrong
// stands in the report; documents are nil then.
func Parse(file string, text []byte, report *Report) []*Node {
	whole := &Node{file: file}
	if len(text) > MaxFileBytes {
		report.Add(whole, fileTooLarge, len(text), MaxFileBytes)
		return nil
	}
	if !utf8.Valid(text) {
		report.Add(whole, notUTF8)
		return nil
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	lines := strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")
	for i, line := range lines { // to YAML these begin a line, to editors they do not
		if at := strings.IndexAny(line, "\r\u0085\u2028\u2029"); at >= 0 {
			end, _ := utf8.DecodeRuneInString(line[at:])
			report.Add(&Node{file: file, Line: i + 1, Column: utf8.RuneCountInString(line[:at]) + 1}, oddBreak, end)
			return nil
		}
	}
	r := &yamlReader{file: file, source: &source{lines: lines}, report: report}
	if line, column := tooDeep(text); line > 0 {
		report.Add(&Node{file: file, Line: line, Column: column}, nestedTooDeep, maxDepth)
		return nil
	}
	before := len(report.problems)
	var docs []*Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var parsed yaml.Node
		err := decode(decoder, &parsed)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.syntax(err)
			return nil
		}
		if len(parsed.Content) == 0 || isEmpty(parsed.Content[0]) {
			continue
		}
		docs = append(docs, r.node(parsed.Content[0], nil, "", 0))
	}
	if len(report.problems) > before {
		return nil
	}
	return docs
}

// decode turns a panic of the parser into an error: a text from outside ends no process.
func decode(decoder *yaml.Decoder, into *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: the parser cannot read this text (%v)", p)
		}
	}()
	return decoder.Decode(into)
}

func isEmpty(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Style&^yaml.TaggedStyle == 0 && n.Value == "" && n.Anchor == ""
}

// tooDeep finds brackets and dashes that are nested so deep that reading them would cost more than
// their length. It overestimates: brackets in texts count, too, as far as they are not closed.
func tooDeep(text []byte) (line, column int) {
	line, depth, start, dashes := 1, 0, 0, 0
	for i, c := range text {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		case '-', '?':
			dashes++
		case ' ', '\t':
		case '\n':
			line, start, dashes = line+1, i+1, 0
		default:
			dashes = -len(text)
		}
		if depth > maxBrackets || dashes > maxBrackets {
			return line, i - start + 1
		}
	}
	return 0, 0
}

// yamlReader turns the tree of the YAML library into ours.
type yamlReader struct {
	file   string
	source *source
	report *Report
}

func (r *yamlReader) syntax(err error) {
	at := &Node{file: r.file}
	text := strings.Join(strings.Fields(err.Error()), " ")
	if found := errorLine.FindStringSubmatch(text); found != nil {
		at.Line, _ = strconv.Atoi(found[1])
		text = strings.TrimPrefix(text, found[0])
	}
	if at.Line > 0 {
		at.Column = 1
	}
	r.report.Add(at, notYAML, text)
}

func (r *yamlReader) node(y *yaml.Node, parent *Node, name string, depth int) *Node {
	n := &Node{Line: y.Line, Column: y.Column, file: r.file, source: r.source, parent: parent, name: name}
	if depth > maxDepth {
		r.report.Add(n, nestedTooDeep, maxDepth)
		return n
	}
	switch {
	case y.Kind == yaml.AliasNode:
		r.report.Add(n, aliasUsed, "*"+short(y.Value))
		return n
	case y.Anchor != "":
		r.report.Add(n, aliasUsed, "&"+short(y.Anchor))
	case y.Style&yaml.TaggedStyle != 0:
		r.report.Add(n, tagUsed, short(y.Tag))
	}
	switch y.Kind {
	case yaml.MappingNode:
		n.Shape = MappingShape
		r.mapping(n, y, depth)
	case yaml.SequenceNode:
		n.Shape = ListShape
		for i, item := range y.Content {
			n.Items = append(n.Items, r.node(item, n, fmt.Sprintf("[%d]", i), depth+1))
		}
	default:
		n.Text = y.Value
		n.Quoted = y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
		n.block = y.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0
		r.plain(n)
	}
	return n
}

func (r *yamlReader) mapping(n *Node, y *yaml.Node, depth int) {
	seen := map[string]int{}
	for i := 0; i+1 < len(y.Content); i += 2 {
		name := short(y.Content[i].Value)
		key := r.node(y.Content[i], n, name, depth+1)
		value := r.node(y.Content[i+1], n, name, depth+1)
		if key.Shape != ScalarShape || key.IsNull() {
			r.report.Add(key, keyNotText, key.is())
			continue
		}
		if line := seen[key.Text]; line > 0 {
			r.report.Add(key, keyTwice, short(key.Text), line)
			continue
		}
		seen[key.Text] = key.Line
		n.Entries = append(n.Entries, Entry{key, value})
	}
}

// plain refuses texts without quotes that YAML libraries read in different ways.
func (r *yamlReader) plain(n *Node) {
	switch {
	case n.Quoted:
	case switchText.MatchString(n.Text):
		r.report.Add(n, switchWord, n.Text, n.Text)
	case boolText.MatchString(n.Text) && n.Text != strings.ToLower(n.Text),
		nullText.MatchString(n.Text) && n.Text != "null" && n.Text != "~":
		r.report.Add(n, capitalWord, n.Text, strings.ToLower(n.Text), n.Text)
	}
}

// position returns line and column of a place in the text of a scalar: those of the node where the
// text does not stand in the file as it is.
func (n *Node) position(offset int) (line, column int) {
	if n.source == nil || n.block || n.Line < 1 || n.Line > len(n.source.lines) || offset > len(n.Text) {
		return n.Line, n.Column
	}
	raw := []rune(n.source.lines[n.Line-1])
	if n.Column < 1 || n.Column > len(raw) {
		return n.Line, n.Column
	}
	rest, text, lead := string(raw[n.Column-1:]), n.Text[:offset], 0
	if n.Quoted {
		if rest[0] == '\'' {
			text = strings.ReplaceAll(text, "'", "''")
		}
		rest, lead = rest[1:], 1
	}
	if !strings.HasPrefix(rest, text) {
		return n.Line, n.Column
	}
	return n.Line, n.Column + lead + utf8.RuneCountInString(text)
}
