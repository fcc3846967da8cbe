package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// projectionRebuild builds rows again.
func projectionRebuild() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rebuild NAME [VERSION]", Short: "Build the rows of a projection again",
		Long: `Build the rows of a projection again, beside those that it has. Queries read the present rows until the new ones are
complete on all workers; then the new ones take their place, and the others are deleted. It returns at once: see
` + "`millrace projection status`" + `. Without a version it is the one in force or, without one, the newest.`,
		Example: "  millrace projection rebuild orders",
		Args:    oneOrTwo,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &adminv1.RebuildProjectionRequest{Name: args[0], Version: strings.Join(args[1:], "")}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				res, err := a.RebuildProjection(ctx, r)
				if err != nil {
					return err
				}
				what := "the rows of %s version %s are built again\n"
				if res.GetUnchanged() {
					what = "the rows of %s version %s are being built again already\n"
				}
				return printf(cmd.ErrOrStderr(), what, r.GetName(), res.GetVersion())
			})
		},
	}
	addClient(cmd)
	return cmd
}

// projectionPause has nothing folded.
func projectionPause() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pause NAME [VERSION]", Short: "Fold nothing into the rows of a projection for now",
		Long: `Fold nothing into the rows of a projection, on all workers, until it is resumed. Queries read the rows as they are, and
say how old they are; those that ask for fresher rows wait, and fail at their deadline. Without a version it is the one
in force or, without one, the newest. Versions that share their rows pause together.`,
		Example: "  millrace projection pause orders",
		Args:    oneOrTwo,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &adminv1.PauseProjectionRequest{Name: args[0], Version: strings.Join(args[1:], "")}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				res, err := a.PauseProjection(ctx, r)
				if err != nil {
					return err
				}
				return printf(cmd.ErrOrStderr(), "%s version %s is paused%s\n", r.GetName(), res.GetVersion(),
					already(res.GetUnchanged()))
			})
		},
	}
	addClient(cmd)
	return cmd
}

// projectionResume ends a pause.
func projectionResume() *cobra.Command {
	cmd := &cobra.Command{
		Use: "resume NAME [VERSION]", Short: "End the pause of a projection",
		Long: `End the pause of a projection: its rows go on where they were. Without a version it is the one in force or, without one,
the newest.`,
		Example: "  millrace projection resume orders",
		Args:    oneOrTwo,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &adminv1.ResumeProjectionRequest{Name: args[0], Version: strings.Join(args[1:], "")}
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				res, err := a.ResumeProjection(ctx, r)
				if err != nil {
					return err
				}
				return printf(cmd.ErrOrStderr(), "%s version %s is resumed%s\n", r.GetName(), res.GetVersion(),
					already(res.GetUnchanged()))
			})
		},
	}
	addClient(cmd)
	return cmd
}

func already(unchanged bool) string {
	if unchanged {
		return " already"
	}
	return ""
}
