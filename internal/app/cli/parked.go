package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/internal/plural"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// parked lists undeliverable effects and resolves them.
func parked() *cobra.Command {
	cmd := &cobra.Command{
		Use: "parked", Short: "List, retry or discard undeliverable effects (dead letters)", Args: exactly(0, "no arguments"),
		Long: `List the effects that could not be delivered, because their target does not exist or its function keeps failing.
A timer whose command keeps failing becomes an effect of its entity on itself. Parked effects are kept until they are
resolved, and do not block others. PARTITION:OFFSET names an effect.

With --refused, list the effects that their targets refused, if their senders do not handle refusals: the newest 1000
of each partition are kept. Replaying one sends its message as a new effect.

With --scope projection/NAME, list the entities that a projection does not fold any more, because a record of theirs
could not be folded; and the records at which it has stopped. PARTITION:OFFSET names a record. Dropping it leaves it
out of the rows on all workers, and the entity goes on with its later records.`,
		Example: "  millrace parked\n  millrace parked --refused\n  millrace parked --service shop.v1.Wallet\n  millrace parked replay 3:1207\n  millrace parked drop --service shop.v1.Wallet --all\n  millrace parked --scope projection/orders",
	}
	filter := addParkedFilter(cmd)
	limit := cmd.Flags().Int("limit", 0, "maximum number of effects; 0: unlimited")
	refused := addRefused(cmd)
	scope := addScope(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if scope.text != "" {
			return listParkedEntities(cmd, scope, *limit)
		}
		return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
			return listParked(ctx, cmd, a, filter, *limit, *refused)
		})
	}
	addClient(cmd)
	addOutput(cmd)
	cmd.AddCommand(resolve("replay", "Send parked effects again", "sent again", false),
		resolve("drop", "Discard parked effects", "dropped", true))
	return cmd
}

// addParkedFilter adds the flags that select parked effects.
func addParkedFilter(cmd *cobra.Command) *adminv1.ParkedFilter {
	f := &adminv1.ParkedFilter{}
	cmd.Flags().StringVar(&f.Service, "service", "", "only effects on this service (full name)")
	cmd.Flags().StringVar(&f.Method, "method", "", "only effects on methods of this name")
	cmd.Flags().StringVar(&f.Error, "error", "", "only effects whose error contains this text")
	return f
}

// addRefused adds the flag for refused effects.
func addRefused(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("refused", false,
		"effects that were refused by their targets, instead of undeliverable ones")
}

// listParked shows parked effects, or refused ones, page by page.
func listParked(ctx context.Context, cmd *cobra.Command, a adminv1.AdminServiceClient, filter *adminv1.ParkedFilter,
	limit int, refused bool,
) error {
	const page = 1000
	var total, kept int64
	l := newList(outputOf(cmd, cmd.OutOrStdout()), parkedRows())
	for token := ""; ; {
		r := &adminv1.ListParkedRequest{PageToken: token, Filter: filter, Limit: page, Refused: refused}
		if limit > 0 {
			r.Limit = int32(min(page, limit-l.rows)) //nolint:gosec // at most a page
		}
		res, err := a.ListParked(ctx, r)
		if err != nil {
			return errors.Join(err, l.flush())
		}
		for _, e := range res.GetEffects() {
			if err := l.add(e); err != nil {
				return err
			}
		}
		total, kept, token = res.GetTotal(), res.GetRefused(), res.GetNextPageToken()
		if err := l.flush(); err != nil {
			return err
		}
		if token == "" || l.rows == limit {
			break
		}
	}
	if err := l.end(); err != nil || l.format != formatTable {
		return err
	}
	what, hint := "parked", ""
	if refused {
		what = "refused"
	} else if kept > 0 {
		were := "were"
		if kept == 1 {
			were = "was"
		}
		hint = fmt.Sprintf("%s %s refused by their targets: millrace parked --refused\n", plural.Of(kept, "effect"), were)
	}
	if total == 0 {
		_, err := fmt.Fprintf(cmd.ErrOrStderr(), "no %s effects\n%s", what, hint)
		return err
	}
	_, err := fmt.Fprintf(cmd.ErrOrStderr(), "%d of %s\n%s", l.rows, plural.Of(total, what+" effect"), hint)
	return err
}

// parkedRows are effects that wait for an operator.
func parkedRows() kindOf[*adminv1.ParkedEffect] {
	type effect = *adminv1.ParkedEffect
	place := func(e effect) string { return fmt.Sprintf("%d:%d", e.GetPartition(), e.GetOffset()) }
	return kindOf[effect]{
		columns: []column[effect]{
			{"EFFECT", place},
			{"FROM", effect.GetFrom},
			{"TO", func(e effect) string { return e.GetService() + "/" + e.GetMethod() }},
			{"PAYLOAD", func(e effect) string { return show(e.GetPayload()) }},
			{"ATTEMPTS", func(e effect) string { return strconv.FormatUint(uint64(e.GetAttempts()), 10) }},
			{"ERROR", parkedError},
		},
		name: place,
	}
}

// parkedError returns why an effect is parked, and the timer whose command it is.
func parkedError(e *adminv1.ParkedEffect) string {
	if e.GetTimer() == "" {
		return e.GetError()
	}
	return fmt.Sprintf("timer %q, due %s: %s", e.GetTimer(), e.GetTimerDue().AsTime().Format(time.RFC3339), e.GetError())
}

func resolve(use, short, done string, drop bool) *cobra.Command {
	cmd := &cobra.Command{
		Use: use + " [PARTITION:OFFSET]", Short: short,
		Long: short + `: the one named by PARTITION:OFFSET, or with
--all those selected by the other flags. It may be repeated: resolved effects are skipped. With --refused it is for
effects that were refused by their targets. With --scope it is for the records that a projection could not fold:
drop leaves them out; to replay them is of no use, for they fail again.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("expected one effect, as in 3:1207, or --all")
			}
			return nil
		},
		Example: "  millrace parked " + use + " 3:1207\n  millrace parked " + use + " --service shop.v1.Wallet --all",
	}
	filter := addParkedFilter(cmd)
	refused := addRefused(cmd)
	scope := addScope(cmd)
	all := cmd.Flags().Bool("all", false, "all parked effects selected by --service, --method and --error; or all of the scope")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		filtered := filter.GetService()+filter.GetMethod()+filter.GetError() != ""
		switch {
		case len(args) == 1 && (*all || filtered):
			return usagef("name an effect or use --all, not both")
		case len(args) == 0 && !*all:
			return usagef("name an effect, as in 3:1207, or use --all, which --service, --method and --error restrict")
		case scope.text != "" && drop:
			return dropParkedEntities(cmd, scope, args)
		case scope.text != "":
			return errSameAgain
		case *all:
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				if *refused {
					return resolveRefused(ctx, cmd.OutOrStdout(), a, filter, drop, done)
				}
				return resolveAll(ctx, cmd.OutOrStdout(), a, filter, drop, done)
			})
		}
		r, err := effectArg(args[0])
		if err != nil {
			return err
		}
		r.Drop, r.Refused = drop, *refused
		return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
			_, err := a.ResolveParked(ctx, r)
			return err
		})
	}
	addClient(cmd)
	return cmd
}

// resolveAll resolves the effects selected by a filter, page by page, and prints their number, also
// after an error.
func resolveAll(ctx context.Context, w io.Writer, a adminv1.AdminServiceClient, filter *adminv1.ParkedFilter,
	drop bool, done string,
) error {
	n := int64(0)
	for token := ""; ; {
		res, err := a.ResolveParked(ctx, &adminv1.ResolveParkedRequest{Filter: filter, Drop: drop, PageToken: token})
		n += res.GetResolved()
		if token = res.GetNextPageToken(); err != nil || token == "" {
			_, failed := fmt.Fprintf(w, "%s: %d\n", done, n)
			return errors.Join(err, failed)
		}
	}
}

// resolveRefused resolves the refused effects selected by a filter, as listed at the start: one
// that is sent again and refused again is a new one.
func resolveRefused(ctx context.Context, w io.Writer, a adminv1.AdminServiceClient, filter *adminv1.ParkedFilter,
	drop bool, done string,
) error {
	var chosen []*adminv1.ParkedEffect
	for token := ""; ; {
		res, err := a.ListParked(ctx, &adminv1.ListParkedRequest{Refused: true, Filter: filter, PageToken: token})
		if err != nil {
			return err
		}
		chosen = append(chosen, res.GetEffects()...)
		if token = res.GetNextPageToken(); token == "" {
			break
		}
	}
	n := 0
	for _, e := range chosen {
		_, err := a.ResolveParked(ctx, &adminv1.ResolveParkedRequest{
			Partition: e.GetPartition(), Offset: e.GetOffset(), Drop: drop, Refused: true,
		})
		if status.Code(err) == codes.NotFound {
			continue // resolved meanwhile
		}
		if err != nil {
			_, failed := fmt.Fprintf(w, "%s: %d of %d\n", done, n, len(chosen))
			return errors.Join(err, failed)
		}
		n++
	}
	_, err := fmt.Fprintf(w, "%s: %d\n", done, n)
	return err
}

// effectArg reads partition:offset.
func effectArg(arg string) (*adminv1.ResolveParkedRequest, error) {
	first, second, _ := strings.Cut(arg, ":")
	partition, err := strconv.ParseInt(first, 10, 32)
	offset, err2 := strconv.ParseInt(second, 10, 64)
	if err != nil || err2 != nil || partition < 0 || offset < 0 {
		return nil, usagef("%q does not name an effect: write partition:offset, as listed by `millrace parked`", arg)
	}
	return &adminv1.ResolveParkedRequest{Partition: int32(partition), Offset: offset}, nil
}
