package query

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/entities"
)

func tokenOf(positions ...entities.Position) string {
	t := entities.Token{App: "shop", Generation: entities.Generation, Positions: positions}
	return t.Encode()
}

// after gives a command the consistency of headers.
func headers(level entities.Consistency, bound time.Duration, after ...entities.Position) func(*entities.Command) {
	return func(cmd *entities.Command) {
		cmd.Consistency, cmd.Bound, cmd.After = level, bound, after
		cmd.Metadata = entities.Metadata{{Key: "millrace-consistency", Text: level.String()}}
	}
}

// TestFreshness: what each level waits for, and what the answer's token has.
func TestFreshness(t *testing.T) {
	fresh := func(t *testing.T) *bench {
		b := orders(t, 2)
		b.put(`order_id: "o1" customer_id: "c"`)
		b.position, b.committed = []int64{10, 20}, []int64{10, 20}
		return b
	}
	both := []entities.Position{{Partition: 0, Next: 10}, {Partition: 1, Next: 20}}
	for name, c := range map[string]struct {
		request string
		options []func(*entities.Command)
		reach   []int64 // by partition
		asked   int
		token   []entities.Position
	}{
		"default is eventual":     {"", nil, []int64{0, 0}, 0, both},
		"eventual":                {"freshness: {eventual: {}}", nil, []int64{0, 0}, 0, both},
		"strong":                  {"freshness: {strong: {}}", nil, []int64{10, 20}, 2, both},
		"bounded":                 {"freshness: {bounded: {seconds: 2}}", nil, []int64{10, 20}, 2, both},
		"at_least":                {fmt.Sprintf("freshness: {at_least: %q}", tokenOf(entities.Position{Partition: 1, Next: 15})), nil, []int64{0, 15}, 0, both},
		"latest is strong":        {fmt.Sprintf("freshness: {at_least: %q}", (&entities.Token{App: "shop", Generation: entities.Generation, Latest: true}).Encode()), nil, []int64{10, 20}, 2, both},
		"header eventual":         {"", []func(*entities.Command){headers(entities.Eventual, 0)}, []int64{0, 0}, 0, both},
		"header strong":           {"", []func(*entities.Command){headers(entities.Strong, 0)}, []int64{10, 20}, 2, both},
		"header bounded":          {"", []func(*entities.Command){headers(entities.Bounded, time.Second)}, []int64{10, 20}, 2, both},
		"header at_least":         {"", []func(*entities.Command){headers(entities.AtLeast, 0, entities.Position{Partition: 0, Next: 7})}, []int64{7, 0}, 0, both},
		"both, and the same":      {"freshness: {strong: {}}", []func(*entities.Command){headers(entities.Strong, 0)}, []int64{10, 20}, 2, both},
		"header, and a wait only": {"freshness: {max_wait: {seconds: 5}}", []func(*entities.Command){headers(entities.Strong, 0)}, []int64{10, 20}, 2, both},
	} {
		b := fresh(t)
		reply, err := b.reply("ListAll", c.request, c.options...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := make([]int64, 2)
		for _, s := range b.scans {
			got[s.Partition] = s.Reach
		}
		if got[0] != c.reach[0] || got[1] != c.reach[1] || b.asked != c.asked {
			t.Errorf("%s: reach %v, %d questions, want %v and %d", name, got, b.asked, c.reach, c.asked)
		}
		if want := tokenOf(c.token...); reply.Token != want || !strings.Contains(b.json("ListAll", reply), want) {
			t.Errorf("%s: token %s, want %s", name, reply.Token, want)
		}
	}
}

// TestTokensAreExtended: a token has what the caller sent and what the answer is of.
func TestTokensAreExtended(t *testing.T) {
	b := orders(t, 4)
	b.put(`order_id: "o1"`)
	p := b.PartitionOf("o1")
	other := (p + 1) % 4
	b.position[p], b.committed[p], b.committed[other] = 5, 5, 9
	sent := entities.Position{Partition: other, Next: 9}
	reply, err := b.reply("Get", fmt.Sprintf(`order_id: "o1" freshness: {at_least: %q}`, tokenOf(sent)))
	if err != nil {
		t.Fatal(err)
	}
	if want := tokenOf(sent, entities.Position{Partition: p, Next: 5}); reply.Token != want {
		t.Errorf("token %s, want %s", reply.Token, want)
	}
}

// TestManyPartitionsDoNotExtendATokens: above 256 partitions a list leaves the caller's token as it
// is.
func TestManyPartitionsDoNotExtendTokens(t *testing.T) {
	b := orders(t, 512)
	for i := range b.position {
		b.position[i], b.committed[i] = 5, 5
	}
	if reply, err := b.reply("ListAll", ""); err != nil || reply.Token != "" {
		t.Errorf("token %q, %v", reply.Token, err)
	}
	sent := tokenOf(entities.Position{Partition: 300, Next: 4})
	reply, err := b.reply("ListAll", fmt.Sprintf(`freshness: {at_least: %q}`, sent))
	if err != nil || reply.Token != sent {
		t.Errorf("token %q, %v, want %q", reply.Token, err, sent)
	}
}

// TestBoundedIsCheckedAfterTheWait: one question serves all within the bound; one that is too old
// after the wait is asked again.
func TestBoundedIsCheckedAfterTheWait(t *testing.T) {
	b := orders(t, 1)
	b.position[0], b.committed[0] = 10, 10
	const request = "freshness: {bounded: {seconds: 2}}"
	for range 3 {
		if _, err := b.call("ListAll", request); err != nil {
			t.Fatal(err)
		}
	}
	if b.asked != 1 {
		t.Errorf("%d questions within the bound, want 1", b.asked)
	}
	b.clock.at = b.clock.at.Add(1900 * time.Millisecond)
	waits := 0
	b.onOpen = func(*Scan) error {
		if waits++; waits == 1 {
			b.clock.at = b.clock.at.Add(time.Second) // the answer was 2.9 s old by then
		}
		return nil
	}
	if _, err := b.call("ListAll", request); err != nil || b.asked != 2 || waits != 2 {
		t.Errorf("%v, %d questions, opened %d times, want 2 and 2", err, b.asked, waits)
	}
}

// TestLate: rows that are behind fail with both positions, or are the answer and marked; a token
// from the future is refused.
func TestLate(t *testing.T) {
	b := orders(t, 1)
	b.put(`order_id: "o1"`)
	b.position[0], b.committed[0] = 10, 12
	const wait = "max_wait: {nanos: 1000000}"
	_, err := b.call("ListAll", "freshness: {strong: {} "+wait+"}")
	const behind = `DEADLINE_EXCEEDED: orders.ListAll: the rows of partition 0 are at offset 10, and 12 is wanted; waited 1ms: allow more time with freshness.max_wait, or take what is there with on_timeout: ON_TIMEOUT_STALE`
	wantRefusal(t, "strong", err, behind)
	got, err := b.call("ListAll", "freshness: {strong: {} on_timeout: ON_TIMEOUT_STALE "+wait+"}")
	if err != nil || !strings.Contains(got, `"stale":true`) || !strings.Contains(got, "o1") {
		t.Errorf("stale: %s, %v", got, err)
	}
	token := func(next int64) string { return tokenOf(entities.Position{Partition: 0, Next: next}) }
	_, err = b.call("ListAll", fmt.Sprintf("freshness: {at_least: %q %s}", token(12), wait))
	wantRefusal(t, "at_least", err, behind)
	for _, late := range []string{"", "on_timeout: ON_TIMEOUT_STALE"} {
		_, err = b.call("ListAll", fmt.Sprintf("freshness: {at_least: %q %s %s}", token(13), wait, late))
		wantRefusal(t, "from the future", err, `INVALID_ARGUMENT: orders.ListAll: the token names offset 13 of partition 0, and only those below 12 are committed: send the millrace-token of an earlier answer`)
	}
}

// TestAnOwnerThatMovesIsAskedAgain: a strong read waits for the next owner, as long as it may.
func TestAnOwnerThatMovesIsAskedAgain(t *testing.T) {
	b := orders(t, 1)
	b.position[0], b.committed[0] = 10, 10
	b.onConfirm = func() error {
		if b.asked < 4 {
			return entities.PartitionMoved(0, "no owner is known")
		}
		return nil
	}
	if _, err := b.call("ListAll", "freshness: {strong: {}}"); err != nil || b.asked != 4 {
		t.Errorf("%v after %d questions", err, b.asked)
	}
	b.onConfirm = func() error { return entities.PartitionMoved(0, "no owner is known") }
	const request = "freshness: {strong: {} max_wait: {nanos: 1000000}"
	_, err := b.call("ListAll", request+"}")
	wantRefusal(t, "no owner", err, `DEADLINE_EXCEEDED: orders.ListAll: the owner of partition 0 did not say within 1ms how far it is: allow more time with freshness.max_wait, or ask for eventual`)
	if got, err := b.call("ListAll", request+" on_timeout: ON_TIMEOUT_STALE}"); err != nil || !strings.Contains(got, `"stale":true`) {
		t.Errorf("stale: %s, %v", got, err)
	}
}

// TestStale: rows that are too old, or whose entity is parked, are marked.
func TestStale(t *testing.T) {
	b := orders(t, 1)
	b.put(`order_id: "o1"`)
	for _, c := range []struct {
		age    time.Duration
		parked bool
		want   bool
	}{{time.Second, false, false}, {3 * time.Second, false, true}, {0, true, true}} {
		b.age, b.parked["o1"] = c.age, c.parked
		for _, method := range []string{"Get", "ListAll"} {
			request := ""
			if method == "Get" {
				request = `order_id: "o1"`
			}
			got, err := b.call(method, request)
			if err != nil || strings.Contains(got, `"stale":true`) != c.want {
				t.Errorf("%s with %+v: %s, %v", method, c, got, err)
			}
		}
	}
}

// TestFreshnessIsRefused: levels that are not allowed, tokens that are not valid, two levels.
func TestFreshnessIsRefused(t *testing.T) {
	text := fmt.Sprintf(spec, 4) + "  consistency: {default: bounded, maxStaleness: 3s, allow: [bounded, eventual]}\n"
	b := newBench(t, text, 1)
	for request, want := range map[string]string{
		"freshness: {strong: {}}":                           `INVALID_ARGUMENT: orders.ListAll: the consistency "strong" is not allowed: use bounded or eventual`,
		fmt.Sprintf("freshness: {at_least: %q}", tokenOf()): `INVALID_ARGUMENT: orders.ListAll: the consistency "at_least" is not allowed: use bounded or eventual`,
	} {
		_, err := b.call("ListAll", request)
		wantRefusal(t, request, err, want)
	}
	if _, err := b.call("ListAll", ""); err != nil || b.asked != 1 {
		t.Errorf("the default: %v, %d questions", err, b.asked)
	}
	b = orders(t, 1)
	_, err := b.call("ListAll", `freshness: {at_least: "hello"}`)
	wantRefusal(t, "garbled", err, `INVALID_ARGUMENT: orders.ListAll: freshness: token is not valid: "hello" is not base64url of a whole token`)
	foreign := entities.Token{App: "bank", Generation: entities.Generation}
	_, err = b.call("ListAll", fmt.Sprintf(`freshness: {at_least: %q}`, foreign.Encode()))
	wantRefusal(t, "foreign", err, `INVALID_ARGUMENT: orders.ListAll: freshness: token is not valid: it belongs to another app than "shop"`)
	_, err = b.call("ListAll", `freshness: {eventual: {}}`, headers(entities.Strong, 0))
	wantRefusal(t, "both", err, `INVALID_ARGUMENT: orders.ListAll: the request's freshness and the header millrace-consistency differ: send one of them`)
}
