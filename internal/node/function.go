package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/entities/host"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/partitions"
)

// readiness is what Ready waits for, and why it is not there yet.
type readiness struct {
	mu       sync.Mutex
	function error
	// quiet is closed when no caller is served any more.
	quiet chan struct{}
	// waiting is closed when only the function is missing.
	waiting chan struct{}
	// restarted gets a signal when a supervised function was started again.
	restarted chan struct{}
}

func (r *readiness) functionError(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.function = err
}

func (r *readiness) functionProblem() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.function
}

// NotReady returns why the node does not serve yet, nil when it does.
func (n *Node) NotReady() error {
	if n.host.Catalog() == nil {
		if err := n.readiness.functionProblem(); err != nil {
			return fmt.Errorf("waiting for the user function at %s: %w", n.config.Function, err)
		}
		return fmt.Errorf("waiting for the user function at %s", n.config.Function)
	}
	return n.notOwned()
}

// notOwned returns why not every partition is owned, nil when all are.
func (n *Node) notOwned() error {
	for _, p := range n.manager.Partitions() {
		if s := p.Status(); s.State != partitions.Active && s.State != partitions.Suspect {
			return fmt.Errorf("partition %d is %s", s.Partition, s.State)
		}
	}
	return n.manager.Contract()
}

func (n *Node) checkReady() {
	if n.notOwned() != nil {
		return
	}
	if n.host.Catalog() == nil {
		if n.options.Local != nil {
			return // it is being attached
		}
		n.waitingOnce.Do(func() { close(n.readiness.waiting) })
		return
	}
	n.readyOnce.Do(func() { close(n.ready) })
}

// meetRemote discovers the remote function once, and once more each time the supervisor has started it again. A function
// that says the same as before keeps its place; another one replaces it.
func (n *Node) meetRemote(ctx context.Context, options host.RemoteOptions) error {
	for {
		met, err := host.Connect(ctx, n.config.Function, options)
		rejected, isRejected := errors.AsType[*discovery.RejectedError](err)
		switch {
		case ctx.Err() != nil:
			if met != nil {
				return met.Close()
			}
			return nil
		case isRejected:
			// The function's author mends it and starts it again; without a supervisor the operator starts this process again.
			n.readiness.functionError(rejected)
			n.logger.Error("the user function cannot be served", observe.Address, n.config.Function, observe.Error, rejected)
		case err != nil:
			return err
		default:
			n.replace(met)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.readiness.restarted:
		}
	}
}

// replace puts a function that was just met in the place of the one before.
func (n *Node) replace(met *host.Remote) {
	if before := n.host.Catalog(); before != nil && same(before, met.Catalog()) {
		_ = met.Close()
		return
	}
	old := n.host.Replace(met)
	n.gateway.SetCatalog(met.Catalog())
	n.readiness.functionError(nil)
	n.checkReady()
	if old, ok := old.(*host.Remote); ok && old != nil {
		_ = old.Close()
	}
}

// same says whether two catalogs serve the same.
func same(a, b *discovery.Catalog) bool {
	x, errX := proto.MarshalOptions{Deterministic: true}.Marshal(a.FileDescriptorSet())
	y, errY := proto.MarshalOptions{Deterministic: true}.Marshal(b.FileDescriptorSet())
	if errX != nil || errY != nil || !bytes.Equal(x, y) || len(a.Services()) != len(b.Services()) {
		return false
	}
	for i, s := range a.Services() {
		other := b.Services()[i]
		if s.Name != other.Name || s.Kind != other.Kind || s.EntityType != other.EntityType {
			return false
		}
	}
	return true
}
