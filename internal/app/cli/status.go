package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
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
				return outputOf(cmd, w).document(s, cmp.Or(s.GetWorker(), "gateway"),
					func(w io.Writer) error { return printStatus(w, s) })
			})
		}),
	}
	addClient(cmd)
	addOutput(cmd)
	addWatch(cmd)
	return cmd
}

func printStatus(w io.Writer, s *adminv1.StatusResponse) error {
	var rows [][]string
	line := func(label, text string) { rows = append(rows, []string{label, text}) }
	ready := "ready"
	if !s.GetReady() {
		ready = "NOT READY: " + s.GetNotReadyReason()
	}
	line("state", ready)
	for _, warning := range s.GetWarnings() {
		line("WARNING", warning)
	}
	what := "gateway"
	if s.GetWorker() != "" {
		what = "worker " + s.GetWorker()
	}
	line("app", fmt.Sprintf("%s, %s, version %s, up %s", s.GetApp(), what, s.GetVersion(), ago(s.GetStarted())))
	line("log", s.GetLog()+": "+s.GetDurability())
	if c := s.GetCluster(); c != nil {
		line("cluster", describeCluster(c))
	}
	if s.GetDataDirectory() != "" {
		line("data", s.GetDataDirectory())
	}
	line("ports", fmt.Sprintf("public %s, admin %s", s.GetPublicAddress(), s.GetAdminAddress()))
	for _, service := range s.GetServices() {
		line("service", fmt.Sprintf("%s: %s, %s: %s", service.GetName(), kind(service), service.GetHosting(),
			strings.Join(service.GetMethods(), ", ")))
	}
	if err := newTable(w).all(rows); err != nil {
		return err
	}
	return errors.Join(section(w, taskRows(), s.GetTasks()), section(w, partitionRows(), s.GetPartitions()),
		section(w, datasetRows(), s.GetProjections()), section(w, stalenessRows(), s.GetStaleness()))
}

// section prints a table below others; nothing if it has no rows.
func section[T any](w io.Writer, kind kindOf[T], rows []T) error {
	if len(rows) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return printAll(output{w: w, format: formatTable}, kind, rows)
}

// stalenessRows are the promised and measured staleness of reads.
func stalenessRows() kindOf[*adminv1.StalenessStatus] {
	type staleness = *adminv1.StalenessStatus
	recent := func(of func(staleness) string) func(staleness) string {
		return func(s staleness) string {
			if s.GetRecentAnswers() == 0 {
				return ""
			}
			return of(s)
		}
	}
	return kindOf[staleness]{columns: []column[staleness]{
		{"ENTITY TYPE", staleness.GetEntityType},
		{"READS", func(s staleness) string { return cmp.Or(s.GetConsistency(), "-") }},
		{"BY", func(s staleness) string { return cmp.Or(s.GetBy(), "-") }},
		{"ANSWERS", func(s staleness) string { return strconv.FormatUint(s.GetAnswers(), 10) }},
		{"PROMISED", func(s staleness) string {
			if s.PromisedSeconds != nil {
				return "at most " + age(s.GetPromisedSeconds())
			}
			return s.GetPromise()
		}},
		{"RECENT", recent(func(s staleness) string { return strconv.FormatUint(s.GetRecentAnswers(), 10) })},
		{"P99", recent(func(s staleness) string { return age(s.GetP99Seconds()) })},
		{"MAX", recent(func(s staleness) string { return age(s.GetMaxSeconds()) })},
	}}
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

func taskRows() kindOf[*adminv1.TaskStatus] {
	type task = *adminv1.TaskStatus
	return kindOf[task]{columns: []column[task]{
		{"TASK", task.GetName},
		{"STATE", task.GetState},
		{"LAST ERROR", func(t task) string { return lastError(t.GetLastErrorTime(), t.GetLastError()) }},
	}}
}

func partitionRows() kindOf[*adminv1.PartitionStatus] {
	type partition = *adminv1.PartitionStatus
	return kindOf[partition]{columns: []column[partition]{
		{"PARTITION", func(p partition) string { return strconv.Itoa(int(p.GetPartition())) }},
		{"STATE", state},
		{"EPOCH", func(p partition) string { return strconv.FormatUint(p.GetEpoch(), 10) }},
		{"NEXT", func(p partition) string { return strconv.FormatInt(p.GetNextOffset(), 10) }},
		{"LAG", func(p partition) string {
			if p.GetLagSeconds() > 0 {
				return fmt.Sprintf("%d (%.1f s)", p.GetLagRecords(), p.GetLagSeconds())
			}
			return strconv.FormatInt(p.GetLagRecords(), 10)
		}},
		{"ACTIVE", func(p partition) string { return strconv.FormatInt(p.GetActiveEntities(), 10) }},
		{"WAITING", func(p partition) string { return strconv.FormatInt(p.GetWaitingCommands(), 10) }},
		{"EFFECTS", effects},
		{"TIMERS", timers},
		{"VOID", func(p partition) string { return strconv.FormatUint(p.GetVoidRecords(), 10) }},
		{"FOREIGN", func(p partition) string { return strconv.FormatUint(p.GetForeignRecords(), 10) }},
		{"LAST ERROR", func(p partition) string { return lastError(p.GetLastErrorTime(), p.GetLastError()) }},
	}}
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
