package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFileBytes bounds a configuration file.
const maxFileBytes = 1 << 20

// readFile reads a flat YAML mapping of settings.
func readFile(path string) (map[string]sourced, error) {
	named := path != ""
	if !named {
		path = DefaultFile
	}
	content, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if errors.Is(err, os.ErrNotExist) && !named {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(content) > maxFileBytes {
		return nil, fmt.Errorf("%s: %d bytes are too many for a configuration file, at most %d are read", path, len(content),
			maxFileBytes)
	}
	parsed, err := parser.ParseBytes(bytes.TrimPrefix(content, []byte("\ufeff")), 0) // editors on Windows write one
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	values := map[string]sourced{}
	for _, doc := range parsed.Docs {
		if doc.Body == nil {
			continue
		}
		if err := readMapping(path, doc.Body, values); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func readMapping(path string, body ast.Node, values map[string]sourced) error {
	var pairs []*ast.MappingValueNode
	switch n := body.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	case *ast.CommentGroupNode, *ast.NullNode:
		return nil
	default:
		return fmt.Errorf("%s:%d: expected lines of the form `key: value`", path, body.GetToken().Position.Line)
	}
	for _, pair := range pairs {
		where := fmt.Sprintf("%s:%d", path, pair.Key.GetToken().Position.Line)
		value, err := scalar(pair.Value)
		if err != nil {
			return fmt.Errorf("%s: key %q: %w", where, pair.Key.GetToken().Value, err)
		}
		name := pair.Key.GetToken().Value
		if _, twice := values[name]; twice {
			return fmt.Errorf("%s: key %q is there twice", where, name)
		}
		values[name] = sourced{value, where}
	}
	return nil
}

func scalar(n ast.Node) (string, error) {
	switch v := n.(type) {
	case *ast.SequenceNode:
		items := make([]string, 0, len(v.Values))
		for _, item := range v.Values {
			s, err := scalar(item)
			if err != nil {
				return "", err
			}
			items = append(items, s)
		}
		return strings.Join(items, ","), nil
	case *ast.StringNode:
		return v.Value, nil
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, nil
	case *ast.NullNode:
		return "", nil
	default:
		return "", errors.New("expected a plain value or a list of them")
	}
}
