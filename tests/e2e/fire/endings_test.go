package fire

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kit"
)

// ending is an operation on a journal that cannot be undone: after it, a world is over.
type ending struct {
	name string
	// run does it, and returns whether an effect was seen.
	run func(w *world) bool
	// words are those of which the error of a partition that is not served has one.
	words []string
	// keeps: workers keep their stores when they are started again, which are all that knows of it.
	keeps bool
}

// endings are all of them. Each world on Kafka has one.
func endings() []ending {
	return []ending{
		{"topic recreated", (*world).recreateTopic, []string{"topic id"}, true},
		{"records deleted", (*world).deleteRecords, []string{"lost", "begin", "lies before the first"}, false},
		{"partitions added", (*world).addPartitions, []string{"partitions"}, false},
		{"log compacted", (*world).compactLog, []string{"lost", "no record"}, false},
	}
}

// finish ends a world with something that cannot be undone: workers go on with what they have, and
// are then started again. What they serve is whole, an acknowledged command that is sent again
// happens no second time, and what they do not serve they name.
func (w *world) finish() {
	w.t.Helper()
	all := slices.DeleteFunc(endings(), func(e ending) bool { return !w.chosen(e.name) })
	if len(all) == 0 || w.t.Failed() {
		return
	}
	e := all[w.rng.IntN(len(all))]
	for _, p := range w.workers { // a store with damage that no worker has found yet would be lost when it is needed
		p.Kill(w.t)
		p.DeleteStore(w.t)
		p.Respawn(w.t)
	}
	w.awaitAllReady("to start for " + e.name)
	w.injectOne(fault{e.name, e.run})
	w.judgeLoss(e, "as they were")
	if w.t.Failed() {
		return
	}
	w.refused = nil
	for _, p := range w.workers {
		p.Kill(w.t)
		if !e.keeps {
			p.DeleteStore(w.t)
		}
		p.Respawn(w.t)
	}
	w.judgeLoss(e, "started again")
	for _, p := range w.workers {
		p.Kill(w.t)
	}
}

// judgeLoss waits until every partition is served or names what is lost, and checks everything that
// is served.
func (w *world) judgeLoss(e ending, when string) {
	w.t.Helper()
	what := fmt.Sprintf("after %s, workers %s", e.name, when)
	var named map[int32]string
	open := "nothing is known"
	for deadline := w.now() + int64(healing); open != ""; w.wait(reachPause) {
		if w.now() > deadline {
			w.broken(violation{silent, what, open})
			return
		}
		named, open = w.named(e)
		for _, p := range w.workers {
			said := lastLines(p.Output(w.t))
			switch {
			case !p.Ended() || slices.Contains(w.refused, p):
			case strings.Contains(said, "panic:") || !says(said, e.words):
				w.broken(violation{unexpected, what, "a worker has ended:\n" + said})
				return
			default:
				w.outcome(e.name + ": a worker ended, and named it")
				w.refused = append(w.refused, p)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(named)) {
		w.outcome(e.name + ": not served, and named")
		w.debugf("%s: partition %d: %s", what, id, named[id])
	}
	served := map[string]remains{}
	for name, r := range w.finished {
		_, id, _ := strings.Cut(name, "/")
		if partition := entities.Partition(id, partitions); named[partition] == "" {
			served[name] = r
		}
	}
	w.outcome(fmt.Sprintf("%s: %d of %d partitions served", e.name, partitions-len(named), partitions))
	w.compareThese(served)
	if w.t.Failed() {
		return // what follows would only repeat it
	}
	for _, k := range w.kept {
		if partition := entities.Partition(k.entity.id, partitions); named[partition] == "" {
			w.repeat(k, w.rng)
		}
	}
	w.compareThese(served)
}

// named are the partitions that are not served for what has happened, with what workers say of
// them; open is what is not known yet of another one, "" for nothing. A worker that has released
// everything speaks for all partitions; one that has ended does so when all have.
func (w *world) named(e ending) (named map[int32]string, open string) {
	active, why := map[int32]bool{}, map[int32]string{}
	for i, admin := range w.admins {
		var general string
		if s := w.status(admin, callTimeout); s == nil && w.workers[i].Ended() {
			if !slices.ContainsFunc(w.workers, func(p *harness.Process) bool { return !p.Ended() }) {
				general = lastLines(w.workers[i].Output(w.t))
			}
		} else {
			general = s.GetNotReadyReason()
			for _, p := range s.GetPartitions() {
				active[p.GetPartition()] = active[p.GetPartition()] || p.GetState() == "active"
				if says(p.GetLastError(), e.words) {
					why[p.GetPartition()] = p.GetLastError()
				}
				open += fmt.Sprintf(" worker %d: partition %d %s %s;", i+1, p.GetPartition(), p.GetState(), p.GetLastError())
			}
		}
		open += fmt.Sprintf(" worker %d: %s;", i+1, general)
		for id := range int32(partitions) {
			if why[id] == "" && says(general, e.words) {
				why[id] = general
			}
		}
	}
	named = map[int32]string{}
	for id := range int32(partitions) {
		switch {
		case active[id]:
		case why[id] == "":
			return nil, open
		default:
			named[id] = why[id]
		}
	}
	return named, ""
}

func says(text string, words []string) bool {
	return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(text, word) })
}

// recreateTopic deletes the journal and creates it again, with what it needs.
func (w *world) recreateTopic() bool {
	k := w.kafka
	settings := map[string]string{"min.insync.replicas": k.setting(w, "min.insync.replicas")}
	for _, name := range []string{"cleanup.policy", "retention.ms", "retention.bytes", "message.timestamp.type", "unclean.leader.election.enable", "max.message.bytes"} {
		settings[name] = k.setting(w, name)
	}
	del := kmsg.NewPtrDeleteTopicsRequest()
	del.TopicNames, del.TimeoutMillis = []string{topic}, 10_000
	dt := kmsg.NewDeleteTopicsRequestTopic()
	dt.Topic = kmsg.StringPtr(topic)
	del.Topics = append(del.Topics, dt)
	if resp, err := del.RequestWith(w.ctx, k.client); err != nil || resp.Topics[0].ErrorCode != 0 {
		w.t.Fatalf("delete the topic: %v %v", err, resp)
	}
	create := kmsg.NewPtrCreateTopicsRequest()
	ct := kmsg.NewCreateTopicsRequestTopic()
	ct.Topic, ct.NumPartitions, ct.ReplicationFactor = topic, partitions, int16(len(k.servers))
	for name, value := range settings {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = name, kmsg.StringPtr(value)
		ct.Configs = append(ct.Configs, c)
	}
	create.Topics = append(create.Topics, ct)
	kit.AwaitWithin(w.t, healing, "the topic to be created again", func() bool {
		resp, err := create.RequestWith(w.ctx, k.client)
		return err == nil && resp.Topics[0].ErrorCode == 0
	})
	w.awaitNoneActive("topic id")
	return true
}

// awaitNoneActive waits until workers have noticed that the topic is another one.
func (w *world) awaitNoneActive(word string) {
	w.t.Helper()
	kit.AwaitWithin(w.t, healing, "every partition to halt, and to say "+word, func() bool {
		halted := map[int32]bool{}
		for _, admin := range w.admins {
			for _, p := range w.status(admin, callTimeout).GetPartitions() {
				if p.GetState() == "active" {
					return false
				}
				halted[p.GetPartition()] = halted[p.GetPartition()] || p.GetState() == "halted" &&
					strings.Contains(p.GetLastError(), word)
			}
		}
		for id := range int32(partitions) {
			if !halted[id] {
				return false
			}
		}
		return true
	})
}

// deleteRecords deletes everything that the journal has.
func (w *world) deleteRecords() bool {
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = 10_000
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = topic
	for id := range w.kafka.ends(w.t) {
		p := kmsg.NewDeleteRecordsRequestTopicPartition()
		p.Partition, p.Offset = id, -1
		rt.Partitions = append(rt.Partitions, p)
	}
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(w.ctx, w.kafka.client)
	if err != nil || len(resp.Topics) != 1 {
		w.t.Fatalf("delete the journal's records: %v", err)
	}
	deleted := false
	for _, p := range resp.Topics[0].Partitions {
		deleted = deleted || p.ErrorCode == 0 && p.LowWatermark > 0
	}
	return deleted
}

// addPartitions gives the journal twice as many, and starts another worker, which finds them so.
func (w *world) addPartitions() bool {
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.TimeoutMillis = 10_000
	rt := kmsg.NewCreatePartitionsRequestTopic()
	rt.Topic, rt.Count = topic, 2*partitions
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(w.ctx, w.kafka.client)
	if err != nil || len(resp.Topics) != 1 || resp.Topics[0].ErrorCode != 0 {
		w.t.Fatalf("add partitions to the journal: %v %v", err, resp)
	}
	p := harness.Launch(w.t, harness.Options{Program: program, Tags: w.tags, Command: "run", Env: w.env, Args: []string{
		"--app", group, "--brokers", w.kafka.door(), "--worker", "another", "--session-timeout", clusterSession.String(), "--contract-check", contract.String(),
	}})
	w.workers = append(w.workers, p)
	w.doors = append(w.doors, door{conn: p.Dial(w.t)})
	w.admins = append(w.admins, p.DialAdmin(w.t))
	w.wait(3 * contract) // so that the first one looks at its topic
	kit.AwaitWithin(w.t, healing, "the other worker to be ready, to end, or to say why not", func() bool {
		return p.Ended() || p.Ready(w.t) ||
			strings.Contains(w.status(w.admins[len(w.admins)-1], callTimeout).GetNotReadyReason(), "partitions")
	})
	return true
}

// door is where workers find their brokers.
func (k *kafka) door() string {
	if k.proxy != nil {
		return k.proxy.address()
	}
	return k.addresses()
}

// compactLog makes the brokers compact the journal until records are missing from it, and sets
// everything back.
func (w *world) compactLog() bool {
	k := w.kafka
	for _, s := range []setting{{"segment.ms", "1000"}, {"min.cleanable.dirty.ratio", "0.001"}, {"max.compaction.lag.ms", "1000"}} {
		k.alter(w.t, s.name, s.wrong)
	}
	for range 3 { // a segment ends with the first record that comes when it is old
		for id := range int32(partitions) {
			w.insist(task{id: w.scene(id), gives: true}, "")
		}
		w.wait(1100 * time.Millisecond)
	}
	before := k.ends(w.t)
	k.alter(w.t, "cleanup.policy", "compact")
	missing := false
	for end := time.Now().Add(soon); !missing && time.Now().Before(end); w.wait(time.Second) {
		missing = k.missing(w, before)
	}
	k.alter(w.t, "cleanup.policy", "delete")
	w.wait(3 * contract)
	return missing
}

// missing reports whether the journal lacks records in front of some offsets.
func (k *kafka) missing(w *world, before map[int32]int64) bool {
	client := newKafkaClient(w.t, k.addresses())
	defer client.Close()
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: fromStart()})
	ctx, cancel := context.WithTimeout(w.ctx, healing)
	defer cancel()
	next, gap := map[int32]int64{}, false
	for !gap && ctx.Err() == nil && slices.ContainsFunc(slices.Collect(maps.Keys(before)), func(id int32) bool {
		return next[id] < before[id]
	}) {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			gap = gap || r.Offset != next[r.Partition] && r.Offset < before[r.Partition]
			next[r.Partition] = r.Offset + 1
		})
	}
	return gap
}
