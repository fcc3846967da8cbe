package kafka

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

const (
	// askTimeout bounds one question to one broker, when all are asked: a paused one must not hold up the others.
	askTimeout = 3 * time.Second
	// unknownTries is how often a missing topic is looked up, unknownPause apart: brokers hear of a new topic one by one.
	unknownTries = 3
	unknownPause = 50 * time.Millisecond

	earliest = -2
	latest   = -1
)

func (l *Log) countBrokers(ctx context.Context) (int, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // none: nil would be all
	resp, err := req.RequestWith(ctx, l.admin)
	if err != nil {
		return 0, err
	}
	return len(resp.Brokers), nil
}

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
		resp, err := metadataRequest(topic).RequestWith(ctx, l.admin)
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
		return nil, fmt.Errorf("broker described %d topics instead of %s", len(resp.Topics), topic)
	}
	t := &resp.Topics[0]
	if t.ErrorCode != 0 {
		return nil, kerr.ErrorForCode(t.ErrorCode)
	}
	return t, nil
}

// configs asks for the settings of a topic, by name.
func (l *Log) configs(ctx context.Context, topic string) (map[string]setting, error) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(ctx, l.admin)
	if err != nil {
		return nil, err
	}
	if len(resp.Resources) != 1 {
		return nil, fmt.Errorf("broker described %d resources instead of topic %s", len(resp.Resources), topic)
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

// End asks the leader for the offset that the next record will get.
func (l *Log) End(ctx context.Context, p broker.Partition) (int64, error) {
	ctx, cancel := l.within(ctx)
	defer cancel()
	what := fmt.Sprintf("end of %s/%d", p.Topic, p.ID)
	if _, err := l.topics.partition(ctx, p); err != nil {
		return 0, l.requestError(what, err)
	}
	resp, err := listOffsets(p, -1, latest).RequestWith(ctx, l.admin)
	if err != nil {
		return 0, l.requestError(what, err)
	}
	end, err := onlyOffset(resp)
	return end, l.requestError(what, err)
}

// leadership is who leads a partition, as of an epoch.
type leadership struct {
	topicID [16]byte
	node    int32
	epoch   int32
}

// presentLeader asks every broker at a time and believes the one that knows the highest leader epoch: a leader that was
// paused still takes itself for one. Brokers that do not answer in time count for nothing.
func (l *Log) presentLeader(ctx context.Context, p broker.Partition) (leadership, error) {
	brokers := l.admin.DiscoveredBrokers()
	found := make([]leadership, len(brokers))
	errs := make([]error, len(brokers))
	var all sync.WaitGroup
	for i, b := range brokers {
		all.Go(func() { // bounded by askTimeout; waited for below
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			found[i], errs[i] = leaderAsSeenBy(ctx, b, p)
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
		return best, fmt.Errorf("no broker is known")
	}
	return best, err
}

func leaderAsSeenBy(ctx context.Context, b *kgo.Broker, p broker.Partition) (leadership, error) {
	answer, err := b.Request(ctx, metadataRequest(p.Topic))
	if err != nil {
		return leadership{}, err
	}
	resp, ok := answer.(*kmsg.MetadataResponse)
	if !ok {
		return leadership{}, fmt.Errorf("broker answered %T to a metadata request", answer)
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

// bounds asks the present leader for the first offset of a partition and the one behind the last.
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
	answer, err := l.admin.Broker(int(leader.node)).Request(ctx, listOffsets(p, leader.epoch, timestamp))
	if err != nil {
		return 0, err
	}
	resp, ok := answer.(*kmsg.ListOffsetsResponse)
	if !ok {
		return 0, fmt.Errorf("broker answered %T to a request for offsets", answer)
	}
	return onlyOffset(resp)
}
