package peer

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
	peerv1 "github.com/millrace-io/millrace/proto/gen/millrace/peer/v1"
)

// This file holds the rare calls: one gRPC call each, on the connection of the link.

// conn is the connection of a link for single calls. They count like commands under way, so that a
// link that is no longer wanted stays until they have ended.
type conn struct{ link *link }

// Invoke implements grpc.ClientConnInterface.
func (c conn) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	if err := c.link.begin(); err != nil {
		return err
	}
	defer c.link.end()
	return c.link.conn.Invoke(ctx, method, in, out, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (c conn) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	if err := c.link.begin(); err != nil {
		return nil, err
	}
	stream, err := c.link.conn.NewStream(ctx, desc, method, opts...)
	if err != nil {
		c.link.end()
		return nil, err
	}
	context.AfterFunc(stream.Context(), c.link.end) // grpc-go ends it with the stream
	return stream, nil
}

// ask makes a call and converts its failure. outcome is that of a call that the transport ended:
// NotApplied for calls that only read, so that the caller may ask another worker; Unknown for those
// that change something.
func (c *Client) ask(
	ctx context.Context, address string, outcome entities.OutcomeClass, call func(peerv1.PeerServiceClient) error,
) error {
	on, err := c.Conn(ctx, address)
	if err != nil {
		return err
	}
	if err := call(peerv1.NewPeerServiceClient(on)); err != nil {
		return callFailed(ctx, address, outcome, err)
	}
	return nil
}

// Conn returns the connection to the worker at an address, for services that it has registered
// beside the peer protocol. The error is an *entities.Error; so is that of a call on a connection
// that is no longer wanted: it was not made.
func (c *Client) Conn(ctx context.Context, address string) (grpc.ClientConnInterface, error) {
	l, problem := c.link(ctx, address)
	if problem != nil {
		return nil, problem
	}
	return conn{l}, nil
}

// callFailed distinguishes the ends of a gRPC call: an error of the other side, the caller's
// context, the transport.
func callFailed(ctx context.Context, address string, outcome entities.OutcomeClass, err error) *entities.Error {
	if e, ok := errors.AsType[*entities.Error](err); ok {
		return e
	}
	if e := failureOf(err); e != nil {
		return e
	}
	if ctx.Err() != nil {
		return ended(ctx, outcome, "before the worker at "+address+" answered")
	}
	if outcome == entities.NotApplied { // it only reads: nothing speaks against another attempt
		return unreachable(address, err, overloadRetry)
	}
	return lost(address, err)
}

// Position asks the worker at an address how far a partition is committed now, confirmed by the
// log. The error is an *entities.Error.
func (c *Client) Position(ctx context.Context, address string, partition int32) (next int64, err error) {
	err = c.ask(ctx, address, entities.NotApplied, func(p peerv1.PeerServiceClient) error {
		answer, err := p.Position(ctx, &peerv1.PositionRequest{Partition: partition})
		next = answer.GetNext()
		return err
	})
	return next, err
}

// Position answers another worker. It is called by grpc-go.
func (s *Server) Position(ctx context.Context, in *peerv1.PositionRequest) (*peerv1.PositionResponse, error) {
	next, err := s.worker.Position(ctx, in.GetPartition())
	if err != nil {
		return nil, statusOf(asError(err))
	}
	return &peerv1.PositionResponse{Next: next}, nil
}

// Status asks the worker at an address for its status page. The error is an *entities.Error.
func (c *Client) Status(ctx context.Context, address string) (*adminv1.StatusResponse, error) {
	var page *adminv1.StatusResponse
	err := c.ask(ctx, address, entities.NotApplied, func(p peerv1.PeerServiceClient) error {
		answer, err := p.Status(ctx, &peerv1.StatusRequest{})
		page = answer.GetStatus()
		return err
	})
	return page, err
}

// Status answers another worker. It is called by grpc-go.
func (s *Server) Status(ctx context.Context, _ *peerv1.StatusRequest) (*peerv1.StatusResponse, error) {
	page, err := s.worker.Status(ctx)
	if err != nil {
		return nil, statusOf(asError(err))
	}
	return &peerv1.StatusResponse{Status: page}, nil
}

// Drain asks the worker at an address to hand its partitions over, and waits for that. last: also
// if no other worker would take them. The error is an *entities.Error.
func (c *Client) Drain(ctx context.Context, address string, last bool) error {
	return c.ask(ctx, address, entities.Unknown, func(p peerv1.PeerServiceClient) error {
		_, err := p.Drain(ctx, &peerv1.DrainRequest{Last: last})
		return err
	})
}

// Drain answers another worker. It is called by grpc-go.
func (s *Server) Drain(ctx context.Context, r *peerv1.DrainRequest) (*peerv1.DrainResponse, error) {
	if err := s.worker.Drain(ctx, r.GetLast()); err != nil {
		return nil, statusOf(asError(err))
	}
	return &peerv1.DrainResponse{}, nil
}

// Spec calls on with the spec of the function of the worker at an address, unless the caller has
// that version already, and again whenever it changes. It returns on's error, or an *entities.Error
// when ctx or the connection ends, or the worker stops.
func (c *Client) Spec(
	ctx context.Context, address, known string, on func(spec *cloudstate.EntitySpec, version string) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, problem := c.link(ctx, address)
	if problem != nil {
		return problem
	}
	// On the connection itself, so that this call does not keep a connection that is no longer wanted.
	stream, err := peerv1.NewPeerServiceClient(l.conn).Spec(ctx, &peerv1.SpecRequest{Known: known})
	for err == nil {
		var answer *peerv1.SpecResponse
		if answer, err = stream.Recv(); err != nil {
			break
		}
		if refused := on(answer.GetSpec(), answer.GetVersion()); refused != nil {
			return refused
		}
	}
	return callFailed(ctx, address, entities.NotApplied, err)
}

// Spec answers another worker until that worker ends the call. It is called by grpc-go.
func (s *Server) Spec(in *peerv1.SpecRequest, stream grpc.ServerStreamingServer[peerv1.SpecResponse]) error {
	for known := in.GetKnown(); ; {
		// The channel belongs to the version: a change after this line closes it.
		spec, version, changed := s.worker.Spec()
		if spec != nil && version != known {
			if err := stream.Send(&peerv1.SpecResponse{Version: version, Spec: spec}); err != nil {
				return err
			}
			known = version
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-s.stopping:
			return statusOf(entities.Errorf(
				entities.Unavailable, entities.NotApplied, "worker %q is stopping", s.options.Identity.Worker,
			))
		}
	}
}
