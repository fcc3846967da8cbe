package host_test

import (
	"testing"

	"github.com/millrace-io/millrace/internal/leaktest"
)

// shared: functions of these tests share one stream among their sessions. All tests run once
// without and once with it.
var shared bool

func TestMain(m *testing.M) {
	leaktest.Main(leaktest.Twice(m, func() string {
		shared = true
		return "with sessions on a shared stream"
	}))
}
