package definitions

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/materializer"
	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
	"github.com/millrace-io/millrace/sdk"
)

// How often a source looks again.
const (
	// askEvery: the entity is asked.
	askEvery = time.Second
	// lookEvery: the store is looked at after its partition has moved.
	lookEvery = 50 * time.Millisecond
)

// OfCommands returns a source that asks the entity each second. It needs no image and no peer.
func OfCommands(c Commands, clk clock.Clock) Source { return &byCommands{commands: c, clock: clk} }

type byCommands struct {
	commands Commands
	clock    clock.Clock
}

func (s *byCommands) Next(ctx context.Context, known int64) (*definitionsv1.State, error) {
	for {
		reply := &definitionsv1.DescribeResponse{}
		err := call(ctx, s.commands, definitionsDescribe, &definitionsv1.DescribeRequest{App: EntityID}, reply)
		if err != nil {
			return nil, err
		}
		if reply.GetState().GetRevision() > known {
			return reply.GetState(), nil
		}
		due, cancel := s.clock.After(askEvery)
		select {
		case <-due:
		case <-ctx.Done():
			cancel()
			return nil, context.Cause(ctx)
		}
	}
}

// Image is the entity's partition on a worker that may have an image of it.
type Image interface {
	// Feed is that of the partition; nil while the worker has none.
	Feed() *materializer.Feed
	// View reads the image's rows.
	View() materializer.Partition
}

// OfImage returns a source that reads the image while there is one, and asks another source
// otherwise.
func OfImage(i Image, otherwise Source, clk clock.Clock) Source {
	return &byImage{image: i, otherwise: otherwise, clock: clk}
}

type byImage struct {
	image     Image
	otherwise Source
	clock     clock.Clock
}

func (s *byImage) Next(ctx context.Context, known int64) (*definitionsv1.State, error) {
	for {
		feed := s.image.Feed()
		if feed == nil || feed.Role() == materializer.NoRole {
			state, err := s.elsewhere(ctx, known)
			if state != nil || err != nil {
				return state, err
			}
			continue
		}
		moved := feed.Moved()
		state, err := s.read(known)
		if state != nil || err != nil {
			return state, err
		}
		if err := s.wait(ctx, moved); err != nil {
			return nil, err
		}
	}
}

// elsewhere asks the other source for a while: the image may come.
func (s *byImage) elsewhere(ctx context.Context, known int64) (*definitionsv1.State, error) {
	asking, cancel := context.WithTimeout(ctx, 10*askEvery)
	defer cancel()
	state, err := s.otherwise.Next(asking, known)
	if err != nil && asking.Err() != nil && ctx.Err() == nil {
		return nil, nil
	}
	return state, err //nolint:wrapcheck // it is the source's
}

// wait returns when the partition has moved, and not before the store may be looked at again: other
// entities move it, too.
func (s *byImage) wait(ctx context.Context, moved <-chan struct{}) error {
	due, cancel := s.clock.After(lookEvery)
	defer cancel()
	select {
	case <-moved:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-due:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// read returns the stored state if its revision is above the known one.
func (s *byImage) read(known int64) (*definitionsv1.State, error) {
	key := entities.Key{Type: EntityType, ID: EntityID}
	head, ok, err := s.image.View().Head(key)
	if err != nil {
		return nil, fmt.Errorf("read the definitions from the image: %w", err)
	}
	if !ok || int64(head.Sequence) <= known { //nolint:gosec // a count
		return nil, nil
	}
	loaded, err := s.image.View().Load(key)
	if err != nil {
		return nil, fmt.Errorf("read the definitions from the image: %w", err)
	}
	return replayed(loaded)
}

// replayed is the state that is stored as a snapshot and events.
func replayed(l entities.Loaded) (*definitionsv1.State, error) {
	entity, err := Services()[0].NewEntity(EntityID)
	if err != nil {
		return nil, fmt.Errorf("make the entity of the definitions: %w", err)
	}
	if err := entity.Load((*sdk.Payload)(l.State), l.StateSequence); err != nil {
		return nil, err //nolint:wrapcheck // it names the entity
	}
	if l.Events != nil {
		err := l.Events(func(e entities.Event) error { return entity.Apply(e.Sequence, sdk.Payload(e.Payload)) })
		if err != nil {
			return nil, err //nolint:wrapcheck // it names the entity
		}
	}
	a, ok := entity.Image().(*app)
	if !ok {
		return nil, errors.New("the entity of the definitions has another image")
	}
	return a.state, nil
}

// OfPeers returns a source that keeps one stream open to another process. dial returns a connection
// to one that knows the definitions, which is asked again after an error.
func OfPeers(dial func(ctx context.Context) (grpc.ClientConnInterface, error)) Source {
	return &byPeers{dial: dial}
}

type byPeers struct {
	dial   func(ctx context.Context) (grpc.ClientConnInterface, error)
	stream grpc.ServerStreamingClient[definitionsv1.WatchResponse]
	end    context.CancelFunc
}

func (s *byPeers) Next(ctx context.Context, known int64) (*definitionsv1.State, error) {
	for {
		if s.stream == nil {
			if err := s.open(ctx, known); err != nil {
				return nil, err
			}
		}
		stop := context.AfterFunc(ctx, s.end)
		m, err := s.stream.Recv()
		stop()
		if err != nil {
			s.end()
			s.stream = nil
			return nil, fmt.Errorf("follow the definitions of another process: %w", err)
		}
		if m.GetState().GetRevision() > known {
			return m.GetState(), nil
		}
	}
}

func (s *byPeers) open(ctx context.Context, known int64) error {
	conn, err := s.dial(ctx)
	if err != nil {
		return fmt.Errorf("find a process that knows the definitions: %w", err)
	}
	// The stream outlives this call; each call ends it with its own context.
	within, end := context.WithCancel(context.WithoutCancel(ctx))
	in := &definitionsv1.WatchRequest{Known: known}
	stream, err := definitionsv1.NewRevisionServiceClient(conn).Watch(within, in)
	if err != nil {
		end()
		return fmt.Errorf("follow the definitions of another process: %w", err)
	}
	s.stream, s.end = stream, end
	return nil
}
