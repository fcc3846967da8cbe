package cli

import (
	"runtime/debug"
	"testing"

	"github.com/millrace-io/millrace/internal/app/scaffold"
)

// TestVersionOf: the commit that is shown is one of this module, also in programs of others.
func TestVersionOf(t *testing.T) {
	ours, theirs := debug.Module{Path: scaffold.ModulePath}, debug.Module{Path: "example.com/shop"}
	commit := []debug.BuildSetting{{Key: "vcs.revision", Value: "69b108b9ca9f0123456789"}}
	dependency := func(version string, replace *debug.Module) []*debug.Module {
		return []*debug.Module{{Path: "example.com/other"}, {Path: scaffold.ModulePath, Version: version, Replace: replace}}
	}
	for want, info := range map[string]*debug.BuildInfo{
		"":              nil,
		"+69b108b9ca9f": {Main: ours, Settings: commit},
		"+0123456789ab": {
			Main: theirs, Settings: commit, Deps: dependency("v0.1.0-0.20261130180000-0123456789ab", nil),
		},
	} {
		if got := versionOf(info); got != release+want {
			t.Errorf("version %s, want %s%s", got, release, want)
		}
	}
	for name, info := range map[string]*debug.BuildInfo{
		"no commit is known":       {Main: ours},
		"a release":                {Main: theirs, Settings: commit, Deps: dependency("v0.1.0", nil)},
		"a folder takes its place": {Main: theirs, Settings: commit, Deps: dependency("v0.0.0", &debug.Module{Path: "../millrace"})},
	} {
		if got := versionOf(info); got != release {
			t.Errorf("%s: version %s, want %s", name, got, release)
		}
	}
}
