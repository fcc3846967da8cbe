package node

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/partitions/core"
)

// TestOneLineForOneEvent: what happens to all partitions at once is one line, with the names of the
// states; another event is another line.
func TestOneLineForOneEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		n := newNode(Options{Config: Defaults(), Logger: slog.New(slog.NewJSONHandler(&log, nil))})
		for p := range int32(16) {
			n.partitionWarning(15-p, core.Active, core.Standby, "it was revoked")
		}
		n.alarm(3, "the log did not take an append")
		synctest.Wait()
		if log.Len() > 0 {
			t.Fatalf("logged at once:\n%s", &log)
		}
		n.notices.flush()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		for i, want := range []string{
			`"level":"WARN","msg":"partition changed state","partitions":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15],` +
				`"from":"active","to":"standby","cause":"it was revoked"}`,
			`"level":"WARN","msg":"partition alarm","partition":3,"error":"the log did not take an append"}`,
		} {
			if len(lines) != 2 || !strings.HasSuffix(lines[i], want) {
				t.Errorf("logged\n%s\nwant %s", &log, want)
			}
		}
	})
}

// TestNoticesComeByThemselves, also if many different ones wait.
func TestNoticesComeByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		n := notices{logger: slog.New(slog.NewTextHandler(&log, nil))}
		for p := range int32(2 * maxNotices) {
			n.add(p, event{why: strings.Repeat("x", int(p))})
		}
		n.mu.Lock()
		waiting := len(n.waiting)
		n.mu.Unlock()
		if waiting > maxNotices {
			t.Errorf("%d notices wait", waiting)
		}
		synctest.Wait()
		<-time.After(2 * noticeDelay) // of the bubble
		synctest.Wait()
		if got := strings.Count(log.String(), "\n"); got != 2*maxNotices {
			t.Errorf("%d lines, want %d", got, 2*maxNotices)
		}
	})
}
