package cli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/millrace-io/millrace/internal/node"
)

// banner shows what is served, where the data is, what is promised, and three lines to paste.
func banner(ctx context.Context, w io.Writer, command string, n *node.Node) {
	s := n.Status(ctx)
	fmt.Fprintf(w, "millrace %s %s · app %s · worker %s\n\n", command, s.GetVersion(), s.GetApp(), s.GetWorker())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	label := "serves"
	for _, service := range s.GetServices() {
		what := service.GetKind()
		if service.GetEntityType() != "" {
			what += " entity " + service.GetEntityType()
		}
		fmt.Fprintf(t, "  %s\t%s\t%s, %s\n", label, service.GetName(), what, service.GetHosting())
		label = ""
	}
	_ = t.Flush()
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "  public\thttp://%s\tgRPC, gRPC-Web, Connect, HTTP/JSON; plaintext\n", s.GetPublicAddress())
	fmt.Fprintf(t, "  admin\thttp://%s\t/status, /metrics\n", s.GetAdminAddress())
	_ = t.Flush()
	fmt.Fprintf(w, "  log     %s\n", s.GetLog())
	if s.GetDataDirectory() != "" {
		fmt.Fprintf(w, "  data    %s\n", s.GetDataDirectory())
	}
	fmt.Fprintf(w, "  promise %s\n", s.GetDurability())
	if lines := n.Try(invocation()); len(lines) > 0 {
		fmt.Fprint(w, "\ntry:\n")
		for _, line := range lines {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
}
