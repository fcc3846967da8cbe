package node

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/internal/clock"
)

const (
	// watchEvery is how often the supervised function's files are checked.
	watchEvery = 700 * time.Millisecond
	// watchMost bounds the files and directories that are visited.
	watchMost = 20_000
)

// sources are the files that programs are compiled or run from, by language. What a program writes
// (databases, logs, results) is not among them.
var sources = []string{ //nolint:gochecknoglobals // a table
	"*.proto",
	"*.go", "go.mod", "go.sum", "go.work",
	"*.js", "*.mjs", "*.cjs", "*.jsx", "*.ts", "*.mts", "*.cts", "*.tsx", "package.json", "tsconfig.json", "deno.json",
	"*.py", "pyproject.toml", "requirements.txt",
	"*.java", "*.kt", "*.kts", "*.scala", "*.clj", "*.groovy", "pom.xml", "build.gradle", "build.sbt",
	"*.rs", "Cargo.toml", "Cargo.lock",
	"*.cs", "*.fs", "*.vb", "*.csproj", "*.fsproj", "*.vbproj",
	"*.c", "*.h", "*.cc", "*.cpp", "*.cxx", "*.hpp", "CMakeLists.txt",
	"*.rb", "Gemfile", "*.php", "composer.json", "*.ex", "*.exs", "*.erl", "*.hs", "*.swift", "*.dart", "*.zig", "*.lua",
}

// programs are the forms of a compiled program that a command runs: java -jar shop.jar.
var programs = []string{".jar", ".war", ".dll", ".wasm", ".pyz"} //nolint:gochecknoglobals // a table

// results are directories with what compilers write. --watch may name them.
var results = []string{"target", "dist", "obj", "__pycache__", "venv"} //nolint:gochecknoglobals // a table

// watch detects changes of source files by polling: that works on every file system, and needs no
// library.
type watch struct {
	dir, data string
	patterns  []string
	// named are files that are looked at wherever they are.
	named []string
	// chosen: the user has given the patterns.
	chosen bool
	// full: there are more files than are watched.
	full bool
	was  map[string]stamp
}

// stamp is what a change of a file changes.
type stamp struct {
	written time.Time
	size    int64
}

// newWatch records the present state of the files below dir that match a pattern, without the data
// directory. No patterns: the sources of all languages, and the program that the command runs. The
// empty pattern matches nothing.
func newWatch(dir, data string, patterns, command []string) *watch {
	w := &watch{dir: dir, patterns: patterns, chosen: len(patterns) > 0}
	w.data, _ = filepath.Abs(data)
	if !w.chosen {
		w.patterns, w.named = sources, programFiles(dir, command)
	}
	w.was = w.scan()
	return w
}

// programFiles returns the files that a command runs by their path.
func programFiles(dir string, command []string) []string {
	var files []string
	for i, word := range command {
		if i == 0 && strings.ContainsRune(filepath.ToSlash(word), '/') ||
			i > 0 && slices.Contains(programs, filepath.Ext(word)) {
			if !filepath.IsAbs(word) {
				word = filepath.Join(dir, word)
			}
			files = append(files, word)
		}
	}
	return files
}

// checkPatterns returns what is wrong with a pattern of --watch.
func checkPatterns(patterns []string) error {
	for _, p := range patterns {
		if _, err := path.Match(strings.ReplaceAll(p, "**", "*"), ""); err != nil {
			return fmt.Errorf("watch pattern %q: %w: give names or globs, as in '*.go' or 'src/**'", p, err)
		}
	}
	return nil
}

// await returns the files that are not what they were, nil when ctx has ended.
func (w *watch) await(ctx context.Context, clk clock.Clock) []string {
	for {
		again, giveUp := clk.After(watchEvery)
		select {
		case <-again:
		case <-ctx.Done():
			giveUp()
			return nil
		}
		if changed := w.changed(); len(changed) > 0 {
			return changed
		}
	}
}

// changed returns the files that were written, added or removed since the start, sorted.
func (w *watch) changed() []string {
	now := w.scan()
	var files []string
	for file, s := range now {
		if was, known := w.was[file]; !known || was != s {
			files = append(files, file)
		}
	}
	for file := range w.was {
		if _, still := now[file]; !still {
			files = append(files, file)
		}
	}
	slices.Sort(files)
	return files
}

func (w *watch) scan() map[string]stamp {
	now, visited := map[string]stamp{}, 0
	note := func(file string, info fs.FileInfo, err error) {
		if err == nil && info.Mode().IsRegular() {
			now[file] = stamp{info.ModTime(), info.Size()}
		}
	}
	_ = filepath.WalkDir(w.dir, func(file string, d fs.DirEntry, err error) error { // it returns no error
		if err != nil {
			return nil //nolint:nilerr // what cannot be read is not watched
		}
		if visited++; visited > watchMost {
			w.full = true
			return fs.SkipAll
		}
		if d.IsDir() {
			return w.enter(file, d.Name())
		}
		hidden := strings.HasPrefix(d.Name(), ".") && !slices.Contains(w.patterns, d.Name())
		if below, _ := filepath.Rel(w.dir, file); !hidden && w.matches(filepath.ToSlash(below)) {
			info, err := d.Info()
			note(file, info, err)
		}
		return nil
	})
	for _, file := range w.named {
		info, err := os.Stat(file)
		note(file, info, err)
	}
	return now
}

// enter skips directories with what programs write, not people.
func (w *watch) enter(file, name string) error {
	if file == w.dir {
		return nil
	}
	abs, _ := filepath.Abs(file)
	if abs == w.data || strings.HasPrefix(name, ".") || name == "node_modules" ||
		!w.chosen && slices.Contains(results, name) {
		return fs.SkipDir
	}
	return nil
}

func (w *watch) matches(file string) bool {
	return slices.ContainsFunc(w.patterns, func(pattern string) bool { return matches(pattern, file) })
}

// matches reports whether a pattern names a file, or a directory above it. A pattern without a
// slash names it in any directory; ** stands for any number of directories.
func matches(pattern, file string) bool {
	if pattern = path.Clean(filepath.ToSlash(pattern)); pattern == "." {
		return false
	}
	parts := strings.Split(file, "/")
	if !strings.Contains(pattern, "/") && pattern != "**" {
		return slices.ContainsFunc(parts, func(part string) bool {
			found, _ := path.Match(pattern, part)
			return found
		})
	}
	return matchesParts(strings.Split(strings.TrimPrefix(pattern, "/"), "/"), parts)
}

// matchesParts reports whether a pattern matches the first parts of a path. The patterns are short.
func matchesParts(pattern, parts []string) bool {
	switch {
	case len(pattern) == 0:
		return true
	case pattern[0] == "**":
		return len(parts) > 0 && (matchesParts(pattern[1:], parts) || matchesParts(pattern, parts[1:]))
	case len(parts) == 0:
		return false
	}
	found, _ := path.Match(pattern[0], parts[0])
	return found && matchesParts(pattern[1:], parts[1:])
}

// changedError says which files changed.
type changedError struct{ files []string }

// Error names some of them.
func (e *changedError) Error() string {
	const most = 3
	text := strings.Join(e.files[:min(len(e.files), most)], ", ")
	if more := len(e.files) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text + " changed"
}

const (
	// brakeAfter is how many restarts within brakeWithin, all after the same files changed, are taken
	// for the work of the function itself.
	brakeAfter  = 6
	brakeWithin = time.Minute
)

// brake stops the watch of a function that changes its own files.
type brake struct {
	// files changed before each of the restarts at times; sorted.
	files []string
	times []time.Time
}

// blocks notes a restart after a change of files. It returns an error when the same file has
// changed before too many restarts in short order: then the function writes it.
func (b *brake) blocks(files []string, now time.Time) error {
	same := slices.DeleteFunc(slices.Clone(b.files), func(file string) bool {
		_, again := slices.BinarySearch(files, file)
		return !again
	})
	if len(same) == 0 {
		b.times, same = nil, files
	}
	b.files, b.times = same, append(b.times, now)
	if len(b.times) < brakeAfter {
		return nil
	}
	first := b.times[0]
	if b.times = b.times[1:]; now.Sub(first) > brakeWithin {
		return nil
	}
	return fmt.Errorf("%w before each of %d starts in %v: the user function seems to write what is watched; name "+
		"its sources, as in `dev --watch 'src/**' -- …`, and restart millrace", &changedError{b.files}, brakeAfter,
		now.Sub(first).Round(time.Second))
}
