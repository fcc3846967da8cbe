package fire

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kafkaserver"
	"github.com/millrace-io/millrace/tests/kit"
)

const (
	topic      = "millrace.journal"
	group      = "millrace"
	partitions = 4
	// session is how long the group waits for a silent worker in these tests, contract how often a
	// worker looks at its topic.
	session  = time.Second
	contract = 300 * time.Millisecond
)

// kafka is a broker to which workers connect through a proxy, or a cluster of brokers without one;
// the test connects directly.
type kafka struct {
	servers []*kafkaserver.Server
	proxy   *proxy
	client  *kgo.Client
	// log is what the test has read of the journal so far.
	log *journal
}

// startKafka starts a broker with a listener for the test and one that it advertises as the proxy.
func startKafka(t *testing.T) *kafka {
	t.Helper()
	kafkaserver.Require(t)
	behind := kit.FreeAddress(t)
	k := &kafka{log: newJournal()}
	k.proxy = startProxy(t, behind)
	k.servers = []*kafkaserver.Server{kafkaserver.Start(t, kafkaserver.Options{Listeners: []kafkaserver.Listener{
		{Name: "PROXIED", Address: behind, Advertised: k.proxy.address()},
	}})}
	k.client = newKafkaClient(t, k.addresses())
	return k
}

// flags are those of a worker that connects through the proxy, and more.
func (k *kafka) flags(more ...string) []string {
	return append([]string{
		"--app", group, "--brokers", k.proxy.address(), "--partitions", fmt.Sprint(partitions),
		"--session-timeout", session.String(), "--contract-check", contract.String(),
	}, more...)
}

// addresses are where the brokers are.
func (k *kafka) addresses() string {
	var all []string
	for _, s := range k.servers {
		all = append(all, s.Addr())
	}
	return strings.Join(all, ",")
}

func newKafkaClient(t *testing.T, addresses string) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(addresses, ",")...),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(0), kgo.DisableClientMetrics(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// kafka is a worker with its function in it, on Apache Kafka.
func (r *run) kafka(t *testing.T, w *world) {
	t.Helper()
	w.kafka = startKafka(t)
	w.launch(harness.Options{Program: program, Tags: w.tags, Command: "run", Env: w.env, Args: w.kafka.flags()})
	w.kafka.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: fromStart()})
	w.start(r.clients, 2*r.clients)
	w.inject(slices.Concat(processFaults(), storeFaults(), networkFaults(), brokerFaults(), writerFaults(),
		callerFaults(), w.kafka.operatorFaults()), r.enough(worldOperations))
	w.end()
	w.readLog()
	w.finish()
}

func fromStart() map[int32]kgo.Offset {
	all := map[int32]kgo.Offset{}
	for id := range int32(partitions) {
		all[id] = kgo.NewOffset().At(0)
	}
	return all
}

// networkFaults are what can happen between a worker and its broker.
func networkFaults() []fault {
	return []fault{
		{"connections cut", func(w *world) bool { return w.kafka.proxy.cut() > 0 }},
		{"network slow", (*world).slowNetwork},
		{"answers lost", (*world).loseAnswers},
		{"produce held", (*world).holdProduce},
	}
}

func (w *world) slowNetwork() bool {
	p := w.kafka.proxy
	before := p.delays.Load()
	p.slow(time.Duration(20+w.rng.IntN(200)) * time.Millisecond)
	w.wait(2 * time.Second)
	p.heal()
	return p.delays.Load() > before
}

// loseAnswers drops what the broker answers, and cuts the connections on which that happened: then
// it is unknown whether an append took effect.
func (w *world) loseAnswers() bool {
	p := w.kafka.proxy
	before := p.swallowed.Load()
	p.silence()
	w.wait(500 * time.Millisecond)
	p.cut()
	p.heal()
	return p.swallowed.Load() > before
}

// holdProduce delays appends for a while. Every second time the worker disconnects meanwhile, and
// sends them again on a new connection.
func (w *world) holdProduce() bool {
	p := w.kafka.proxy
	before := p.holds.Load()
	p.hold()
	kit.AwaitWithin(w.t, healing, "an append to be held", func() bool { return p.holds.Load() > before })
	w.wait(time.Duration(200+w.rng.IntN(2000)) * time.Millisecond)
	p.heal()
	return true
}

// brokerFaults are what can happen to a broker, and to the membership in its group.
func brokerFaults() []fault {
	return []fault{
		{"broker killed", (*world).killBroker},
		{"broker and worker killed", (*world).killBrokerAndWorker},
		{"broker paused", (*world).pauseBroker},
		{"paused beyond session", (*world).pauseBeyondSession},
	}
}

func (w *world) killBroker() bool {
	w.revive()
	if len(w.kafka.servers) > 1 {
		return w.withoutBroker(w.end9, func(s *kafkaserver.Server) { s.MustRestart(w.t) })
	}
	s := w.kafka.servers[0]
	w.end9(s)
	s.MustRestart(w.t)
	return true
}

func (w *world) pauseBroker() bool {
	answers := w.answers.Load()
	w.freeze(w.kafka.servers[0])
	w.wait(time.Duration(500+w.rng.IntN(2000)) * time.Millisecond)
	stood := w.answers.Load()-answers < 100*int64(w.callers)
	w.thaw(w.kafka.servers[0])
	return stood
}

// pauseBeyondSession stops a worker until the group has removed it.
func (w *world) pauseBeyondSession() bool {
	stood := w.paused(func() {
		w.awaitMembers(len(w.workers)-1, "the group to put the worker out")
		if len(w.workers) > 1 {
			w.goOn()
		}
	})
	return stood || len(w.workers) > 1 // the others answer
}

// members is how many workers are in the app's group.
func (k *kafka) members(t *testing.T) int {
	t.Helper()
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{group}
	ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
	defer cancel()
	resp, err := req.RequestWith(ctx, k.client)
	if err != nil || len(resp.Groups) != 1 || resp.Groups[0].ErrorCode != 0 {
		return -1
	}
	return len(resp.Groups[0].Members)
}

func (k *kafka) alter(t *testing.T, name, value string) {
	t.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Op, c.Value = name, kmsg.IncrementalAlterConfigOpSet, kmsg.StringPtr(value)
	r.Configs = append(r.Configs, c)
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(t.Context(), k.client)
	if err != nil || len(resp.Resources) != 1 || resp.Resources[0].ErrorCode != 0 {
		t.Fatalf("set %s=%s: %v %v", name, value, err, resp)
	}
}

// readLog reads the journal to its end and compares it with what every client knows.
func (w *world) readLog() {
	w.t.Helper()
	for _, p := range w.workers {
		p.Stop(w.t)
	}
	w.kafka.follow(w.t)
	w.judgeLog(w.kafka.log)
}

// judgeLog reports where the log differs from what clients were told.
func (w *world) judgeLog(j *journal) {
	for _, v := range j.compare(w.finished) {
		w.broken(v)
	}
	w.debugf("%s: the log has %d records, %d void, %d foreign", w.name, j.records, j.void, j.foreign)
}

// follow reads the journal up to where it ends now.
func (k *kafka) follow(t *testing.T) {
	t.Helper()
	ends := k.ends(t)
	ctx, cancel := context.WithTimeout(t.Context(), healing)
	defer cancel()
	for id, end := range ends {
		for k.log.part(id).next < end {
			fetches := k.client.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("read partition %d: it ends at %d, and offset %d does not come: %v", id, end, k.log.part(id).next,
					fetches.Err())
			}
			fetches.EachRecord(func(r *kgo.Record) {
				var header []byte
				for _, h := range r.Headers {
					if h.Key == record.HeaderKey {
						header = h.Value
						break
					}
				}
				k.log.add(r.Partition, r.Offset, r.Key, r.Value, header)
			})
		}
	}
}

// ends asks where the partitions end.
func (k *kafka) ends(t *testing.T) map[int32]int64 {
	t.Helper()
	ends := map[int32]int64{}
	kit.AwaitWithin(t, healing, "the broker to say where the journal ends", func() bool {
		req := kmsg.NewPtrListOffsetsRequest()
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = topic
		for id := range int32(partitions) {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp, p.CurrentLeaderEpoch = id, -1, -1
			rt.Partitions = append(rt.Partitions, p)
		}
		req.Topics = append(req.Topics, rt)
		resp, err := req.RequestWith(t.Context(), k.client)
		if err != nil || len(resp.Topics) != 1 {
			return false
		}
		for _, p := range resp.Topics[0].Partitions {
			if p.ErrorCode != 0 {
				return false
			}
			ends[p.Partition] = p.Offset
		}
		return len(ends) == partitions
	})
	return ends
}
