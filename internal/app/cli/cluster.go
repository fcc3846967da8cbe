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
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/internal/plural"
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
				fmt.Fprintln(&page, inOwnName(message(err), cmd.Root().Name())) // it may be transient
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
				return printCluster(outputOf(cmd, w), c)
			})
		}),
	}
	addClient(status)
	addOutput(status)
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
				return printAll(outputOf(cmd, w), placementRows(), placements(c))
			})
		}),
	}
	addClient(cmd)
	addOutput(cmd)
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
				if err := confirm(cmd, plan, "it takes none until it is restarted"); err != nil {
					return err
				}
			}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				if _, err := a.Drain(ctx, r); err != nil {
					return err
				}
				return printf(cmd.ErrOrStderr(),
					"%s is drained: it owns no partitions and forwards calls; stop it, or restart it to take partitions again\n",
					r.GetWorker())
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

// confirm asks the user to confirm a plan with its consequence. Without a terminal it is refused.
func confirm(cmd *cobra.Command, plan, consequence string) error {
	if !isTerminal(cmd.OutOrStdout()) {
		return usagef("this would %s: confirm with --yes", plan)
	}
	if err := printf(cmd.OutOrStdout(), "%s\n%s; continue? [y/N] ", plan, consequence); err != nil {
		return err
	}
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
	text := plural.Of(c.GetMembers(), "worker")
	if c.GetPeerAddress() != "" {
		text += ", reached at " + c.GetPeerAddress()
	}
	text += fmt.Sprintf(", %s forwarded, %d retried", plural.Of(c.GetForwardedCommands(), "command"),
		c.GetRetriedCommands())
	if n := c.GetEvictedWorkers(); n > 0 {
		text += fmt.Sprintf(", %s evicted", plural.Of(n, "dead worker"))
	}
	switch {
	case c.GetDrained():
		text += ", DRAINED: owns no partitions, forwards calls"
	case c.GetDraining():
		text += ", DRAINING: its partitions are moving to other workers"
	}
	return text
}

func printCluster(o output, c *adminv1.ClusterResponse) error {
	rows := make([]*workerRow, 0, len(c.GetMembers()))
	for _, m := range c.GetMembers() {
		rows = append(rows, newWorkerRow(c, m))
	}
	if o.format != formatTable {
		return printAll(o, workerRows(), rows)
	}
	moving := 0
	for _, p := range c.GetPartitions() {
		if p.GetOwner() == "" {
			moving++
		}
	}
	if err := printf(o.w, "app %s: %s, %s, %d moving\n", c.GetApp(), plural.Of(len(c.GetMembers()), "worker"),
		plural.Of(len(c.GetPartitions()), "partition"), moving); err != nil {
		return err
	}
	if err := printVersions(o.w, c); err != nil {
		return err
	}
	return section(o.w, workerRows(), rows)
}

// workerRow is a worker of the app.
type workerRow struct {
	Worker string `json:"worker"`
	Peers  string `json:"peerAddress"`
	Public string `json:"publicAddress"`
	Serves string `json:"serves"`
	// Unreachable says why its status page could not be read; what follows is known from that page.
	Unreachable string   `json:"unreachable,omitempty"`
	Owns        int      `json:"owns"`
	Ready       bool     `json:"ready"`
	NotReady    string   `json:"notReadyReason,omitempty"`
	Warnings    []string `json:"warnings,omitempty"`
	Follows     int64    `json:"follows"`
	Lag         int64    `json:"lagRecords"`
	Waiting     int64    `json:"waitingCommands"`
	Forwarded   uint64   `json:"forwardedCommands"`
	Started     string   `json:"started,omitempty"`
	LastError   string   `json:"lastError,omitempty"`

	page *adminv1.StatusResponse
}

func newWorkerRow(c *adminv1.ClusterResponse, m *adminv1.Member) *workerRow {
	s := m.GetStatus()
	row := &workerRow{
		Worker: m.GetName(), Peers: m.GetAddress(), Public: cmp.Or(m.GetPublicAddress(), s.GetPublicAddress()),
		Serves: m.GetServes(), Owns: owns(c, m.GetName()), page: s,
	}
	if s == nil {
		row.Unreachable = cmp.Or(m.GetError(), "no answer")
		return row
	}
	row.Ready, row.NotReady, row.Warnings = s.GetReady(), s.GetNotReadyReason(), s.GetWarnings()
	row.Forwarded = s.GetCluster().GetForwardedCommands()
	if s.GetStarted() != nil {
		row.Started = s.GetStarted().AsTime().Format(time.RFC3339Nano)
	}
	for _, p := range s.GetPartitions() {
		if p.GetFollowed() {
			row.Follows++
		}
		row.Lag, row.Waiting = max(row.Lag, p.GetLagRecords()), row.Waiting+p.GetWaitingCommands()
		row.LastError = max(row.LastError, lastError(p.GetLastErrorTime(), p.GetLastError())) // errors begin with their time
	}
	return row
}

func (r *workerRow) state() string {
	state := "ready"
	switch {
	case r.page == nil:
		return "NOT REACHED"
	case !r.Ready:
		state = "NOT READY: " + r.NotReady
	}
	if n := len(r.Warnings); n > 0 {
		state += ", " + plural.Of(n, "warning")
	}
	return state
}

// workerRows are the workers of an app.
func workerRows() kindOf[*workerRow] {
	// known is a column that only the status page knows.
	known := func(of func(*workerRow) string) func(*workerRow) string {
		return func(r *workerRow) string {
			if r.page == nil {
				return ""
			}
			return of(r)
		}
	}
	return kindOf[*workerRow]{
		columns: []column[*workerRow]{
			{"WORKER", func(r *workerRow) string { return r.Worker }},
			{"PEERS", func(r *workerRow) string { return r.Peers }},
			{"PUBLIC", func(r *workerRow) string { return r.Public }},
			{"SERVES", servesOf},
			{"STATE", (*workerRow).state},
			{"OWNS", func(r *workerRow) string { return strconv.Itoa(r.Owns) }},
			{"FOLLOWS", known(func(r *workerRow) string { return strconv.FormatInt(r.Follows, 10) })},
			{"LAG", known(func(r *workerRow) string { return strconv.FormatInt(r.Lag, 10) })},
			{"WAITING", known(func(r *workerRow) string { return strconv.FormatInt(r.Waiting, 10) })},
			{"FORWARDED", known(func(r *workerRow) string { return strconv.FormatUint(r.Forwarded, 10) })},
			{"UP", known(func(r *workerRow) string { return ago(r.page.GetStarted()) })},
			{"LAST ERROR", func(r *workerRow) string { return cmp.Or(r.Unreachable, r.LastError) }},
		},
		name: func(r *workerRow) string { return r.Worker },
	}
}

// printVersions prints the services and methods that only some workers serve.
func printVersions(w io.Writer, c *adminv1.ClusterResponse) error {
	if c.GetVersions() < 2 {
		return nil
	}
	if err := printf(w, "rolling upgrade: the workers serve %s\n", plural.Of(c.GetVersions(), "version")); err != nil {
		return err
	}
	for _, p := range c.GetPartlyServed() {
		what := p.GetService()
		if p.GetMethod() != "" {
			what += "/" + p.GetMethod()
		}
		if err := printf(w, "  %d of %s serve %s; not %s\n", p.GetWorkers(), plural.Of(p.GetOfWorkers(), "worker"), what,
			strings.Join(p.GetMissing(), ", ")); err != nil {
			return err
		}
	}
	return nil
}

// servesOf returns a prefix of the hash of what a worker serves.
func servesOf(r *workerRow) string {
	const enough = 8
	return cmp.Or(r.Serves[:min(len(r.Serves), enough)], "-")
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

// placementRows are the partitions of an app.
func placementRows() kindOf[placement] {
	type standby struct {
		Worker string `json:"worker"`
		Lag    int64  `json:"lagRecords"`
	}
	type document struct {
		Partition int32     `json:"partition"`
		Owner     string    `json:"owner"`
		State     string    `json:"state"`
		Epoch     uint64    `json:"epoch"`
		Next      int64     `json:"nextOffset"`
		Standbys  []standby `json:"standbys"`
		LastError string    `json:"lastError,omitempty"`
	}
	standbys := func(p placement) []standby {
		all := make([]standby, 0, len(p.lags))
		for i, lag := range p.lags {
			all = append(all, standby{p.GetStandbys()[i], lag})
		}
		return all
	}
	number := func(p placement) string { return strconv.Itoa(int(p.GetPartition())) }
	last := func(p placement) string { return lastError(p.owner.GetLastErrorTime(), p.owner.GetLastError()) }
	return kindOf[placement]{
		columns: []column[placement]{
			{"PARTITION", number},
			{"OWNER", func(p placement) string { return cmp.Or(p.GetOwner(), "-") }},
			{"STATE", func(p placement) string {
				if p.GetOwner() == "" {
					return "moving"
				}
				return p.owner.GetState()
			}},
			{"EPOCH", func(p placement) string { return strconv.FormatUint(p.owner.GetEpoch(), 10) }},
			{"NEXT", func(p placement) string { return strconv.FormatInt(p.owner.GetNextOffset(), 10) }},
			{"STANDBYS (LAG)", func(p placement) string {
				var texts []string
				for _, s := range standbys(p) {
					texts = append(texts, fmt.Sprintf("%s (%d)", s.Worker, s.Lag))
				}
				return strings.Join(texts, ", ")
			}},
			{"LAST ERROR", last},
		},
		name: number,
		document: func(p placement) any {
			return document{
				Partition: p.GetPartition(), Owner: p.GetOwner(), State: p.owner.GetState(), Epoch: p.owner.GetEpoch(),
				Next: p.owner.GetNextOffset(), Standbys: standbys(p), LastError: last(p),
			}
		},
	}
}
