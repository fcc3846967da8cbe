package definitions

import (
	"google.golang.org/grpc"

	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
)

// NewServer returns the service by which other processes follow what this one knows. It belongs on
// the peer port.
func NewServer(d *Definitions) definitionsv1.RevisionServiceServer { return &server{definitions: d} }

type server struct {
	definitionsv1.UnimplementedRevisionServiceServer

	definitions *Definitions
}

// Watch sends each state that is newer than what the caller knows.
func (s *server) Watch(in *definitionsv1.WatchRequest,
	out grpc.ServerStreamingServer[definitionsv1.WatchResponse],
) error {
	known := in.GetKnown()
	for {
		r, changed, isHint := s.definitions.latest()
		if r.Number > known && !isHint {
			if err := out.Send(&definitionsv1.WatchResponse{State: r.state}); err != nil {
				return err //nolint:wrapcheck // the caller has gone
			}
			known = r.Number
		}
		select {
		case <-changed:
		case <-out.Context().Done():
			return nil
		}
	}
}
