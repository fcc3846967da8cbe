package millrace

import (
	"fmt"
	"os"

	"github.com/millrace-io/millrace/internal/cli"
	"github.com/millrace-io/millrace/internal/inprocess"
	"github.com/millrace-io/millrace/sdk"
)

// Main is a whole program: a worker that hosts the services in its own process, with all of millrace's commands. Without a
// command it is `dev`. Services that are not well built are reported, all at once, and the program ends.
func Main(services ...*sdk.Service) {
	function, err := inprocess.New(services...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cli.Main(cli.Program{Local: function, Default: "dev"})
}

// Tool is the program millrace itself: it hosts remote functions, and examples when `dev` is given no function.
func Tool(examples ...*sdk.Service) {
	function, err := inprocess.New(examples...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cli.Main(cli.Program{Examples: function})
}
