package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

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
		Use: "get TYPE/ID", Short: "Show the stored state of an entity", Example: "  millrace get cart/42\n  millrace get cart/42 -o json",
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
				return outputOf(cmd, cmd.OutOrStdout()).document(res, res.GetType()+"/"+res.GetId(),
					func(w io.Writer) error { return printEntity(w, res) })
			})
		},
	}
	addClient(cmd)
	addOutput(cmd)
	return cmd
}

func printEntity(w io.Writer, res *adminv1.GetEntityResponse) error {
	t := newTable(w)
	rows := [][]string{
		{"entity", res.GetType() + "/" + res.GetId()},
		{"kind", res.GetKind()},
		{"as of", fmt.Sprintf("partition %d, offset %d", res.GetPartition(), res.GetAsOfOffset())},
	}
	if res.GetSequence() > 0 {
		rows = append(rows, []string{"events", strconv.FormatUint(res.GetSequence(), 10)})
	}
	rows = append(rows, []string{"shows", res.GetNote()})
	if res.GetState() != nil {
		rows = append(rows, []string{"state", show(res.GetState())})
	}
	for _, e := range res.GetEvents() {
		rows = append(rows, []string{fmt.Sprintf("event %d", e.GetSequence()), show(e.GetContent())})
	}
	return t.all(rows)
}

// historyRows are the records of an entity.
func historyRows() kindOf[*adminv1.HistoryResponse] {
	type record = *adminv1.HistoryResponse
	place := func(r record) string { return fmt.Sprintf("%d:%d", r.GetPartition(), r.GetOffset()) }
	return kindOf[record]{
		columns: []column[record]{
			{"SEQ", func(r record) string { return strconv.FormatUint(r.GetSequence(), 10) }},
			{"OFFSET", place},
			{"TIME", func(r record) string { return when(r.GetTime()) }},
			{"KIND", record.GetKind},
			{"CONTENT", func(r record) string { return contentOf(r, nil) }},
			{"COMMAND ID", record.GetCommandId},
		},
		name: place,
	}
}

// joined joins the texts that are not empty.
func joined(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(t string) bool { return t == "" }), "  ")
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
				l := newList(outputOf(cmd, cmd.OutOrStdout()), historyRows())
				if err := receiveAll(stream.Recv, l.add); err != nil {
					return errors.Join(err, l.flush())
				}
				return l.end()
			})
		},
	}
	addClient(cmd)
	addOutput(cmd)
	cmd.Flags().Int64Var(&limit, "limit", 0, "maximum number of records; 0: unlimited")
	return cmd
}

// receiveAll calls take for every message of a stream.
func receiveAll[T any](recv func() (T, error), take func(T) error) error {
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
written by a former owner, are marked void. With --no-follow the exit code is 3 if no record is of the --type or
--entity.`,
		Example: "  millrace log tail\n  millrace log tail --entity cart/42 --from-start --no-follow",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("partition") {
				r.Partition = &partition
			}
			if r.GetEntity() != "" {
				if _, _, err := entityArg(r.GetEntity()); err != nil {
					return err
				}
			}
			r.FromEnd, r.Follow = !beginning, !noFollow
			limit := timeout(cmd)
			if r.GetFollow() && !cmd.Flags().Changed("timeout") {
				limit = 0
			}
			return admin(cmd, limit, func(ctx context.Context, a adminv1.AdminServiceClient) error {
				if err := warnOfTail(ctx, cmd, a, r); err != nil {
					return err
				}
				stream, err := a.Tail(ctx, r)
				if err != nil {
					return err
				}
				l := newList(outputOf(cmd, cmd.OutOrStdout()), tailRows())
				err = receiveAll(stream.Recv, func(res *adminv1.TailResponse) error {
					if err := l.add(res); err != nil || !r.GetFollow() {
						return err
					}
					return l.flush() // the next record may be long in coming
				})
				err = errors.Join(err, l.flush())
				if cmd.Context().Err() != nil {
					return nil //nolint:nilerr // the reader of the pipe is gone
				}
				return err
			})
		},
	}
	addClient(cmd)
	addOutput(cmd)
	cmd.Flags().StringVar(&r.Entity, "entity", "", "only this entity, as type/id")
	cmd.Flags().StringVar(&r.Type, "type", "", "only this entity type")
	cmd.Flags().Int32Var(&partition, "partition", 0, "only this partition")
	cmd.Flags().BoolVar(&beginning, "from-start", false, "begin with the oldest record")
	cmd.Flags().BoolVar(&noFollow, "no-follow", false, "stop at the end")
	cmd.Flags().Int64Var(&r.Limit, "limit", 0, "maximum number of records; 0: unlimited")
	return cmd
}

// warnOfTail warns of a tail that would print nothing, or may wait for ever.
func warnOfTail(ctx context.Context, cmd *cobra.Command, a adminv1.AdminServiceClient, r *adminv1.TailRequest) error {
	typ := r.GetType()
	if r.GetEntity() != "" {
		typ, _, _ = strings.Cut(r.GetEntity(), "/")
	}
	switch {
	case r.GetFromEnd() && !r.GetFollow():
		return printf(cmd.ErrOrStderr(), "warning: --no-follow stops at the end, where it begins: add --from-start\n")
	case !r.GetFollow() || typ == "":
		return nil
	}
	s, err := a.Status(ctx, &adminv1.StatusRequest{})
	if err != nil {
		return err
	}
	var types []string
	for _, service := range s.GetServices() {
		if t := service.GetEntityType(); t != "" && !slices.Contains(types, t) {
			types = append(types, t)
		}
	}
	if len(types) == 0 || slices.Contains(types, typ) {
		return nil
	}
	return printf(cmd.ErrOrStderr(), "warning: no entity type %q is served here; there are: %s\n", typ,
		strings.Join(types, ", "))
}

// tailRows are the records of the journal.
func tailRows() kindOf[*adminv1.TailResponse] {
	type record = *adminv1.TailResponse
	place := func(r record) string { return fmt.Sprintf("%d:%d", r.GetPartition(), r.GetOffset()) }
	return kindOf[record]{
		columns: []column[record]{
			{"TIME", func(r record) string { return when(r.GetTime()) }},
			{"OFFSET", place},
			{"KIND", record.GetKind},
			{"ENTITY", record.GetEntity},
			{"EPOCH", func(r record) string {
				if r.GetVoid() {
					return fmt.Sprintf("%d VOID", r.GetEpoch())
				}
				return strconv.FormatUint(r.GetEpoch(), 10)
			}},
			{"CONTENT", func(r record) string { return contentOf(r, r.GetSettled()) }},
		},
		name:   place,
		widths: []int{len("2006-01-02 15:04:05.000"), len("15:1000000"), len("timer-cancelled"), 24, 1},
	}
}
