package cli

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace-io/millrace/tests/kit"
)

// TestRepairTranscript runs command lines against a process whose log was put back to an older
// copy, and compares what is shown with testdata/repair; -rewrite writes it anew.
func TestRepairTranscript(t *testing.T) {
	script := testdata(t, "repair")
	t.Chdir(t.TempDir())
	p := tool(t)
	for _, times := range []int{1, 3} {
		s := p.serveIn(t, "dev", "--data", "data", "--partitions", "2", "--worker", "w-1")
		s.connect(t)
		for range times {
			for _, request := range []string{`{"counter_id":"a"}`, `{"counter_id":"b"}`} {
				if r := p.runIn(t, false, "", "call", "counter.v1.CounterService/Increment", "--id", "once", "-d",
					request); r.code != exitOK {
					t.Fatal(r.stderr)
				}
				if r := p.runIn(t, false, "", "call", "counter.v1.CounterService/Increment", "-d", request); r.code != exitOK {
					t.Fatal(r.stderr)
				}
			}
		}
		if code := s.stop(t); code != exitOK {
			t.Fatalf("dev ended with %d: %s", code, s.stderr)
		}
		if times == 1 {
			if err := os.CopyFS("older", os.DirFS(filepath.Join("data", "log"))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(os.RemoveAll(filepath.Join("data", "log")),
		os.CopyFS(filepath.Join("data", "log"), os.DirFS("older"))); err != nil {
		t.Fatal(err)
	}
	admin := kit.FreeAddress(t)
	s := p.serveIn(t, "dev", "--data", "data", "--worker", "w-1", "--admin", admin)
	t.Setenv("MILLRACE_ADMIN", admin)
	s.stderr.await(t, `(?s)to=halted.*to=halted`)
	datadriven.RunTest(t, script, func(t *testing.T, d *datadriven.TestData) string {
		r := p.runIn(t, d.Cmd == "terminal", "", split(t, d.Input)...)
		// the number of progress lines depends on the machine
		r.stderr = regexp.MustCompile(`(?m)^partition \d is .*\n`).ReplaceAllString(r.stderr, "")
		return regexp.MustCompile(`[0-9a-f]{32}`).ReplaceAllString(scrub(r), "TOPIC")
	})
	if code := s.stop(t); code != exitOK {
		t.Errorf("dev ended with %d: %s", code, s.stderr)
	}
}
