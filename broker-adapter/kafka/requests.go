package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

const (
	// askTimeout bounds one request to one broker when all are asked, so that a paused broker does
	// not delay the others.
	askTimeout = 3 * time.Second
	// unknownTries is how often a missing topic is looked up, unknownPause apart: brokers learn of
	// a new topic one by one.
	unknownTries = 3
	unknownPause = 50 * time.Millisecond
	// settingsTries is how often the settings of a topic are requested: one broker may have
	// described it before another knows it.
	settingsTries = 100

	earliest = -2
	latest   = -1
)

// request sends one request through the client or through one of its brokers. It returns when ctx
// ends. The client would not: it ignores the context while it waits for the first answers on a new
// connection.
func request[R any](ctx context.Context, l *Log, to kmsg.Requestor,
	send func(context.Context, kmsg.Requestor) (R, error),
) (R, error) {
	type outcome struct {
		answer R
		err    error
	}
	var none R
	if !l.enter(&l.requests) {
		return none, broker.ErrClosed
	}
	done := make(chan outcome, 1)
	go func() { // ends with the request or when the client is closed; Close waits for it
		defer l.requests.Done()
		answer, err := send(ctx, to)
		done <- outcome{answer, err}
	}()
	select {
	case o := <-done:
		return o.answer, o.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// countBrokers asks how many brokers the cluster has now, by which replicas are chosen.
func (l *Log) countBrokers(ctx context.Context) (int, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // none: nil would be all
	resp, err := request(ctx, l, l.admin, req.RequestWith)
	if err != nil {
		return 0, err
	}
	return len(resp.Brokers), nil
}

// metadataRequest asks about one topic, and must not create it: a topic that a broker makes up
// would have the settings of its defaults.
func metadataRequest(topic string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	req.AllowAutoTopicCreation = false
	return req
}

// metadata asks any broker about a topic.
func (l *Log) metadata(ctx context.Context, topic string) (*kmsg.MetadataResponseTopic, error) {
	for try := 1; ; try++ {
		resp, err := request(ctx, l, l.admin, metadataRequest(topic).RequestWith)
		if err != nil {
			return nil, err
		}
		l.brokers.Store(int32(len(resp.Brokers))) //nolint:gosec // a number of brokers
		t, err := onlyTopic(resp, topic)
		if err == nil || !kerr.IsRetriable(err) || try >= unknownTries || !pause(ctx, unknownPause) {
			return t, err
		}
	}
}

func onlyTopic(resp *kmsg.MetadataResponse, topic string) (*kmsg.MetadataResponseTopic, error) {
	if len(resp.Topics) != 1 {
		return nil, fmt.Errorf("broker described %d topics instead of one, %s", len(resp.Topics), topic)
	}
	t := &resp.Topics[0]
	if t.ErrorCode != 0 {
		return nil, kerr.ErrorForCode(t.ErrorCode)
	}
	return t, nil
}

// configs asks for the settings of a topic that metadata has found, by name. The broker that is
// asked may learn of the topic later than the one that described it.
func (l *Log) configs(ctx context.Context, topic string) (map[string]setting, error) {
	for try := 1; ; try++ {
		found, err := l.configsOf(ctx, l.admin, topic)
		if !errors.Is(err, kerr.UnknownTopicOrPartition) || try >= settingsTries || !pause(ctx, unknownPause) {
			return found, err
		}
	}
}

// configsOf asks once, any broker or a certain one.
func (l *Log) configsOf(ctx context.Context, to kmsg.Requestor, topic string) (map[string]setting, error) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	req.Resources = append(req.Resources, r)
	resp, err := request(ctx, l, to, req.RequestWith)
	if err != nil {
		return nil, err
	}
	if len(resp.Resources) != 1 {
		return nil, fmt.Errorf("broker described %d resources instead of one, topic %s", len(resp.Resources), topic)
	}
	if err := kerr.ErrorForCode(resp.Resources[0].ErrorCode); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	found := map[string]setting{}
	for _, c := range resp.Resources[0].Configs {
		s := setting{onTopic: c.Source == kmsg.ConfigSourceDynamicTopicConfig}
		if c.Value != nil {
			s.value = *c.Value
		}
		found[c.Name] = s
	}
	return found, nil
}

// setting is one value, and whether it is set on the topic itself instead of coming from a default.
type setting struct {
	value   string
	onTopic bool
}

func listOffsets(p broker.Partition, epoch int32, timestamp int64) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = p.Topic
	tp := kmsg.NewListOffsetsRequestTopicPartition()
	tp.Partition, tp.CurrentLeaderEpoch, tp.Timestamp = p.ID, epoch, timestamp
	t.Partitions = append(t.Partitions, tp)
	req.Topics = append(req.Topics, t)
	return req
}

func onlyOffset(resp *kmsg.ListOffsetsResponse) (int64, error) {
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, fmt.Errorf("broker listed offsets of %d topics instead of one partition", len(resp.Topics))
	}
	found := &resp.Topics[0].Partitions[0]
	return found.Offset, kerr.ErrorForCode(found.ErrorCode)
}

// Start asks the leader for the offset of the oldest record.
func (l *Log) Start(ctx context.Context, p broker.Partition) (int64, error) {
	return l.bound(ctx, p, "start", earliest)
}

// End asks the leader for the offset that the next record will get.
func (l *Log) End(ctx context.Context, p broker.Partition) (int64, error) {
	return l.bound(ctx, p, "end", latest)
}

func (l *Log) bound(ctx context.Context, p broker.Partition, which string, timestamp int64) (int64, error) {
	ctx, cancel := l.within(ctx)
	defer cancel()
	what := fmt.Sprintf("%s of %s/%d", which, p.Topic, p.ID)
	for began, try := time.Now(), 1; ; try++ {
		offset, err := l.boundOnce(ctx, p, timestamp)
		// The client asks a new leader itself, but not while its own knowledge of leaders is fresh: then
		// it returns the code. Brokers learn of a new topic, or of a new leader, one by one.
		if err == nil || !kerr.IsRetriable(err) || time.Since(began) >= l.opts.RequestTimeout ||
			!pause(ctx, retry.Pause(try)) {
			return offset, l.requestError(what, err)
		}
	}
}

func (l *Log) boundOnce(ctx context.Context, p broker.Partition, timestamp int64) (int64, error) {
	if _, err := l.topics.partition(ctx, p); err != nil {
		return 0, err
	}
	resp, err := request(ctx, l, l.admin, listOffsets(p, -1, timestamp).RequestWith)
	if err != nil {
		return 0, err
	}
	return onlyOffset(resp)
}

// leadership is who leads a partition, as of an epoch.
type leadership struct {
	topicID [16]byte
	node    int32
	epoch   int32
}

// presentLeader asks all brokers at once and returns the leader with the highest epoch: a leader
// that was paused still believes that it leads. Brokers that do not answer in time are ignored.
func (l *Log) presentLeader(ctx context.Context, p broker.Partition) (leadership, error) {
	brokers := l.admin.DiscoveredBrokers()
	found := make([]leadership, len(brokers))
	errs := make([]error, len(brokers))
	var all sync.WaitGroup
	for i, b := range brokers {
		all.Go(func() { // bounded by askTimeout; waited for below
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			found[i], errs[i] = l.leaderAsSeenBy(ctx, b, p)
		})
	}
	all.Wait()
	best, known := leadership{epoch: -1}, false
	var err error
	for i := range brokers {
		switch {
		case errs[i] != nil:
			err = errs[i]
		case found[i].epoch >= best.epoch:
			best, known = found[i], true
		}
	}
	switch {
	case known:
		return best, nil
	case err == nil:
		return best, errors.New("no broker is known")
	}
	return best, err
}

func (l *Log) leaderAsSeenBy(ctx context.Context, b *kgo.Broker, p broker.Partition) (leadership, error) {
	resp, err := request(ctx, l, b, metadataRequest(p.Topic).RequestWith)
	if err != nil {
		return leadership{}, err
	}
	t, err := onlyTopic(resp, p.Topic)
	if err != nil {
		return leadership{}, err
	}
	for _, part := range t.Partitions {
		if part.Partition == p.ID && part.Leader >= 0 {
			return leadership{topicID: t.TopicID, node: part.Leader, epoch: part.LeaderEpoch}, nil
		}
	}
	return leadership{}, kerr.LeaderNotAvailable
}

// bounds asks the present leader for the first offset of a partition and the one after the last.
func (l *Log) bounds(ctx context.Context, p broker.Partition) (leader leadership, start, end int64, err error) {
	if leader, err = l.presentLeader(ctx, p); err != nil {
		return leader, 0, 0, err
	}
	if start, err = l.askOffset(ctx, leader, p, earliest); err != nil {
		return leader, 0, 0, err
	}
	end, err = l.askOffset(ctx, leader, p, latest)
	return leader, start, end, err
}

func (l *Log) askOffset(ctx context.Context, leader leadership, p broker.Partition, timestamp int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := request(ctx, l, l.admin.Broker(int(leader.node)), listOffsets(p, leader.epoch, timestamp).RequestWith)
	if err != nil {
		return 0, err
	}
	return onlyOffset(resp)
}
