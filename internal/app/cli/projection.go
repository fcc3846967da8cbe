package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// projectionKind is the kind of definition that these commands are about.
const projectionKind = "Projection"

// projectionGroup has the commands about projections.
func projectionGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "projection", Short: "Show and operate projections", Args: exactly(0, "a command, as in list"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(projectionList(), projectionStatus(), projectionPromote(), projectionRollback(), projectionDrop(),
		projectionRebuild(), projectionPause(), projectionResume())
	return cmd
}

// projectionList lists projections with the state of their rows.
func projectionList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the versions of projections, and how their rows stand", Args: exactly(0, "no arguments"),
		Long: `List the versions of projections that are applied and not dropped, and how their rows stand on all workers. A
partition is live if it is so on at least one worker.`,
		Example: "  millrace projection list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withProjections(cmd, func(p *projectionPages) error {
				o := outputOf(cmd, cmd.OutOrStdout())
				if len(p.versions) == 0 && o.format == formatTable {
					return printf(cmd.ErrOrStderr(), "no projections are applied\n")
				}
				return printAll(o, projectionRows(), p.rows())
			})
		},
	}
	addClient(cmd)
	addOutput(cmd)
	return cmd
}

// projectionStatus shows the rows of projections by partition and worker.
func projectionStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status [NAME]", Short: "Show the rows of projections in each partition and on each worker",
		Long: `Show the rows of projections, or of one, in each partition and on each worker: state, position in the log, lag, parked
entities, and the last error. Versions that share their rows have one line.`,
		Example: "  millrace projection status -w\n  millrace projection status orders",
		Args:    atMost(1, "at most one projection"),
		RunE: watched(func(cmd *cobra.Command, w io.Writer) error {
			name := strings.Join(cmd.Flags().Args(), "")
			return withProjections(cmd, func(p *projectionPages) error {
				if isOf := func(v *adminv1.AppliedVersion) bool { return v.GetName() == name }; name != "" &&
					!slices.ContainsFunc(p.versions, isOf) {
					return status.Errorf(codes.NotFound, "projection %s is not applied; see `millrace projection list`", name)
				}
				return printAll(outputOf(cmd, w), p.replicaRows(), p.replicas(name))
			})
		}),
	}
	addClient(cmd)
	addOutput(cmd)
	addWatch(cmd)
	return cmd
}

// projectionPages are what the definitions and all workers say of projections.
type projectionPages struct {
	versions   []*adminv1.AppliedVersion
	members    []*adminv1.Member
	partitions int
}

// withProjections asks for what is applied, and all workers for their rows.
func withProjections(cmd *cobra.Command, use func(*projectionPages) error) error {
	return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
		applied, err := a.ListDefinitions(ctx, &adminv1.ListDefinitionsRequest{})
		if err != nil {
			return err
		}
		cluster, err := a.Cluster(ctx, &adminv1.ClusterRequest{})
		if err != nil {
			return err
		}
		for _, m := range cluster.GetMembers() {
			if m.GetStatus() == nil {
				if err := printf(cmd.ErrOrStderr(), "worker %s is left out: %s\n", m.GetName(), m.GetError()); err != nil {
					return err
				}
			}
		}
		p := &projectionPages{members: cluster.GetMembers(), partitions: len(cluster.GetPartitions())}
		for _, v := range applied.GetVersions() {
			if v.GetDataset() != 0 { // a kind without rows has none
				p.versions = append(p.versions, v)
			}
		}
		return use(p)
	})
}

// replicaRow are the rows of a dataset in one partition on one worker.
type replicaRow struct {
	worker string
	*adminv1.ProjectionStatus
}

// replicas are the rows of a projection; of all of them if the name is empty.
func (p *projectionPages) replicas(name string) []*replicaRow {
	wanted := map[uint32]bool{}
	for _, v := range p.versions {
		if name == "" || v.GetName() == name {
			wanted[v.GetDataset()] = true
			if v.GetRebuild() != 0 {
				wanted[v.GetRebuild()] = true
			}
		}
	}
	var rows []*replicaRow
	for _, m := range p.members {
		for _, s := range m.GetStatus().GetProjections() {
			if wanted[s.GetDataset()] {
				rows = append(rows, &replicaRow{m.GetName(), s})
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b *replicaRow) int {
		if a.GetDataset() != b.GetDataset() {
			return int(a.GetDataset()) - int(b.GetDataset())
		}
		return int(a.GetPartition()) - int(b.GetPartition())
	})
	return rows
}

// names are the versions that have the rows of a dataset.
func (p *projectionPages) names(dataset uint32) string {
	var names []string
	for _, v := range p.versions {
		if v.GetDataset() == dataset {
			names = append(names, v.GetName()+" "+v.GetVersion())
		}
		if v.GetRebuild() == dataset {
			names = append(names, v.GetName()+" "+v.GetVersion()+" (built again)")
		}
	}
	return strings.Join(names, ", ")
}

// replicaRows are rows by partition and worker.
func (p *projectionPages) replicaRows() kindOf[*replicaRow] {
	type row = *replicaRow
	columns := []column[row]{
		{"PROJECTION", func(r row) string { return p.names(r.GetDataset()) }},
		{"PARTITION", func(r row) string { return strconv.Itoa(int(r.GetPartition())) }},
		{"WORKER", func(r row) string { return r.worker }},
	}
	for _, c := range standColumns() {
		columns = append(columns, column[row]{c.head, func(r row) string { return c.of(r.ProjectionStatus) }})
	}
	return kindOf[row]{
		columns: columns,
		name:    func(r row) string { return fmt.Sprintf("%d:%d", r.GetDataset(), r.GetPartition()) },
		document: func(r row) any {
			text, err := marshalJSON(r.ProjectionStatus)
			if err != nil {
				return r.ProjectionStatus // its own error is shown
			}
			return rawJSON(append(appendText([]byte(`{"worker":`), r.worker), ","+string(text[1:])...))
		},
	}
}

// datasetRows are the rows of projections on one worker.
func datasetRows() kindOf[*adminv1.ProjectionStatus] {
	type row = *adminv1.ProjectionStatus
	return kindOf[row]{columns: append([]column[row]{
		{"PROJECTION", func(r row) string { return strings.Join(r.GetVersions(), ", ") }},
		{"PARTITION", func(r row) string { return strconv.Itoa(int(r.GetPartition())) }},
	}, standColumns()...)}
}

// standColumns say how the rows of a dataset in a partition stand.
func standColumns() []column[*adminv1.ProjectionStatus] {
	type row = *adminv1.ProjectionStatus
	return []column[row]{
		{"STATE", func(r row) string {
			if r.GetIncomplete() > 0 {
				return fmt.Sprintf("%s, %d incomplete", r.GetState(), r.GetIncomplete())
			}
			return r.GetState()
		}},
		{"POSITION", func(r row) string { return strconv.FormatInt(r.GetPosition(), 10) }},
		{"LAG", func(r row) string { return lagText(r.GetLagRecords(), r.GetLagSeconds()) }},
		{"ROWS", func(r row) string { return strconv.FormatUint(r.GetRows(), 10) }},
		{"PARKED", func(r row) string { return strconv.FormatUint(r.GetParked(), 10) }},
		{"SKIPPED", func(r row) string { return strconv.FormatUint(r.GetSkipped(), 10) }},
		{"UNMAPPED", func(r row) string { return strconv.FormatUint(r.GetUnmapped(), 10) }},
		{"LAST ERROR", func(r row) string { return lastError(r.GetLastErrorTime(), r.GetLastError()) }},
	}
}

func lagText(records int64, seconds float64) string {
	if records > 0 && seconds > 0 {
		return fmt.Sprintf("%d (%.1f s)", records, seconds)
	}
	return strconv.FormatInt(records, 10)
}

// projectionRow is a version with how its rows stand in all partitions.
type projectionRow struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Stage   string `json:"stage"`
	Dataset uint32 `json:"dataset"`
	// Live is in how many of so many partitions the rows are live.
	Live       int `json:"live"`
	Partitions int `json:"partitions"`
	// Rows and Parked are those of all partitions; Lag is that of the partition with the largest one.
	Rows   uint64 `json:"rows"`
	Parked uint64 `json:"parked"`
	Lag    int64  `json:"lag"`
	Note   string `json:"note"`
}

// rows add up what the workers say. Of several replicas of a partition, the one counts that has
// read most.
func (p *projectionPages) rows() []*projectionRow {
	var rows []*projectionRow
	for _, v := range p.versions {
		row := &projectionRow{
			Name: v.GetName(), Version: v.GetVersion(), Stage: v.GetStage(), Dataset: v.GetDataset(),
			Partitions: p.partitions, Note: v.GetNote(),
		}
		if v.GetPaused() {
			row.Stage += ", paused"
		}
		for _, s := range p.furthest(v.GetDataset()) {
			if s.GetState() == stateLive {
				row.Live++
			}
			row.Rows, row.Parked, row.Lag = row.Rows+s.GetRows(), row.Parked+s.GetParked(), max(row.Lag, s.GetLagRecords())
			if s.GetState() == stateStopped && row.Note == "" {
				row.Note = fmt.Sprintf("partition %d is stopped: %s", s.GetPartition(), s.GetLastError())
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// The states of rows that the command line looks at.
const (
	stateLive    = "LIVE"
	stateStopped = "STOPPED"
)

// furthest returns for each partition the replica of a dataset that is live, or else has read most.
func (p *projectionPages) furthest(dataset uint32) []*adminv1.ProjectionStatus {
	best := map[int32]*adminv1.ProjectionStatus{}
	var partitions []int32
	for _, m := range p.members {
		for _, s := range m.GetStatus().GetProjections() {
			if s.GetDataset() != dataset {
				continue
			}
			switch other := best[s.GetPartition()]; {
			case other == nil:
				partitions = append(partitions, s.GetPartition())
				best[s.GetPartition()] = s
			case further(s, other):
				best[s.GetPartition()] = s
			}
		}
	}
	slices.Sort(partitions)
	all := make([]*adminv1.ProjectionStatus, len(partitions))
	for i, partition := range partitions {
		all[i] = best[partition]
	}
	return all
}

func further(a, b *adminv1.ProjectionStatus) bool {
	if live := a.GetState() == stateLive; live != (b.GetState() == stateLive) {
		return live
	}
	return a.GetPosition() > b.GetPosition()
}

// projectionRows are versions of projections.
func projectionRows() kindOf[*projectionRow] {
	type row = *projectionRow
	return kindOf[row]{
		columns: []column[row]{
			{"NAME", func(r row) string { return r.Name }},
			{"VERSION", func(r row) string { return r.Version }},
			{"STAGE", func(r row) string { return r.Stage }},
			{"LIVE", func(r row) string { return fmt.Sprintf("%d/%d", r.Live, r.Partitions) }},
			{"ROWS", func(r row) string { return strconv.FormatUint(r.Rows, 10) }},
			{"LAG", func(r row) string { return strconv.FormatInt(r.Lag, 10) }},
			{"PARKED", func(r row) string { return strconv.FormatUint(r.Parked, 10) }},
			{"NOTE", func(r row) string { return r.Note }},
		},
		name: func(r row) string { return r.Name },
	}
}

// projectionPromote puts a version in force.
func projectionPromote() *cobra.Command {
	r := &adminv1.PromoteDefinitionRequest{Kind: projectionKind}
	cmd := &cobra.Command{
		Use: "promote NAME VERSION", Short: "Put a version of a projection in force",
		Long: `Put a version of a projection in force: queries read its rows from then on. The version before is kept for a rollback.
A version whose rollout is automatic needs no promotion. One that is not ready is refused; with --force it is promoted
all the same, and queries fail with UNAVAILABLE where its rows are not there yet.`,
		Example: "  millrace projection promote orders 5",
		Args:    exactly(2, "a projection and a version, as in `projection promote orders 5`"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name, r.Version = args[0], args[1]
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				res, err := a.PromoteDefinition(ctx, r)
				if err != nil {
					return err
				}
				if res.GetMissing() != "" {
					return printf(cmd.ErrOrStderr(), "%s version %s is promoted, and not ready: %s\n", r.GetName(), r.GetVersion(),
						res.GetMissing())
				}
				return printf(cmd.ErrOrStderr(), "%s version %s is promoted\n", r.GetName(), r.GetVersion())
			})
		},
	}
	addClient(cmd)
	cmd.Flags().BoolVar(&r.Force, "force", false, "even if it is not ready")
	return cmd
}

// projectionRollback puts an earlier version in force.
func projectionRollback() *cobra.Command {
	r := &adminv1.RollbackDefinitionRequest{Kind: projectionKind}
	cmd := &cobra.Command{
		Use: "rollback NAME [VERSION]", Short: "Put the version of a projection in force that was so before",
		Long: `Put the version of a projection in force that was so before, or the one that is named. It must be kept still; see
` + "`millrace projection list`" + `. The present version is kept, and is promoted again only by an operator.`,
		Example: "  millrace projection rollback orders\n  millrace projection rollback orders 3",
		Args:    oneOrTwo,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name, r.Version = args[0], strings.Join(args[1:], "")
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				res, err := a.RollbackDefinition(ctx, r)
				if err != nil {
					return err
				}
				return printf(cmd.ErrOrStderr(), "%s version %s is promoted in place of version %s\n", r.GetName(), res.GetTo(),
					res.GetFrom())
			})
		},
	}
	addClient(cmd)
	return cmd
}

// oneOrTwo checks for a projection and perhaps a version.
func oneOrTwo(cmd *cobra.Command, args []string) error {
	const what = "a projection, and perhaps a version of it, as in orders 3"
	if len(args) == 0 {
		return usagef("expected %s", what)
	}
	return atMost(2, what)(cmd, args)
}

// projectionDrop gives up a version, or a projection.
func projectionDrop() *cobra.Command {
	var yes bool
	r := &adminv1.DropDefinitionRequest{Kind: projectionKind}
	cmd := &cobra.Command{
		Use: "drop NAME [VERSION]", Short: "Drop a version of a projection, or all of it",
		Long: `Drop a version of a projection, or all versions and with them its queries. The rows are deleted unless another version
shares them; entities are not touched. A dropped version cannot be applied again: use a higher one. It asks for
confirmation; without a terminal, --yes is required.`,
		Example: "  millrace projection drop orders 3\n  millrace projection drop orders --yes",
		Args:    oneOrTwo,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name, r.Version = args[0], strings.Join(args[1:], "")
			what := "projection " + r.GetName() + " with all its versions"
			if r.GetVersion() != "" {
				what = "version " + r.GetVersion() + " of projection " + r.GetName()
			}
			if !yes {
				if err := confirm(cmd, "drop "+what, "its rows are deleted"); err != nil {
					return err
				}
			}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				if _, err := a.DropDefinition(ctx, r); err != nil {
					return err
				}
				return printf(cmd.ErrOrStderr(), "%s is dropped\n", what)
			})
		},
	}
	addClient(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	return cmd
}
