package admin

import (
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// TestHostingSaysWhatIsNotSupported: banner and status list no service as served whose calls are
// refused, nor one whose topics are not read.
func TestHostingSaysWhatIsNotSupported(t *testing.T) {
	reading := []*discovery.Method{{}, {Eventing: &cloudstate.Eventing{}}}
	for want, s := range map[string]*discovery.Service{
		"in process": {Kind: entities.Value, Methods: reading[:1]},
		"not supported yet: calls get UNIMPLEMENTED":                             {Kind: entities.Replicated, Methods: reading[:1]},
		"in process; eventing is not supported yet: no topic is read or written": {Kind: entities.Action, Methods: reading},
	} {
		if got := hostingOf(s, "in process"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
