package kafka

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/settings"
)

// Defaults and fixed settings.
const (
	defaultClientID       = "millrace"
	defaultOpenTimeout    = 10 * time.Second
	defaultRequestTimeout = 10 * time.Second
	// longestHeartbeat is the pause between heartbeats if the session is long enough for four of
	// them. A rebalance takes about half of it.
	longestHeartbeat     = 250 * time.Millisecond
	heartbeatsPerSession = 4
	// defaultMaxRecordBytes fits the largest commit of millrace (900 KiB) with its envelopes, and
	// Kafka's own default.
	defaultMaxRecordBytes = 1 << 20
	defaultBufferRecords  = 32768
	defaultBufferBytes    = 256 << 20
	defaultFetchBytes     = 4 << 20

	// metadataMinAge lets clients find a new leader quickly after a fail-over.
	metadataMinAge = 100 * time.Millisecond
	// connIdle is below the ten minutes after which brokers drop idle connections.
	connIdle = 5 * time.Minute
	// unknownTopicRetries is the client's separate limit for brokers that do not know a topic. It
	// must outlast a fail-over and the owner's timeout of 30 s; by then the topic is gone.
	unknownTopicRetries = 600
	// fetchMaxWait is how long a broker holds an empty fetch.
	fetchMaxWait = time.Second
	// produceSlack is how far the client's limit on buffered records is above ours, so that it
	// never blocks.
	produceSlack = 16384

	// minBatchBytes and maxBatchBytes are the client's bounds for the size of a batch.
	minBatchBytes = 512
	maxBatchBytes = 64 << 20

	wantedReplicas  = 3
	wantedMinInsync = 2
)

// retry is the pause between tries of a request.
//
//nolint:gochecknoglobals // a constant
var retry = backoff.Policy{First: 20 * time.Millisecond, Max: 100 * time.Millisecond, Jitter: 0.2}

// SASL names a user. TLS should be on with every mechanism.
type SASL struct {
	// Mechanism is "plain", "scram-sha-256" or "scram-sha-512".
	Mechanism string
	User      string
	Password  string
}

// Settings of a worker. The zero value of a field means its default.
type Settings struct {
	// Replication is the replication factor of topics made by Create. 0: three, or the number of
	// brokers if that is less.
	Replication int `name:"replication" default:"0" min:"0" max:"32767" process:"worker" help:"replication factor of created topics; 0: 3, or the number of brokers if that is less"`
	// SessionTimeout is how long a worker may be silent before its partitions move. The default is
	// the shortest that a broker with default settings takes.
	SessionTimeout time.Duration `name:"session-timeout" default:"6s" min:"1ns" process:"worker" help:"time without heartbeats after which the brokers remove a worker from its group; brokers limit it by group.min.session.timeout.ms"`
}

// Options say which cluster to use, and how. The zero value of every field but Brokers is a
// sensible one.
type Options struct {
	Settings
	// Brokers are addresses to begin with, host:port. Required.
	Brokers []string
	// ClientID shows up in the brokers' logs and quotas. "": millrace.
	ClientID string
	// TLS turns on encryption. Nil: plain connections.
	TLS *tls.Config
	// SASL turns on authentication. Nil: none.
	SASL *SASL

	// MinInsync is how many replicas must have a record before it is acknowledged. 0: two, or one
	// with a single replica.
	MinInsync int
	// MaxRecordBytes is the largest append, as broker.Size counts. Describe compares it with
	// max.message.bytes of a topic; larger appends are refused even if a topic takes them. Create
	// uses it if the spec has no limit. 0: 1 MiB.
	MaxRecordBytes int
	// Compacted reports which topics should be compacted, so that Describe can check the policy.
	// Nil: <app>.deltas and its later generations <app>.deltas.g2, ...
	Compacted func(topic string) bool

	// OpenTimeout is how long Open waits for a broker. 0: 10 s.
	OpenTimeout time.Duration
	// RequestTimeout bounds one try of one request; an append on a connection that hangs is sent
	// again after it. A broker that is silent for half of it, or 3 s, beyond what a request grants
	// it, counts as hung. 0: 10 s.
	RequestTimeout time.Duration
	// HeartbeatInterval is the pause between heartbeats. 0: 250 ms, or a quarter of
	// SessionTimeout if that is less.
	HeartbeatInterval time.Duration

	// BufferRecords and BufferBytes bound what waits for an acknowledgement; Append blocks above
	// either. 0: 32768 records, 256 MiB.
	BufferRecords, BufferBytes int
	// FetchBytes bounds one fetch of a Reader, which holds up to two fetches. 0: 4 MiB.
	FetchBytes int

	// hung is that of the Log.
	hung *hung
}

func (o Options) withDefaults() Options {
	settings.Fill(&o)
	o.ClientID = cmp.Or(o.ClientID, defaultClientID)
	o.MaxRecordBytes = cmp.Or(o.MaxRecordBytes, defaultMaxRecordBytes)
	o.OpenTimeout = cmp.Or(o.OpenTimeout, defaultOpenTimeout)
	o.RequestTimeout = cmp.Or(o.RequestTimeout, defaultRequestTimeout)
	o.HeartbeatInterval = cmp.Or(o.HeartbeatInterval, min(longestHeartbeat, o.SessionTimeout/heartbeatsPerSession))
	o.BufferRecords = cmp.Or(o.BufferRecords, defaultBufferRecords)
	o.BufferBytes = cmp.Or(o.BufferBytes, defaultBufferBytes)
	o.FetchBytes = cmp.Or(o.FetchBytes, defaultFetchBytes)
	if o.Compacted == nil {
		o.Compacted = isDeltas
	}
	return o
}

// isDeltas reports whether a topic holds replicated entities, by its name.
func isDeltas(topic string) bool {
	parts := strings.Split(topic, ".")
	last := len(parts) - 1
	if last > 1 && strings.HasPrefix(parts[last], "g") && strings.Trim(parts[last][1:], "0123456789") == "" {
		last--
	}
	return last > 0 && parts[last] == "deltas"
}

func (o Options) validate() error {
	if len(o.Brokers) == 0 {
		return errors.New("no Kafka brokers are given; name at least one, as in --brokers b1:9092,b2:9092")
	}
	for _, c := range []struct {
		name  string
		n     int
		limit int
	}{
		{"Replication", o.Replication, math.MaxInt16},
		{"MinInsync", o.MinInsync, math.MaxInt16},
		{"MaxRecordBytes", o.MaxRecordBytes, maxBatchBytes},
		{"BufferRecords", o.BufferRecords, math.MaxInt32},
		{"BufferBytes", o.BufferBytes, math.MaxInt},
		{"FetchBytes", o.FetchBytes, maxBatchBytes},
	} {
		if c.n < 0 || c.n > c.limit {
			return fmt.Errorf("kafka option %s is %d; it must lie between 0 and %d", c.name, c.n, c.limit)
		}
	}
	if o.Replication > 0 && o.MinInsync > o.Replication {
		return fmt.Errorf("kafka option MinInsync is %d, above Replication %d: nothing could ever be acknowledged",
			o.MinInsync, o.Replication)
	}
	if o.HeartbeatInterval >= o.SessionTimeout {
		return fmt.Errorf("kafka option HeartbeatInterval is %v; it must be well below SessionTimeout, %v",
			o.HeartbeatInterval, o.SessionTimeout)
	}
	_, err := o.mechanism()
	return err
}

func (o Options) mechanism() (sasl.Mechanism, error) {
	if o.SASL == nil {
		return nil, nil //nolint:nilnil // no SASL
	}
	switch user, pass := o.SASL.User, o.SASL.Password; strings.ToLower(o.SASL.Mechanism) {
	case "plain":
		return plain.Auth{User: user, Pass: pass}.AsMechanism(), nil
	case "scram-sha-256":
		return scram.Auth{User: user, Pass: pass}.AsSha256Mechanism(), nil
	case "scram-sha-512":
		return scram.Auth{User: user, Pass: pass}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("kafka SASL mechanism %q is unknown; use plain, scram-sha-256 or scram-sha-512",
		o.SASL.Mechanism)
}

// clientOptions are common to all clients. Topics are never made by asking for them.
func (o Options) clientOptions(extra ...kgo.Opt) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(o.Brokers...),
		kgo.ClientID(o.ClientID),
		kgo.RetryBackoffFn(retry.Pause),
		kgo.RequestRetries(math.MaxInt32), // bounded by time and by contexts, not by count
		kgo.RequestTimeoutOverhead(o.grace()),
		kgo.Dialer(o.hung.dial),
		kgo.ConnIdleTimeout(connIdle),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.DisableClientMetrics(),
		kgo.WithHooks(o.hung),
	}
	if m, err := o.mechanism(); err == nil && m != nil { // validate has reported the error
		opts = append(opts, kgo.SASL(m))
	}
	return slices.Concat(opts, extra)
}

// producerOptions are those of log-protocol.md 7. Acks from all replicas, idempotence and unlimited
// retries of records are the client's defaults; they are set explicitly because safety depends on
// them.
func (o Options) producerOptions(batchBytes func(topic string) int32) []kgo.Opt {
	return o.clientOptions(
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		kgo.RecordRetries(math.MaxInt),
		kgo.UnknownTopicRetries(unknownTopicRetries),
		kgo.StopProducerOnDataLossDetected(),
		kgo.ProduceRequestTimeout(o.RequestTimeout/2), // plus the time that hung grants a silent broker
		kgo.ProducerBatchMaxBytesFn(batchBytes),
		kgo.ProducerBatchCompression(kgo.NoCompression()), // commits are small; compressing them costs time under load
		kgo.MaxBufferedRecords(o.BufferRecords+produceSlack),
	)
}

// readerOptions are those of a reader's own client.
func (o Options) readerOptions(topic string, partition int32, from kgo.Offset) []kgo.Opt {
	return o.fetchOptions(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: from}}),
		kgo.DisableFetchSessions(),                      // useless for one partition, and brokers keep few
		kgo.FetchMaxPartitionBytes(int32(o.FetchBytes)), //nolint:gosec // validated
	)
}

// tailOptions are those of the client that waits for many readers. It uses fetch sessions: a fetch
// names only the partitions that have changed.
func (o Options) tailOptions() []kgo.Opt {
	return o.fetchOptions(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{}),
		kgo.FetchMaxPartitionBytes(int32(min(o.FetchBytes, inboxBytes))), //nolint:gosec // validated
	)
}

// fetchOptions keep the client from resetting a position, and return every error.
func (o Options) fetchOptions(extra ...kgo.Opt) []kgo.Opt {
	return o.clientOptions(slices.Concat(extra, []kgo.Opt{
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.KeepRetryableFetchErrors(),
		kgo.KeepControlRecords(), // markers of foreign transactions must not look like lost records
		kgo.FetchMaxWait(fetchMaxWait),
		kgo.FetchMaxBytes(int32(o.FetchBytes)), //nolint:gosec // validated
	})...)
}
