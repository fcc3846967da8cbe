package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/definitions"
	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/internal/plural"
	"github.com/millrace-io/millrace/projections/definition"
)

// This file applies the files of the directory that setting definitions names.

const (
	// applyTimeout bounds one attempt to apply the files.
	applyTimeout = 30 * time.Second
	// mostFiles bounds the files of a directory.
	mostFiles = 256
)

// checkDefinitions looks for the directory before anything is opened. With dev it may come later.
func (n *Node) checkDefinitions() error {
	dir := n.config.Definitions
	if dir == "" || n.options.Dev {
		return nil
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = errors.New("it is not a directory")
	}
	if err != nil {
		return fmt.Errorf("read the definitions in %s: %w: name a directory with files of definitions with --definitions",
			dir, err)
	}
	return nil
}

// applyFiles applies the files when the node serves, and again when they, or what the function
// serves, have changed.
func (n *Node) applyFiles(ctx context.Context) error {
	select {
	case <-n.Ready():
	case <-ctx.Done():
		return nil
	}
	for attempt := 1; ; attempt++ {
		_, functionChanged := n.readiness.user()
		seen := newWatch(n.config.Definitions, n.config.Data, []string{"*.yaml", "*.yml"}, nil)
		err := n.applyOnce(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that is the end
		}
		n.troubles.note(taskDefinitionFiles, err)
		if err != nil {
			n.logger.Error("the definitions were not applied; those before stay in force", observe.Path, n.config.Definitions,
				observe.Error, err)
		} else {
			attempt = 0
		}
		if !n.awaitFiles(ctx, seen, functionChanged, err, attempt) {
			return nil
		}
	}
}

// awaitFiles waits until the files or the function have changed or, after an error that may be
// temporary, for a while. It returns false when ctx has ended.
func (n *Node) awaitFiles(
	ctx context.Context, seen *watch, functionChanged <-chan struct{}, failed error, attempt int,
) bool {
	var later <-chan time.Time
	if failed != nil && isTemporary(failed) {
		over, giveUp := n.clock.After(keepOnPause.Pause(attempt))
		defer giveUp()
		later = over
	}
	for {
		again, giveUp := n.clock.After(watchEvery)
		select {
		case <-again:
			if len(seen.changed()) > 0 {
				return true
			}
			continue
		case <-later:
		case <-functionChanged:
		case <-ctx.Done():
			giveUp()
			return false
		}
		giveUp()
		return true
	}
}

// applyOnce applies the files as they are now.
func (n *Node) applyOnce(ctx context.Context) error {
	files, err := readDefinitions(n.config.Definitions)
	if err != nil || len(files) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	result, err := n.readSide.definitions.Apply(ctx, files, definitions.ApplyOptions{Lenient: true})
	if err != nil {
		return err
	}
	for _, warning := range result.Warnings {
		n.logger.Warn("a definition could be better", observe.Path, n.config.Definitions, observe.Cause, warning)
	}
	for i := range result.Outcomes {
		switch o := &result.Outcomes[i]; o.Result {
		case definitions.Applied:
			n.logger.Info("a definition was applied", "kind", o.Kind, "name", o.Name, "version", o.Version,
				"differences", o.Differences)
		case definitions.Skipped:
			n.logger.Warn("a definition was left out", "kind", o.Kind, "name", o.Name, "version", o.Version,
				observe.Cause, o.Warning)
		default: // it is applied already
		}
	}
	return nil
}

// isTemporary reports whether the same files may be applied later: the error is neither of a check
// nor a refusal.
func isTemporary(err error) bool {
	if _, invalid := errors.AsType[*definition.InvalidError](err); invalid {
		return false
	}
	e, ok := errors.AsType[*entities.Error](err)
	return !ok || e.Reason != entities.FunctionRefused && e.Reason != entities.InvalidCommand
}

// readDefinitions reads the files of definitions in a directory. One that is not there has none.
func readDefinitions(dir string) ([]definition.Source, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the definitions: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	if names = definition.Files(names); len(names) > mostFiles {
		return nil, fmt.Errorf("read the definitions: %s has %s, and %d are allowed", dir, plural.Of(len(names), "file"),
			mostFiles)
	}
	files := make([]definition.Source, 0, len(names))
	for _, name := range names {
		text, err := readFileUpTo(filepath.Join(dir, name), definition.MaxFileBytes+1) // the check says that it is too long
		if err != nil {
			return nil, fmt.Errorf("read the definitions: %w", err)
		}
		files = append(files, definition.Source{Name: name, Text: text})
	}
	return files, nil
}

func readFileUpTo(path string, most int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // a file of the operator's own directory
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return io.ReadAll(io.LimitReader(f, most))
}
