package host_test

import (
	"fmt"
	"testing"

	"github.com/millrace-io/millrace/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(twice{m}) }

// shared: functions of these tests share one stream among their sessions. All tests run once without and once with it.
var shared bool //nolint:gochecknoglobals // what both runs differ in

// twice runs the tests in both ways.
type twice struct{ tests *testing.M }

// Run implements goleak.TestingM.
func (m twice) Run() int {
	if code := m.tests.Run(); code != 0 {
		return code
	}
	shared = true
	code := m.tests.Run()
	if code != 0 {
		fmt.Println("that was with sessions on a shared stream")
	}
	return code
}
