package fire

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/tests/e2e/harness"
	"github.com/millrace-io/millrace/tests/kafkaserver"
	"github.com/millrace-io/millrace/tests/kit"
)

// settingsFaults are what an operator can do with the settings of a worker on the embedded log.
func settingsFaults() []fault {
	return []fault{
		{"larger commands allowed", (*world).allowLarger},
		{"other number of partitions", (*world).otherPartitions},
	}
}

// allowLarger starts the worker for larger commands than its log was made for, and then as before.
// A command of that size is stored or refused, and nothing else suffers from it.
func (w *world) allowLarger() bool {
	p := w.worker()
	p.Stop(w.t)
	p.Adjust("--max-commit", "3MiB")
	w.restart(p)
	for id := range int32(partitions) {
		k := task{id: w.scene(id), gives: true, padding: 2_000_000}
		if a := w.insist(k, k.id+"-x"); a.err != nil && a.outcome != "refused" && a.outcome != "not_applied" {
			w.broken(violation{
				unexpected, "script/" + k.id,
				fmt.Sprintf("a value of %d bytes, with --max-commit 3MiB: %s %v", k.padding, a.outcome, a.err),
			})
			break
		}
	}
	p.Stop(w.t)
	p.Adjust()
	w.restart(p)
	return true
}

// otherPartitions starts the worker with another number of partitions than its data is of: it must
// end with an error that names this.
func (w *world) otherPartitions() bool {
	p := w.worker()
	p.Stop(w.t)
	p.Adjust("--partitions", strconv.Itoa(2*partitions))
	before := len(p.Output(w.t))
	p.Respawn(w.t)
	kit.AwaitWithin(w.t, healing, "a worker to refuse a wrong number of partitions, or to take it", func() bool {
		return p.Ended() || p.Ready(w.t)
	})
	if said := p.Output(w.t)[before:]; !p.Ended() || !strings.Contains(said, "partitions") {
		w.broken(violation{unexpected, p.Data(), fmt.Sprintf("a worker was started with %d partitions on data of %d, and said:\n%s", 2*partitions, partitions, lastLines(said))})
		p.Kill(w.t)
	}
	p.Adjust()
	w.restart(p)
	return true
}

// setting is an operator's change of the journal's topic, and its name in the workers' errors.
type setting struct {
	name string
	// wrong is what it is set to for a while.
	wrong string
}

// settings are those that break what a journal needs, without taking anything from it in the time
// that they last.
func (k *kafka) settings() map[string]setting {
	all := map[string]setting{
		"settings changed":     {"retention.ms", "3600000000"},
		"retention by size":    {"retention.bytes", "1000000000"},
		"compaction on":        {"cleanup.policy", "compact"},
		"message size lowered": {"max.message.bytes", "100000"},
		"unclean election on":  {"unclean.leader.election.enable", "true"},
	}
	if len(k.servers) > 1 {
		all["insync lowered"] = setting{"min.insync.replicas", "1"}
	}
	return all
}

// operatorFaults are what an operator can do to the topic and the group, and undo.
func (k *kafka) operatorFaults() []fault {
	faults := []fault{
		{"members kicked", (*world).kickMembers},
		{"group deleted", (*world).deleteGroup},
	}
	if len(k.servers) > 1 {
		faults = append(faults, fault{"insync raised", (*world).raiseInsync})
	}
	names := k.settings()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		faults = append(faults, fault{name, func(w *world) bool { return w.changeSetting(names[name]) }})
	}
	return faults
}

// changeSetting breaks the topic contract, and restores it when every worker has reported it and
// released everything.
func (w *world) changeSetting(s setting) bool {
	w.revive()
	right := w.kafka.setting(w, s.name)
	w.kafka.alter(w.t, s.name, s.wrong)
	for i := range w.workers {
		said := ""
		kit.AwaitWithin(w.t, healing, fmt.Sprintf("worker %d to name %s and give its partitions up", i+1, s.name),
			func() bool {
				status := w.status(w.admins[i], callTimeout)
				said = status.GetNotReadyReason()
				for _, p := range status.GetPartitions() {
					if p.GetState() == "active" {
						return false
					}
				}
				return strings.Contains(said, s.name) || w.workers[i].Ended()
			})
		if !strings.Contains(said, "kafka-configs.sh") && !w.workers[i].Ended() {
			w.t.Errorf("the broken contract is named without a remedy: %s", said)
		}
	}
	w.kafka.alter(w.t, s.name, right)
	w.awaitAllReady("to take their partitions again")
	return true
}

// awaitAllReady waits until every worker is ready; one that has ended by itself is started again.
func (w *world) awaitAllReady(what string) {
	w.t.Helper()
	kit.AwaitWithin(w.t, healing, "the workers "+what, func() bool {
		w.revive()
		return !slices.ContainsFunc(w.workers, func(p *harness.Process) bool { return !p.Ready(w.t) })
	})
}

// raiseInsync requires every replica in sync, and stops a broker: nothing can be written until
// there are enough again.
func (w *world) raiseInsync() bool {
	w.revive()
	const name = "min.insync.replicas"
	s, right := w.kafka.broker(w), w.kafka.setting(w, name)
	w.kafka.alter(w.t, name, strconv.Itoa(len(w.kafka.servers)))
	w.end9(s)
	kit.AwaitWithin(w.t, healing, "the other brokers to lead everything", func() bool {
		l := kafkaserver.AskLayout(w.ctx, w.kafka.client)
		return l.Partitions > 0 && l.Leads[int32(s.Node())] == 0 && l.InSync[int32(s.Node())] == 0
	})
	w.wait(callTimeout)
	w.kafka.alter(w.t, name, right)
	w.goOn()
	s.MustRestart(w.t)
	w.awaitAllReady("to go on when the log takes records again")
	return true
}

// kickMembers removes every worker from the group.
func (w *world) kickMembers() bool {
	w.revive()
	kicked := w.kafka.kick(w.ctx)
	w.awaitAllReady("to come back that were put out of the group")
	return kicked > 0
}

// deleteGroup deletes the group as soon as all members are removed.
func (w *world) deleteGroup() bool {
	w.revive()
	deleted := false
	for end := time.Now().Add(soon); !deleted && time.Now().Before(end); {
		w.kafka.kick(w.ctx)
		req := kmsg.NewPtrDeleteGroupsRequest()
		req.Groups = []string{group}
		ctx, cancel := context.WithTimeout(w.ctx, askTimeout)
		resp, err := req.RequestWith(ctx, w.kafka.client)
		cancel()
		deleted = err == nil && len(resp.Groups) == 1 && resp.Groups[0].ErrorCode == 0
	}
	w.awaitAllReady("to make their group anew")
	return deleted
}

// kick removes all members from the group and returns how many there were.
func (k *kafka) kick(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{group}
	found, err := describe.RequestWith(ctx, k.client)
	if err != nil || len(found.Groups) != 1 {
		return 0
	}
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = group
	for _, m := range found.Groups[0].Members {
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID, member.InstanceID = m.MemberID, m.InstanceID
		leave.Members = append(leave.Members, member)
	}
	if resp, err := leave.RequestWith(ctx, k.client); err != nil || resp.ErrorCode != 0 {
		return 0
	}
	return len(leave.Members)
}

// setting asks for a setting of the journal's topic.
func (k *kafka) setting(w *world, name string) string {
	w.t.Helper()
	req := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName, r.ConfigNames = kmsg.ConfigResourceTypeTopic, topic, []string{name}
	req.Resources = append(req.Resources, r)
	value := ""
	kit.AwaitWithin(w.t, healing, "the brokers to say what "+name+" is", func() bool {
		ctx, cancel := context.WithTimeout(w.ctx, askTimeout)
		defer cancel()
		resp, err := req.RequestWith(ctx, k.client)
		if err != nil || len(resp.Resources) != 1 || len(resp.Resources[0].Configs) != 1 ||
			resp.Resources[0].Configs[0].Value == nil {
			return false
		}
		value = *resp.Resources[0].Configs[0].Value
		return true
	})
	return value
}
