package routing

import (
	"errors"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
)

// TestUnknownMethodsMayComeLater: while workers serve different versions, an unknown method is not
// a final error.
func TestUnknownMethodsMayComeLater(t *testing.T) {
	upgrading := &broker.Table{Members: []broker.Member{{Name: "a", Serves: "1"}, {Name: "b", Serves: "2"}, {Name: "c"}}}
	unknown := entities.Errorf(entities.UnknownMethod, entities.NotApplied, "service s has no method M")
	got := entities.AsError(Mixed(upgrading, unknown))
	if got.Reason != entities.Unavailable || got.Outcome != entities.NotApplied || got.RetryAfter == 0 {
		t.Errorf("during an upgrade: %+v, want that it is to be tried again", got)
	}
	same := &broker.Table{Members: []broker.Member{{Name: "a", Serves: "1"}, {Name: "b", Serves: "1"}, {Name: "c"}}}
	for _, table := range []*broker.Table{nil, {}, same} {
		if got := entities.AsError(Mixed(table, unknown)); got != unknown {
			t.Errorf("without an upgrade: %+v, want what the owner said", got)
		}
	}
	refused := entities.Errorf(entities.FunctionRefused, entities.Refused, "no")
	if got := Mixed(upgrading, refused); !errors.Is(got, refused) || Mixed(upgrading, nil) != nil {
		t.Errorf("another error became %v", got)
	}
}
