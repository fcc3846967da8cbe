package brokertest

import (
	"strings"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

func testEnd(f *fixture) {
	p := f.partition()
	if end := f.end(p); end != 0 {
		f.Errorf("end of a new partition is %d", end)
	}
	f.append(p, text("a"), text("b"))
	if end := f.end(p); end != 2 {
		f.Errorf("end after two records is %d", end)
	}
	if start, err := f.log.Start(f.context(), p); err != nil || start != 0 {
		f.Errorf("start of a partition that has everything is %d, %v", start, err)
	}
	_, err := f.log.Start(f.context(), broker.Partition{Topic: unique("missing")})
	f.wantError("start of a missing topic", err, broker.ErrUnknownTopic)
	_, err = f.log.End(f.context(), broker.Partition{Topic: unique("missing")})
	f.wantError("end of a missing topic", err, broker.ErrUnknownTopic)
	_, err = f.log.End(f.context(), broker.Partition{Topic: p.Topic, ID: 1})
	f.wantError("end of a missing partition", err, broker.ErrUnknownTopic)
}

func testDescribe(f *fixture) {
	topic, other := f.topic(3), f.topic(1)
	info := f.describe(topic)
	if info.Name != topic || info.Partitions != 3 || info.ID == "" || info.Durability == "" {
		f.Errorf("describe: %+v", info)
	}
	f.append(broker.Partition{Topic: topic, ID: 2}, text("x"))
	if again := f.describe(topic); again.ID != info.ID {
		f.Errorf("topic id changed from %s to %s", info.ID, again.ID)
	}
	if f.describe(other).ID == info.ID {
		f.Errorf("two topics have the id %s", info.ID)
	}
}

func (f *fixture) describe(topic string) broker.TopicInfo {
	f.Helper()
	info, err := f.log.Describe(f.context(), topic)
	if err != nil {
		f.Fatalf("describe %s: %v", topic, err)
	}
	return info
}

func testDescribeUnknown(f *fixture) {
	_, err := f.log.Describe(f.context(), unique("missing"))
	f.wantError("describe a missing topic", err, broker.ErrUnknownTopic)
}

func testCreateTwice(f *fixture) {
	topic := f.topic(2)
	before := f.describe(topic)
	f.append(broker.Partition{Topic: topic, ID: 1}, text("kept"))
	spec := broker.TopicSpec{Name: topic, Partitions: 4, MaxRecordBytes: maxRecordBytes}
	if err := f.log.Create(f.context(), spec); err != nil {
		f.Fatalf("create an existing topic: %v", err)
	}
	if after := f.describe(topic); after.ID != before.ID || after.Partitions != 2 {
		f.Errorf("creating an existing topic changed it from %+v to %+v", before, after)
	}
	f.read(broker.Partition{Topic: topic, ID: 1}, 0, 1)
}

func testCreateCommand(f *fixture) {
	spec := broker.TopicSpec{Name: unique("topic"), Partitions: 8, MaxRecordBytes: maxRecordBytes}
	if command := f.log.CreateCommand(spec); !strings.Contains(command, spec.Name) {
		f.Errorf("the command to create %s does not name it: %q", spec.Name, command)
	}
}
