package definitions

import (
	"context"
	"slices"
	"strings"
	"time"

	definitionsv1 "github.com/millrace-io/millrace/proto/gen/millrace/definitions/v1"
)

// How often it is looked whether a version is ready: soon after a change, when rows may be there
// already, and then less and less often.
const (
	decideFirst = 50 * time.Millisecond
	decideEvery = time.Second
)

// rollOut promotes versions that are ready and drops those that were kept long enough, as long as
// this process leads.
func (d *Definitions) rollOut(ctx context.Context) error {
	pause, known := decideFirst, int64(0)
	for {
		r, changed := d.Current()
		if pause = min(2*pause, decideEvery); r.Number != known {
			pause, known = decideFirst, r.Number
		}
		if d.options.Leads == nil || d.options.Leads() {
			d.decide(ctx, r)
		}
		due, cancel := d.options.Clock.After(pause)
		select {
		case <-due:
		case <-changed:
			cancel()
		case <-ctx.Done():
			cancel()
			return context.Cause(ctx)
		}
	}
}

// decide looks once at what may be promoted or dropped. What it decides by an old revision the
// entity refuses.
func (d *Definitions) decide(ctx context.Context, r *Revision) {
	progress := map[string]string{}
	for _, def := range r.state.GetDefinitions() {
		for _, v := range slices.Backward(def.GetVersions()) {
			if v.GetStage() != Building || v.GetHeld() ||
				less(v.GetApplied().GetVersion(), promotedOf(def).GetApplied().GetVersion()) {
				continue
			}
			missing := d.missing(ctx, def.GetKind(), def.GetName(), v.GetApplied().GetVersion())
			switch {
			case missing != "":
				progress[nameOf(v)] = missing
			case v.GetApplied().GetManual():
				progress[nameOf(v)] = "it is ready, and waits for an operator to promote it"
			default:
				d.promoteReady(ctx, r, v.GetApplied())
				return // the revision is another one now
			}
		}
		if d.dropExpired(ctx, r, def) {
			return
		}
	}
	if d.endRebuilds(ctx, r, progress) {
		return
	}
	d.mu.Lock()
	d.progress = progress
	d.mu.Unlock()
}

// endRebuilds changes over to rows that were built again and are complete in all versions that
// share them. It reports whether it did, and enters why others are not.
func (d *Definitions) endRebuilds(ctx context.Context, r *Revision, progress map[string]string) bool {
	waiting := map[uint32]bool{}
	for _, v := range r.Rebuilding {
		if d.options.Ready == nil {
			return false
		}
		if ready, why := d.options.Ready(ctx, v); !ready {
			waiting[v.Dataset] = true
			progress["Projection "+v.Name+" "+v.Version] = "its rows are built again: " + why
		}
	}
	for _, v := range r.Rebuilding {
		if waiting[v.Dataset] {
			continue
		}
		present := slices.IndexFunc(r.Views, func(o *View) bool { return o.Name == v.Name && o.Version == v.Version })
		err := d.change(ctx, definitionsEnd, &definitionsv1.EndRebuildRequest{
			App: EntityID, Dataset: r.Views[present].Dataset, Expected: r.Number,
		}, &definitionsv1.EndRebuildResponse{})
		if err == nil {
			d.options.Logger.Info("rows were built again and have taken the place of those before", "name", v.Name)
			return true
		}
		d.options.Logger.Info("rows were built again and could not take their place: it is tried again", "name", v.Name,
			"err", err)
	}
	return false
}

func nameOf(v *definitionsv1.Live) string {
	a := v.GetApplied()
	return a.GetKind() + " " + a.GetName() + " " + VersionText(a.GetVersion())
}

// Progress says why a version is not promoted yet, as the last look of this process found; "" when
// that is not known.
func (d *Definitions) Progress(id ID) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.progress[id.kind()+" "+id.Name+" "+id.Version]
}

// missing says why a version is not ready, "" when it is.
func (d *Definitions) missing(ctx context.Context, kind, name string, version *definitionsv1.Version) string {
	r, _ := d.Current()
	live := liveOf(find(r.state, kind, name), version)
	if live != nil && live.GetApplied().GetDataset() == 0 {
		return ""
	}
	for _, u := range r.Unsupported {
		if u.Kind == kind && u.Name == name && u.Version == VersionText(version) {
			return "this process does not support it: " + u.Reason
		}
	}
	i := slices.IndexFunc(r.Views, func(v *View) bool {
		return v.Name == name && compareVersions(v.version, version) == 0
	})
	switch {
	case i < 0:
		return "this process does not know it yet"
	case d.options.Ready == nil:
		return "it is not known how far its rows are"
	}
	if ready, progress := d.options.Ready(ctx, r.Views[i]); !ready {
		return progress
	}
	return d.missingUses(ctx, r, live.GetApplied())
}

// missingUses says which used projection has no rows to look up yet.
func (d *Definitions) missingUses(ctx context.Context, r *Revision, v *definitionsv1.Applied) string {
	var missing []string
	for _, name := range v.GetUses() {
		isReady := func(o *View) bool {
			if o.Name != name || d.options.Ready == nil {
				return false
			}
			ready, _ := d.options.Ready(ctx, o)
			return ready
		}
		if r.promoted(name) == nil && !slices.ContainsFunc(r.Views, isReady) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "it looks up rows of " + strings.Join(missing, ", ") + ", which are not ready"
}

// promoteReady puts a version in force, if nothing has changed meanwhile.
func (d *Definitions) promoteReady(ctx context.Context, r *Revision, v *definitionsv1.Applied) {
	err := d.change(ctx, definitionsPromote, &definitionsv1.PromoteRequest{
		App: EntityID, Kind: v.GetKind(), Name: v.GetName(), Version: v.GetVersion(), Expected: r.Number, Automatic: true,
	}, &definitionsv1.PromoteResponse{})
	log := d.options.Logger.With("kind", v.GetKind(), "name", v.GetName(), "version", VersionText(v.GetVersion()))
	if err != nil {
		log.Info("a version is ready and could not be promoted: it is tried again", "err", err)
		return
	}
	log.Info("a version was promoted")
}

// dropExpired drops a version that was kept long enough, and reports whether it did.
func (d *Definitions) dropExpired(ctx context.Context, r *Revision, def *definitionsv1.Definition) bool {
	present := promotedOf(def)
	for _, v := range def.GetVersions() {
		kept := present.GetApplied().GetKeepPrevious().AsDuration()
		if v.GetStage() != Kept || d.options.Clock.Now().Before(v.GetSince().AsTime().Add(kept)) {
			continue
		}
		err := d.change(ctx, definitionsDrop, &definitionsv1.DropRequest{
			App: EntityID, Kind: def.GetKind(), Name: def.GetName(), Version: v.GetApplied().GetVersion(),
			Reason: "it was kept for " + kept.String(), Expected: r.Number,
		}, &definitionsv1.DropResponse{})
		if err != nil {
			d.options.Logger.Info("a version was kept long enough and could not be dropped: it is tried again",
				"name", def.GetName(), "version", VersionText(v.GetApplied().GetVersion()), "err", err)
		}
		return err == nil
	}
	return false
}
