package kafka

import (
	"errors"
	"strconv"
	"testing"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// limitTopic sets max.message.bytes of a topic, as an operator does.
func limitTopic(t *testing.T, l *Log, topic string, bytes int) {
	t.Helper()
	alter(t, l, topic, maxMessageBytes, strconv.Itoa(bytes))
}

// TestLimitIsLowered below what the contract asks for, while the worker runs: the first append that
// the broker refuses has an unknown outcome and says why, those after it are refused before they
// are sent, smaller ones go on, and Describe names the setting.
func TestLimitIsLowered(t *testing.T) {
	l := openFake(t, fake(t, 1))
	p := newTestTopic(t, l, 1)
	large := broker.Record{Value: make([]byte, 200<<10)}
	mustAppend(t, l, p, large)
	limitTopic(t, l, p.Topic, 100<<10)
	r := wait(t, "result", start(l, p, large))
	if !errors.Is(r.Err, broker.ErrLimitLowered) || errors.Is(r.Err, broker.ErrNotWritten) ||
		errors.Is(r.Err, broker.ErrTooLarge) {
		t.Errorf("the first append above the new limit ends with %v", r.Err)
	}
	small := appendAfter(t, l, p)
	if small.Base != 1 {
		t.Errorf("a small append after it got offset %d", small.Base)
	}
	if r := wait(t, "result", start(l, p, large)); !errors.Is(r.Err, broker.ErrTooLarge) {
		t.Errorf("the next append above the new limit ends with %v", r.Err)
	}
	info, err := l.Describe(deadline(t), p.Topic)
	if err != nil || info.MaxAppendBytes != 100<<10 || len(info.Violations) != 1 ||
		info.Violations[0].Setting != maxMessageBytes {
		t.Errorf("describe: %+v, %v", info, err)
	}
}

// TestLimitBeyondTheContractIsNotUsed: an operator lowers a limit to what the contract asks for.
// Nothing is refused, in particular no batch that the client has made of many appends.
func TestLimitBeyondTheContractIsNotUsed(t *testing.T) {
	l := openFake(t, fake(t, 1))
	p := newTestTopic(t, l, 1)
	limitTopic(t, l, p.Topic, 8<<20)
	info, err := l.Describe(deadline(t), p.Topic)
	if err != nil || info.MaxAppendBytes != l.opts.MaxRecordBytes || info.MaxAppendRecords != l.opts.BufferRecords {
		t.Fatalf("describe: %+v, %v", info, err)
	}
	mustAppend(t, l, p, text("first: the client learns the limit"))
	limitTopic(t, l, p.Topic, l.opts.MaxRecordBytes)
	var results []<-chan broker.AppendResult
	for range 16 {
		results = append(results, start(l, p, broker.Record{Value: make([]byte, 900<<10)}))
	}
	for i, r := range results {
		if r := wait(t, "result", r); r.Err != nil {
			t.Fatalf("append %d: %v", i, r.Err)
		}
	}
}
