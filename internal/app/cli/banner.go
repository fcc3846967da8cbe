package cli

import (
	"context"
	"fmt"
	"io"
	"net"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// banner is what dev and run print at start: addresses and durability, services, commands to try.
type banner struct {
	w       io.Writer
	command string
	node    process
	placed  bool
}

// place prints the addresses, once.
func (b *banner) place(ctx context.Context) {
	if b.placed {
		return
	}
	b.placed = true
	s := b.node.Status(ctx)
	fmt.Fprintf(b.w, "millrace %s %s · app %s", b.command, s.GetVersion(), s.GetApp())
	if s.GetWorker() != "" {
		fmt.Fprintf(b.w, " · worker %s", s.GetWorker())
	}
	fmt.Fprintln(b.w)
	fmt.Fprintf(b.w, "%s\n\n", profile(s))
	line := func(label, text string) { fmt.Fprintf(b.w, "  %-10s %s\n", label, text) }
	line("public", "http://"+s.GetPublicAddress()+"  gRPC, gRPC-Web, Connect, HTTP/JSON")
	line("admin", "http://"+s.GetAdminAddress()+"  /status, /metrics")
	if peers := s.GetCluster().GetPeerAddress(); peers != "" {
		line("peers", peers+"  for the other workers of the app")
	}
	line("log", s.GetLog())
	if s.GetDataDirectory() != "" {
		line("data", s.GetDataDirectory())
	}
	line("durability", s.GetDurability())
}

// services prints what is served, and commands to try.
func (b *banner) services(ctx context.Context) {
	fmt.Fprint(b.w, "\nserves:\n")
	var rows [][]string
	for _, service := range b.node.Status(ctx).GetServices() {
		rows = append(rows, []string{"  " + service.GetName(), kind(service) + ", " + service.GetHosting()})
	}
	_ = newTable(b.w).all(rows)
	fmt.Fprint(b.w, "\ntry:\n")
	for _, line := range b.node.Try(invocation()) {
		fmt.Fprintf(b.w, "  %s\n", line)
	}
}

// profile returns who can access this process.
func profile(s *adminv1.StatusResponse) string {
	for _, address := range []string{s.GetPublicAddress(), s.GetAdminAddress(), s.GetCluster().GetPeerAddress()} {
		if address != "" && !isLoopback(address) {
			return "WARNING: no authentication, plaintext: anyone who can reach " + address + " can read and change all data"
		}
	}
	return "no authentication, plaintext, loopback only"
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && net.ParseIP(host).IsLoopback()
}
