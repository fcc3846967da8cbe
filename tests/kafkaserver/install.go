package kafkaserver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
)

// ErrUnavailable means that this machine cannot run Kafka; the error that wraps it says what is
// missing.
var ErrUnavailable = errors.New("Apache Kafka cannot run here") //nolint:staticcheck // begins with a name

func unavailable(reason string) error { return fmt.Errorf("%w: %s", ErrUnavailable, reason) }

// minJava is the oldest Java that Kafka 4 runs on.
const minJava = 17

// installation is what is needed to start brokers.
type installation struct {
	java string
	// lib holds the jars, and nothing else.
	lib string
	// classes is the class data archive; "" when there is none.
	classes string
}

// CacheDir is where archives, and the process started by the command, are kept.
func CacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", unavailable("no cache directory for the user: " + err.Error())
	}
	return filepath.Join(cache, "millrace", "kafka-"+Version), nil
}

// installed is the result of the first call of install.
//
//nolint:gochecknoglobals // one installation serves all tests of a process
var installed struct {
	sync.Mutex
	*installation
}

// install finds Java and fetches what is missing. It does its work once per process.
func install(ctx context.Context) (*installation, error) {
	installed.Lock()
	defer installed.Unlock()
	if installed.installation != nil {
		return installed.installation, nil
	}
	java, version, err := findJava(ctx)
	if err != nil {
		return nil, err
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	in := &installation{java: java, lib: filepath.Join(cache, "lib")}
	if !exists(in.lib) {
		if err := fetchJars(ctx, in.lib); err != nil {
			return nil, err
		}
	}
	// An archive fits one build of Java only, so its name carries a digest of the full version
	// text.
	digest := sha256.Sum256(version)
	classes := filepath.Join(cache, fmt.Sprintf("classes-%x.jsa", digest[:8]))
	if exists(classes) || in.archiveClasses(ctx, classes) == nil {
		in.classes = classes // without one a start takes longer
	}
	installed.installation = in
	return in, nil
}

var javaVersion = regexp.MustCompile(`version "(?:1\.)?(\d+)`)

// findJava returns the program and the output of java -version.
func findJava(ctx context.Context) (string, []byte, error) {
	java, err := exec.LookPath("java")
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java, err = exec.LookPath(filepath.Join(home, "bin", "java"))
	}
	if err != nil {
		return "", nil, unavailable(fmt.Sprintf("no Java runtime on the path or in JAVA_HOME; install Java %d or newer",
			minJava))
	}
	version, err := exec.CommandContext(ctx, java, "-version").CombinedOutput() //nolint:gosec // the user's own Java
	if err != nil {
		return "", nil, unavailable(fmt.Sprintf("%s -version: %v: %s", java, err, tail(version)))
	}
	found := javaVersion.FindSubmatch(version)
	if found == nil {
		return "", nil, unavailable(fmt.Sprintf("cannot find a version in the output of %s -version: %s", java,
			tail(version)))
	}
	if major, err := strconv.Atoi(string(found[1])); err != nil || major < minJava {
		return "", nil, unavailable(fmt.Sprintf("%s is Java %s; Kafka needs %d or newer", java, found[1], minJava))
	}
	return java, version, nil
}

// archiveClasses runs a broker once, from start to clean stop, and makes Java archive the loaded
// classes.
func (in *installation) archiveClasses(ctx context.Context, file string) (err error) {
	dir, err := os.MkdirTemp("", "kafka-classes-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fresh := filepath.Join(filepath.Dir(file), filepath.Base(dir)+".jsa")
	c, err := in.launch(ctx, Options{Dir: dir}, "-XX:ArchiveClassesAtExit="+fresh)
	if err != nil {
		return err
	}
	if err := c.Stop(); err != nil {
		return err
	}
	return os.Rename(fresh, file)
}
