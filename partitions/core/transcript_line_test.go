package core

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// line is an input in a transcript. Arguments are deleted as they are read, so that an unread one
// is an error.
type line struct {
	t     *testing.T
	where string
	name  string
	args  map[string]string
	all   []datadriven.CmdArg
}

func newLine(t *testing.T, where, name string, args []datadriven.CmdArg) *line {
	t.Helper()
	l := &line{t: t, where: where, name: name, args: map[string]string{}, all: args}
	for _, arg := range args {
		l.args[arg.Key] = strings.Join(arg.Vals, ",")
	}
	return l
}

func (l *line) fatalf(format string, args ...any) {
	l.t.Helper()
	l.t.Fatalf("%s: %s %v: %s", l.where, l.name, l.all, fmt.Sprintf(format, args...))
}

func (l *line) end() {
	if len(l.args) > 0 {
		l.fatalf("there is an unknown argument")
	}
}

func (l *line) has(name string) bool {
	_, found := l.args[name]
	delete(l.args, name)
	return found
}

func (l *line) text(name, otherwise string) string {
	if text, found := l.args[name]; found {
		delete(l.args, name)
		return text
	}
	return otherwise
}

func (l *line) number(name string, otherwise int64) int64 {
	if text := l.text(name, ""); text != "" {
		return l.parse(text)
	}
	return otherwise
}

func (l *line) parse(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		l.fatalf("%v", err)
	}
	return n
}

// pair reads two numbers, as in source=3/5.
func (l *line) pair(text string) (a, b int64) {
	first, second, _ := strings.Cut(text, "/")
	return l.parse(first), l.parse(second)
}

func (l *line) owner(text string) record.Owner {
	epoch, nonce := l.pair(text)
	return record.Owner{Epoch: uint64(epoch), Nonce: uint64(nonce)}
}

// result is the log's answer to an append of so many records.
func (l *line) result(records int) broker.AppendResult {
	message := l.text("error", "")
	switch {
	case message == "":
		base := l.number("base", -1)
		return broker.AppendResult{Base: base, Last: l.number("last", base+int64(records)-1)}
	case l.has("not-written"):
		return broker.AppendResult{Err: fmt.Errorf("%s: %w", message, broker.ErrNotWritten)}
	default:
		return broker.AppendResult{Err: errors.New(message)}
	}
}

// gap has a record for each argument.
func (l *line) gap() ([]materializer.GapRecord, error) {
	if message := l.text("error", ""); message != "" {
		return nil, errors.New(message)
	}
	var gap []materializer.GapRecord
	for _, arg := range l.all {
		kind, known := recordv1.Kind_value["KIND_"+strings.ToUpper(arg.Key)]
		switch {
		case arg.Key == "foreign":
			gap = append(gap, materializer.GapRecord{Foreign: true})
		case known:
			owner := l.owner(l.args[arg.Key])
			gap = append(gap, materializer.GapRecord{
				Envelope: record.Envelope{Kind: record.Kind(kind), Epoch: owner.Epoch, Nonce: owner.Nonce},
			})
		default:
			continue
		}
		delete(l.args, arg.Key)
	}
	return gap, nil
}
