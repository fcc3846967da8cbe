package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/internal/plural"
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
					_, err := showHalted(ctx, cmd, a, -1)
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
	addOutput(cmd)
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
func showHalted(ctx context.Context, cmd *cobra.Command, a adminv1.AdminServiceClient, only int32) (int, error) {
	res, err := a.ListHalted(ctx, &adminv1.ListHaltedRequest{})
	if err != nil {
		return 0, err
	}
	halted := res.GetPartitions()
	if only >= 0 {
		halted = slices.DeleteFunc(halted, func(p *adminv1.HaltedPartition) bool { return p.GetPartition() != only })
	}
	o := outputOf(cmd, cmd.OutOrStdout())
	if o.format != formatTable {
		err = printAll(o, haltedRows(), halted)
	}
	for _, p := range halted {
		if o.format == formatTable && err == nil {
			err = printHalted(o.w, p)
		}
	}
	switch {
	case err != nil:
	case len(halted) == 0 && only >= 0:
		err = printf(cmd.ErrOrStderr(), "partition %d is not halted\n", only)
	case len(halted) == 0 && o.format == formatTable:
		err = printf(cmd.ErrOrStderr(), "no partition is halted\n")
	}
	return len(halted), err
}

// haltedRows are halted partitions; printHalted is their table.
func haltedRows() kindOf[*adminv1.HaltedPartition] {
	return kindOf[*adminv1.HaltedPartition]{
		name: func(p *adminv1.HaltedPartition) string { return strconv.Itoa(int(p.GetPartition())) },
	}
}

func printHalted(w io.Writer, p *adminv1.HaltedPartition) error {
	rows := [][]string{
		{fmt.Sprintf("PARTITION %d", p.GetPartition()), "halted: " + p.GetCause()},
		{"store", fmt.Sprintf("folded up to offset %d under owner %d, of topic %s; used up to offset %d",
			p.GetStoreNext(), p.GetStoreEpoch(), p.GetStoreTopicId(), p.GetPosition())},
	}
	if p.GetUnreachable() != "" {
		rows = append(rows, []string{"log", "unreachable: " + p.GetUnreachable()})
	} else {
		rows = append(rows, []string{"log", fmt.Sprintf("offsets %d to %d, topic %s", p.GetLogStart(), p.GetLogEnd(),
			p.GetLogTopicId())})
	}
	rows = append(rows, []string{"only in the store", fmt.Sprintf("%s of %s, %s, %s, %s",
		plural.Of(p.GetLostRecords(), "record"), plural.Of(p.GetLostEntities(), "entity"), plural.Of(p.GetLostCommands(), "answer"),
		plural.Of(p.GetLostEffects(), "open effect"), plural.Of(p.GetLostTimers(), "timer"))})
	if len(p.GetExamples()) > 0 {
		more := ""
		if int64(len(p.GetExamples())) < p.GetLostEntities() {
			more = ", …"
		}
		rows = append(rows, []string{"for example", strings.Join(p.GetExamples(), ", ") + more})
	}
	if err := newTable(w).all(rows); err != nil {
		return err
	}
	if err := printf(w, "choices:\n"); err != nil {
		return err
	}
	rows = nil
	for _, c := range p.GetChoices() {
		for _, f := range repairFlags {
			switch {
			case f.choice != c.GetChoice():
			case c.GetRefused() != "":
				rows = append(rows, []string{"  --" + f.flag, "not here: " + c.GetRefused()})
			default:
				rows = append(rows, []string{fmt.Sprintf("  millrace repair %d --%s", p.GetPartition(), f.flag), f.says})
			}
		}
	}
	return newTable(w).all(rows)
}

// previewRepair shows what a choice would do.
func previewRepair(ctx context.Context, cmd *cobra.Command, a adminv1.AdminServiceClient, partition int32,
	choice adminv1.RepairChoice, flag string,
) error {
	if choice == adminv1.RepairChoice_REPAIR_CHOICE_APPEND_IMAGE {
		if err := runRepair(ctx, cmd, a, partition, adminv1.RepairChoice_REPAIR_CHOICE_PREVIEW); err != nil {
			return err
		}
	} else if shown, err := showHalted(ctx, cmd, a, partition); err != nil || shown == 0 {
		return err
	}
	if outputOf(cmd, cmd.OutOrStdout()).format != formatTable {
		return nil
	}
	return printf(cmd.OutOrStdout(), "nothing was changed: run millrace repair %d --%s --yes to do it\n", partition, flag)
}

// runRepair repairs a partition and shows the progress.
func runRepair(ctx context.Context, cmd *cobra.Command, a adminv1.AdminServiceClient, partition int32,
	choice adminv1.RepairChoice,
) error {
	stream, err := a.Repair(ctx, &adminv1.RepairRequest{Partition: partition, Choice: choice})
	if err != nil {
		return err
	}
	o := outputOf(cmd, cmd.OutOrStdout())
	steps := newList(o, kindOf[*adminv1.RepairResponse]{
		name: func(*adminv1.RepairResponse) string { return strconv.Itoa(int(partition)) },
	})
	last := ""
	return receiveAll(stream.Recv, func(r *adminv1.RepairResponse) error {
		switch {
		case o.format == formatName && !r.GetDone():
			return nil
		case o.format != formatTable:
			return steps.add(r)
		case r.GetDone():
			return printRepaired(o.w, partition, choice, r)
		}
		line := fmt.Sprintf("partition %d is %s, at offset %d", partition, r.GetState(), r.GetNextOffset())
		if r.GetFloor() > r.GetNextOffset() {
			line += fmt.Sprintf(" of %d", r.GetFloor())
		}
		if line == last {
			return nil
		}
		last = line
		return printf(cmd.ErrOrStderr(), "%s\n", line)
	})
}

func printRepaired(w io.Writer, partition int32, choice adminv1.RepairChoice, r *adminv1.RepairResponse) error {
	did := "appended"
	if choice == adminv1.RepairChoice_REPAIR_CHOICE_PREVIEW {
		did = "would be appended"
	}
	if choice == adminv1.RepairChoice_REPAIR_CHOICE_PREVIEW || choice == adminv1.RepairChoice_REPAIR_CHOICE_APPEND_IMAGE {
		err := printf(w, "%s: %s: %s and %s of %s, %s, %s, %s\n", did, plural.Of(r.GetRecords(), "record"),
			plural.Of(r.GetEvents(), "event"), plural.Of(r.GetValues(), "value"), plural.Of(r.GetEntities(), "entity"),
			plural.Of(r.GetAnswers(), "answer"), plural.Of(r.GetEffects(), "effect"), plural.Of(r.GetTimers(), "timer"))
		if err != nil {
			return err
		}
		if n := r.GetEventsBehindSnapshots(); n > 0 {
			if err := printf(w, "events that are only in snapshots: %d; the state of their entities is complete, their history is not\n",
				n); err != nil {
				return err
			}
		}
	}
	if choice == adminv1.RepairChoice_REPAIR_CHOICE_PREVIEW {
		return nil
	}
	return printf(w, "partition %d is %s, at offset %d\n", partition, r.GetState(), r.GetNextOffset())
}
