package schedule

import (
	"math"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, time.March, 1, 12, 30, 0, 0, time.UTC)

func TestNext(t *testing.T) {
	for text, want := range map[string]time.Time{
		"* * * * *":   noon.Add(time.Minute),
		"0 6 * * 1-5": time.Date(2026, time.March, 2, 6, 0, 0, 0, time.UTC),
		"@hourly":     noon.Add(30 * time.Minute),
		"@every 10s":  noon.Add(10 * time.Second),
	} {
		got, err := Next(text, noon.UnixNano())
		if err != nil || got != want.UnixNano() {
			t.Errorf("%s: %v, %v; want %v", text, time.Unix(0, got).UTC(), err, want)
		}
	}
	for text, why := range map[string]string{
		"":                             "empty",
		"x":                            "expected exactly 5 fields",
		"* * * *":                      "expected exactly 5 fields",
		"61 * * * *":                   "above maximum",
		"0 0 31 2 *":                   "never comes",
		"@every 2500000h":              "too late",
		"TZ=UTC":                       "in UTC",
		"CRON_TZ=UTC":                  "in UTC",
		"TZ=Europe/Berlin * * * * *":   "in UTC",
		strings.Repeat("1,", 64) + "1": "the limit is 128",
	} {
		if got, err := Next(text, noon.UnixNano()); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, %v; want an error with %q", text, time.Unix(0, got).UTC(), err, why)
		}
	}
}

// TestCheckRefusesWhatWouldMeanSomethingElse: the parser makes a second of all that is less.
func TestCheckRefusesWhatWouldMeanSomethingElse(t *testing.T) {
	for text, why := range map[string]string{
		"@every 1s": "", "@every 90s": "", "@every 1h30m": "", "@hourly": "", "* * * * *": "",
		"@every -5s": "whole seconds", "@every 0s": "whole seconds", "@every 1ms": "whole seconds",
		"@every 999ms": "whole seconds", "@every 1500ms": "whole seconds", "@every 1.5s": "whole seconds",
		"@every": "unrecognized", "@every x": "failed to parse", "61 * * * *": "above maximum",
	} {
		says(t, text, Check(text, noon.UnixNano()), why)
	}
}

// FuzzNext: for any schedule, the next time is a later one or an error.
func FuzzNext(f *testing.F) {
	for _, text := range []string{
		"* * * * *", "0 6 * * 1-5", "*/5 1,2 1-31/2 JAN ?", "@yearly", "@every 1ns", "@every 2500000h", "TZ=UTC", "TZ= ",
	} {
		f.Add(text, noon.UnixNano())
	}
	f.Fuzz(func(t *testing.T, text string, now int64) {
		now &= math.MaxInt64 >> 1 // between 1970 and 2116
		if next, err := Next(text, now); err == nil && (next <= now || next-now > int64(Farthest)) {
			t.Errorf("%q: %v comes after %v", text, time.Unix(0, next).UTC(), time.Unix(0, now).UTC())
		}
	})
}

func TestNamesAndTimesOfTimers(t *testing.T) {
	for name, why := range map[string]string{
		"t": "", strings.Repeat("t", MaxNameBytes): "", "ü": "",
		"": "needs a name", strings.Repeat("t", MaxNameBytes+1): "129 bytes", "\xff": "UTF-8",
	} {
		says(t, name, CheckName(name), why)
	}
	for d, why := range map[time.Duration]string{
		0: "", time.Hour: "", Farthest: "",
		-1: "before the command", Farthest + 1: "too far ahead", math.MaxInt64: "too far ahead",
	} {
		says(t, d.String(), CheckAfter(d), why)
	}
}

// says compares an error with a part of its text; "" means no error.
func says(t *testing.T, what string, err error, why string) {
	t.Helper()
	if (err == nil) != (why == "") || err != nil && !strings.Contains(err.Error(), why) {
		t.Errorf("%q: %v, want %q", what, err, why)
	}
}
