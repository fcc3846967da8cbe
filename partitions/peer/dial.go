package peer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/millrace-io/millrace/internal/multiplex"
	peerv1 "github.com/millrace-io/millrace/proto/gen/millrace/peer/v1"
)

var errDialTimeout = errors.New("no link within the time that an attempt has")

// probes let the kernel notice a line that was cut while nothing is sent.
//
//nolint:gochecknoglobals // a constant
var probes = net.KeepAliveConfig{Enable: true, Idle: probeAfter, Interval: probeInterval, Count: probeCount}

// socketGone reports whether an attempt found the address without a listener: the machine answers,
// and no process does.
//
// A connection that is reset while it is made counts too: the kernel of a process that has just
// died still has its queue of connections.
func socketGone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}

// dial makes one attempt to open a link.
func (p *peer) dial() (*link, error) {
	o := &p.client.options
	// gRPC passes the error of the system on as a text; the check needs the error itself.
	var said atomic.Pointer[error]
	dialer := net.Dialer{KeepAliveConfig: probes}
	conn, err := grpc.NewClient("passthrough:///"+p.address,
		grpc.WithTransportCredentials(o.Credentials),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, "tcp", address)
			if err != nil {
				said.Store(&err)
			}
			return c, err
		}),
		// Nothing of the environment or of DNS may decide where a command goes, and nothing below the
		// router may send it twice.
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connectionWindow),
		// Timeout is also how long the kernel waits for bytes to be acknowledged.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: pingAfter, Timeout: lineTimeout, PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(
			grpc.ForceCodecV2(multiplex.Codec{}), grpc.MaxCallSendMsgSize(math.MaxInt32),
			grpc.MaxCallRecvMsgSize(o.MaxFrameBytes+multiplex.MessageBytes),
		),
	)
	if err != nil {
		return nil, fmt.Errorf("worker at %s: %w", p.address, err)
	}
	l, err := p.greet(conn)
	if err == nil {
		return l, nil
	}
	if e := said.Load(); e != nil {
		err = *e
	}
	return nil, errors.Join(fmt.Errorf("worker at %s: %w", p.address, err), conn.Close())
}

// greet opens a link on a new connection. The hello names the process that is expected at the
// address: another worker may have been given it since the table was made.
func (p *peer) greet(conn *grpc.ClientConn) (*link, error) {
	o := &p.client.options
	opening, stop := context.WithTimeoutCause(p.ctx, o.DialTimeout, errDialTimeout)
	defer stop()
	p.mu.Lock()
	who := p.who
	p.mu.Unlock()
	hello, first := &peerv1.Hello{
		Protocol: Protocol, Layout: layoutOf(o.Identity.Layout), Worker: o.Identity.Worker,
		Incarnation: o.Identity.Incarnation, ToWorker: who.Name, ToIncarnation: who.Incarnation,
	}, &peerv1.LinkResponse{}
	connect := func(ctx context.Context) (grpc.ClientStream, error) {
		return peerv1.NewPeerServiceClient(conn).Link(ctx)
	}
	l := &link{address: p.address, stats: &p.client.stats, conn: conn, known: names{}}
	l.Sent, l.Over = &l.stats.bytesSent, l.over
	if err := l.Open(p.ctx, opening, connect, &peerv1.LinkRequest{Hello: hello}, first); err != nil {
		if refusal := failureOf(err); refusal != nil {
			return nil, fmt.Errorf("%w: %s", errRefused, refusal.Message)
		}
		return nil, err
	}
	if err := l.admit(first.GetWelcome(), hello, o); err != nil {
		l.Cancel(err)
		return nil, err
	}
	return l, nil
}
