package harness_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/tests/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestProcessSurvivesAKill goes through the life of a process: start, write, kill, restart, read,
// stop.
func TestProcessSurvivesAKill(t *testing.T) {
	p := harness.Start(t, harness.Options{})
	post(t, p, "/v1/counters/c:increment", `{"by":"2"}`)
	p.Kill(t)
	p.Restart(t)
	if got := post(t, p, "/v1/counters/c:increment", `{"by":"3"}`); got != `{"value":"5"}` {
		t.Errorf("after a kill the counter is %s, want 5", got)
	}
	if code := p.Stop(t); code != 0 {
		t.Errorf("stopped in order, the exit code is %d", code)
	}
	if said := p.Output(t); strings.Count(said, "durability") != 2 {
		t.Errorf("want the banners of two starts in the output:\n%s", said)
	}
}

// TestEphemeralProcessForgets starts without a data directory.
func TestEphemeralProcessForgets(t *testing.T) {
	p := harness.Start(t, harness.Options{Ephemeral: true})
	post(t, p, "/v1/counters/c:increment", `{"by":"2"}`)
	p.Kill(t)
	p.Restart(t)
	if got := post(t, p, "/v1/counters/c:increment", `{}`); got != `{"value":"1"}` {
		t.Errorf("an ephemeral counter is %s after a restart, want 1", got)
	}
}

func TestCommandThatEnds(t *testing.T) {
	if r := harness.Run(t, "version"); r.Code != 0 || !strings.HasPrefix(r.Stdout, "millrace ") || r.Stderr != "" {
		t.Errorf("version: %+v", r)
	}
	if r := harness.Run(t, "nothing"); r.Code != 2 || r.Stdout != "" || r.Stderr == "" {
		t.Errorf("a command that there is not: %+v", r)
	}
}

func post(t *testing.T, p *harness.Process, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.Public()+path,
		strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("POST %s: %s %s %v", path, res.Status, answer, err)
	}
	return string(answer)
}
