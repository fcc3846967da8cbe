package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// entityArg reads type/id.
func entityArg(arg string) (typ, id string, err error) {
	typ, id, found := strings.Cut(arg, "/")
	if !found || typ == "" || id == "" {
		return "", "", usagef("%q does not name an entity: write it as type/id, for example cart/42", arg)
	}
	return typ, id, nil
}

// get shows one entity.
func get() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get TYPE/ID", Short: "Show the stored state of an entity", Example: "  millrace get cart/42",
		Args: exactly(1, "an entity, as in cart/42"),
		RunE: func(cmd *cobra.Command, args []string) error {
			typ, id, err := entityArg(args[0])
			if err != nil {
				return err
			}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				res, err := a.GetEntity(ctx, &adminv1.GetEntityRequest{Type: typ, Id: id})
				if err != nil {
					return err
				}
				w := cmd.OutOrStdout()
				if !isTerminal(w) {
					return printLine(w, res)
				}
				return printEntity(w, res)
			})
		},
	}
	addClient(cmd)
	return cmd
}

func printEntity(w io.Writer, res *adminv1.GetEntityResponse) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "entity\t%s/%s\n", res.GetType(), res.GetId())
	fmt.Fprintf(t, "kind\t%s\n", res.GetKind())
	fmt.Fprintf(t, "as of\tpartition %d, offset %d\n", res.GetPartition(), res.GetAsOfOffset())
	if res.GetSequence() > 0 {
		fmt.Fprintf(t, "events\t%d\n", res.GetSequence())
	}
	fmt.Fprintf(t, "shows\t%s\n", res.GetNote())
	if res.GetState() != nil {
		fmt.Fprintf(t, "state\t%s\n", show(res.GetState()))
	}
	for _, e := range res.GetEvents() {
		fmt.Fprintf(t, "event %d\t%s\n", e.GetSequence(), show(e.GetContent()))
	}
	return t.Flush()
}

// history lists an entity's records.
func history() *cobra.Command {
	var limit int64
	cmd := &cobra.Command{
		Use: "history TYPE/ID", Short: "List the records of an entity, oldest first",
		Example: "  millrace history cart/42",
		Args:    exactly(1, "an entity, as in cart/42"),
		RunE: func(cmd *cobra.Command, args []string) error {
			typ, id, err := entityArg(args[0])
			if err != nil {
				return err
			}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				stream, err := a.History(ctx, &adminv1.HistoryRequest{Type: typ, Id: id, Limit: limit})
				if err != nil {
					return err
				}
				w := cmd.OutOrStdout()
				if !isTerminal(w) {
					return drain(stream.Recv, func(r *adminv1.HistoryResponse) error { return printLine(w, r) })
				}
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "SEQ\tOFFSET\tTIME\tKIND\tCONTENT\tCOMMAND ID")
				err = drain(stream.Recv, func(r *adminv1.HistoryResponse) error {
					_, err := fmt.Fprintf(t, "%d\t%d:%d\t%s\t%s\t%s\t%s\n", r.GetSequence(), r.GetPartition(), r.GetOffset(),
						when(r.GetTime()), r.GetKind(), show(r.GetContent())+note(r.GetNote()), r.GetCommandId())
					return err
				})
				return errors.Join(err, t.Flush())
			})
		},
	}
	addClient(cmd)
	cmd.Flags().Int64Var(&limit, "limit", 0, "maximum number of records; 0: unlimited")
	return cmd
}

// note formats the note of a record, to follow its content.
func note(text string) string {
	if text == "" {
		return ""
	}
	return "  " + text
}

// drain calls take for every message of a stream.
func drain[T any](recv func() (T, error), take func(T) error) error {
	for {
		msg, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := take(msg); err != nil {
			return err
		}
	}
}

// logGroup holds the commands about the journal.
func (p Program) logGroup() *cobra.Command {
	cmd := &cobra.Command{
		Use: "log", Short: "Read and verify the journal",
		Args: exactly(0, "a command about the journal, as in `log tail`"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(tail(), p.verify())
	return cmd
}

func tail() *cobra.Command {
	r := &adminv1.TailRequest{}
	var beginning, noFollow bool
	var partition int32
	cmd := &cobra.Command{
		Use: "tail", Short: "Print the records of the journal as they are appended", Args: exactly(0, "no arguments"),
		Long: `Print the records of the journal as they are appended, claims and barriers included. Records without effect,
which a former owner has written, are marked stale.`,
		Example: "  millrace log tail\n  millrace log tail --entity cart/42 --from-start --no-follow",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("partition") {
				r.Partition = &partition
			}
			r.FromEnd, r.Follow = !beginning, !noFollow
			limit := timeout(cmd)
			if r.GetFollow() && !cmd.Flags().Changed("timeout") {
				limit = 0
			}
			return admin(cmd, limit, func(ctx context.Context, a adminv1.AdminServiceClient) error {
				stream, err := a.Tail(ctx, r)
				if err != nil {
					return err
				}
				w := cmd.OutOrStdout()
				err = drain(stream.Recv, func(res *adminv1.TailResponse) error {
					if !isTerminal(w) {
						return printLine(w, res)
					}
					return printRecord(w, res)
				})
				if cmd.Context().Err() != nil {
					return nil //nolint:nilerr // the reader of the pipe is gone
				}
				return err
			})
		},
	}
	addClient(cmd)
	cmd.Flags().StringVar(&r.Entity, "entity", "", "only this entity, as type/id")
	cmd.Flags().StringVar(&r.Type, "type", "", "only this entity type")
	cmd.Flags().Int32Var(&partition, "partition", 0, "only this partition")
	cmd.Flags().BoolVar(&beginning, "from-start", false, "begin with the oldest record")
	cmd.Flags().BoolVar(&noFollow, "no-follow", false, "stop at the end")
	cmd.Flags().Int64Var(&r.Limit, "limit", 0, "maximum number of records; 0: unlimited")
	return cmd
}

func printRecord(w io.Writer, r *adminv1.TailResponse) error {
	mark := ""
	if r.GetStale() {
		mark = " STALE"
	}
	_, err := fmt.Fprintf(w, "%s  %3d:%-8d %-9s %-24s e%d%s  %s%s\n", when(r.GetTime()), r.GetPartition(),
		r.GetOffset(), r.GetKind(), r.GetEntity(), r.GetEpoch(), mark, show(r.GetContent()), r.GetNote())
	return err
}
