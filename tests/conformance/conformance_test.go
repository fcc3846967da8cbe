package conformance_test

import (
	"slices"
	"testing"

	"github.com/millrace-io/millrace/tests/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// conformanceCase is one case or rule; every case has entities of its own.
type conformanceCase struct {
	name string
	run  func(t *testing.T, s *subject)
}

// TestConformance runs every case with every function, with millrace in this process and as the
// real binary. One millrace serves all cases of a combination, so that each also shows that the
// previous ones have no after-effects.
func TestConformance(t *testing.T) {
	cases := slices.Concat(discoveryCases(), actionCases(), valueCases(), eventSourcedCases(), reflectionCases(),
		ruleCases())
	for _, h := range []host{inProcess, asBinary} {
		for _, f := range functions() {
			t.Run(h.name+"/"+f.name, func(t *testing.T) {
				if testing.Short() && h.name == asBinary.name {
					t.Skip("building and starting the binary takes a while")
				}
				s := newSubject(t, f, h, nil)
				for _, c := range cases {
					t.Run(c.name, func(t *testing.T) {
						defer s.quiet(t)
						c.run(t, s)
					})
				}
			})
		}
	}
}
