package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace-io/millrace/internal/app/node"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

const (
	// maxMessage is the largest message that the command line takes.
	maxMessage = 64 << 20
	// defaultTimeout is how long a command waits for an answer.
	defaultTimeout = 30 * time.Second
)

// addClient adds the flags by which a command finds a running process.
func addClient(cmd *cobra.Command) {
	cmd.Flags().String("admin", "", "admin address (default: from millrace.yaml or MILLRACE_ADMIN)")
	cmd.Flags().Duration("timeout", defaultTimeout, "request timeout; 0: none")
	cmd.Flags().String("config", "", "configuration file; "+node.DefaultFile+" is read when it is there")
}

// dial returns a connection to a running process. It sends nothing yet.
func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
}

// admin connects to the admin port and runs use with the command's timeout; 0 means none.
func admin(cmd *cobra.Command, timeout time.Duration,
	use func(context.Context, adminv1.AdminServiceClient) error,
) error {
	c, err := clientConfig(cmd)
	if err != nil {
		return err
	}
	conn, err := dial(c.Admin)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // only read
	ctx, cancel := withTimeout(cmd.Context(), timeout)
	defer cancel()
	return explain(use(ctx, adminv1.NewAdminServiceClient(conn)), c.Admin)
}

// withTimeout is context.WithTimeout; 0 means none.
func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// clientConfig returns the configuration, with the address from the flags. Other flags of a client
// are not settings, even if they have the name of one.
func clientConfig(cmd *cobra.Command) (*node.Config, error) {
	given := map[string]string{}
	if cmd.Flags().Changed("admin") {
		given["admin"], _ = cmd.Flags().GetString("admin")
	}
	file, _ := cmd.Flags().GetString("config")
	// The process at that address knows its app.
	c, _, err := Program{App: node.DefaultApp}.load(node.Sources{Flags: given, File: file})
	return c, err
}

func timeout(cmd *cobra.Command) time.Duration {
	d, _ := cmd.Flags().GetDuration("timeout")
	return d
}
