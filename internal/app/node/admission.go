package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/partitions/routing"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// This file decides whether a worker is one of its app: two services under one app name would each
// answer for a part of the other's entities. A worker decides about itself, before it joins the
// group, by what the others say in their join data, and once more with its first table, because
// others may have joined at the same time. It takes no partition before.

// NotOfAppError says why a worker is not one of the app. It took nothing.
type NotOfAppError struct {
	// App is the name of the app, Other the worker or the journal that serves something else.
	App, Other string
	// Own and Others are what this worker and the other one serve.
	Own, Others string
	Why         error
	// Remedy is what to do when it is meant.
	Remedy string
}

// Error has both lists.
func (e *NotOfAppError) Error() string {
	return fmt.Sprintf("this worker is not one of app %s, and owns nothing: %v. This worker serves: %s. %s serves: %s. %s",
		e.App, e.Why, e.Own, e.Other, e.Others, e.Remedy)
}

// Unwrap returns the reason.
func (e *NotOfAppError) Unwrap() error { return e.Why }

const (
	anotherName = "If it is another service, give it an app name of its own, with --app. Workers of one app may serve different versions of its services, but not other services; docs/cluster.md says what may change, and in which order"
	itIsMeant   = "If it is another service, give it an app name of its own, with --app. To leave the old entities behind, start it with --services-changed"
)

func (n *Node) notOfApp(catalog *discovery.Catalog, other, others string, why error, remedy string) error {
	return &NotOfAppError{
		App: n.config.App, Other: other, Own: discovery.Describe(catalog.Offers()), Others: others,
		Why: why, Remedy: remedy,
	}
}

// serves is what this worker announces of its services when it joins.
func (n *Node) serves() string {
	catalog, _ := n.readiness.user()
	if catalog == nil {
		return ""
	}
	return discovery.EncodeOffers(catalog.Offers())
}

// entityTypes are those that the function serves.
func (n *Node) entityTypes() []string {
	catalog, _ := n.readiness.user()
	if catalog == nil {
		return nil
	}
	var types []string
	for _, t := range catalog.EntityTypes() {
		types = append(types, t.Name)
	}
	slices.Sort(types)
	return types
}

// admit returns true when this worker may join its group. It waits for the function, and for the
// group to be known. When ctx ends before it returns false and no error.
func (n *Node) admit(ctx context.Context) (bool, error) {
	if n.cluster == nil {
		return true, nil
	}
	catalog := n.awaitFunction(ctx)
	if catalog == nil {
		return false, nil
	}
	seen := routing.NewTable()
	watching, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { // ends with watching, received below
		ended <- n.cluster.group.Watch(watching, n.config.App, n.topic.Name, seen.Set, func(err error) {
			n.troubles.note(taskPartitions, err)
		})
	}()
	defer func() {
		stop()
		<-ended //nolint:errcheck // it was cancelled
	}()
	for attempt := 1; ; attempt++ {
		table, changed := seen.Watch()
		if table != nil {
			unknown, err := n.belongs(ctx, table, catalog)
			if err == nil && unknown == nil && len(others(table, n.identity.Worker)) == 0 {
				err = n.belongsToJournal(ctx, catalog)
			}
			if ctx.Err() != nil {
				return false, nil
			}
			n.troubles.note(taskPartitions, unknown)
			if unknown == nil {
				return err == nil, err
			}
			n.logger.Info("waiting to join the app", observe.App, n.config.App, observe.Cause, unknown)
		}
		again, giveUp := n.clock.After(catalogPause.Pause(attempt))
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
		}
		giveUp()
		if ctx.Err() != nil {
			return false, nil
		}
	}
}

// awaitFunction returns what the function serves, nil when ctx ends before that is known.
func (n *Node) awaitFunction(ctx context.Context) *discovery.Catalog {
	for {
		catalog, changed := n.readiness.user()
		if catalog != nil {
			return catalog
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// belongs compares what is served here with what each other worker of a table serves. unknown says
// whose services could not be compared: that worker has to be asked, and does not answer. It is
// asked again, or is no member any more soon.
func (n *Node) belongs(ctx context.Context, t *broker.Table, catalog *discovery.Catalog) (unknown, _ error) {
	own := discovery.EncodeOffers(catalog.Offers())
	compared := map[string]bool{own: true, "": true} // a worker of an earlier release announces nothing
	for _, m := range t.Members {
		if m.Name == n.identity.Worker || compared[m.Serves] {
			continue
		}
		if err := n.compareOffers(m, catalog); err != nil {
			return nil, err
		}
		other, err := n.catalogOf(ctx, m)
		if err != nil {
			unknown = fmt.Errorf("worker %s at %s serves other services, and does not list them: %w", m.Name, m.Address, err)
			continue
		}
		offers := other.Offers()
		why := discovery.Belong(catalog.Offers(), offers)
		if why == nil {
			why = discovery.Conflict(catalog, other)
		}
		if why != nil {
			return nil, n.notOfApp(catalog, "Worker "+m.Name, discovery.Describe(offers), why, anotherName)
		}
		compared[m.Serves] = true
	}
	for _, m := range t.Members {
		if m.Name != n.identity.Worker && !compared[m.Serves] {
			return unknown, nil
		}
	}
	return nil, nil
}

// compareOffers compares what is served here with the list of another worker, without asking it.
func (n *Node) compareOffers(m broker.Member, catalog *discovery.Catalog) error {
	offers, err := discovery.DecodeOffers(m.Serves)
	if err != nil || offers == nil { // from a later release, or too long for the group
		return nil //nolint:nilerr // the worker itself is asked
	}
	if why := discovery.Belong(catalog.Offers(), offers); why != nil {
		return n.notOfApp(catalog, "Worker "+m.Name, discovery.Describe(offers), why, anotherName)
	}
	return nil
}

// errEnough ends a stream of catalogs with the first one.
var errEnough = errors.New("one catalog is enough")

// catalogOf asks a worker what its function serves.
func (n *Node) catalogOf(ctx context.Context, m broker.Member) (*discovery.Catalog, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var catalog *discovery.Catalog
	err := n.cluster.client.Spec(ctx, m.Address, "", func(spec *cloudstate.EntitySpec, _ string) (err error) {
		catalog, err = discovery.NewCatalog(spec,
			discovery.Options{Settings: discovery.Settings{MaxKey: n.config.MaxKey}, Runtime: true})
		if err == nil {
			err = errEnough
		}
		return err
	})
	if catalog != nil {
		return catalog.User(), nil
	}
	return nil, err
}

// stillBelongs reports whether a function that was started again may take the place of the one
// before.
func (n *Node) stillBelongs(catalog *discovery.Catalog) error {
	if n.cluster == nil {
		return nil
	}
	unknown, err := n.belongs(context.Background(), n.routes.Current(), catalog) // bounded by askTimeout for each version
	if unknown != nil {
		n.logger.Warn("what another worker serves could not be compared", observe.Cause, unknown)
	}
	return err
}

// admission checks tables until the first one in which this worker may stay.
type admission struct {
	node     *Node
	admitted bool
}

func (n *Node) admission() *admission { return &admission{node: n} }

// admit returns why this worker has to leave its group. Of two that do not belong together and
// joined at the same time, the one with the smaller name stays. It is called by one goroutine.
func (a *admission) admit(t *broker.Table) error {
	self := a.node.identity.Worker
	if a.admitted || a.node.cluster == nil {
		return nil
	}
	catalog, _ := a.node.readiness.user()
	for _, m := range t.Members {
		if m.Name == self || m.Serves == "" || m.New && m.Name > self {
			continue
		}
		if err := a.node.compareOffers(m, catalog); err != nil {
			return err
		}
	}
	_, a.admitted = t.Member(self)
	return nil
}

// askTimeout bounds how long one worker may take to send its catalog.
const askTimeout = 3 * time.Second

const (
	// journalPartitions is how many partitions are sampled for what is in a journal, journalTail how
	// many records at the end of each.
	journalPartitions = 64
	journalTail       = 64
)

// belongsToJournal compares what is served here with what the journal has, where no worker can be
// asked: the entity types of the last records, and those that the last owners announced.
func (n *Node) belongsToJournal(ctx context.Context, catalog *discovery.Catalog) error {
	if n.config.ServicesChanged {
		return nil
	}
	own, found, looked := n.entityTypes(), map[string]bool{}, 0
	for p := int32(0); p < n.topic.Partitions && looked < journalPartitions; p++ {
		types, err := n.lastTypes(ctx, broker.Partition{Topic: n.topic.Name, ID: p})
		if err != nil {
			return fmt.Errorf("inspect topic %s, partition %d: %w", n.topic.Name, p, err)
		}
		if len(types) > 0 {
			looked++
		}
		for t := range types {
			if slices.Contains(own, t) {
				return nil
			}
			found[t] = true
		}
	}
	if len(found) == 0 {
		return nil
	}
	types := make([]string, 0, len(found))
	for t := range found {
		types = append(types, t)
	}
	slices.Sort(types)
	return n.notOfApp(catalog, "The journal "+n.topic.Name, "entities of type "+strings.Join(types, ", "), errors.New("none of the entity types in its journal is served here"), itIsMeant)
}

// lastTypes are the user's entity types that the last records of a partition speak of.
func (n *Node) lastTypes(ctx context.Context, p broker.Partition) (map[string]bool, error) {
	end, err := n.log.End(ctx, p)
	if err != nil {
		return nil, err
	}
	start, err := n.log.Start(ctx, p)
	if err != nil || start >= end {
		return nil, err
	}
	from := max(start, end-journalTail)
	reader, err := n.log.Read(p, from)
	if err != nil {
		return nil, err
	}
	defer reader.Close() //nolint:errcheck // only read

	address := materializer.Address{Generation: entities.Generation, Partition: uint16(p.ID)} //nolint:gosec // at most 4096
	types := map[string]bool{}
	for r, err := range materializer.Browse(reader, address, from).Until(ctx, end) {
		if r == nil {
			return nil, err
		}
		if typ, _, isEntity := strings.Cut(string(r.Key), "/"); isEntity && !discovery.IsReservedType(typ) {
			types[typ] = true
		}
		if c := r.Envelope.Claim; c != nil {
			for _, t := range c.Types {
				types[t] = true
			}
		}
	}
	return types, nil
}
