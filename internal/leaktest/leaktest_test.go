package leaktest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/internal/leaktest"
)

// leakVariable makes a run of this test binary leak a goroutine on purpose.
const leakVariable = "LEAKTEST_LEAK"

func TestMain(m *testing.M) { leaktest.Main(m) }

// The binary is run again as a process of its own, because a leak ends the process.
func TestMainFailsOnALeak(t *testing.T) {
	if os.Getenv(leakVariable) != "" {
		go leakForever() // it is never stopped: the outer run looks for it
		return
	}
	for _, tc := range []struct{ value, want string }{{"", "PASS"}, {"yes", "leakForever"}} {
		run := "-test.run=^TestMainFailsOnALeak$"
		if tc.value == "" {
			run = "-test.run=^$"
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], run)
		cmd.Env = append(os.Environ(), leakVariable+"="+tc.value)
		out, err := cmd.CombinedOutput()
		if leaked := tc.value != ""; leaked != (err != nil) || !strings.Contains(string(out), tc.want) {
			t.Errorf("%s=%q: error %v, output lacks %q:\n%s", leakVariable, tc.value, err, tc.want, out)
		}
	}
}

func leakForever() { select {} }
