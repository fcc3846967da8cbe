package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// repairFlags are the choices, as flags.
var repairFlags = []struct { //nolint:gochecknoglobals // a constant table
	choice     adminv1.RepairChoice
	flag, says string
}{
	{adminv1.RepairChoice_REPAIR_CHOICE_RETRY, "retry", "check the log again, and continue if it has been restored"},
	{adminv1.RepairChoice_REPAIR_CHOICE_ACCEPT_LOSS, "accept-loss", "rebuild the partition from the log as it is; what only the store has is lost"},
	{adminv1.RepairChoice_REPAIR_CHOICE_APPEND_IMAGE, "append-image", "append to the log what only the store has; overwritten values, and events covered by a snapshot, stay lost"},
}

// repairCommand shows halted partitions, and repairs one.
func repairCommand() *cobra.Command {
	var yes bool
	chosen := make([]bool, len(repairFlags))
	cmd := &cobra.Command{
		Use: "repair [PARTITION]", Short: "Show why partitions have halted, and repair them",
		Long: `Show why partitions have halted, what their log and their store have, and what can be done. A partition halts if its
log has lost acknowledged records, or cannot be read. It refuses all commands until you repair it.

With one of the choices, PARTITION is repaired; --accept-loss and --append-image only show what they would do unless
--yes is given. No choice uses an offset of the log twice, because effects and tokens refer to offsets. The same
command finishes an interrupted repair.`,
		Example: "  millrace repair\n  millrace repair 3 --append-image\n  millrace repair 3 --append-image --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			choice, flag, err := repairChoice(chosen)
			if err != nil {
				return err
			}
			if choice == adminv1.RepairChoice_REPAIR_CHOICE_UNSPECIFIED {
				if len(args) > 0 || yes {
					return usagef("choose --retry, --accept-loss or --append-image; `millrace repair` shows what is lost")
				}
				return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
					_, err := showHalted(ctx, cmd.OutOrStdout(), a, -1)
					return err
				})
			}
			partition, err := partitionArg(args)
			if err != nil {
				return err
			}
			limit := timeout(cmd)
			if !cmd.Flags().Changed("timeout") {
				limit = 0 // as long as it takes
			}
			return admin(cmd, limit, func(ctx context.Context, a adminv1.AdminServiceClient) error {
				if yes || choice == adminv1.RepairChoice_REPAIR_CHOICE_RETRY {
					return runRepair(ctx, cmd, a, partition, choice)
				}
				return previewRepair(ctx, cmd, a, partition, choice, flag)
			})
		},
	}
	addClient(cmd)
	for i, f := range repairFlags {
		cmd.Flags().BoolVar(&chosen[i], f.flag, false, f.says)
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it; without it, --accept-loss and --append-image show what they would do")
	return cmd
}

func repairChoice(chosen []bool) (choice adminv1.RepairChoice, flag string, err error) {
	for i, is := range chosen {
		switch {
		case is && flag != "":
			return 0, "", usagef("--%s and --%s: choose one", flag, repairFlags[i].flag)
		case is:
			choice, flag = repairFlags[i].choice, repairFlags[i].flag
		}
	}
	return choice, flag, nil
}

func partitionArg(args []string) (int32, error) {
	if len(args) == 1 {
		if n, err := strconv.ParseInt(args[0], 10, 32); err == nil && n >= 0 {
			return int32(n), nil
		}
	}
	return 0, usagef("expected the number of a partition, as listed by `millrace repair`")
}

// showHalted prints the evidence of all halted partitions, or of one, and returns their number.
func showHalted(ctx context.Context, w io.Writer, a adminv1.AdminServiceClient, only int32) (int, error) {
	res, err := a.ListHalted(ctx, &adminv1.ListHaltedRequest{})
	if err != nil {
		return 0, err
	}
	shown := 0
	for _, p := range res.GetPartitions() {
		if only >= 0 && p.GetPartition() != only {
			continue
		}
		shown++
		show := printHalted
		if !isTerminal(w) {
			show = func(w io.Writer, p *adminv1.HaltedPartition) error { return printLine(w, p) }
		}
		if err := show(w, p); err != nil {
			return shown, err
		}
	}
	switch {
	case shown == 0 && only >= 0:
		fmt.Fprintf(w, "partition %d is not halted\n", only)
	case shown == 0 && isTerminal(w):
		fmt.Fprintln(w, "no partition is halted")
	}
	return shown, nil
}

func printHalted(w io.Writer, p *adminv1.HaltedPartition) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "PARTITION %d\thalted: %s\n", p.GetPartition(), p.GetCause())
	fmt.Fprintf(t, "store\tfolded up to offset %d under owner %d, of topic %s; used up to offset %d\n",
		p.GetStoreNext(), p.GetStoreEpoch(), p.GetStoreTopicId(), p.GetPosition())
	if p.GetUnreachable() != "" {
		fmt.Fprintf(t, "log\tunreachable: %s\n", p.GetUnreachable())
	} else {
		fmt.Fprintf(t, "log\toffsets %d to %d, topic %s\n", p.GetLogStart(), p.GetLogEnd(), p.GetLogTopicId())
	}
	fmt.Fprintf(t, "only in the store\t%d records of %d entities, %d answers, %d open effects, %d timers\n",
		p.GetLostRecords(), p.GetLostEntities(), p.GetLostCommands(), p.GetLostEffects(), p.GetLostTimers())
	if len(p.GetExamples()) > 0 {
		more := ""
		if int64(len(p.GetExamples())) < p.GetLostEntities() {
			more = ", …"
		}
		fmt.Fprintf(t, "for example\t%s%s\n", strings.Join(p.GetExamples(), ", "), more)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "choices:")
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range p.GetChoices() {
		for _, f := range repairFlags {
			switch {
			case f.choice != c.GetChoice():
			case c.GetRefused() != "":
				fmt.Fprintf(t, "  --%s\tnot here: %s\n", f.flag, c.GetRefused())
			default:
				fmt.Fprintf(t, "  millrace repair %d --%s\t%s\n", p.GetPartition(), f.flag, f.says)
			}
		}
	}
	return t.Flush()
}

// previewRepair shows what a choice would do.
func previewRepair(ctx context.Context, cmd *cobra.Command, a adminv1.AdminServiceClient, partition int32,
	choice adminv1.RepairChoice, flag string,
) error {
	w := cmd.OutOrStdout()
	if choice == adminv1.RepairChoice_REPAIR_CHOICE_APPEND_IMAGE {
		if err := runRepair(ctx, cmd, a, partition, adminv1.RepairChoice_REPAIR_CHOICE_PREVIEW); err != nil {
			return err
		}
	} else if shown, err := showHalted(ctx, w, a, partition); err != nil || shown == 0 {
		return err
	}
	if isTerminal(w) {
		fmt.Fprintf(w, "nothing was changed: run millrace repair %d --%s --yes to do it\n", partition, flag)
	}
	return nil
}

// runRepair repairs a partition and shows the progress.
func runRepair(ctx context.Context, cmd *cobra.Command, a adminv1.AdminServiceClient, partition int32,
	choice adminv1.RepairChoice,
) error {
	stream, err := a.Repair(ctx, &adminv1.RepairRequest{Partition: partition, Choice: choice})
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	last := ""
	return drain(stream.Recv, func(r *adminv1.RepairResponse) error {
		if !isTerminal(w) {
			return printLine(w, r)
		}
		if r.GetDone() {
			return printRepaired(w, partition, choice, r)
		}
		line := fmt.Sprintf("partition %d is %s, at offset %d", partition, r.GetState(), r.GetNextOffset())
		if r.GetFloor() > r.GetNextOffset() {
			line += fmt.Sprintf(" of %d", r.GetFloor())
		}
		if line != last {
			fmt.Fprintln(cmd.ErrOrStderr(), line)
			last = line
		}
		return nil
	})
}

func printRepaired(w io.Writer, partition int32, choice adminv1.RepairChoice, r *adminv1.RepairResponse) error {
	did := "appended"
	if choice == adminv1.RepairChoice_REPAIR_CHOICE_PREVIEW {
		did = "would be appended"
	}
	if choice == adminv1.RepairChoice_REPAIR_CHOICE_PREVIEW || choice == adminv1.RepairChoice_REPAIR_CHOICE_APPEND_IMAGE {
		fmt.Fprintf(w, "%s: %d records: %d events and %d values of %d entities, %d answers, %d effects, %d timers\n",
			did, r.GetRecords(), r.GetEvents(), r.GetValues(), r.GetEntities(), r.GetAnswers(), r.GetEffects(), r.GetTimers())
		if r.GetEventsBehindSnapshots() > 0 {
			fmt.Fprintf(w, "%d events are only in snapshots: the state of their entities is complete, their history is not\n",
				r.GetEventsBehindSnapshots())
		}
	}
	if choice == adminv1.RepairChoice_REPAIR_CHOICE_PREVIEW {
		return nil
	}
	_, err := fmt.Fprintf(w, "partition %d is %s, at offset %d\n", partition, r.GetState(), r.GetNextOffset())
	return err
}
