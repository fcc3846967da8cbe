package admin

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/partitions"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// details are what a record says beside its message: a method, a timer, the fate of effects, and
// how a command ended. What it does not say is nil.
type details struct {
	target, outcome *string
	timer           *adminv1.TimerRecord
	settled         *adminv1.SettledRecord
}

func detailsOf(env *record.Envelope, value []byte) details {
	var d details
	if service, method := record.TargetOf(env.Target); service != "" {
		d.target = proto.String(service + "/" + method)
	}
	if t, err := record.ParseTimer(env.Timer); err == nil && len(env.Timer) > 0 {
		d.timer = &adminv1.TimerRecord{Name: t.GetName()}
		if t.GetDue() != 0 {
			d.timer.Due = timestamppb.New(time.Unix(0, t.GetDue()))
		}
		if t.GetSchedule() != "" {
			d.timer.Schedule = proto.String(t.GetSchedule())
		}
		if env.Kind == record.TimerFired {
			d.timer.SetOffset = proto.Int64(record.Offset(t.GetSetOffset()))
		}
	}
	if env.Kind == record.Settled {
		d.settled = settled(value)
	}
	if len(env.Answer) > 0 {
		d.outcome = outcome(env.Answer)
	}
	return d
}

// settled returns nil for a value that cannot be read.
func settled(value []byte) *adminv1.SettledRecord {
	s, err := record.ParseSettled(value)
	if err != nil {
		return nil
	}
	offsets := func(all []uint64) (signed []int64) {
		for _, o := range all {
			signed = append(signed, record.Offset(o))
		}
		return signed
	}
	res := &adminv1.SettledRecord{
		Done: offsets(s.GetDone()), Replayed: offsets(s.GetReplayed()), Dropped: offsets(s.GetRefused()),
	}
	for _, p := range s.GetParked() {
		parked := &adminv1.ParkedRecord{Offset: record.Offset(p.GetOffset()), Attempts: p.GetAttempts(), Error: p.GetError()}
		if p.GetTimer() != nil {
			parked.Timer = proto.String(p.GetTimer().GetName())
		}
		res.Parked = append(res.Parked, parked)
	}
	return res
}

// outcome says how a command ended, by its encoded answer.
func outcome(answer []byte) *string {
	out, _, err := record.DecodeAnswer(answer)
	switch {
	case err != nil:
		return nil
	case out.Failure != nil && out.Failure.Outcome == entities.NotApplied:
		return proto.String("not applied: " + out.Failure.Message)
	case out.Failure != nil && out.Failure.Reason == entities.TooLarge:
		return proto.String("replied, and the reply is not stored: " + out.Failure.Message)
	case out.Failure != nil:
		return proto.String(partitions.Refusal(answer))
	case out.Forward != nil:
		return proto.String("forwarded to " + out.Forward.Service + "/" + out.Forward.Method)
	case out.Reply == nil:
		return proto.String("ended without a reply")
	default:
		return proto.String("replied")
	}
}
