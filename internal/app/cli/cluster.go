package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
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
	var yes, last bool
	cmd := &cobra.Command{
		Use: "drain [WORKER]", Short: "Move all partitions off a worker before maintenance",
		Long: `Have a worker hand its partitions to the others, in order: what is under way is finished, callers wait a moment and are
refused nothing. The worker goes on serving by way of the others and owns nothing until it is started again. Without a name
it is the worker at --admin. It is named and asked about first; where nobody can be asked, --yes says so. The last worker of an app is
drained with --last only. A worker that gets SIGTERM does the same by itself.`,
		Args:    atMost(1, "at most one worker"),
		Example: "  millrace drain w-1f3a9c02\n  millrace drain w-1f3a9c02 --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &adminv1.DrainRequest{Worker: strings.Join(args, ""), Last: last}
			var plan string
			err := admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) (err error) {
				plan, err = planDrain(ctx, a, r)
				return err
			})
			if err != nil {
				return err
			}
			if !yes && plan != "" {
				if err := confirm(cmd, plan); err != nil {
					return err
				}
			}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				if _, err := a.Drain(ctx, r); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.ErrOrStderr(), "%s is drained: owns nothing, sends commands on to others; stop it, or start it again to take partitions\n", r.GetWorker())
				return err
			})
		},
	}
	addClient(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do it without asking")
	cmd.Flags().BoolVar(&last, "last", false, "also when it is the last worker of the app: no worker owns its partitions then, and calls fail")
	return cmd
}

// planDrain names the worker in the request, if that does not, and returns what draining it means; "" where there is nothing to ask.
func planDrain(ctx context.Context, a adminv1.AdminServiceClient, r *adminv1.DrainRequest) (string, error) {
	c, err := a.Cluster(ctx, &adminv1.ClusterRequest{})
	if err != nil {
		return "", err
	}
	if r.GetWorker() == "" {
		page, err := a.Status(ctx, &adminv1.StatusRequest{})
		if err != nil {
			return "", err
		}
		if r.Worker = page.GetWorker(); r.GetWorker() == "" {
			return "", usagef("a gateway owns nothing: name the worker that is to hand its partitions over")
		}
	}
	var others []string
	for _, m := range c.GetMembers() {
		if m.GetName() != r.GetWorker() {
			others = append(others, m.GetName())
		}
	}
	to := "to " + strings.Join(others, ", ")
	switch {
	case len(others) == 0 && !r.GetLast():
		return "", nil // the worker refuses it, and says why
	case len(others) == 0:
		to = "to no worker, for it is the last one"
	}
	return fmt.Sprintf("drain worker %s of app %s: %d of %d partitions go %s", r.GetWorker(), c.GetApp(), owns(c, r.GetWorker()), len(c.GetPartitions()), to), nil
}

// confirm asks whether to do what is planned. Where nobody can be asked, that is not done.
func confirm(cmd *cobra.Command, plan string) error {
	if !isTerminal(cmd.OutOrStdout()) {
		return usagef("this would %s: say --yes to do it", plan)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s\nit takes none until it is started again; do it? [y/N] ", plan)
	answer, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), maxAnswer)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	default:
		return errors.New("nothing was done")
	}
}

// maxAnswer bounds what is read for a yes or a no.
const maxAnswer = 64

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
	switch {
	case c.GetDrained():
		text += ", DRAINED: owns nothing, sends commands on to others"
	case c.GetDraining():
		text += ", DRAINING: its partitions go to others"
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
	fmt.Fprintf(w, "app %s: %d workers, %d partitions, %d being moved\n", c.GetApp(), len(c.GetMembers()), len(c.GetPartitions()), moving)
	printVersions(w, c)
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WORKER\tPEERS\tPUBLIC\tSERVES\tSTATE\tOWNS\tFOLLOWS\tLAG\tWAITING\tFORWARDED\tUP\tLAST ERROR")
	for _, m := range c.GetMembers() {
		s := m.GetStatus()
		if s == nil {
			fmt.Fprintf(t, "%s\t%s\t\t%s\tNOT REACHED\t%d\t\t\t\t\t\t%s\n", m.GetName(), m.GetAddress(), servesOf(m), owns(c, m.GetName()), m.GetError())
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
		if n := len(s.GetWarnings()); n > 0 {
			state += fmt.Sprintf(", warnings: %d", n)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", m.GetName(), m.GetAddress(), cmp.Or(m.GetPublicAddress(), s.GetPublicAddress()), servesOf(m), state, owns(c, m.GetName()),
			follows, lag, waiting, s.GetCluster().GetForwardedCommands(), ago(s.GetStarted()), last)
	}
	return t.Flush()
}

// printVersions says what the workers do not serve alike.
func printVersions(w io.Writer, c *adminv1.ClusterResponse) {
	if c.GetVersions() < 2 {
		return
	}
	fmt.Fprintf(w, "rolling upgrade: the workers serve %d versions\n", c.GetVersions())
	for _, p := range c.GetPartlyServed() {
		what := p.GetService()
		if p.GetMethod() != "" {
			what += "/" + p.GetMethod()
		}
		fmt.Fprintf(w, "  %d of %d workers serve %s; not %s\n", p.GetWorkers(), p.GetOfWorkers(), what, strings.Join(p.GetMissing(), ", "))
	}
}

// servesOf is the hash of what a worker serves, as short as it is told apart.
func servesOf(m *adminv1.Member) string {
	const enough = 8
	return cmp.Or(m.GetServes()[:min(len(m.GetServes()), enough)], "-")
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
			owner, state = "-", "moving"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\t%s\t%s\n", p.GetPartition(), owner, state, p.owner.GetEpoch(), strconv.FormatInt(p.owner.GetNextOffset(), 10),
			strings.Join(p.standbys("%s (%d)"), ", "), lastError(p.owner.GetLastErrorTime(), p.owner.GetLastError()))
	}
	return t.Flush()
}
