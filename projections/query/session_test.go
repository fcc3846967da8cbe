package query

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/entities"
)

// session gives a command the token of its caller's session.
func session(token string) func(*entities.Command) {
	return func(cmd *entities.Command) {
		cmd.Metadata = append(cmd.Metadata, entities.MetadataEntry{Key: entities.SessionToken, Text: token})
	}
}

// TestASessionReadsItsWrites: a query that names no freshness includes the token of its caller's
// session; one that names a freshness does not.
func TestASessionReadsItsWrites(t *testing.T) {
	sent := tokenOf(entities.Position{Partition: 1, Next: 15})
	latest := (&entities.Token{App: "shop", Generation: entities.Generation, Latest: true}).Encode()
	onlyEventual := "consistency: {default: eventual, allow: [eventual]}"
	for name, c := range map[string]struct {
		token, request, consistency string
		options                     []func(*entities.Command)
		reach                       int64
		dropped                     bool
	}{
		"default":               {token: sent, reach: 15},
		"a wait only":           {token: sent, request: "freshness: {max_wait: {seconds: 5}}", reach: 15},
		"all partitions":        {token: latest, reach: 20},
		"the request names":     {token: sent, request: "freshness: {eventual: {}}"},
		"a header names":        {token: sent, options: []func(*entities.Command){headers(entities.Eventual, 0)}},
		"not allowed":           {token: sent, consistency: onlyEventual},
		"strong is not allowed": {token: latest, consistency: onlyEventual},
		"no token":              {token: "nonsense", dropped: true},
		"of another app":        {token: (&entities.Token{App: "b", Generation: entities.Generation}).Encode(), dropped: true},
	} {
		text := strings.Replace(fmt.Sprintf(spec, 4), "  queries:\n", "  "+c.consistency+"\n  queries:\n", 1)
		b := newBench(t, text, 2)
		b.position, b.committed = []int64{10, 20}, []int64{10, 20}
		reply, err := b.reply("ListAll", c.request, append(c.options, session(c.token))...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, s := range b.scans {
			if s.Partition == 1 && s.Reach != c.reach {
				t.Errorf("%s: reach %d, want %d", name, s.Reach, c.reach)
			}
		}
		if dropped := reply.Metadata.Get(entities.SessionDropped) != ""; dropped != c.dropped {
			t.Errorf("%s: dropped is %v, want %v", name, dropped, c.dropped)
		}
	}
}

// TestASessionBeyondTheLogIsDropped: the token of a journal that is no more refuses nothing, and
// the session learns that it is of no use.
func TestASessionBeyondTheLogIsDropped(t *testing.T) {
	b := orders(t, 2)
	b.put(`order_id: "o1"`)
	b.position, b.committed = []int64{10, 20}, []int64{10, 20}
	begin := time.Now()
	reply, err := b.reply("ListAll", "freshness: {max_wait: {nanos: 1000000}}",
		session(tokenOf(entities.Position{Partition: 0, Next: 11}, entities.Position{Partition: 1, Next: 99})))
	if err != nil || reply.Metadata.Get(entities.SessionDropped) == "" {
		t.Fatalf("after %v: %v, %v", time.Since(begin), reply, err)
	}
	// Beyond the rows and not beyond the log: that is a wait, as for any token.
	b.committed[1] = 30
	_, err = b.reply("ListAll", "freshness: {max_wait: {nanos: 1000000}}",
		session(tokenOf(entities.Position{Partition: 1, Next: 25})))
	if e := entities.AsError(err); err == nil || e.Reason != entities.Deadline {
		t.Errorf("rows that are late: %v", err)
	}
}
