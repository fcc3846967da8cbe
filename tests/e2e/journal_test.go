package e2e_test

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kafkaserver"
	"github.com/millrace-io/millrace/tests/kit"
)

// TestPythonReadsTheJournal runs the program of docs/guides/reading-the-journal.md: it decodes the
// events of a cart with the proto file and a Kafka client, and sees nothing else.
func TestPythonReadsTheJournal(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		kit.CannotRun(t, "no python3 on the path")
	}
	broker := kafkaserver.Start(t, kafkaserver.Options{}).Addr()
	w := harness.Start(t, harness.Options{
		Program: harness.ShoppingCart, Command: "run", Args: []string{"--app", "shop", "--brokers", broker},
	})
	send := func(method, path, body string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+w.Public()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		answer(t, request)
	}
	send(http.MethodPost, "/v1/carts/42/items", `{"item_id": "apple", "name": "Apple", "quantity": 2}`)
	send(http.MethodDelete, "/v1/carts/42/items/apple", "")
	send(http.MethodPost, "/v1/carts/42:checkout", "{}")

	folder := t.TempDir()
	in(t, folder, python, "-m", "venv", "env")
	python = filepath.Join(folder, "env", "bin", "python")
	in(t, folder, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
		"confluent-kafka==2.16.1", "grpcio-tools==1.76.0")
	root := checkout(t)
	got := in(t, folder, python, filepath.Join(root, "docs", "guides", "cart_events.py"), broker, "shop.journal",
		filepath.Join(root, "examples", "shoppingcart"), filepath.Join(root, "proto"), "shop/v1/cart.proto")
	want := `cart/42 shop.v1.ItemAdded {"item": {"item_id": "apple", "name": "Apple", "quantity": 2}}
cart/42 shop.v1.ItemRemoved {"item_id": "apple"}
cart/42 shop.v1.CheckedOut {}
`
	if got != want {
		t.Errorf("read\n%s\nwant\n%s", got, want)
	}
}
