package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/internal/plural"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// This file has the commands `parked` with --scope projection/NAME: about the entities that a
// projection does not fold any more.

// scopeFlag is what a command is about, if not effects.
type scopeFlag struct{ text string }

// addScope adds the flag.
func addScope(cmd *cobra.Command) *scopeFlag {
	s := &scopeFlag{}
	cmd.Flags().StringVar(&s.text, "scope", "",
		"projection/NAME, or projection/NAME/VERSION: entities of a projection, instead of effects")
	return s
}

// projection returns the projection, and perhaps the version, of a scope.
func (s *scopeFlag) projection(cmd *cobra.Command) (name, version string, err error) {
	for _, other := range []string{"service", "method", "error", "refused"} {
		if f := cmd.Flags().Lookup(other); f != nil && f.Changed {
			return "", "", usagef("--%s is about effects: leave it out, or leave --scope out", other)
		}
	}
	rest, ok := strings.CutPrefix(s.text, "projection/")
	name, version, _ = strings.Cut(rest, "/")
	if !ok || name == "" {
		return "", "", usagef("%q is not a scope: write projection/NAME, as in projection/orders", s.text)
	}
	return name, version, nil
}

// eachParkedEntity yields the parked entities of a scope page by page, and returns the version, and
// the partitions that the worker has no rows of.
func eachParkedEntity(ctx context.Context, a adminv1.AdminServiceClient, name, version string, limit int,
	yield func(*adminv1.ParkedEntity) error,
) (last *adminv1.ListParkedEntitiesResponse, missing []int32, err error) {
	r := &adminv1.ListParkedEntitiesRequest{Name: name, Version: version}
	for n := 0; ; {
		if limit > 0 {
			r.Limit = int32(min(1000, limit-n))
		}
		if last, err = a.ListParkedEntities(ctx, r); err != nil {
			return last, missing, err
		}
		missing = append(missing, last.GetMissingPartitions()...)
		for _, e := range last.GetEntities() {
			if err := yield(e); err != nil {
				return last, missing, err
			}
		}
		n += len(last.GetEntities())
		if r.PageToken = last.GetNextPageToken(); r.GetPageToken() == "" || n == limit {
			return last, missing, nil
		}
	}
}

// listParkedEntities shows the parked entities of a scope.
func listParkedEntities(cmd *cobra.Command, scope *scopeFlag, limit int) error {
	name, version, err := scope.projection(cmd)
	if err != nil {
		return err
	}
	return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
		l := newList(outputOf(cmd, cmd.OutOrStdout()), parkedEntityRows())
		last, missing, err := eachParkedEntity(ctx, a, name, version, limit, l.add)
		if err := errors.Join(err, l.flush()); err != nil {
			return err
		}
		if err := l.end(); err != nil {
			return err
		}
		if len(missing) > 0 {
			if err := printf(cmd.ErrOrStderr(), "this worker has no rows of %s: ask others with --admin\n",
				plural.Of(len(missing), "partition")); err != nil {
				return err
			}
		}
		if l.rows == 0 && l.format == formatTable {
			return printf(cmd.ErrOrStderr(), "no parked entities of %s version %s\n", name, last.GetVersion())
		}
		return nil
	})
}

// parkedEntityRows are entities that a projection does not fold any more.
func parkedEntityRows() kindOf[*adminv1.ParkedEntity] {
	type entity = *adminv1.ParkedEntity
	place := func(e entity) string { return fmt.Sprintf("%d:%d", e.GetPartition(), e.GetOffset()) }
	return kindOf[entity]{
		columns: []column[entity]{
			{"RECORD", place},
			{"ENTITY", entity.GetEntity},
			{"BEHIND", func(e entity) string {
				if e.GetStopped() {
					return "all: it has stopped"
				}
				return strconv.FormatUint(e.GetBehind(), 10)
			}},
			{"ERROR", entity.GetError},
		},
		name: place,
	}
}

// errSameAgain: nothing that is not another version can make a record foldable.
var errSameAgain = status.Error(codes.FailedPrecondition,
	"a record that could not be folded would fail again: apply a version of the projection that can fold it, "+
		"or leave the record out with `millrace parked drop`, and the entity goes on with its later ones")

// dropParkedEntities leaves the records out that have parked entities: one, or all.
func dropParkedEntities(cmd *cobra.Command, scope *scopeFlag, args []string) error {
	name, version, err := scope.projection(cmd)
	if err != nil {
		return err
	}
	var one *adminv1.ResolveParkedRequest
	if len(args) == 1 {
		if one, err = effectArg(args[0]); err != nil {
			return err
		}
	}
	return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
		dropped := 0
		skip := func(partition int32, offset int64) error {
			res, err := a.SkipRecord(ctx, &adminv1.SkipRecordRequest{
				Name: name, Version: version, Partition: partition, Offset: offset,
			})
			if err != nil {
				return err
			}
			dropped++
			return printf(cmd.ErrOrStderr(), "record %d:%d of %s is left out of %s version %s\n", partition, offset,
				res.GetEntity(), name, res.GetVersion())
		}
		if one != nil {
			return skip(one.GetPartition(), one.GetOffset())
		}
		var all []*adminv1.ParkedEntity // first: what is left out leaves the list
		_, _, err := eachParkedEntity(ctx, a, name, version, 0, func(e *adminv1.ParkedEntity) error {
			all = append(all, e)
			return nil
		})
		for _, e := range all {
			if err != nil {
				break
			}
			if err = skip(e.GetPartition(), e.GetOffset()); status.Code(err) == codes.NotFound {
				err = nil // resolved meanwhile
			}
		}
		return errors.Join(err, printf(cmd.OutOrStdout(), "dropped: %d\n", dropped))
	})
}
