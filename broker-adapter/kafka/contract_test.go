package kafka

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/tests/kafkaserver"
)

// alter sets one setting of a topic as an operator would, and waits until the broker knows it.
// alter sets a setting of a topic and waits until every broker shows it: each learns of it by
// itself, and the next question may go to any of them.
func alter(t *testing.T, l *Log, topic, name, value string) {
	t.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Value = name, kmsg.StringPtr(value)
	r.Configs = append(r.Configs, c)
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(deadline(t), l.admin)
	if err == nil {
		err = kerr.ErrorForCode(resp.Resources[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("set %s=%s: %v", name, value, err)
	}
	until(t, name+"="+value, func() bool {
		for _, b := range l.admin.DiscoveredBrokers() {
			found, err := l.configsOf(deadline(t), b, topic)
			if err != nil || found[name].value != value {
				return false
			}
		}
		return true
	})
}

func describe(t *testing.T, l *Log, topic string) broker.TopicInfo {
	t.Helper()
	info, err := l.Describe(deadline(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// TestContract breaks one setting after the other on a real broker.
func TestContract(t *testing.T) {
	l := open(t, Options{Brokers: brokers(t)})
	for _, c := range []struct{ setting, value, wanted string }{
		{cleanupPolicy, "compact", "delete"},
		{retentionMS, "604800000", "-1"},
		{retentionBytes, "1000000", "-1"},
		{timestampType, "CreateTime", "LogAppendTime"},
		{uncleanElection, "true", "false"},
		{maxMessageBytes, "100000", "1048576 or more"},
	} {
		t.Run(c.setting, func(t *testing.T) {
			topic := newTestTopic(t, l, 1).Topic
			if info := describe(t, l, topic); len(info.Violations) != 0 {
				t.Fatalf("a topic made by Create breaks the contract: %+v", info.Violations)
			}
			alter(t, l, topic, c.setting, c.value)
			found := describe(t, l, topic).Violations
			if len(found) != 1 || found[0].Setting != c.setting || found[0].Found != c.value || found[0].Wanted != c.wanted {
				t.Fatalf("violations %+v", found)
			}
			for _, word := range []string{"kafka-configs.sh", topic, c.setting + "="} {
				if !strings.Contains(found[0].Remedy, word) {
					t.Errorf("remedy %q lacks %q", found[0].Remedy, word)
				}
			}
		})
	}
}

// TestContractOfCompacted: the topic of deltas is recognized by its name.
func TestContractOfCompacted(t *testing.T) {
	l := open(t, Options{Brokers: brokers(t)})
	spec := broker.TopicSpec{Name: unique("test") + ".deltas", Partitions: 1, Compacted: true}
	if err := l.Create(deadline(t), spec); err != nil {
		t.Fatal(err)
	}
	if info := describe(t, l, spec.Name); len(info.Violations) != 0 {
		t.Fatalf("violations %+v", info.Violations)
	}
	alter(t, l, spec.Name, dirtyRatio, "0.5") // it says only how soon the topic shrinks
	alter(t, l, spec.Name, compactionLag, "600000")
	if info := describe(t, l, spec.Name); len(info.Violations) != 0 {
		t.Fatalf("violations %+v", info.Violations)
	}
	alter(t, l, spec.Name, compactionLag, "599999")
	if v := describe(t, l, spec.Name).Violations; len(v) != 1 || v[0].Setting != compactionLag ||
		v[0].Wanted != "600000 or more" || !strings.HasSuffix(v[0].Remedy, compactionLag+"=3600000") {
		t.Fatalf("violations %+v", v)
	}
	alter(t, l, spec.Name, compactionLag, "3600000")
	alter(t, l, spec.Name, cleanupPolicy, "delete")
	if v := describe(t, l, spec.Name).Violations; len(v) != 1 || v[0].Setting != cleanupPolicy ||
		v[0].Wanted != "compact" {
		t.Fatalf("violations %+v", v)
	}
}

// TestDurabilityOfOneBroker checks what Describe says about an acknowledgement of a single broker.
func TestDurabilityOfOneBroker(t *testing.T) {
	l := open(t, Options{Brokers: brokers(t)})
	topic := newTestTopic(t, l, 1).Topic
	if d := describe(t, l,
		topic).Durability; d != "single broker: acknowledged data is lost on disk failure or power loss" {
		t.Errorf("durability: %q", d)
	}
	alter(t, l, topic, flushMessages, "1")
	if d := describe(t, l, topic).Durability; !strings.Contains(d, "single broker") ||
		!strings.Contains(d, "flush.messages=1") {
		t.Errorf("durability with flush.messages=1: %q", d)
	}
}

// TestInspection covers what one broker cannot show.
func TestInspection(t *testing.T) {
	good := map[string]setting{
		cleanupPolicy: {"delete", true}, retentionMS: {"-1", true}, retentionBytes: {"-1", true},
		timestampType: {"LogAppendTime", true}, uncleanElection: {"false", true}, minInsync: {"2", true},
		maxMessageBytes: {"1048576", true},
	}
	for name, c := range map[string]struct {
		brokers, factor int
		name, value     string
		onTopic         bool
		want            []string
		durability      string
	}{
		"three brokers":             {3, 3, minInsync, "2", true, nil, "3 replicas: acknowledged data is in the memory of at least 2"},
		"too few replicas":          {3, 2, minInsync, "2", true, []string{replicationFactor}, "2 replicas"},
		"too few in sync":           {3, 3, minInsync, "1", true, []string{minInsync}, "one is enough"},
		"in sync only by default":   {3, 3, minInsync, "2", false, []string{minInsync}, "3 replicas"},
		"one of three brokers down": {2, 3, minInsync, "1", true, []string{minInsync}, "one is enough"},
		"two brokers":               {2, 2, minInsync, "1", true, nil, "2 replicas, but one"},
		"flushed":                   {3, 3, flushMessages, "1", true, nil, "on the disks of at least 2"},
		"Redpanda caches writes":    {3, 3, writeCaching, "true", true, []string{writeCaching}, "3 replicas"},
		"Redpanda does not":         {3, 3, writeCaching, "false", true, nil, "3 replicas"},
	} {
		t.Run(name, func(t *testing.T) {
			settings := map[string]setting{c.name: {c.value, c.onTopic}}
			for k, v := range good {
				if k != c.name {
					settings[k] = v
				}
			}
			meta := &kmsg.MetadataResponseTopic{
				Topic: kmsg.StringPtr("shop.journal"),
				Partitions: []kmsg.MetadataResponseTopicPartition{
					{Replicas: make([]int32, c.factor)}, {Replicas: make([]int32, 3)},
				},
			}
			in := newInspection(Options{Brokers: []string{"b1:9092"}}.withDefaults(), meta, c.brokers, settings)
			if d := in.durability(); !strings.Contains(d, c.durability) {
				t.Errorf("durability: %q", d)
			}
			var got []string
			for _, v := range in.run() {
				got = append(got, v.Setting)
				if v.Found == "" || v.Wanted == "" || v.Remedy == "" {
					t.Errorf("violation %+v is not complete", v)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("violations of %v, want %v", got, c.want)
			}
		})
	}
}

func TestIsDeltas(t *testing.T) {
	for name, want := range map[string]bool{
		"shop.deltas": true, "shop.deltas.g2": true, "my.shop.deltas": true, "shop.deltas.g12": true,
		"shop.journal": false, "deltas": false, "shop.journal.g2": false, "shop.deltasx": false,
		"shop.deltas.go": false, "g2": false,
	} {
		if isDeltas(name) != want {
			t.Errorf("isDeltas(%q) is %t", name, !want)
		}
	}
}

// TestCluster uses what only three brokers have: replicas.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("three brokers take up to 20 s on a busy machine")
	}
	c := kafkaserver.StartCluster(t, 3)
	l := open(t, Options{Brokers: c.Addrs()})
	p := newTestTopic(t, l, 1)
	info := describe(t, l, p.Topic)
	if len(info.Violations) != 0 || !strings.HasPrefix(info.Durability, "3 replicas") {
		t.Fatalf("%+v", info)
	}
	alter(t, l, p.Topic, minInsync, "1")
	if v := describe(t, l, p.Topic).Violations; len(v) != 1 || v[0].Setting != minInsync {
		t.Errorf("violations %+v", v)
	}
	if command := l.CreateCommand(broker.TopicSpec{Name: "x", Partitions: 16}); !strings.Contains(command,
		"--replication-factor 3") {
		t.Errorf("command %s", command)
	}

	// The leader is paused: others take over, and its old answers are not taken for the log's.
	for i := range 3 {
		mustAppend(t, l, p, text("%d", i))
	}
	leader, _, end, err := l.bounds(deadline(t), p)
	if err != nil || end != 3 {
		t.Fatalf("bounds: %+v, end %d, %v", leader, end, err)
	}
	paused := c.Servers[leader.node-1]
	if err := paused.Pause(); err != nil {
		t.Fatal(err)
	}
	r := mustAppend(t, l, p, text("3")) // by the next leader, in the same session
	if r.Base != 3 {
		t.Errorf("append across a fail-over got offset %d", r.Base)
	}
	if err := paused.Resume(); err != nil {
		t.Fatal(err)
	}
	if _, _, end, err := l.bounds(deadline(t), p); err != nil || end != 4 {
		t.Errorf("bounds with a former leader awake: end %d, %v", end, err)
	}
	if got := values(t, newReader(t, l, p, 0), 4); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
		t.Errorf("read %q", got)
	}
	if _, err := newReader(t, l, p, 5).Next(deadline(t)); !errors.Is(err, broker.ErrOutOfRange) {
		t.Errorf("beyond the end: %v", err)
	}
}
