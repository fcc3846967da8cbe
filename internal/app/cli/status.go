package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show the status of a running process", Args: exactly(0, "no arguments"),
		Example: "  millrace status\n  millrace status -w",
		RunE: watched(func(cmd *cobra.Command, w io.Writer) error {
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				s, err := a.Status(ctx, &adminv1.StatusRequest{})
				if err != nil {
					return err
				}
				if !isTerminal(cmd.OutOrStdout()) {
					return printLine(w, s)
				}
				return printStatus(w, s)
			})
		}),
	}
	addClient(cmd)
	addWatch(cmd)
	return cmd
}

func printStatus(w io.Writer, s *adminv1.StatusResponse) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	ready := "ready"
	if !s.GetReady() {
		ready = "NOT READY: " + s.GetNotReadyReason()
	}
	fmt.Fprintf(t, "state\t%s\n", ready)
	for _, warning := range s.GetWarnings() {
		fmt.Fprintf(t, "WARNING\t%s\n", warning)
	}
	what := "gateway"
	if s.GetWorker() != "" {
		what = "worker " + s.GetWorker()
	}
	fmt.Fprintf(t, "app\t%s, %s, version %s, up %s\n", s.GetApp(), what, s.GetVersion(), ago(s.GetStarted()))
	fmt.Fprintf(t, "log\t%s: %s\n", s.GetLog(), s.GetDurability())
	if c := s.GetCluster(); c != nil {
		fmt.Fprintf(t, "cluster\t%s\n", describeCluster(c))
	}
	if s.GetDataDirectory() != "" {
		fmt.Fprintf(t, "data\t%s\n", s.GetDataDirectory())
	}
	fmt.Fprintf(t, "ports\tpublic %s, admin %s\n", s.GetPublicAddress(), s.GetAdminAddress())
	for _, service := range s.GetServices() {
		fmt.Fprintf(t, "service\t%s: %s, %s: %s\n", service.GetName(), kind(service), service.GetHosting(),
			strings.Join(service.GetMethods(), ", "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return errors.Join(printTasks(w, s.GetTasks()), printPartitions(w, s.GetPartitions()),
		printStaleness(w, s.GetStaleness()))
}

// printStaleness prints the promised and measured staleness of reads.
func printStaleness(w io.Writer, all []*adminv1.StalenessStatus) error {
	if len(all) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nENTITY TYPE\tREADS\tBY\tANSWERS\tPROMISED\tRECENT\tP99\tMAX")
	for _, s := range all {
		promise := s.GetPromise()
		if s.PromisedSeconds != nil {
			promise = "at most " + age(s.GetPromisedSeconds())
		}
		row := fmt.Sprintf("%s\t%s\t%s\t%d\t%s", s.GetEntityType(), cmp.Or(s.GetConsistency(), "-"),
			cmp.Or(s.GetBy(), "-"), s.GetAnswers(), promise)
		if s.GetRecentAnswers() > 0 {
			row += fmt.Sprintf("\t%d\t%s\t%s", s.GetRecentAnswers(), age(s.GetP99Seconds()), age(s.GetMaxSeconds()))
		}
		fmt.Fprintln(t, row)
	}
	return t.Flush()
}

// age formats a time of milliseconds to hours.
func age(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	default:
		return d.Round(10 * time.Microsecond).String()
	}
}

// kind returns what a service is: an action, or entities of a kind and type.
func kind(s *adminv1.ServiceStatus) string {
	if s.GetEntityType() == "" {
		return s.GetKind()
	}
	return s.GetKind() + " entity " + s.GetEntityType()
}

func printTasks(w io.Writer, tasks []*adminv1.TaskStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nTASK\tSTATE\tLAST ERROR")
	for _, task := range tasks {
		fmt.Fprintf(t, "%s\t%s\t%s\n", task.GetName(), task.GetState(),
			lastError(task.GetLastErrorTime(), task.GetLastError()))
	}
	return t.Flush()
}

func printPartitions(w io.Writer, partitions []*adminv1.PartitionStatus) error {
	if len(partitions) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nPARTITION\tSTATE\tEPOCH\tNEXT\tLAG\tACTIVE\tWAITING\tEFFECTS\tTIMERS\tSTALE\tFOREIGN\tLAST ERROR")
	for _, p := range partitions {
		lag := strconv.FormatInt(p.GetLagRecords(), 10)
		if p.GetLagSeconds() > 0 {
			lag += fmt.Sprintf(" (%.1f s)", p.GetLagSeconds())
		}
		fmt.Fprintf(t, "%d\t%s\t%d\t%d\t%s\t%d\t%d\t%s\t%s\t%d\t%d\t%s\n", p.GetPartition(), state(p), p.GetEpoch(),
			p.GetNextOffset(), lag,
			p.GetActiveEntities(), p.GetWaitingCommands(), effects(p), timers(p), p.GetStaleRecords(), p.GetForeignRecords(),
			lastError(p.GetLastErrorTime(), p.GetLastError()))
	}
	return t.Flush()
}

// state returns the state of a partition, and whether this worker follows it.
func state(p *adminv1.PartitionStatus) string {
	if p.GetFollowed() {
		return p.GetState() + ", following"
	}
	return p.GetState()
}

// effects returns the number of open effects, and of parked ones among them.
func effects(p *adminv1.PartitionStatus) string {
	text := atLeast(p.GetOpenEffects(), p.GetMoreEffects())
	if p.GetParked() > 0 {
		text += fmt.Sprintf(" (%d parked)", p.GetParked())
	}
	return text
}

func timers(p *adminv1.PartitionStatus) string {
	text := atLeast(p.GetTimers(), p.GetMoreTimers())
	if p.GetOverdueSeconds() > 1 {
		text += fmt.Sprintf(" (%.0f s late)", p.GetOverdueSeconds())
	}
	return text
}

func atLeast(n int64, more bool) string {
	if more {
		return fmt.Sprintf("%d+", n)
	}
	return strconv.FormatInt(n, 10)
}

// lastError returns an error with its time; empty if there was none.
func lastError(at *timestamppb.Timestamp, text string) string {
	if text == "" {
		return ""
	}
	return strings.TrimSpace(when(at) + " " + text)
}
