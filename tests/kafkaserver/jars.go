package kafkaserver

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
)

// Version is the release of Apache Kafka that kafka-jars.txt describes.
const Version = "4.3.1"

// fetchers bounds the downloads at a time.
const fetchers = 8

//go:embed kafka-jars.txt
var lockFile string

// jar is one line of the lock file.
type jar struct {
	sum string // sha256, hexadecimal
	// path lies below the root of a Maven repository.
	path string
}

// file is the name in the flat folder of all jars.
func (j jar) file() string { return path.Base(j.path) }

func parseJars(text string) ([]jar, error) {
	var jars []jar
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 2 || len(fields[0]) != 2*sha256.Size {
			return nil, fmt.Errorf("kafka-jars.txt: line %d is not a sha256 and a path: %q", len(jars)+1, line)
		}
		jars = append(jars, jar{sum: fields[0], path: fields[1]})
	}
	return jars, nil
}

// fetchJars fills lib with every jar of the lock file. The folder appears complete and checked, or
// not at all.
func fetchJars(ctx context.Context, lib string) error {
	jars, err := parseJars(lockFile)
	if err != nil {
		return err
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return unavailable("the archives of Kafka " + Version + " are not in " + lib +
			", and there is no Maven (mvn) on the path to fetch them")
	}
	if err := os.MkdirAll(filepath.Dir(lib), 0o750); err != nil {
		return fmt.Errorf("cache of Kafka archives: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(lib), "fetch-")
	if err != nil {
		return fmt.Errorf("cache of Kafka archives: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()

	direct := fetchDirectly(ctx, mvn, work, jars)
	if direct != nil {
		if err := fetchByMaven(ctx, mvn, work, jars); err != nil {
			return unavailable(fmt.Sprintf("the archives of Kafka %s cannot be fetched: %v; by Maven alone: %v", Version,
				direct, err))
		}
	}
	// another process may have been faster
	if err := os.Rename(filepath.Join(work, "lib"), lib); err != nil && !exists(lib) {
		return fmt.Errorf("cache of Kafka archives: %w", err)
	}
	return nil
}

// fetchDirectly downloads from the repository that Maven would use first.
func fetchDirectly(ctx context.Context, mvn, work string, jars []jar) error {
	base, err := mavenBase(ctx, mvn, work)
	if err != nil {
		return err
	}
	lib := filepath.Join(work, "lib")
	if err := os.Mkdir(lib, 0o750); err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	todo := make(chan jar, len(jars))
	for _, j := range jars {
		todo <- j
	}
	close(todo)
	var all sync.WaitGroup
	for range fetchers {
		all.Go(func() { // ends when todo is empty or one download fails; all.Wait waits for it
			for j := range todo {
				if err := download(ctx, client, base+"/"+j.path, filepath.Join(lib, j.file()), j.sum); err != nil {
					stop(err)
					return
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// mavenBase asks Maven for the base address of its first repository, mirrors considered.
func mavenBase(ctx context.Context, mvn, work string) (string, error) {
	out := filepath.Join(work, "base.txt")
	err := run(ctx, work, mvn, "-q", "-B", "-ntp", "help:evaluate",
		"-Dexpression=project.remoteArtifactRepositories[0].url", "-Doutput="+out)
	if err != nil {
		return "", err
	}
	base, err := os.ReadFile(out)
	if err != nil {
		return "", err
	}
	url := strings.TrimRight(strings.TrimSpace(string(base)), "/")
	if !strings.HasPrefix(url, "http") {
		return "", fmt.Errorf("maven names the repository %q, which is no web address", url)
	}
	return url, nil
}

func download(ctx context.Context, client *http.Client, url, file, sum string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", path.Base(url), resp.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, hash), resp.Body)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("get %s: %w", path.Base(url), err)
	}
	return compareSum(path.Base(file), sum, hash.Sum(nil))
}

func compareSum(name, want string, got []byte) error {
	if hex.EncodeToString(got) != want {
		return fmt.Errorf("%s has sha256 %x, kafka-jars.txt wants %s", name, got, want)
	}
	return nil
}

// pom is the project whose runtime dependencies are exactly the lock file.
const pom = `<project><modelVersion>4.0.0</modelVersion><groupId>millrace</groupId><artifactId>testkafka</artifactId><version>1</version><packaging>pom</packaging><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>` + Version + `</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version></dependency>
</dependencies></project>`

// fetchByMaven downloads with Maven, for machines on which only Maven has access.
func fetchByMaven(ctx context.Context, mvn, work string, jars []jar) error {
	lib := filepath.Join(work, "lib")
	if err := os.RemoveAll(lib); err != nil { // left by fetchDirectly
		return err
	}
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), []byte(pom), 0o600); err != nil {
		return err
	}
	err := run(ctx, work, mvn, "-q", "-B", "-ntp",
		"org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies",
		"-DincludeScope=runtime", "-DoutputDirectory="+lib)
	if err != nil {
		return err
	}
	return checkJars(lib, jars)
}

// checkJars requires exactly the jars of the lock file.
func checkJars(lib string, jars []jar) error {
	entries, err := os.ReadDir(lib)
	if err != nil {
		return err
	}
	if len(entries) != len(jars) {
		return fmt.Errorf("%d files instead of the %d of kafka-jars.txt", len(entries), len(jars))
	}
	for _, j := range jars {
		data, err := os.ReadFile(filepath.Join(lib, j.file()))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		if err := compareSum(j.file(), j.sum, sum[:]); err != nil {
			return err
		}
	}
	return nil
}

// run runs a program and puts the end of its output into the error.
func run(ctx context.Context, dir, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, tail(out))
	}
	return nil
}

// tail returns the last lines of a program's output.
func tail(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// tailLines is how much of a broker's log goes into an error.
const tailLines = 20

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
