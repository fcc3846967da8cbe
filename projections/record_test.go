package projections_test

import (
	"testing"
	"testing/synctest"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/projections"
)

const namedYAML = `
apiVersion: millrace/v1
kind: Projection
metadata: {name: named, version: 1}
spec:
  row: {order_id: string, by: {type: string, number: 2}, command: {type: string, number: 3}, after: {type: string, number: 4}, sequence: {type: int64, number: 5}}
  key: [order_id]
  from:
    - entity: order
      events:
        OrderPlaced: {set: {by: '${meta.principal}', command: '${meta.command_id}', after: '${meta.correlation_id}', sequence: '${meta.sequence}'}}
      ignore: [OrderShipped]
`

// TestEachRecordHasTheNameOfItsCommand: the name of a command stands in the last record of its
// group, and `meta` has it in all of them.
func TestEachRecordHasTheNameOfItsCommand(t *testing.T) {
	if _, err := schema(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1, 1<<20)
		defer f.stop()
		f.put("order/1", placed("c", 5), record.Envelope{
			Kind: record.Event, TypeURL: typePrefix + "OrderPlaced", Sequence: 1, Count: 2,
		})
		f.put("order/1", nil, record.Envelope{
			Kind: record.Event, TypeURL: typePrefix + "OrderShipped", Sequence: 2, Index: 1, Count: 2,
			Principal: "ann", CommandID: "c-1", CorrelationID: "chain",
		})
		f.catchUp()
		f.start(&projections.View{Projection: projection(t, namedYAML), Dataset: 7, Live: true})
		synctest.Wait()
		s, err := f.engine.Open(t.Context(), projections.Ask{Dataset: 7})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		row, _, err := s.Get([]byte(text("1")))
		if want := "\x0a\x011\x12\x03ann\x1a\x03c-1\x22\x05chain\x28\x01"; err != nil || string(row) != want {
			t.Errorf("the row is %q, %v, want %q", row, err, want)
		}
	})
}
