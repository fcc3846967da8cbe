package millrace

import (
	"embed"
	"fmt"
	"os"

	"github.com/millrace-io/millrace/internal/app/cli"
	"github.com/millrace-io/millrace/internal/app/inprocess"
	"github.com/millrace-io/millrace/sdk"
)

// Main is a whole program: a worker that hosts the services in its own process, with all of
// millrace's commands. Without a command it is `dev`. Services that are not well built are
// reported, all at once, and the program ends.
func Main(services ...*sdk.Service) { App("").Main(services...) }

// App is the name of an app, which its workers find each other by and its topics are called after:
// small letters, digits, '.', '_' and '-', at most 100. On Kafka an app must have one; a program
// that says its own needs no setting:
//
//	func main() { millrace.App("shop").Main(cart.Service) }
//
// The settings win over it: flag --app, MILLRACE_APP, the configuration file.
type App string

// Main is the package's Main for an app of this name.
func (a App) Main(services ...*sdk.Service) {
	function, err := inprocess.New(services...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cli.Main(cli.Program{Local: function, Default: "dev", App: string(a)})
}

// source is what the modules that Tool writes require.
//
//go:embed go.mod go.sum
var source embed.FS

// Tool is the program millrace itself: it hosts remote functions, and examples when `dev` is given
// no function.
func Tool(examples ...*sdk.Service) {
	function, err := inprocess.New(examples...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cli.Main(cli.Program{Examples: function, Source: source})
}
