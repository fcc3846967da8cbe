package admin

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions"
	"github.com/millrace-io/millrace/partitions/peer"
	"github.com/millrace-io/millrace/partitions/routing"
	"github.com/millrace-io/millrace/projections"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// Process is a worker or a gateway, as its admin port shows it. Its methods are called from many
// goroutines, when the process has opened everything and until Server.Serve has returned.
type Process interface {
	// Self returns those lines of the status page that only the process knows: names, addresses,
	// log, tasks.
	Self() *adminv1.StatusResponse
	// NotReady returns why it does not serve, nil when it does.
	NotReady() error
	// Metrics returns what is measured.
	Metrics() []observe.Source
	// Catalog returns what is served, nil while that is not known, and where the functions are hosted.
	Catalog() (catalog *discovery.Catalog, hosting string)
	// App returns how the process sees the app that it belongs to.
	App() App
	// Worker returns what only a worker has, nil of a gateway.
	Worker() *Worker
	// ReadSide returns what the process has of projections, nil without them.
	ReadSide() *ReadSide
}

// ReadSide is what a process has of projections.
type ReadSide struct {
	Definitions *definitions.Definitions
	// Projections returns how the rows on this worker stand; nil of a gateway, which has none.
	Projections func() []projections.Status
	// Parked are the parked entities of this worker's rows, nil of a gateway; the app has so many
	// Partitions.
	Parked     ParkedEntities
	Partitions int32
}

// ParkedEntities are those of which rows are not folded any more: *projections.Engine.
type ParkedEntities interface {
	Parked(dataset uint32, partition int32, after string, limit int) ([]projections.Parked, error)
	ParkedAt(dataset uint32, partition int32, offset int64) (*projections.Parked, error)
}

// App is an app as one of its processes sees it.
type App struct {
	Name   string
	Layout entities.Layout
	Routes *routing.Table
	// Client asks other workers; nil where the log belongs to this process alone, and there are
	// none.
	Client *peer.Client
	// Carried counts commands that went to their owners.
	Carried routing.Counts
	// PeerAddress is where other workers reach this one, and Evicted how many dead workers it took
	// out of the group; of a worker only.
	PeerAddress string
	Evicted     uint64
}

// table is the present routing table; it may be nil.
func (a *App) table() *broker.Table { return a.Routes.Current() }

// Worker is what a worker has and a gateway does not.
type Worker struct {
	// Name is that of the worker in its group.
	Name       string
	Log        broker.Log
	Topic      broker.TopicInfo
	Store      materializer.Store
	Partitions *partitions.Manager
	// Drain hands all partitions to other workers; it is refused to the last worker unless last is
	// set.
	Drain func(ctx context.Context, last bool) error
	Clock clock.Clock
}

// Service answers millrace.admin.v1 for one process. A method that has no handler does not compile.
type Service struct {
	adminv1.UnsafeAdminServiceServer
	process Process
	// verifying is held by the one verification that may run.
	verifying sync.Mutex
}

// NewService returns the service of a process. Nothing is asked of the process before the first
// call.
func NewService(of Process) *Service {
	return &Service{process: of}
}

// worker returns the process's log, store and partitions, or the error of a method that needs them
// in a gateway.
func (s *Service) worker() (*Worker, error) {
	if w := s.process.Worker(); w != nil {
		return w, nil
	}
	return nil, status.Error(codes.Unimplemented,
		"a gateway has no log and no store: ask a worker, with --admin and its admin address; "+
			"`millrace cluster status` lists them")
}

// catalog is what is served, nil while that is not known.
func (s *Service) catalog() *discovery.Catalog {
	catalog, _ := s.process.Catalog()
	return catalog
}

// partition is that of an entity.
func (s *Service) partition(id string) int32 {
	app := s.process.App()
	return entities.Partition(id, int(app.Layout.Partitions))
}
