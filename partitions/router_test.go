package partitions

import (
	"strings"
	"testing"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/partitions/core"
)

func kindOf(t *testing.T, header []byte) string {
	t.Helper()
	var env record.Envelope
	var p record.Parser
	if err := p.Parse(header, &env); err != nil {
		t.Fatal(err)
	}
	return env.Kind.String()
}

// TestForwardsAndEffects: after commit, effects in order, then the target's answer is the caller's.
func TestForwardsAndEffects(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	r := f.router
	reply, err := r.Dispatch(t.Context(), command("a", "effect b"))
	if err != nil || strings.TrimSpace(string(reply.Payload.Value)) != "effect" {
		t.Fatalf("%v, %v", reply, err)
	}
	reply, err = r.Dispatch(t.Context(), command("a", "forward b"))
	if err != nil || string(reply.Payload.Value) != "by-effect" {
		t.Fatalf("the forward's answer is %v, %v; want that of b", reply, err)
	}
	f.want(f.submit(command("a", "read")), "effect forwarding")
	r.Wait()
}

// TestAnswersCarryTokens: the token names the partition and the offset after what was written.
func TestAnswersCarryTokens(t *testing.T) {
	f := start(t, setup{world: alone})
	f.await(core.Active)
	reply, err := f.router.Dispatch(t.Context(), command("a", "add x"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := entities.DecodeToken("app", reply.Token)
	if err != nil {
		t.Fatal(err)
	}
	if len(token.Positions) != 1 || token.Positions[0] != (entities.Position{Partition: 0, Next: 2}) {
		t.Errorf("token %+v, want partition 0, next 2: behind the claim and one event", token)
	}
	if len(reply.Token) > 30 {
		t.Errorf("the token %q is long", reply.Token)
	}
}
