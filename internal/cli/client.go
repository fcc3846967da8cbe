package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/internal/node"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// maxMessage is the largest message that the command line takes.
const maxMessage = 64 << 20

// addClient gives a command the flags by which it finds a running process.
func addClient(cmd *cobra.Command) {
	cmd.Flags().String("admin", "", "admin address of the process (default: that of the configuration here)")
	cmd.Flags().Duration("timeout", 30*time.Second, "how long to wait for an answer")
	cmd.Flags().String("config", "", "configuration file")
}

// dial connects to an address of a running process. Nothing is sent yet.
func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
}

// admin connects to the admin port and runs use with the command's timeout; 0 means none.
func admin(cmd *cobra.Command, timeout time.Duration, use func(context.Context, adminv1.AdminServiceClient) error) error {
	c, err := clientConfig(cmd)
	if err != nil {
		return err
	}
	conn, err := dial(c.Admin)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // only read
	ctx := cmd.Context()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return explain(use(ctx, adminv1.NewAdminServiceClient(conn)), c.Admin)
}

// clientConfig is the configuration here, with the addresses that were given.
func clientConfig(cmd *cobra.Command) (*node.Config, error) {
	c, _, err := loadSettings(cmd)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func timeout(cmd *cobra.Command) time.Duration {
	d, _ := cmd.Flags().GetDuration("timeout")
	return d
}

// explain adds what to do when nobody answers.
func explain(err error, address string) error {
	if err != nil && isUnreachable(err) {
		return fmt.Errorf("no millrace answers at %s: start one with `millrace dev`, or name its address: %w", address, err)
	}
	return err
}
