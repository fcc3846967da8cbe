package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	counterv1 "github.com/millrace-io/millrace/examples/counter/counter/v1"
	"github.com/millrace-io/millrace/tests/kit"
)

// load is one kind of load on one server.
type load struct {
	name   string
	server *process
	do     call
	// most is the largest number of callers that it is run with; 0: any.
	most int
}

// connections is how many connections the callers share, the same for every load.
const connections = 4

// loads starts the servers and returns the loads on them. stop must be called in any case.
func (b *bench) loads(ctx context.Context) (loads []load, stop func(), err error) {
	var running []*process
	stop = func() {
		for _, p := range slices.Backward(running) {
			p.stop()
		}
	}
	keep := func(p *process, err error) (*process, error) {
		if p != nil {
			running = append(running, p)
		}
		return p, err
	}
	add := func(server *process, name string, do call) {
		if b.wanted(name) {
			loads = append(loads, load{name: name, server: server, do: do})
		}
	}
	address, err := kit.Address()
	if err != nil {
		return nil, stop, err
	}
	bare, err := keep(start(ctx, b.dir, address, kit.Listens(address), os.Args[0], "echo", address))
	if err != nil {
		return nil, stop, err
	}
	add(bare, "echo", increments(address, spread(b.keys)))

	inside, err := keep(b.startMillrace(ctx, "inside"))
	if err != nil {
		return nil, stop, err
	}
	add(inside, "in process", increments(inside.address, spread(b.keys)))
	add(inside, "in process, hot key", increments(inside.address, func(int, int) string { return "hot" }))
	add(inside, "in process, read", gets(inside.address, spread(b.keys)))
	add(inside, "HTTP/JSON", posts(inside.address, spread(b.keys)))

	function, err := kit.Address()
	if err != nil {
		return nil, stop, err
	}
	if _, err := keep(start(ctx, b.dir, function, kit.Listens(function), b.counter, "-remote", function)); err != nil {
		return nil, stop, err
	}
	remote, err := keep(b.startMillrace(ctx, "remote", "run", "--function", function))
	if err != nil {
		return nil, stop, err
	}
	add(remote, "remote", increments(remote.address, spread(b.keys)))
	add(remote, "remote, hot key", increments(remote.address, func(int, int) string { return "hot" }))

	if b.brokers != "" {
		app := fmt.Sprintf("bench%d", time.Now().Unix())
		hosted, err := keep(b.startWorker(ctx, "kafka-inside", b.counter, "run", "--brokers", b.brokers, "--app",
			app+"inside"))
		if err != nil {
			return nil, stop, err
		}
		add(hosted, "Kafka, in process", increments(hosted.address, spread(b.keys)))
		add(hosted, "Kafka, in process, hot key", increments(hosted.address, func(int, int) string { return "hot" }))
		kafka, err := keep(b.startMillrace(ctx, "kafka", "run", "--brokers", b.brokers, "--app", app, "--function", function))
		if err != nil {
			return nil, stop, err
		}
		add(kafka, "Kafka, remote", increments(kafka.address, spread(b.keys)))
		add(kafka, "Kafka, remote, read", gets(kafka.address, spread(b.keys)))
	}
	return loads, stop, nil
}

func (b *bench) wanted(name string) bool {
	if b.only == "" || name == "echo" {
		return true
	}
	for word := range strings.SplitSeq(b.only, ",") {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

// startMillrace starts a worker of its own data directory; without arguments it is `dev`, with the
// examples in process.
func (b *bench) startMillrace(ctx context.Context, name string, args ...string) (*process, error) {
	if len(args) == 0 {
		args = []string{"dev"}
	}
	return b.startWorker(ctx, name, b.millrace, args...)
}

// startWorker starts a program with a worker in it, with ports and a data directory of its own.
func (b *bench) startWorker(ctx context.Context, name, program string, args ...string) (*process, error) {
	public, err := kit.Address()
	if err != nil {
		return nil, err
	}
	admin, err := kit.Address()
	if err != nil {
		return nil, err
	}
	args = append(args, "--listen", public, "--admin", admin, "--peer", "127.0.0.1:0", "--data",
		filepath.Join(b.dir, name), "--log-level", "warn")
	p, err := start(ctx, b.dir, public, kit.Answers("http://"+admin+"/readyz"), program, args...)
	if p != nil {
		p.admin = admin
	}
	return p, err
}

// key chooses the entity of a call.
type key func(client, n int) string

// spread chooses evenly among n entities.
func spread(n int) key {
	return func(int, int) string { return "c" + strconv.Itoa(rand.IntN(n)) } //nolint:gosec // a load, not a secret
}

func dialAll(address string) []counterv1.CounterServiceClient {
	clients := make([]counterv1.CounterServiceClient, connections)
	for i, conn := range connect(address) {
		clients[i] = counterv1.NewCounterServiceClient(conn)
	}
	return clients
}

func connect(address string) []*grpc.ClientConn {
	conns := make([]*grpc.ClientConn, connections)
	for i := range conns {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithNoProxy())
		if err != nil {
			panic(err)
		}
		conns[i] = conn
	}
	return conns
}

func increments(address string, id key) call {
	clients := dialAll(address)
	return func(ctx context.Context, client, n int) error {
		_, err := clients[client%connections].Increment(ctx, &counterv1.IncrementRequest{CounterId: id(client, n), By: 1})
		return err
	}
}

func gets(address string, id key) call {
	clients := dialAll(address)
	return func(ctx context.Context, client, n int) error {
		_, err := clients[client%connections].Get(ctx, &counterv1.GetRequest{CounterId: id(client, n)})
		return err
	}
}

func posts(address string, id key) call {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	return func(ctx context.Context, c, n int) error {
		url := "http://" + address + "/v1/counters/" + id(c, n) + ":increment"
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte(`{"by":1}`)))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", res.Status, body)
		}
		return err
	}
}
