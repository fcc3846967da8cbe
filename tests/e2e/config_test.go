package e2e_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace-io/millrace/tests/e2e/harness"
)

// exitUsage is the exit code of a mistake in arguments or configuration.
const exitUsage = 2

// TestWrongConfigurationIsNamedWithItsLine starts a worker with configuration files that are wrong,
// each in its way. Nothing is started, and all mistakes are reported at once.
func TestWrongConfigurationIsNamedWithItsLine(t *testing.T) {
	for _, tc := range []struct {
		name, yaml string
		words      []string
	}{
		{"unknown key", "listen: 127.0.0.1:0\nlistn: x\n", []string{"wrong.yaml:2", `unknown key "listn"`, `did you mean "listen"?`}},
		{"wrong values", "# comment\npartitions: seven\nmax-key: 3parsecs\n", []string{
			"wrong.yaml:2", `"seven" is not a whole number`, "wrong.yaml:3", `"3parsecs" is not a size`,
		}},
		{"value out of range", "app: shop\npartitions: 7\n", []string{"wrong.yaml:2", "7 is not a power of two"}},
		{"key given twice", "app: a\napp: b\n", []string{"wrong.yaml", "[2:1]", `"app"`}},
		{"no YAML", "listen: [a\nx: : y\n", []string{"wrong.yaml", "[2:4]"}},
		{"not a mapping", "- a\n- b\n", []string{"wrong.yaml:1", "key: value"}},
		{"nested value", "app: shop\nlisten:\n  host: a\n", []string{"wrong.yaml:2", `"listen"`, "plain value"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "wrong.yaml")
			if err := os.WriteFile(file, []byte(tc.yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			got := harness.Run(t, "run", "--config", file)
			if got.Code != exitUsage || got.Stdout != "" {
				t.Errorf("exit code %d and %q on the standard output, want %d and nothing", got.Code, got.Stdout, exitUsage)
			}
			contains(t, got.Stderr, tc.words...)
		})
	}
}

// TestWrongSettingIsNamedWithItsSource gives wrong settings in other ways than by file.
func TestWrongSettingIsNamedWithItsSource(t *testing.T) {
	for _, tc := range []struct {
		name  string
		args  []string
		words []string
	}{
		{"flag with a wrong value", []string{"run", "--partitions", "7"}, []string{"partitions", "7 is not a power of two"}},
		{"unknown flag", []string{"run", "--nothing"}, []string{"--nothing"}},
		{"unknown command", []string{"rnu"}, []string{`"rnu"`}},
		{"argument that is no command", []string{"dev", "node", "index.js"}, []string{`"node"`, "--"}},
		{"file that is not there", []string{"run", "--config", "missing.yaml"}, []string{"missing.yaml"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := harness.Run(t, tc.args...)
			if got.Code != exitUsage || got.Stdout != "" {
				t.Errorf("exit code %d and %q on the standard output, want %d and nothing", got.Code, got.Stdout, exitUsage)
			}
			contains(t, got.Stderr, tc.words...)
		})
	}
}
