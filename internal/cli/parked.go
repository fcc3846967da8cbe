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

// parked lists effects that could not be delivered, and resolves them.
func parked() *cobra.Command {
	cmd := &cobra.Command{
		Use: "parked", Short: "List effects that wait for you, send them again, or drop them", Args: exactly(0, "no arguments"),
		Long: `List the effects that could not be delivered: their target does not exist, or its function fails on them again and
again. Nothing is dropped by itself. PARTITION:OFFSET names an effect.`,
		Example: "  millrace parked\n  millrace parked replay 3:1207\n  millrace parked drop 3:1207",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				res, err := a.ListParked(ctx, &adminv1.ListParkedRequest{})
				if err != nil {
					return err
				}
				w := cmd.OutOrStdout()
				if !isTerminal(w) {
					return printLine(w, res)
				}
				return printParked(w, res.GetEffects())
			})
		},
	}
	addClient(cmd)
	cmd.AddCommand(resolve("replay", "Send a parked effect again", false), resolve("drop", "Drop a parked effect for good", true))
	return cmd
}

func printParked(w io.Writer, effects []*adminv1.ParkedEffect) error {
	if len(effects) == 0 {
		_, err := fmt.Fprintln(w, "no effect is parked")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "EFFECT\tFROM\tTO\tPAYLOAD\tATTEMPTS\tERROR")
	for _, e := range effects {
		fmt.Fprintf(t, "%d:%d\t%s\t%s/%s\t%s\t%d\t%s\n", e.GetPartition(), e.GetOffset(), e.GetFrom(), e.GetService(), e.GetMethod(), show(e.GetPayload()), e.GetAttempts(), e.GetError())
	}
	return t.Flush()
}

func resolve(use, short string, drop bool) *cobra.Command {
	cmd := &cobra.Command{
		Use: use + " PARTITION:OFFSET", Short: short, Args: exactly(1, "an effect, as in 3:1207"),
		Example: "  millrace parked " + use + " 3:1207",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := effectArg(args[0])
			if err != nil {
				return err
			}
			r.Drop = drop
			return admin(cmd, timeout(cmd), func(ctx context.Context, a adminv1.AdminServiceClient) error {
				_, err := a.ResolveParked(ctx, r)
				return err
			})
		},
	}
	addClient(cmd)
	return cmd
}

// effectArg reads partition:offset.
func effectArg(arg string) (*adminv1.ResolveParkedRequest, error) {
	first, second, _ := strings.Cut(arg, ":")
	partition, err := strconv.ParseInt(first, 10, 32)
	offset, err2 := strconv.ParseInt(second, 10, 64)
	if err != nil || err2 != nil || partition < 0 || offset < 0 {
		return nil, usagef("%q does not name an effect: write it as partition:offset, as `millrace parked` lists it", arg)
	}
	return &adminv1.ResolveParkedRequest{Partition: int32(partition), Offset: offset}, nil
}
