package fire

import (
	"testing"

	"github.com/millrace-io/millrace/tests/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
