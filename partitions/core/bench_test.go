package core

import (
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
)

// BenchmarkCommand is a command through the core: submitted, decided, appended, acknowledged,
// answered.
func BenchmarkCommand(b *testing.B) {
	c := activeCore(b, false)
	cmd, out := command("a", "add x"), &entities.Outcome{Reply: reply("done"), Events: []entities.Payload{{TypeURL: "t/word", Value: []byte("x")}}}
	session := &stagedSession{}
	b.ReportAllocs()
	for b.Loop() {
		call, answers := seated(cmd), 0
		c.Submitted(call)
		for i := 0; i < len(c.Effects()); i++ {
			switch do := c.Effects()[i].Do.(type) {
			case Invoke:
				var opening *Opening
				if do.Session() == nil {
					opening = &Opening{Session: session}
				}
				c.Decided(do.Call, opening, out, nil)
				c.Flush()
			case Append:
				do.Encode()
				c.Acked(do.Batch, broker.AppendResult{Base: c.Next(), Last: c.Next() + int64(len(do.Entries)) - 1})
			case Commit:
				answers += len(do.Calls)
				c.Recycle(do.Batch)
			case Close:
			default:
				b.Fatalf("the core asks for %T", do)
			}
		}
		c.Performed()
		if answers != 1 {
			b.Fatalf("%d answers", answers)
		}
	}
}
