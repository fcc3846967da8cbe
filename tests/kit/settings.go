package kit

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// Setting is an environment variable that tests read. README.md in the folder above lists all.
type Setting struct {
	// Name is that of the variable, Default what counts without it, as it would be written; "" is
	// 0, or nothing.
	Name, Default string
	// Meaning is its effect, for README.md.
	Meaning string
}

// The settings of all tests.
//
//nolint:gochecknoglobals // one table
var (
	CI = Setting{"CI", "", "`true`: a test that cannot run on this machine fails; otherwise it is left out, with the reason"}

	Race = Setting{"MILLRACE_E2E_RACE", "", "`1`: processes are built with the race detector"}

	SimSeeds    = Setting{"MILLRACE_SIM_SEEDS", "150", "simulation: how many seeds"}
	SimFrom     = Setting{"MILLRACE_SIM_FROM", "1", "simulation: the first of them"}
	SimSeed     = Setting{"MILLRACE_SIM_SEED", "", "simulation: this seed alone, with its whole script"}
	SimDuration = Setting{"MILLRACE_SIM_DURATION", "", "simulation: seed after seed for so long"}

	FireSeed       = Setting{"MILLRACE_FIRE_SEED", "", "fire: the decisions of an earlier run; otherwise new ones"}
	FireFaults     = Setting{"MILLRACE_FIRE_FAULTS", "1", "fire: how many faults there must be for each engine; each kind happens at least once"}
	FireOperations = Setting{"MILLRACE_FIRE_OPERATIONS", "1", "fire: how many operations must be checked for each engine"}
	FireDuration   = Setting{"MILLRACE_FIRE_DURATION", "", "fire: how long clients work at least, for each engine"}
	FireClients    = Setting{"MILLRACE_FIRE_CLIENTS", "16", "fire: clients at a time"}
	FireKinds      = Setting{"MILLRACE_FIRE_KINDS", "", "fire: only faults whose names match this regular expression"}
	FireVerbose    = Setting{"MILLRACE_FIRE_VERBOSE", "", "`1`: fire tells each fault"}

	PauseRounds = Setting{"MILLRACE_PAUSE_ROUNDS", "", "pauses in a cluster: how often an owner or a broker is killed, stopped or frozen; where it is set, the pause that is promised must be kept"}

	EffectsKills = Setting{"MILLRACE_EFFECTS_KILLS", "14", "effects: how often the worker is killed"}
	EffectsSeed  = Setting{"MILLRACE_EFFECTS_SEED", "", "effects: the decisions of an earlier run; otherwise new ones"}
	Timers       = Setting{"MILLRACE_TIMERS", "5000", "timers: how many are set"}

	ReadSideCommands = Setting{"MILLRACE_READSIDE_COMMANDS", "3000", "views: how many commands are sent"}
	ReadSideKills    = Setting{"MILLRACE_READSIDE_KILLS", "3", "views: how often the worker is killed"}
	ReadSideSeed     = Setting{"MILLRACE_READSIDE_SEED", "", "views: the decisions of an earlier run; otherwise new ones"}

	ReadSideSwitches = Setting{"MILLRACE_READSIDE_SWITCHES", "6", "views: how often a version is put in force or back"}

	Model   = Setting{"MILLRACE_MODEL", "", "model: `full` or `big` bounds instead of small ones"}
	Readers = Setting{"MILLRACE_READERS", "64", "Kafka: how many readers come to the end of a topic"}
)

// Settings returns all settings, in the order of README.md.
func Settings() []Setting {
	return []Setting{
		CI, Race, SimSeeds, SimFrom, SimSeed, SimDuration,
		FireSeed, FireFaults, FireOperations, FireDuration, FireClients, FireKinds, FireVerbose,
		PauseRounds, EffectsKills, EffectsSeed, Timers, ReadSideCommands, ReadSideKills, ReadSideSeed, ReadSideSwitches,
		Model, Readers,
	}
}

// Text returns the variable as it is set, or the default.
func (s Setting) Text() string {
	if text := os.Getenv(s.Name); text != "" {
		return text
	}
	return s.Default
}

// Is reports whether the variable has a value.
func (s Setting) Is(value string) bool { return s.Text() == value }

// Number returns a whole number, 1 or more, or 0 where there is none. Anything else ends the test.
func (s Setting) Number(t testing.TB) int {
	t.Helper()
	return int(s.number(t)) //nolint:gosec // 63 bits at most
}

// Number64 is Number for what may be larger than an int.
func (s Setting) Number64(t testing.TB) uint64 {
	t.Helper()
	return s.number(t)
}

// NumberOr is Number with another default, for a setting that several tests share.
func (s Setting) NumberOr(t testing.TB, otherwise int) int {
	t.Helper()
	if n := s.Number(t); n > 0 {
		return n
	}
	return otherwise
}

func (s Setting) number(t testing.TB) uint64 {
	t.Helper()
	text := s.Text()
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q: give a number, 1 or more", s.Name, text)
	}
	return n
}

// Duration returns a duration, more than 0, or 0 where there is none. Anything else ends the test.
func (s Setting) Duration(t testing.TB) time.Duration {
	t.Helper()
	text := s.Text()
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("%s is %q: give a duration, as in 90s or 8h", s.Name, text)
	}
	return d
}

// Seed returns the seed of a run, a new one where none is given, and prints it.
func (s Setting) Seed(t testing.TB) uint64 {
	t.Helper()
	seed := s.number(t)
	if seed == 0 {
		seed = rand.Uint64()>>1 | 1 //nolint:gosec // not a secret
	}
	t.Logf("%s=%d repeats the decisions of this run", s.Name, seed)
	return seed
}

// CannotRun skips a test that this machine cannot run, or fails it with CI=true, where a skipped
// test must not pass.
func CannotRun(t testing.TB, format string, args ...any) {
	t.Helper()
	if CI.Is("true") {
		t.Fatalf("CI=true, and this cannot run here: "+format, args...)
	}
	t.Skipf("this cannot run here: "+format, args...)
}
