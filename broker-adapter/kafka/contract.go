package kafka

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/internal/plural"
)

// Names of the topic settings in the contract.
const (
	cleanupPolicy   = "cleanup.policy"
	retentionMS     = "retention.ms"
	retentionBytes  = "retention.bytes"
	timestampType   = "message.timestamp.type"
	uncleanElection = "unclean.leader.election.enable"
	minInsync       = "min.insync.replicas"
	maxMessageBytes = "max.message.bytes"
	flushMessages   = "flush.messages"
	writeCaching    = "write.caching" // Redpanda only
	compactionLag   = "min.compaction.lag.ms"
	deleteRetention = "delete.retention.ms"
	segmentMS       = "segment.ms"
	segmentBytes    = "segment.bytes"
	dirtyRatio      = "min.cleanable.dirty.ratio"
	// replicationFactor is part of the contract, but not a topic setting.
	replicationFactor = "replication.factor"
)

// Compaction of a topic. A follower notices that records are gone only if it comes back to the end
// of the log before compaction removes what it has not read; so the lag is part of the contract.
// The other settings say how soon a topic shrinks; an operator may change them.
const (
	compactPolicy = "compact"
	// wantedLag is the lag of a new topic, in milliseconds: one hour. minLag is the shortest that
	// the contract allows: ten minutes.
	wantedLag = 3_600_000
	minLag    = 600_000
)

// entry is one setting with its value.
type entry struct{ name, value string }

// contractSettings returns what Create sets and Describe checks, without what depends on the
// cluster.
func contractSettings(compacted bool) []entry {
	policy := "delete"
	if compacted {
		policy = compactPolicy
	}
	return []entry{
		{cleanupPolicy, policy},
		{retentionMS, "-1"},
		{retentionBytes, "-1"},
		{timestampType, "LogAppendTime"},
		{uncleanElection, "false"},
	}
}

// replicas returns the factors for a new topic on a cluster of so many brokers.
func (o Options) replicas(brokers int) (factor, insync int) {
	factor = cmp.Or(o.Replication, min(wantedReplicas, max(1, brokers)))
	return factor, cmp.Or(o.MinInsync, min(wantedMinInsync, factor))
}

// newTopicSettings returns all settings that Create sets.
func (o Options) newTopicSettings(spec broker.TopicSpec, insync int) []entry {
	all := append(contractSettings(spec.Compacted),
		entry{minInsync, strconv.Itoa(insync)},
		entry{maxMessageBytes, strconv.Itoa(cmp.Or(spec.MaxRecordBytes, o.MaxRecordBytes))},
	)
	if spec.Compacted {
		all = append(all, compactionSettings()...)
	}
	return all
}

// compactionSettings returns what Create sets on compacted topics besides.
func compactionSettings() []entry {
	return []entry{
		{compactionLag, strconv.Itoa(wantedLag)},
		{deleteRetention, "86400000"}, // a day
		{segmentMS, "3600000"},        // an hour: an older segment can be compacted
		{segmentBytes, "67108864"},    // 64 MiB
		{dirtyRatio, "0.3"},
	}
}

// inspection compares a topic with the contract.
type inspection struct {
	opts    Options
	name    string
	brokers int
	// factor is the smallest number of replicas of any partition.
	factor   int
	settings map[string]setting

	violations []broker.Violation
}

func newInspection(o Options, meta *kmsg.MetadataResponseTopic, brokers int, settings map[string]setting) *inspection {
	factor := math.MaxInt
	for _, p := range meta.Partitions {
		factor = min(factor, len(p.Replicas))
	}
	return &inspection{opts: o, name: *meta.Topic, brokers: brokers, factor: factor, settings: settings}
}

// run returns the violations. Fewer than three replicas are no violation on a cluster of fewer than
// three brokers; durability says what that means.
func (in *inspection) run() []broker.Violation {
	for _, want := range contractSettings(in.opts.Compacted(in.name)) {
		in.compare(want)
	}
	if in.opts.Compacted(in.name) { // compacted topics have no retention by time or size
		in.violations = slices.DeleteFunc(in.violations, func(v broker.Violation) bool {
			return v.Setting == retentionMS || v.Setting == retentionBytes
		})
		in.checkLag()
	}
	in.checkReplicas()
	if bytes := in.number(maxMessageBytes); bytes < in.opts.MaxRecordBytes {
		in.note(maxMessageBytes, fmt.Sprintf("%d or more", in.opts.MaxRecordBytes),
			in.alter(maxMessageBytes, strconv.Itoa(in.opts.MaxRecordBytes)))
	}
	if in.settings[writeCaching].value == "true" {
		in.note(writeCaching, "false", fmt.Sprintf("rpk topic alter-config %s --set %s=false", in.name, writeCaching))
	}
	return in.violations
}

func (in *inspection) compare(want entry) {
	if got, known := in.settings[want.name]; known && got.value != want.value {
		in.note(want.name, want.value, in.alter(want.name, want.value))
	}
}

// checkLag checks how long compaction leaves a record alone. A broker that does not report the
// setting does not have it, and may compact at any time.
func (in *inspection) checkLag() {
	lag, err := strconv.Atoi(in.settings[compactionLag].value)
	if err != nil || lag < minLag {
		in.note(compactionLag, fmt.Sprintf("%d or more", minLag), in.alter(compactionLag, strconv.Itoa(wantedLag)))
	}
}

func (in *inspection) checkReplicas() {
	if in.brokers < wantedReplicas && in.factor < wantedReplicas {
		return
	}
	if in.factor < wantedReplicas {
		in.violations = append(in.violations, broker.Violation{
			Setting: replicationFactor, Found: strconv.Itoa(in.factor), Wanted: fmt.Sprintf("%d or more", wantedReplicas),
			Remedy: fmt.Sprintf("add replicas to the partitions of %s with kafka-reassign-partitions.sh --bootstrap-server %s --execute "+
				"--reassignment-json-file <plan.json>", in.name, in.bootstrap()),
		})
	}
	insync, known := in.settings[minInsync]
	remedy := in.alter(minInsync, strconv.Itoa(wantedMinInsync))
	switch {
	case in.number(minInsync) < wantedMinInsync:
		in.note(minInsync, fmt.Sprintf("%d or more, set on the topic", wantedMinInsync), remedy)
	// A broker's configuration may change; only the topic's own setting lasts.
	case known && !insync.onTopic:
		in.note(minInsync, insync.value+", set on the topic", in.alter(minInsync, insync.value))
	}
}

// note adds a violation.
func (in *inspection) note(name, wanted, remedy string) {
	found := in.settings[name].value
	if !in.settings[name].onTopic {
		found += " (a default)"
	}
	in.violations = append(in.violations, broker.Violation{Setting: name, Found: found, Wanted: wanted, Remedy: remedy})
}

// number returns a setting as a number. A setting that the broker does not report is unlimited.
func (in *inspection) number(name string) int {
	n, err := strconv.Atoi(in.settings[name].value)
	if err != nil {
		return math.MaxInt
	}
	return n
}

func (in *inspection) bootstrap() string { return strings.Join(in.opts.Brokers, ",") }

func (in *inspection) alter(name, value string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s=%s",
		in.bootstrap(), in.name, name, value)
}

// durability describes what an acknowledgement guarantees. Kafka does not sync to disk before it
// acknowledges, unless the topic says so.
func (in *inspection) durability() string {
	flushed := in.settings[flushMessages].value == "1"
	insync := min(in.number(minInsync), in.factor)
	switch {
	case in.factor == 1 && flushed:
		return "single broker: acknowledged data is on its disk (flush.messages=1), and is lost on disk failure"
	case in.factor == 1:
		return "single broker: acknowledged data is lost on disk failure or power loss"
	case flushed:
		return fmt.Sprintf("%d replicas: acknowledged data is on the disks of at least %s (flush.messages=1)",
			in.factor, plural.Of(insync, "broker"))
	case insync == 1:
		return fmt.Sprintf("%d replicas, but one is enough to acknowledge: acknowledged data can be lost with a single broker", in.factor)
	default:
		return fmt.Sprintf("%d replicas: acknowledged data is in the memory of at least %s, and is lost only if all of them lose power at once",
			in.factor, plural.Of(insync, "broker"))
	}
}
