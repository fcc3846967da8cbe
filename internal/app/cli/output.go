package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// isTerminal reports whether w is a terminal, or says that it is one.
func isTerminal(w io.Writer) bool {
	switch w := w.(type) {
	case interface{ IsTerminal() bool }:
		return w.IsTerminal()
	case *os.File:
		return term.IsTerminal(int(w.Fd()))
	default:
		return false
	}
}

// compact removes white space from JSON; protobuf's own is random.
func compact(b []byte) ([]byte, error) {
	var out bytes.Buffer
	err := json.Compact(&out, b)
	return out.Bytes(), err
}

// printLine prints a message as one line of JSON.
func printLine(w io.Writer, msg proto.Message) error {
	b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(msg)
	if err != nil {
		return err
	}
	if b, err = compact(b); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

// show returns a stored message for a table: its type's short name and its content.
func show(c *adminv1.Content) string {
	if c == nil {
		return ""
	}
	name := c.GetTypeUrl()[strings.LastIndexByte(c.GetTypeUrl(), '/')+1:]
	if c.GetJson() == "" {
		return fmt.Sprintf("%s (%d bytes)", name, len(c.GetValue()))
	}
	body := []byte(c.GetJson())
	if b, err := compact(body); err == nil {
		body = b
	}
	return fmt.Sprintf("%s %s", name, body)
}

func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Local().Format("2006-01-02 15:04:05.000")
}

func ago(t *timestamppb.Timestamp) string {
	return time.Since(t.AsTime()).Round(time.Second).String()
}
