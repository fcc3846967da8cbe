package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/internal/app/node"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// verify checks the journal.
func (p Program) verify() *cobra.Command {
	r := &adminv1.VerifyRequest{}
	var partition int32
	cmd := &cobra.Command{
		Use: "verify", Short: "Read the whole journal and check it", Args: exactly(0, "no arguments"),
		Long: `Read the whole journal and check that offsets have no gaps, claims follow each other, groups are complete, events of
each entity are numbered 1, 2, 3, log time does not go back, and that the log reports no damage. Void records are
counted and are not errors. With --store the worker's store is compared with a fold of the journal, row by row.

It asks a running worker; with --data or --brokers it reads the log itself while no worker runs. It needs 16 bytes of
memory for each event-sourced entity of a partition. The exit code is 6 if there are findings.`,
		Example: "  millrace log verify --store\n  millrace log verify --partition 3\n  millrace log verify --data /var/lib/millrace",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("partition") {
				r.Partition = &partition
			}
			s := &verification{out: cmd.OutOrStdout(), screen: cmd.ErrOrStderr()}
			if cmd.Flags().Changed("data") || cmd.Flags().Changed("brokers") {
				c, err := p.offlineConfig(cmd)
				if err != nil {
					return err
				}
				return s.end(node.VerifyOffline(cmd.Context(), c, r, s.take))
			}
			limit := timeout(cmd)
			if !cmd.Flags().Changed("timeout") {
				limit = 0 // as long as it takes
			}
			return s.end(admin(cmd, limit, func(ctx context.Context, a adminv1.AdminServiceClient) error {
				stream, err := a.Verify(ctx, r)
				if err != nil {
					return err
				}
				return drain(stream.Recv, s.take)
			}))
		},
	}
	addClient(cmd)
	cmd.Flags().Int32Var(&partition, "partition", 0, "only this partition")
	cmd.Flags().BoolVar(&r.Store, "store", false, "compare the worker's store with the journal")
	cmd.Flags().String("data", "", "read the embedded log in this data directory; no worker may run")
	cmd.Flags().String("brokers", "", "read the journal on these brokers")
	cmd.Flags().String("app", "", "name of the app, with --data or --brokers")
	return cmd
}

// offlineConfig returns the configuration, with the flags about the log.
func (p Program) offlineConfig(cmd *cobra.Command) (*node.Config, error) {
	given := map[string]string{}
	for _, name := range []string{"data", "brokers", "app"} {
		if cmd.Flags().Changed(name) {
			given[name], _ = cmd.Flags().GetString(name)
		}
	}
	file, _ := cmd.Flags().GetString("config")
	if _, named := given["brokers"]; !named {
		given["brokers"] = "" // the embedded log in the directory
	}
	c, _, err := p.load(given, file)
	return c, err
}

// verification prints the result: as text on a terminal, otherwise as lines of JSON.
type verification struct {
	out, screen io.Writer
	bar         *progressbar.ProgressBar
	differs     bool
}

// take prints one message.
func (s *verification) take(r *adminv1.VerifyResponse) error {
	if p := r.GetProgress(); p != nil {
		s.progress(r.GetPartition(), p)
		return nil
	}
	s.clear()
	if sum := r.GetSummary(); sum != nil {
		s.differs = s.differs || sum.GetFindings() > 0 || sum.GetUnreadable() != ""
	}
	if !isTerminal(s.out) {
		return printLine(s.out, r)
	}
	if f := r.GetFinding(); f != nil {
		where := fmt.Sprintf("%d:%d", r.GetPartition(), f.GetOffset())
		if f.GetOffset() < 0 {
			where = strconv.Itoa(int(r.GetPartition()))
		}
		_, err := fmt.Fprintf(s.out, "%s  %s\n", where, f.GetWhat())
		return err
	}
	return s.summary(r.GetPartition(), r.GetSummary())
}

func (s *verification) summary(partition int32, sum *adminv1.VerifySummary) error {
	if sum.GetUnreadable() != "" {
		if _, err := fmt.Fprintf(s.out, "partition %d cannot be read after offset %d: %s\n", partition,
			sum.GetNextOffset(), sum.GetUnreadable()); err != nil {
			return err
		}
	}
	verdict := "ok"
	if sum.GetFindings() > 0 {
		verdict = fmt.Sprintf("%d FINDINGS", sum.GetFindings())
	}
	if sum.GetUnreadable() != "" {
		verdict = "UNREADABLE"
	}
	fmt.Fprintf(s.out, "partition %d: %s; offsets %d to %d, %d claims, %d effective records, %d events of %d entities",
		partition, verdict,
		sum.GetStartOffset(), sum.GetNextOffset(), sum.GetClaims(), sum.GetRecords(), sum.GetEvents(), sum.GetEntities())
	for _, more := range []struct {
		n    uint64
		what string
	}{
		{sum.GetVoidRecords(), "void"},
		{sum.GetForeignRecords(), "foreign"},
		{sum.GetCutGroups(), "incomplete groups"},
		{sum.GetRepairs(), "repairs"},
		{sum.GetJumps(), "snapshots without earlier events"},
	} {
		if more.n > 0 {
			fmt.Fprintf(s.out, ", %d %s", more.n, more.what)
		}
	}
	if sum.GetComparedOffset() >= 0 {
		fmt.Fprintf(s.out, "; store compared at offset %d", sum.GetComparedOffset())
	}
	_, err := fmt.Fprintln(s.out)
	return err
}

// progress updates the bar, on a terminal.
func (s *verification) progress(partition int32, p *adminv1.VerifyProgress) {
	if !isTerminal(s.screen) {
		return
	}
	if s.bar == nil {
		s.bar = progressbar.NewOptions64(p.GetEndOffset(), progressbar.OptionSetWriter(s.screen),
			progressbar.OptionSetDescription(fmt.Sprintf("partition %d", partition)),
			progressbar.OptionShowIts(), progressbar.OptionSetItsString("records"), progressbar.OptionClearOnFinish())
	}
	_ = s.bar.Set64(p.GetNextOffset())
}

func (s *verification) clear() {
	if s.bar != nil {
		_ = s.bar.Finish()
		s.bar = nil
	}
}

// end returns the error of the command, errDifferences if there are findings.
func (s *verification) end(err error) error {
	s.clear()
	if err == nil && s.differs {
		return errDifferences
	}
	return err
}
