package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/app/admin"
	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/partitions/peer"
	"github.com/millrace-io/millrace/partitions/routing"
	"github.com/millrace-io/millrace/projections/query/remote"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
	rowsv1 "github.com/millrace-io/millrace/proto/gen/millrace/rows/v1"
)

const (
	// evictTimeout bounds one attempt to take a dead worker out of the group; if it fails, its
	// session times out.
	evictTimeout = 5 * time.Second
	// deadQueue is how many dead workers may wait for that.
	deadQueue = 64
	// peerStopTimeout bounds how long leaving the links to other workers may take.
	peerStopTimeout = 2 * time.Second
)

// cluster is a worker's side towards the other workers of its app.
type cluster struct {
	group broker.Group
	// address is where peers reach this worker, public where callers do, "" when it is not announced;
	// incarnation names this process.
	address     string
	public      string
	incarnation uint64
	listener    net.Listener
	client      *peer.Client
	server      *peer.Server
	// dead are workers whose processes were seen to end.
	dead    chan broker.Member
	evicted atomic.Uint64
}

// openCluster opens the port for other workers, where the log has room for them.
func (n *Node) openCluster(ctx context.Context) error {
	group, shared := n.log.(broker.Group)
	if n.log.SingleProcess() || !shared {
		return nil
	}
	listener, err := listen(ctx, "peer", n.config.Peer)
	if err != nil {
		return err
	}
	c := &cluster{
		group: group, address: n.config.Advertise, listener: listener, dead: make(chan broker.Member, deadQueue),
		incarnation: rand.Uint64(), //nolint:gosec // a name, not a secret
	}
	n.cluster = c
	n.onClose(c.close)
	n.routes.RefreshBy(group.Refresh) // for a drained worker, which has no membership
	if c.address == "" {
		c.address = listener.Addr().String()
		if host, _, _ := net.SplitHostPort(c.address); net.ParseIP(host).IsUnspecified() {
			return fmt.Errorf("the peer port listens on all addresses (%s): set --advertise to the host:port by which other workers reach it", c.address)
		}
	}
	c.public = advertisedPublic(n.config.AdvertisePublic, n.PublicAddress(), c.address)
	identity := peer.Identity{Layout: n.layout, Worker: n.identity.Worker, Incarnation: c.incarnation}
	c.client = peer.NewClient(peer.ClientOptions{
		Identity: identity, Clock: n.clock, Hooks: n.peerHooks(),
		MaxFrameBytes: n.config.frameBytes(),
	})
	c.server = peer.NewServer(&peerWorker{node: n}, peer.ServerOptions{
		Identity:      identity,
		MaxFrameBytes: n.config.frameBytes(), Register: func(r grpc.ServiceRegistrar) {
			adminv1.RegisterAdminServiceServer(r, n.service.ForPeers())
			definitionsv1.RegisterRevisionServiceServer(r, definitions.NewServer(n.readSide.definitions))
			rowsv1.RegisterRowsServiceServer(r, remote.NewServer(n.readSide.rows, n.identity.Worker))
		},
	})
	return nil
}

// advertisedPublic is the public address that other workers give to their callers. An unspecified
// address, or a loopback one while the workers are on several machines, would be worse than none.
func advertisedPublic(configured, listening, peers string) string {
	if configured != "" {
		return configured
	}
	host, _, _ := net.SplitHostPort(listening)
	peerHost, _, _ := net.SplitHostPort(peers)
	ip, peerIP := net.ParseIP(host), net.ParseIP(peerHost)
	if ip.IsUnspecified() || ip.IsLoopback() && !peerIP.IsLoopback() && peerHost != "localhost" {
		return ""
	}
	return listening
}

// frameBytes has room for the largest request, or for what the largest commit can send to another
// entity, and what goes with it.
func (c *Config) frameBytes() int {
	return max(c.MaxRequest+frameOverhead, c.MaxCommit+frameOverhead, peer.DefaultMaxFrameBytes)
}

const frameOverhead = 128 << 10

func (n *Node) peerHooks() peer.Hooks {
	return peer.Hooks{
		Dead: func(name, address string, incarnation uint64) {
			select {
			case n.cluster.dead <- broker.Member{Name: name, Address: address, Incarnation: incarnation}:
			default: // so many at once: the brokers remove the rest when their sessions end
			}
		},
		Connected: func(name, address string) {
			n.logger.Debug("connected to another worker", observe.Worker, name, observe.Address, address)
		},
		Lost: func(name, address string, err error) {
			n.logger.Info("no connection to another worker", observe.Worker, name, observe.Address, address, observe.Error, err)
		},
	}
}

func (c *cluster) groupOrNil() broker.Group {
	if c == nil {
		return nil
	}
	return c.group
}

func (c *cluster) peersOrNil() routing.Peers {
	if c == nil {
		return nil
	}
	return c.client
}

func (c *cluster) close() error {
	_ = c.listener.Close() // closed already when it has served
	if c.client == nil {
		return nil
	}
	return c.client.Close()
}

// servePeers answers other workers until the partitions are released.
func (n *Node) servePeers(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- n.cluster.server.Serve(n.cluster.listener) }() // ended by Shutdown below
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	<-n.settled
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), peerStopTimeout)
	defer cancel()
	err := n.cluster.server.Shutdown(bounded)
	switch {
	case errors.Is(err, peer.ErrHanging):
		n.logger.Warn("commands of other workers were aborted", observe.Cause, err)
		return nil
	case err != nil && !errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return <-ended
}

// watchMembers keeps a connection to every other worker, and takes dead ones out of the group.
func (n *Node) watchMembers(ctx context.Context) error {
	for {
		table, changed := n.routes.Watch()
		n.cluster.client.Watch(others(table, n.identity.Worker))
		n.checkReady()
		select {
		case <-changed:
		case dead := <-n.cluster.dead:
			n.evict(ctx, dead)
		case <-ctx.Done():
			return nil
		}
	}
}

// others are the members of a table but this one.
func others(t *broker.Table, self string) map[string]peer.Peer {
	peers := map[string]peer.Peer{}
	if t == nil {
		return peers
	}
	for _, m := range t.Members {
		if m.Name != self {
			peers[m.Name] = peer.Peer{Name: m.Name, Address: m.Address, Incarnation: m.Incarnation}
		}
	}
	return peers
}

// evict takes a dead worker out of the group.
func (n *Node) evict(ctx context.Context, dead broker.Member) {
	ctx, cancel := context.WithTimeout(ctx, evictTimeout)
	defer cancel()
	evicted, err := n.cluster.group.Evict(ctx, n.config.App, dead)
	n.troubles.note(taskMembers, err)
	switch {
	case err != nil:
		n.logger.Warn("dead worker could not be evicted; it stays in the group until its session times out",
			observe.Worker, dead.Name, observe.Error, err)
	case evicted:
		n.cluster.evicted.Add(1)
		n.logger.Warn("dead worker evicted", observe.Worker, dead.Name, observe.Address,
			dead.Address)
	}
}

// Drain hands all partitions to other workers, in order, and returns when that is done. The node
// goes on serving through them. Where there is no other worker, it is refused unless last is set:
// no worker would own the partitions.
func (n *Node) Drain(ctx context.Context, last bool) error {
	if n.cluster == nil {
		return fmt.Errorf("%s is the only worker: the embedded log belongs to one process, so that no other can take "+
			"its partitions; stop it before maintenance, or start workers with --brokers to form a cluster", n.identity.Worker)
	}
	if !n.manager.Draining() {
		if err := admin.MayDrain(n.config.App, n.routes.Current(), n.identity.Worker, last); err != nil {
			return err
		}
		n.logger.Info("draining: partitions are moving to other workers")
	}
	n.manager.Drain()
	n.checkReady()
	select {
	case <-n.manager.Drained():
		n.logger.Info(drained)
		n.checkReady()
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drained is the text in status, readyz and log of a worker that was drained.
const drained = "drained: this worker owns no partitions and forwards calls; stop it, or restart it to take partitions again"

// isDrained reports whether everything was handed over.
func (n *Node) isDrained() bool {
	select {
	case <-n.manager.Drained():
		return true
	default:
		return false
	}
}

// peerWorker is this node as other workers see it.
type peerWorker struct{ node *Node }

// Dispatch runs a command that another worker has sent.
func (w *peerWorker) Dispatch(ctx context.Context, cmd *entities.Command, hops int) (*entities.Reply, error) {
	return w.node.router.DispatchHere(ctx, cmd, hops)
}

// DispatchStream runs a streamed action for a gateway.
func (w *peerWorker) DispatchStream(ctx context.Context, s *entities.Stream) error {
	return w.node.router.DispatchStream(ctx, s)
}

// Resolve makes a command of its target.
func (w *peerWorker) Resolve(t entities.Target) (*entities.Command, error) {
	return w.node.host.Receive(t)
}

// Position says how far a partition of this worker is.
func (w *peerWorker) Position(ctx context.Context, partition int32) (int64, error) {
	return w.node.router.Position(ctx, partition)
}

// Spec returns what the function serves.
func (w *peerWorker) Spec() (*cloudstate.EntitySpec, string, <-chan struct{}) {
	catalog, changed := w.node.readiness.watch()
	if catalog == nil {
		return nil, "", changed
	}
	return catalog.Spec(), catalog.Version(), changed
}

// Status returns the status page.
func (w *peerWorker) Status(ctx context.Context) (*adminv1.StatusResponse, error) {
	return w.node.Status(ctx), nil
}

// Drain hands all partitions to others.
func (w *peerWorker) Drain(ctx context.Context, last bool) error { return w.node.Drain(ctx, last) }
