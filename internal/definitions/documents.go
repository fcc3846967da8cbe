package definitions

import (
	"bytes"
	"slices"

	"github.com/millrace-io/millrace/projections/definition"
)

// document returns the text of the one document of some files that has a head. The files have been
// checked: there is one.
func document(files []definition.Source, h definition.Head) (file string, text []byte) {
	for _, f := range files {
		for _, part := range split(f.Text) {
			for _, root := range definition.Parse(f.Name, part, &definition.Report{}) {
				if textAt(root, "kind") == h.Kind && textAt(root, "metadata", "name") == h.Name {
					return f.Name, part
				}
			}
		}
	}
	return "", nil
}

// textAt returns the text below some keys, "" if it is not there.
func textAt(n *definition.Node, keys ...string) string {
	for _, k := range keys {
		if n = n.Get(k); n == nil {
			return ""
		}
	}
	return n.Text
}

// split cuts a file into its documents. A line that begins with three hyphens stands between two:
// inside of a document YAML has none.
func split(text []byte) [][]byte {
	var parts [][]byte
	var part []byte
	for line := range bytes.Lines(bytes.TrimPrefix(text, []byte("\ufeff"))) {
		rest, marks := bytes.CutPrefix(line, []byte("---"))
		if marks && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0) {
			parts, part = append(parts, part), slices.Clone(rest)
			continue
		}
		part = append(part, line...)
	}
	parts = append(parts, part)
	for i := range parts {
		parts[i] = bytes.TrimRight(bytes.TrimLeft(parts[i], "\r\n"), " \t\r\n")
	}
	return slices.DeleteFunc(parts, func(p []byte) bool { return len(p) == 0 })
}
