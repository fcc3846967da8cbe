package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// paging are the flags by which a list is read in parts.
type paging struct {
	limit int64
	token string
	all   bool
}

// defaultLimit is how many rows are listed unless something else is asked for.
const defaultLimit = 1000

func (p *paging) add(cmd *cobra.Command, rows string) {
	cmd.Flags().Int64Var(&p.limit, "limit", defaultLimit, "maximum number of "+rows)
	cmd.Flags().StringVar(&p.token, "page-token", "", "continue at the token that an earlier page printed")
	cmd.Flags().BoolVar(&p.all, "all", false, "all "+rows+", without a limit")
}

// most returns the limit of a request; 0: none.
func (p *paging) most(cmd *cobra.Command) (int64, error) {
	switch {
	case p.all && cmd.Flags().Changed("limit"):
		return 0, usagef("--all and --limit: choose one")
	case p.all:
		return 0, nil
	case p.limit < 1:
		return 0, usagef("--limit %d: list at least 1, or --all", p.limit)
	}
	return p.limit, nil
}

// end prints what is left of a list, and where it goes on after the limit, or after an error.
func (p *paging) end(cmd *cobra.Command, token string, err, failed error) error {
	if err = errors.Join(err, failed); token == "" {
		return err
	}
	return errors.Join(err, printf(cmd.ErrOrStderr(), "there may be more: continue with --page-token %s\n", token))
}

// listCommand lists the types of entities, or the entities of a type.
func listCommand() *cobra.Command {
	var prefix string
	var pages paging
	cmd := &cobra.Command{
		Use: "list [TYPE]", Short: "List the stored entities of a type, or the types",
		Long: `List the stored entities of a type. Without a type, list the types and count their entities, up to --limit of a type
in each partition: a type that has more is listed as "at least". With --all they are counted to the end, which takes
about a second for a million.

Entities are listed partition by partition, ordered by the length of their ids and then by id. Deleted values are left
out. Each page is a consistent snapshot; the list as a whole is not.`,
		Example: "  millrace list\n  millrace list cart\n  millrace list cart --prefix 2026- --limit 20\n  millrace list cart --all -o name",
		Args:    atMost(1, "at most one type of entities"),
		RunE: func(cmd *cobra.Command, args []string) error {
			most, err := pages.most(cmd)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				if prefix != "" || pages.token != "" {
					return usagef("--prefix and --page-token need a type of entities, as in `list cart`")
				}
				return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
					return listTypes(ctx, cmd, a, most)
				})
			}
			r := &adminv1.ListEntitiesRequest{Type: args[0], Prefix: prefix, Limit: most, PageToken: pages.token}
			if strings.Contains(args[0], "/") {
				return usagef("%q names an entity: `get` shows it, and `list` takes a type", args[0])
			}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				stream, err := a.ListEntities(ctx, r)
				if err != nil {
					return err
				}
				token := ""
				l := newList(outputOf(cmd, cmd.OutOrStdout()), entityRows())
				err = receiveAll(stream.Recv, func(page *adminv1.ListEntitiesResponse) error {
					token = page.GetNextPageToken()
					return l.page(page.GetEntities())
				})
				return pages.end(cmd, token, err, l.end())
			})
		},
	}
	addClient(cmd)
	addOutput(cmd)
	cmd.Flags().StringVar(&prefix, "prefix", "", "only ids that begin with it")
	pages.add(cmd, "entities")
	return cmd
}

// entityRows are stored entities.
func entityRows() kindOf[*adminv1.StoredEntity] {
	type entity = *adminv1.StoredEntity
	name := func(e entity) string { return e.GetType() + "/" + e.GetId() }
	return kindOf[entity]{
		columns: []column[entity]{
			{"ENTITY", name},
			{"KIND", entity.GetKind},
			{"EVENTS", func(e entity) string { return strconv.FormatUint(e.GetSequence(), 10) }},
			{"LAST RECORD", func(e entity) string { return fmt.Sprintf("%d:%d", e.GetPartition(), e.GetOffset()) }},
			{"VALUE", func(e entity) string { return show(e.GetValue()) }},
		},
		name: name,
		// A partition is a page, and each page a block of the table.
		widths: []int{24, len("event sourced"), len("EVENTS"), len("15:1000000"), 1},
	}
}

// typeRow is a type of entities.
type typeRow struct {
	Type     string `json:"type"`
	Kind     string `json:"kind"`
	Entities int64  `json:"entities"`
	// More: not all were counted.
	More bool `json:"more"`
}

// count is the number as a table shows it.
func (r *typeRow) count() string {
	if r.More {
		return fmt.Sprintf("at least %d", r.Entities)
	}
	return strconv.FormatInt(r.Entities, 10)
}

// listTypes adds up the counts of all partitions. In each at most so many entities of a type are
// counted, since counting takes its time; 0: all.
func listTypes(ctx context.Context, cmd *cobra.Command, a adminv1.AdminServiceClient, most int64) error {
	stream, err := a.CountEntities(ctx, &adminv1.CountEntitiesRequest{Limit: most})
	if err != nil {
		return err
	}
	var rows []*typeRow
	if err := receiveAll(stream.Recv, func(counts *adminv1.CountEntitiesResponse) error {
		for _, c := range counts.GetTypes() {
			i := slices.IndexFunc(rows, func(r *typeRow) bool { return r.Type == c.GetType() })
			if i < 0 {
				i, rows = len(rows), append(rows, &typeRow{Type: c.GetType(), Kind: c.GetKind()})
			}
			rows[i].Entities += c.GetEntities()
			rows[i].More = rows[i].More || c.GetMore()
		}
		return nil
	}); err != nil {
		return err
	}
	slices.SortFunc(rows, func(a, b *typeRow) int { return cmp.Compare(a.Type, b.Type) })
	o := outputOf(cmd, cmd.OutOrStdout())
	if len(rows) == 0 && o.format == formatTable {
		return printf(cmd.ErrOrStderr(), "no entities are stored\n")
	}
	return printAll(o, kindOf[*typeRow]{
		columns: []column[*typeRow]{
			{"TYPE", func(r *typeRow) string { return r.Type }},
			{"KIND", func(r *typeRow) string { return r.Kind }},
			{"ENTITIES", (*typeRow).count},
		},
		name: func(r *typeRow) string { return r.Type },
	}, rows)
}

// timersCommand lists pending timers.
func timersCommand() *cobra.Command {
	var pages paging
	cmd := &cobra.Command{
		Use: "timers [TYPE[/ID]]", Short: "List pending timers: of all entities, of a type, or of one entity",
		Long: `List pending timers: of all entities, of a type, or of one entity. They are listed partition by partition, ordered
by due time; those of one entity are ordered by name.`,
		Example: "  millrace timers\n  millrace timers cart\n  millrace timers cart/42",
		Args:    atMost(1, "at most one type or entity, as in cart or cart/42"),
		RunE: func(cmd *cobra.Command, args []string) error {
			most, err := pages.most(cmd)
			if err != nil {
				return err
			}
			r := &adminv1.ListTimersRequest{Limit: most, PageToken: pages.token}
			if len(args) == 1 {
				if r.Type = args[0]; strings.Contains(args[0], "/") {
					if r.Type, r.Id, err = entityArg(args[0]); err != nil {
						return err
					}
				}
			}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				stream, err := a.ListTimers(ctx, r)
				if err != nil {
					return err
				}
				token := ""
				l := newList(outputOf(cmd, cmd.OutOrStdout()), timerRows())
				err = receiveAll(stream.Recv, func(page *adminv1.ListTimersResponse) error {
					token = page.GetNextPageToken()
					return l.page(page.GetTimers())
				})
				if err == nil && l.rows == 0 && l.format == formatTable {
					err = printf(cmd.ErrOrStderr(), "no timers are pending\n")
				}
				return pages.end(cmd, token, err, l.end())
			})
		},
	}
	addClient(cmd)
	addOutput(cmd)
	pages.add(cmd, "timers")
	return cmd
}

// timerRows are pending timers.
func timerRows() kindOf[*adminv1.PendingTimer] {
	type timer = *adminv1.PendingTimer
	return kindOf[timer]{
		columns: []column[timer]{
			{"ENTITY", timer.GetEntity},
			{"NAME", timer.GetName},
			{"DUE", func(t timer) string { return when(t.GetDue()) }},
			{"SCHEDULE", func(t timer) string { return cmp.Or(t.GetSchedule(), "-") }},
			{"TARGET", timer.GetTarget},
			{"PAYLOAD", func(t timer) string { return show(t.GetPayload()) }},
		},
		name: func(t timer) string { return t.GetEntity() + "/" + t.GetName() },
	}
}
