package connect

import (
	"context"
	_ "embed"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// building bounds the build of the runner, which downloads it the first time; running bounds all
// cases.
const building, running = 8 * time.Minute, 3 * time.Minute

func TestMain(m *testing.M) { harness.Main(m) }

// TestConformance runs all cases of the runner.
func TestConformance(t *testing.T) {
	limits := knownLimits(t)
	runner := buildRunner(t)
	server := harness.Build(t, "tests/connect/server", "")

	args := []string{"--mode", "server", "-v", "--conf", "config.yaml"}
	for _, l := range limits {
		for _, pattern := range l.always {
			args = append(args, "--known-failing", pattern)
		}
		for _, pattern := range l.sometimes {
			args = append(args, "--known-flaky", pattern)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), running)
	defer cancel()
	said, err := exec.CommandContext(ctx, runner, append(args, "--", server)...).CombinedOutput()
	result := parse(string(said))
	if err != nil || result.total == 0 || result.passed+len(result.known) != result.total {
		t.Fatalf("the runner ended with %v: %d cases, %d passed, %d failed as known:\n%s", err, result.total,
			result.passed, len(result.known), said)
	}
	failed := map[string]int{}
	for _, f := range result.known {
		failed[f.protocol()]++
		for _, line := range f.lines {
			if !explained(limits, f.name, line) {
				t.Errorf("%s: known-failing.txt does not say that it fails with %q", f.name, line)
			}
		}
	}
	for protocol, total := range result.totals {
		t.Logf("%s: %d of %d passed, %d failed as known", protocol, total-failed[protocol], total, failed[protocol])
	}
}

// buildRunner builds the runner and returns its path.
func buildRunner(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), building)
	defer cancel()
	out := filepath.Join(t.TempDir(), "connectconformance")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "connectrpc.com/conformance/cmd/connectconformance")
	cmd.Dir = "runner"
	if said, err := cmd.CombinedOutput(); err != nil {
		kit.CannotRun(t, "the conformance runner cannot be built: %v\n%s", err, said)
	}
	return out
}

// limit is one entry of known-failing.txt: why cases fail, always or sometimes, and what the runner
// says then.
type limit struct {
	reason            string
	says              []*regexp.Regexp
	always, sometimes []string
}

//go:embed known-failing.txt
var knownFailing string

// knownLimits reads known-failing.txt.
func knownLimits(t *testing.T) []limit {
	t.Helper()
	var limits []limit
	for line := range strings.Lines(knownFailing) {
		line = strings.TrimSpace(line)
		key, value, _ := strings.Cut(line, ": ")
		if key == "reason" {
			limits = append(limits, limit{reason: value})
			continue
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if len(limits) == 0 {
			t.Fatalf("known-failing.txt: %q stands before the first reason", line)
		}
		last := &limits[len(limits)-1]
		switch key {
		case "says":
			last.says = append(last.says, regexp.MustCompile("^(?:"+value+")$"))
		case "case":
			last.always = append(last.always, value)
		case "flaky":
			last.sometimes = append(last.sometimes, value)
		default:
			t.Fatalf("known-failing.txt: %q is none of reason, says, case and flaky", line)
		}
	}
	for _, l := range limits {
		if l.reason == "" || len(l.says) == 0 || len(l.always)+len(l.sometimes) == 0 {
			t.Fatalf("known-failing.txt: an entry needs a reason, what is said, and cases: %+v", l)
		}
	}
	return limits
}

// explained says whether a limit of a case is why the runner says something of it.
func explained(limits []limit, name, line string) bool {
	for _, l := range limits {
		for _, pattern := range slices.Concat(l.always, l.sometimes) {
			if !matches(strings.Split(pattern, "/"), strings.Split(name, "/")) {
				continue
			}
			for _, says := range l.says {
				if says.MatchString(line) {
					return true
				}
			}
		}
	}
	return false
}

// matches compares the parts of a name with a pattern of the runner: * is one part, ** any number.
func matches(pattern, name []string) bool {
	switch {
	case len(pattern) == 0:
		return len(name) == 0
	case pattern[0] == "**":
		return matches(pattern[1:], name) || len(name) > 0 && matches(pattern, name[1:])
	default:
		return len(name) > 0 && (pattern[0] == "*" || pattern[0] == name[0]) && matches(pattern[1:], name[1:])
	}
}

// result is what the runner printed.
type result struct {
	total, passed int
	// totals counts the cases of each protocol.
	totals map[string]int
	// known are the cases that failed and may.
	known []failure
}

type failure struct {
	name  string
	lines []string
}

// protocol is that of a case. Suites that are for one protocol have it in their names only.
func (f failure) protocol() string {
	switch {
	case strings.Contains(f.name, "/Protocol:PROTOCOL_GRPC_WEB/"), strings.HasPrefix(f.name, "gRPC-Web "):
		return "PROTOCOL_GRPC_WEB"
	case strings.Contains(f.name, "/Protocol:PROTOCOL_GRPC/"), strings.HasPrefix(f.name, "gRPC "):
		return "PROTOCOL_GRPC"
	default:
		return "PROTOCOL_CONNECT"
	}
}

// parse reads what the runner printed: the number of cases of each of its servers, each failure
// with its lines below it, indented, and the totals.
func parse(said string) result {
	var (
		r      = result{totals: map[string]int{}}
		server = regexp.MustCompile(`^Running (\d+) tests .*\b(PROTOCOL_\w+)`)
		known  = regexp.MustCompile(`^INFO: (.*) failed \(as expected\):$`)
		total  = regexp.MustCompile(`^Total cases: (\d+)$`)
		passed = regexp.MustCompile(`^(\d+) passed, 0 failed$`)
		inCase = false
	)
	for line := range strings.Lines(said) {
		line = strings.TrimSuffix(line, "\n")
		detail, indented := strings.CutPrefix(line, "\t")
		if indented && inCase {
			if detail != "" {
				last := &r.known[len(r.known)-1]
				last.lines = append(last.lines, detail)
			}
			continue
		}
		inCase = false
		if found := known.FindStringSubmatch(line); found != nil {
			r.known, inCase = append(r.known, failure{name: found[1]}), true
		} else if found := server.FindStringSubmatch(line); found != nil {
			r.totals[found[2]] += number(found[1])
		} else if found := total.FindStringSubmatch(line); found != nil {
			r.total = number(found[1])
		} else if found := passed.FindStringSubmatch(line); found != nil {
			r.passed = number(found[1])
		}
	}
	return r
}

// number is the number that a pattern has found.
func number(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}
