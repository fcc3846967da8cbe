package schedule

import (
	"testing"
	"time"
)

func TestNext(t *testing.T) {
	now := time.Date(2026, time.March, 1, 12, 30, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"* * * * *":   now.Add(time.Minute),
		"0 6 * * 1-5": time.Date(2026, time.March, 2, 6, 0, 0, 0, time.UTC),
		"@hourly":     now.Add(30 * time.Minute),
		"@every 10s":  now.Add(10 * time.Second),
	} {
		got, err := Next(text, now.UnixNano())
		if err != nil || got != want.UnixNano() {
			t.Errorf("%s: %v, %v; want %v", text, time.Unix(0, got).UTC(), err, want)
		}
	}
	for _, text := range []string{"", "x", "* * * *", "61 * * * *", "0 0 31 2 *"} {
		if got, err := Next(text, now.UnixNano()); err == nil {
			t.Errorf("%q: %v; want an error", text, time.Unix(0, got).UTC())
		}
	}
}
