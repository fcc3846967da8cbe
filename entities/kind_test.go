package entities

import "testing"

// TestKinds: numbers and protocols of kinds are durable and unique; a number without a kind is one
// of a newer version.
func TestKinds(t *testing.T) {
	for kind, protocol := range map[Kind]string{
		1: "cloudstate.eventsourced.EventSourced",
		2: "cloudstate.valueentity.ValueEntity",
		3: "cloudstate.action.ActionProtocol",
		4: "cloudstate.crdt.Crdt",
	} {
		if got := KindOf(protocol); got != kind || kind.Spec().Protocol != protocol {
			t.Errorf("%s is the kind %d, and %d has the protocol %s", protocol, got, kind, kind.Spec().Protocol)
		}
	}
	if KindOf("") != KindUnspecified || KindOf("a.B") != KindUnspecified {
		t.Error("a protocol of no kind has one")
	}
	if s := Kind(250).Spec(); !s.HasEntities || s.Served() || Kind(250).String() != "kind 250" {
		t.Errorf("a number without a kind: %+v", s)
	}
	for kind, want := range map[Kind]bool{
		EventSourced: true, Value: true, Action: true, Replicated: false, KindUnspecified: false,
	} {
		if kind.Spec().Served() != want {
			t.Errorf("served %s: %v", kind, !want)
		}
	}
	for name, register := range map[string]func(){
		"number":      func() { Register(Value, &KindSpec{Protocol: "a.B"}) },
		"protocol":    func() { Register(250, &KindSpec{Protocol: Value.Spec().Protocol}) },
		"unspecified": func() { Register(KindUnspecified, &KindSpec{Protocol: "a.B"}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("the same %s was registered again", name)
				}
			}()
			register()
		}()
	}
}
