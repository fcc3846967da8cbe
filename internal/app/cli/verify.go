package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/internal/app/node"
	"github.com/millrace-io/millrace/internal/plural"
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
			s := newVerification(cmd)
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
				return receiveAll(stream.Recv, s.take)
			}))
		},
	}
	addClient(cmd)
	addOutput(cmd)
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
	c, _, err := p.load(node.Sources{Flags: given, File: file})
	return c, err
}

// verification prints the result: findings and summaries, and the progress beside them.
type verification struct {
	results *list[*adminv1.VerifyResponse]
	out     io.Writer
	screen  io.Writer
	bar     *progressbar.ProgressBar
	differs bool
}

func newVerification(cmd *cobra.Command) *verification {
	return &verification{
		out: cmd.OutOrStdout(), screen: cmd.ErrOrStderr(),
		results: newList(outputOf(cmd, cmd.OutOrStdout()), kindOf[*adminv1.VerifyResponse]{name: verifiedPlace}),
	}
}

// verifiedPlace is where a finding is, or the partition of a summary.
func verifiedPlace(r *adminv1.VerifyResponse) string {
	if f := r.GetFinding(); f.GetOffset() >= 0 && f != nil {
		return fmt.Sprintf("%d:%d", r.GetPartition(), f.GetOffset())
	}
	return strconv.Itoa(int(r.GetPartition()))
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
	if s.results.format != formatTable {
		return s.results.add(r)
	}
	if f := r.GetFinding(); f != nil {
		return printf(s.out, "%s  %s\n", verifiedPlace(r), f.GetWhat())
	}
	return s.summary(r.GetPartition(), r.GetSummary())
}

func (s *verification) summary(partition int32, sum *adminv1.VerifySummary) error {
	if sum.GetUnreadable() != "" {
		if err := printf(s.out, "partition %d cannot be read after offset %d: %s\n", partition,
			sum.GetNextOffset(), sum.GetUnreadable()); err != nil {
			return err
		}
	}
	verdict := "ok"
	if sum.GetFindings() > 0 {
		verdict = strings.ToUpper(plural.Of(sum.GetFindings(), "finding"))
	}
	if sum.GetUnreadable() != "" {
		verdict = "UNREADABLE"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "partition %d: %s; offsets %d to %d, %s, %s, %s of %s", partition, verdict,
		sum.GetStartOffset(), sum.GetNextOffset(), plural.Of(sum.GetClaims(), "claim"),
		plural.Of(sum.GetRecords(), "effective record"), plural.Of(sum.GetEvents(), "event"), plural.Of(sum.GetEntities(), "entity"))
	for _, more := range []struct {
		n    uint64
		what string
	}{
		{sum.GetVoidRecords(), "void record"},
		{sum.GetForeignRecords(), "foreign record"},
		{sum.GetCutGroups(), "incomplete group"},
		{sum.GetRepairs(), "repair"},
	} {
		if more.n > 0 {
			text.WriteString(", " + plural.Of(more.n, more.what))
		}
	}
	if n := sum.GetJumps(); n > 0 {
		text.WriteString(", " + plural.Of(n, "snapshot") + " without earlier events")
	}
	if sum.GetComparedOffset() >= 0 {
		fmt.Fprintf(&text, "; store compared at offset %d", sum.GetComparedOffset())
	}
	return printf(s.out, "%s\n", text.String())
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
		err = errDifferences
	}
	return errors.Join(s.results.end(), err)
}
