package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/millrace-io/millrace/internal/mutation"
)

// This file is about text of others: ids, errors, evidence and content. A terminal obeys control
// characters, so such text is printed only by a table, by printf, or as JSON and YAML, all of which
// escape what hidden decides.

// hidden reports whether a terminal obeys a rune instead of showing it: control characters (C0, C1
// and DEL), line separators, and those that change the direction of text.
func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// visible returns text on one line, with hidden runes and invalid bytes escaped as in Go.
func visible(text string) string {
	if mutation.On(mutation.Visible) {
		return text
	}
	return escape(text, "")
}

// visibleLines is visible for a message that may have several lines: those after the first are
// indented, so that none of them looks like one of ours.
func visibleLines(text string) string {
	return strings.ReplaceAll(escape(strings.TrimRight(text, "\n"), "\n\t"), "\n", "\n  ")
}

// escape escapes hidden runes but for those in except.
func escape(text, except string) string {
	plain := true
	for _, r := range text {
		if plain = r != utf8.RuneError && (!hidden(r) || strings.ContainsRune(except, r)); !plain {
			break
		}
	}
	if plain {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		_, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case !hidden(r) || strings.ContainsRune(except, r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// printf is fmt.Fprintf for a line that contains text of others: each text among the arguments is
// made visible.
func printf(w io.Writer, format string, args ...any) error {
	shown := make([]any, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case string:
			shown[i] = visible(a)
		case error:
			shown[i] = visible(a.Error())
		default:
			shown[i] = a
		}
	}
	_, err := fmt.Fprintf(w, format, shown...)
	return err
}
