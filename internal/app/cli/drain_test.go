package cli

import (
	"context"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// fleet is the admin port of worker w1, and records which workers were drained. It refuses the last
// one like a worker.
type fleet struct {
	adminv1.UnimplementedAdminServiceServer
	members []string
	drained []string
}

// Status names the worker.
func (f *fleet) Status(context.Context, *adminv1.StatusRequest) (*adminv1.StatusResponse, error) {
	return &adminv1.StatusResponse{Worker: "w1"}, nil
}

// Cluster lists the members; w1 owns all four partitions.
func (f *fleet) Cluster(context.Context, *adminv1.ClusterRequest) (*adminv1.ClusterResponse, error) {
	c := &adminv1.ClusterResponse{App: "shop"}
	for _, name := range f.members {
		c.Members = append(c.Members, &adminv1.Member{Name: name})
	}
	for i := range int32(4) {
		c.Partitions = append(c.Partitions, &adminv1.Placement{Partition: i, Owner: "w1"})
	}
	return c, nil
}

// Drain records the worker.
func (f *fleet) Drain(_ context.Context, r *adminv1.DrainRequest) (*adminv1.DrainResponse, error) {
	if len(f.members) == 1 && !r.GetLast() {
		return nil, status.Error(codes.FailedPrecondition, "w1 is the last worker")
	}
	f.drained = append(f.drained, r.GetWorker())
	return &adminv1.DrainResponse{}, nil
}

// TestDrainAsks: drain asks for confirmation; without a terminal, --yes is required.
func TestDrainAsks(t *testing.T) {
	p := tool(t)
	for name, tc := range map[string]struct {
		terminal bool
		members  string
		stdin    string
		args     string
		code     int
		said     string
		drained  string
	}{
		"yes":                  {true, "w1 w2 w3", "y\n", "", exitOK, "drain worker w1 of app shop: 4 of 4 partitions go to w2, w3", "w1"},
		"no":                   {true, "w1 w2", "n\n", "", exitError, "cancelled: nothing was changed", ""},
		"no answer":            {true, "w1 w2", "", "", exitError, "cancelled: nothing was changed", ""},
		"another one":          {true, "w1 w2", "yes\n", "w2", exitOK, "drain worker w2 of app shop: 0 of 4 partitions go to w1", "w2"},
		"on a pipe":            {false, "w1 w2", "y\n", "", exitUsage, "this would drain worker w1 of app shop: 4 of 4 partitions go to w2: confirm with --yes", ""},
		"on a pipe, yes":       {false, "w1 w2", "", "--yes", exitOK, "w1 is drained: it owns no partitions", "w1"},
		"the last one":         {true, "w1", "y\n", "", exitPrecondition, "w1 is the last worker", ""},
		"the last one, yes":    {false, "w1", "", "--yes", exitPrecondition, "w1 is the last worker", ""},
		"the last one, meant":  {true, "w1", "y\n", "--last", exitOK, "4 of 4 partitions go to no worker: it is the last one", "w1"},
		"the last one, sure":   {false, "w1", "", "--last --yes", exitOK, "w1 is drained", "w1"},
		"the last one, a pipe": {false, "w1", "y\n", "--last", exitUsage, "confirm with --yes", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fleet{members: strings.Fields(tc.members)}
			server := grpc.NewServer()
			adminv1.RegisterAdminServiceServer(server, f)
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- server.Serve(l) }() // Stop ends it; received below
			r := p.runIn(t, tc.terminal, tc.stdin,
				append([]string{"drain", "--admin", l.Addr().String()}, strings.Fields(tc.args)...)...)
			server.Stop()
			if err := <-served; err != nil {
				t.Fatal(err)
			}
			if said := r.stdout + r.stderr; r.code != tc.code || !strings.Contains(said, tc.said) ||
				strings.Join(f.drained, " ") != tc.drained {
				t.Errorf("exit code %d, drained %q, said %q; want %d, %q, %q", r.code, f.drained, said, tc.code, tc.drained,
					tc.said)
			}
		})
	}
}
