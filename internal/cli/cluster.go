package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// watchEvery is how often a watched page is shown anew.
const watchEvery = time.Second

func addWatch(cmd *cobra.Command) {
	cmd.Flags().BoolP("watch", "w", false, "show it again every second, until interrupted")
}

// watched runs a command that shows a page, once, or again and again with --watch.
func watched(show func(cmd *cobra.Command, w io.Writer) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		out := cmd.OutOrStdout()
		if again, _ := cmd.Flags().GetBool("watch"); !again {
			return show(cmd, out)
		}
		home := ""
		if isTerminal(out) {
			home = "\x1b[H\x1b[2J" // home, and nothing below
		}
		ticks := time.NewTicker(watchEvery)
		defer ticks.Stop()
		for {
			var page bytes.Buffer
			err := show(cmd, &page)
			if cmd.Context().Err() != nil {
				return nil
			}
			if err != nil {
				fmt.Fprintln(&page, message(err)) // it may come back
			}
			if _, err := fmt.Fprint(out, home, page.String()); err != nil {
				return err
			}
			select {
			case <-ticks.C:
			case <-cmd.Context().Done():
				return nil
			}
		}
	}
}

// clusterGroup is what is about all workers of an app.
func clusterGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cluster", Short: "Look at all workers of the app", Args: exactly(0, "a command: status"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	status := &cobra.Command{
		Use: "status", Short: "Show the workers of the app: what each owns and follows, how far behind it is, its last error",
		Args: exactly(0, "no arguments"), Example: "  millrace cluster status -w",
		RunE: watched(func(cmd *cobra.Command, w io.Writer) error {
			return withCluster(cmd, func(c *adminv1.ClusterResponse) error {
				if !isTerminal(cmd.OutOrStdout()) {
					return printLine(w, c)
				}
				return printCluster(w, c)
			})
		}),
	}
	addClient(status)
	addWatch(status)
	cmd.AddCommand(status)
	return cmd
}

// partitionsCommand shows who has each partition.
func partitionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "partitions", Short: "Show who owns and follows each partition, in what state, how far behind",
		Args: exactly(0, "no arguments"), Example: "  millrace partitions -w",
		RunE: watched(func(cmd *cobra.Command, w io.Writer) error {
			return withCluster(cmd, func(c *adminv1.ClusterResponse) error {
				if !isTerminal(cmd.OutOrStdout()) {
					for _, p := range placements(c) {
						if _, err := fmt.Fprintln(w, p.json()); err != nil {
							return err
						}
					}
					return nil
				}
				return printPlacements(w, placements(c))
			})
		}),
	}
	addClient(cmd)
	addWatch(cmd)
	return cmd
}

// drainCommand has a worker give its partitions away.
func drainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "drain [WORKER]", Short: "Have a worker hand its partitions to the others, before it is stopped",
		Long: `Have a worker hand its partitions to the others, in order: what is under way is finished, callers wait a moment and are
refused nothing. The worker goes on serving by way of the others and owns nothing until it is started again. Without a name
it is the worker at --admin. A worker that gets SIGTERM does the same by itself.`,
		Args:    atMost(1, "at most one worker"),
		Example: "  millrace drain w-1f3a9c02",
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &adminv1.DrainRequest{Worker: strings.Join(args, "")}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				_, err := a.Drain(ctx, r)
				return err
			})
		},
	}
	addClient(cmd)
	return cmd
}

func withCluster(cmd *cobra.Command, use func(*adminv1.ClusterResponse) error) error {
	return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
		c, err := a.Cluster(ctx, &adminv1.ClusterRequest{})
		if err != nil {
			return err
		}
		return use(c)
	})
}

// describeCluster is a process's side towards the workers of its app, in a line.
func describeCluster(c *adminv1.ClusterStatus) string {
	text := fmt.Sprintf("%d workers", c.GetMembers())
	if c.GetPeerAddress() != "" {
		text += ", reached at " + c.GetPeerAddress()
	}
	text += fmt.Sprintf(", %d commands forwarded, %d tried again", c.GetForwardedCommands(), c.GetRetriedCommands())
	if n := c.GetEvictedWorkers(); n > 0 {
		text += fmt.Sprintf(", %d dead workers evicted", n)
	}
	if c.GetDraining() {
		text += ", DRAINED"
	}
	return text
}

func printCluster(w io.Writer, c *adminv1.ClusterResponse) error {
	moving := 0
	for _, p := range c.GetPartitions() {
		if p.GetOwner() == "" {
			moving++
		}
	}
	fmt.Fprintf(w, "app %s: %d workers, %d partitions, %d on the move\n\n", c.GetApp(), len(c.GetMembers()), len(c.GetPartitions()), moving)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WORKER\tPEERS\tPUBLIC\tSTATE\tOWNS\tFOLLOWS\tLAG\tWAITING\tFORWARDED\tUP\tLAST ERROR")
	for _, m := range c.GetMembers() {
		s := m.GetStatus()
		if s == nil {
			fmt.Fprintf(t, "%s\t%s\t\tNOT REACHED\t%d\t\t\t\t\t\t%s\n", m.GetName(), m.GetAddress(), owns(c, m.GetName()), m.GetError())
			continue
		}
		var follows, lag, waiting int64
		last := ""
		for _, p := range s.GetPartitions() {
			if p.GetFollowed() {
				follows++
			}
			lag, waiting = max(lag, p.GetLagRecords()), waiting+p.GetWaitingCommands()
			if text := lastError(p.GetLastErrorTime(), p.GetLastError()); text > last {
				last = text // they begin with their time
			}
		}
		state := "ready"
		if !s.GetReady() {
			state = "NOT READY: " + s.GetNotReadyReason()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", m.GetName(), m.GetAddress(), cmp.Or(m.GetPublicAddress(), s.GetPublicAddress()), state, owns(c, m.GetName()),
			follows, lag, waiting, s.GetCluster().GetForwardedCommands(), ago(s.GetStarted()), last)
	}
	return t.Flush()
}

func owns(c *adminv1.ClusterResponse, worker string) int {
	n := 0
	for _, p := range c.GetPartitions() {
		if p.GetOwner() == worker {
			n++
		}
	}
	return n
}

// placement is a partition as its owner and those who follow it see it.
type placement struct {
	*adminv1.Placement
	owner *adminv1.PartitionStatus
	// lags are those of the standbys, in their order; -1 where one could not be asked.
	lags []int64
}

func placements(c *adminv1.ClusterResponse) []placement {
	pages := map[string]*adminv1.StatusResponse{}
	for _, m := range c.GetMembers() {
		pages[m.GetName()] = m.GetStatus()
	}
	find := func(worker string, partition int32) *adminv1.PartitionStatus {
		all := pages[worker].GetPartitions()
		i := slices.IndexFunc(all, func(p *adminv1.PartitionStatus) bool { return p.GetPartition() == partition })
		if i < 0 {
			return nil
		}
		return all[i]
	}
	list := make([]placement, 0, len(c.GetPartitions()))
	for _, p := range c.GetPartitions() {
		one := placement{Placement: p, owner: find(p.GetOwner(), p.GetPartition())}
		for _, s := range p.GetStandbys() {
			lag := int64(-1)
			if status := find(s, p.GetPartition()); status.GetFollowed() {
				lag = status.GetLagRecords()
			}
			one.lags = append(one.lags, lag)
		}
		list = append(list, one)
	}
	return list
}

func (p placement) json() string {
	return fmt.Sprintf(`{"partition":%d,"owner":%q,"state":%q,"epoch":%d,"nextOffset":"%d","standbys":[%s]}`,
		p.GetPartition(), p.GetOwner(), p.owner.GetState(), p.owner.GetEpoch(), p.owner.GetNextOffset(), strings.Join(p.standbys(`{"worker":%q,"lagRecords":%d}`), ","))
}

func (p placement) standbys(format string) []string {
	texts := make([]string, 0, len(p.lags))
	for i, lag := range p.lags {
		texts = append(texts, fmt.Sprintf(format, p.GetStandbys()[i], lag))
	}
	return texts
}

func printPlacements(w io.Writer, all []placement) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PARTITION\tOWNER\tSTATE\tEPOCH\tNEXT\tSTANDBYS (LAG)\tLAST ERROR")
	for _, p := range all {
		owner, state := p.GetOwner(), p.owner.GetState()
		if owner == "" {
			owner, state = "-", "on the move"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\t%s\t%s\n", p.GetPartition(), owner, state, p.owner.GetEpoch(), strconv.FormatInt(p.owner.GetNextOffset(), 10),
			strings.Join(p.standbys("%s (%d)"), ", "), lastError(p.owner.GetLastErrorTime(), p.owner.GetLastError()))
	}
	return t.Flush()
}
