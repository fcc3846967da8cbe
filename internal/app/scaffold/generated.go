package scaffold

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// descriptor matches the encoded descriptor of a proto file in generated Go code: quoted lines.
var descriptor = regexp.MustCompile(`(?m)(_rawDesc = "" \+\n)((?:\t"(?:[^"\\]|\\.)*"(?: \+)?\n)+)`)

var errDescriptor = errors.New("the descriptor in the generated code is not as protoc-gen-go writes it")

// moveGenerated changes the option go_package in the descriptor that generated code carries, as
// protoc-gen-go would. Lengths are part of the encoding, so text cannot be replaced in it. Code
// without a descriptor stays as it is.
func moveGenerated(code string, rename *strings.Replacer) (string, error) {
	at := descriptor.FindStringSubmatchIndex(code)
	if at == nil {
		if strings.Contains(code, "_rawDesc = ") {
			return "", errDescriptor
		}
		return code, nil
	}
	encoded, err := unquote(code[at[4]:at[5]])
	if err != nil {
		return "", err
	}
	// Options of others stay unknown fields, as in protoc-gen-go.
	file, as := &descriptorpb.FileDescriptorProto{}, proto.UnmarshalOptions{Resolver: new(protoregistry.Types)}
	if err := as.Unmarshal([]byte(encoded), file); err != nil {
		return "", fmt.Errorf("%w: %w", errDescriptor, err)
	}
	file.Options.GoPackage = proto.String(rename.Replace(file.GetOptions().GetGoPackage()))
	moved, err := proto.MarshalOptions{Deterministic: true}.Marshal(file)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errDescriptor, err)
	}
	return code[:at[4]] + quote(string(moved)) + code[at[5]:], nil
}

func unquote(lines string) (string, error) {
	var b strings.Builder
	for line := range strings.Lines(lines) {
		text, err := strconv.Unquote(strings.TrimSuffix(strings.TrimSpace(line), " +"))
		if err != nil {
			return "", fmt.Errorf("%w: %w", errDescriptor, err)
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// quote is the way back: one literal for each line of text.
func quote(encoded string) string {
	var lines []string
	for line := range strings.Lines(encoded) {
		lines = append(lines, "\t"+strconv.Quote(line))
	}
	return strings.Join(lines, " +\n") + "\n"
}
