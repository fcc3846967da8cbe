package e2e_test

import (
	"testing"

	shopv1 "github.com/millrace-io/millrace/examples/shoppingcart/shop/v1"
)

// TestCrashLedgersSeeBrokenPromises shows them every kind of loss and repetition: a load that sees nothing proves nothing.
func TestCrashLedgersSeeBrokenPromises(t *testing.T) {
	cart := func(quantity int32, items ...string) *shopv1.Cart {
		c := &shopv1.Cart{}
		for _, id := range items {
			c.Items = append(c.Items, &shopv1.Item{ItemId: id, Quantity: quantity})
		}
		return c
	}
	shared := func() *sharedTally {
		return &sharedTally{seen: map[int64]bool{1: true, 3: true}, highest: 3, unknown: 1}
	}
	box := func() *basket { return &basket{id: "b", items: map[string]bool{"sure": true, "perhaps": false}} }
	for name, tc := range map[string]struct {
		got   error
		wrong bool
	}{
		"counter: next value":                {(&tally{2, 3}).incremented(answered, 3), false},
		"counter: lost command came through": {(&tally{2, 3}).incremented(answered, 4), false},
		"counter: lost increment":            {(&tally{2, 3}).incremented(answered, 2), true},
		"counter: increment too many":        {(&tally{2, 3}).incremented(answered, 5), true},
		"counter: read":                      {(&tally{2, 3}).read(3), false},
		"counter: read too little":           {(&tally{2, 3}).read(1), true},
		"counter: read too much":             {(&tally{2, 3}).read(4), true},
		"shared: new value":                  {shared().incremented(answered, 2, 1), false},
		"shared: same value twice":           {shared().incremented(answered, 3, 1), true},
		"shared: value from the past":        {shared().incremented(answered, 2, 3), true},
		"shared: read":                       {shared().read(3), false},
		"shared: read too little":            {shared().read(2), true},
		"shared: read too much":              {shared().read(4), true},
		"cart: all":                          {box().read(cart(1, "perhaps", "sure")), false},
		"cart: lost command did not come":    {box().read(cart(1, "sure")), false},
		"cart: lost item":                    {box().read(cart(1, "perhaps")), true},
		"cart: item twice":                   {box().read(cart(2, "sure")), true},
		"cart: item from nowhere":            {box().read(cart(1, "sure", "stray")), true},
		"cart: added":                        {box().added("new", answered, cart(1, "new", "sure")), false},
		"cart: added item is not shown":      {box().added("new", answered, cart(1, "sure")), true},
		"cart: refused item is shown":        {refused(box()).read(cart(1, "new", "sure")), true},
	} {
		if (tc.got != nil) != tc.wrong {
			t.Errorf("%s: %v", name, tc.got)
		}
	}
}

// refused is a basket after an item that was not applied.
func refused(b *basket) *basket {
	_ = b.added("new", notApplied, nil)
	return b
}
