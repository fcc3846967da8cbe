package kafkaserver

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestKillAndRestart kills and restarts one broker; data and address stay.
func TestKillAndRestart(t *testing.T) {
	s := Start(t, Options{})
	addr, pid := s.Addr(), s.PID()
	if err := s.Restart(t.Context()); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Fatalf("restart of a running broker: %v", err)
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := countBrokers(t.Context(), addr); err == nil {
		t.Fatal("a killed broker answers")
	}
	s.MustRestart(t)
	if s.Addr() != addr || s.PID() == pid {
		t.Fatalf("restarted at %s as process %d, was %s and %d", s.Addr(), s.PID(), addr, pid)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
}

// TestCluster waits for three brokers that see each other.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("three brokers take up to 20 s on a busy machine")
	}
	c := StartCluster(t, 3)
	for _, s := range c.Servers {
		if n, err := countBrokers(t.Context(), s.Addr()); err != nil || n != 3 {
			t.Errorf("broker %d sees %d brokers, error %v", s.Node(), n, err)
		}
	}
}

// TestBrokerThatCannotStart: the error has the broker's log.
func TestBrokerThatCannotStart(t *testing.T) {
	Require(t)
	_, err := Launch(t.Context(), Options{Dir: t.TempDir(), Settings: map[string]string{"num.io.threads": "none"}})
	if err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "num.io.threads") {
		t.Fatalf("launch with a wrong setting: %v", err)
	}
}

func TestNoJava(t *testing.T) {
	t.Setenv("JAVA_HOME", "")
	t.Setenv("PATH", t.TempDir())
	if _, _, err := findJava(t.Context()); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "Java") {
		t.Fatalf("without Java: %v", err)
	}
}

func TestOldJava(t *testing.T) {
	home := t.TempDir()
	bin := filepath.Join(home, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho 'openjdk version \"1.8.0_402\"' >&2\n"
	if err := os.WriteFile(filepath.Join(bin, "java"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JAVA_HOME", home)
	if _, _, err := findJava(t.Context()); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "Java 8") {
		t.Fatalf("with Java 8: %v", err)
	}
}

func TestNoMaven(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := fetchJars(t.Context(), filepath.Join(t.TempDir(), "lib"))
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "Maven") {
		t.Fatalf("without Maven: %v", err)
	}
}

func TestLockFile(t *testing.T) {
	jars, err := parseJars(lockFile)
	if err != nil || len(jars) != 46 {
		t.Fatalf("%d jars, error %v", len(jars), err)
	}
	if _, err := parseJars("short path.jar\n"); err == nil {
		t.Fatal("a line without a checksum passed")
	}
}

// TestWrongSum makes a jar that is not the one of the lock file.
func TestWrongSum(t *testing.T) {
	lib := t.TempDir()
	if err := os.WriteFile(filepath.Join(lib, "a.jar"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := checkJars(lib, []jar{{sum: strings.Repeat("0", 64), path: "x/a.jar"}})
	if err == nil || !strings.Contains(err.Error(), "a.jar has sha256") {
		t.Fatalf("a changed jar: %v", err)
	}
}
