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

// watchEvery is how often --watch repeats.
const watchEvery = time.Second

func addWatch(cmd *cobra.Command) {
	cmd.Flags().BoolP("watch", "w", false, "repeat every second until interrupted")
}

// watched runs a command that prints a page, once, or repeatedly with --watch.
func watched(show func(cmd *cobra.Command, w io.Writer) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		out := cmd.OutOrStdout()
		if again, _ := cmd.Flags().GetBool("watch"); !again {
			return show(cmd, out)
		}
		home := ""
		if isTerminal(out) {
			home = "\x1b[H\x1b[2J" // cursor home, clear the screen
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
				fmt.Fprintln(&page, message(err)) // it may be transient
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

// clusterGroup has the commands about all workers of an app.
func clusterGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cluster", Short: "Show the workers of the app", Args: exactly(0, "a command: status"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	status := &cobra.Command{
		Use: "status", Short: "Show the workers of the app: partitions owned and followed, lag, last error",
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

// partitionsCommand shows the owner and the standbys of each partition.
func partitionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "partitions", Short: "Show the owner, standbys, state and lag of each partition",
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

// drainCommand moves all partitions off a worker.
func drainCommand() *cobra.Command {
	var yes, last bool
	cmd := &cobra.Command{
		Use: "drain [WORKER]", Short: "Move all partitions off a worker before maintenance",
		Long: `Move all partitions off a worker before maintenance. In-flight calls finish; callers see a short pause and no
errors. The worker then forwards calls to the others and owns no partitions until it is restarted. Without a name it
is the worker at --admin. It asks for confirmation; without a terminal, --yes is required. The last worker of an app
is drained only with --last. A worker that gets SIGTERM drains itself.`,
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
				_, err := fmt.Fprintf(cmd.ErrOrStderr(),
					"%s is drained: it owns no partitions and forwards calls; stop it, or restart it to take partitions again\n",
					r.GetWorker())
				return err
			})
		},
	}
	addClient(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	cmd.Flags().BoolVar(&last, "last", false,
		"drain it even if it is the last worker of the app: its partitions then have no owner, and calls fail")
	return cmd
}

// planDrain sets the worker in the request if it has none, and returns what will happen; "" if
// there is nothing to confirm.
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
			return "", usagef("a gateway owns no partitions: name the worker to drain")
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
		return "", nil // the worker refuses it with a reason
	case len(others) == 0:
		to = "to no worker: it is the last one"
	}
	return fmt.Sprintf("drain worker %s of app %s: %d of %d partitions go %s", r.GetWorker(), c.GetApp(),
		owns(c, r.GetWorker()), len(c.GetPartitions()), to), nil
}

// confirm asks the user to confirm a plan. Without a terminal it is refused.
func confirm(cmd *cobra.Command, plan string) error {
	if !isTerminal(cmd.OutOrStdout()) {
		return usagef("this would %s: confirm with --yes", plan)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s\nit takes none until it is restarted; continue? [y/N] ", plan)
	answer, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), maxAnswer)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	default:
		return errors.New("cancelled: nothing was changed")
	}
}

// maxAnswer bounds the answer that is read.
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

// describeCluster returns one line about a process's connections to the workers of its app.
func describeCluster(c *adminv1.ClusterStatus) string {
	text := fmt.Sprintf("%d workers", c.GetMembers())
	if c.GetPeerAddress() != "" {
		text += ", reached at " + c.GetPeerAddress()
	}
	text += fmt.Sprintf(", %d commands forwarded, %d retried", c.GetForwardedCommands(), c.GetRetriedCommands())
	if n := c.GetEvictedWorkers(); n > 0 {
		text += fmt.Sprintf(", %d dead workers evicted", n)
	}
	switch {
	case c.GetDrained():
		text += ", DRAINED: owns no partitions, forwards calls"
	case c.GetDraining():
		text += ", DRAINING: its partitions are moving to other workers"
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
	fmt.Fprintf(w, "app %s: %d workers, %d partitions, %d moving\n", c.GetApp(), len(c.GetMembers()),
		len(c.GetPartitions()), moving)
	printVersions(w, c)
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WORKER\tPEERS\tPUBLIC\tSERVES\tSTATE\tOWNS\tFOLLOWS\tLAG\tWAITING\tFORWARDED\tUP\tLAST ERROR")
	for _, m := range c.GetMembers() {
		s := m.GetStatus()
		if s == nil {
			fmt.Fprintf(t, "%s\t%s\t\t%s\tNOT REACHED\t%d\t\t\t\t\t\t%s\n", m.GetName(), m.GetAddress(), servesOf(m),
				owns(c, m.GetName()), m.GetError())
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
				last = text // errors begin with their time
			}
		}
		state := "ready"
		if !s.GetReady() {
			state = "NOT READY: " + s.GetNotReadyReason()
		}
		if n := len(s.GetWarnings()); n > 0 {
			state += fmt.Sprintf(", warnings: %d", n)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", m.GetName(), m.GetAddress(),
			cmp.Or(m.GetPublicAddress(), s.GetPublicAddress()), servesOf(m), state, owns(c, m.GetName()),
			follows, lag, waiting, s.GetCluster().GetForwardedCommands(), ago(s.GetStarted()), last)
	}
	return t.Flush()
}

// printVersions prints the services and methods that only some workers serve.
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
		fmt.Fprintf(w, "  %d of %d workers serve %s; not %s\n", p.GetWorkers(), p.GetOfWorkers(), what,
			strings.Join(p.GetMissing(), ", "))
	}
}

// servesOf returns a prefix of the hash of what a worker serves.
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

// placement is a partition as seen by its owner and followers.
type placement struct {
	*adminv1.Placement
	owner *adminv1.PartitionStatus
	// lags are those of the standbys, in their order; -1 if one could not be reached.
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
		p.GetPartition(), p.GetOwner(), p.owner.GetState(), p.owner.GetEpoch(), p.owner.GetNextOffset(),
		strings.Join(p.standbys(`{"worker":%q,"lagRecords":%d}`), ","))
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
		fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\t%s\t%s\n", p.GetPartition(), owner, state, p.owner.GetEpoch(),
			strconv.FormatInt(p.owner.GetNextOffset(), 10),
			strings.Join(p.standbys("%s (%d)"), ", "), lastError(p.owner.GetLastErrorTime(), p.owner.GetLastError()))
	}
	return t.Flush()
}
