package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show what a running process does", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				s, err := a.Status(ctx, &adminv1.StatusRequest{})
				if err != nil {
					return err
				}
				w := cmd.OutOrStdout()
				if !isTerminal(w) {
					return printLine(w, s)
				}
				return printStatus(w, s)
			})
		},
	}
	addClient(cmd)
	return cmd
}

func printStatus(w io.Writer, s *adminv1.StatusResponse) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	ready := "ready"
	if !s.GetReady() {
		ready = "NOT READY: " + s.GetNotReadyReason()
	}
	fmt.Fprintf(t, "state\t%s\n", ready)
	fmt.Fprintf(t, "app\t%s, worker %s, version %s, up %s\n", s.GetApp(), s.GetWorker(), s.GetVersion(), ago(s.GetStarted()))
	fmt.Fprintf(t, "log\t%s: %s\n", s.GetLog(), s.GetDurability())
	fmt.Fprintf(t, "data\t%s\n", s.GetDataDirectory())
	fmt.Fprintf(t, "ports\tpublic %s, admin %s\n", s.GetPublicAddress(), s.GetAdminAddress())
	for _, service := range s.GetServices() {
		fmt.Fprintf(t, "service\t%s: %s %s, %s: %s\n", service.GetName(), service.GetKind(), service.GetEntityType(), service.GetHosting(), strings.Join(service.GetMethods(), ", "))
	}
	for _, task := range s.GetTasks() {
		fmt.Fprintf(t, "task\t%s: %s %s\n", task.GetName(), task.GetState(), task.GetLastError())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nPARTITION\tSTATE\tEPOCH\tNEXT\tLAG\tACTIVE\tWAITING\tSTALE\tFOREIGN\tLAST ERROR")
	for _, p := range s.GetPartitions() {
		fmt.Fprintf(t, "%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", p.GetPartition(), p.GetState(), p.GetEpoch(), p.GetNextOffset(), p.GetLagRecords(),
			p.GetActiveEntities(), p.GetWaitingCommands(), p.GetStaleRecords(), p.GetForeignRecords(), p.GetLastError())
	}
	return t.Flush()
}
