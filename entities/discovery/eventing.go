package discovery

import "google.golang.org/protobuf/reflect/protoreflect"

// Source is the origin of the commands of an eventing method.
type Source struct {
	// Topic or EventLog is set; EventLog is a persistence id.
	Topic, EventLog string
	// ConsumerGroup is the declared group, or the full name of the service.
	ConsumerGroup string
}

// Source returns the method's declared source; false when it has none.
func (m *Method) Source() (Source, bool) {
	in := m.Eventing.GetIn()
	if in == nil {
		return Source{}, false
	}
	s := Source{Topic: in.GetTopic(), EventLog: in.GetEventLog(), ConsumerGroup: in.GetConsumerGroup()}
	if s.ConsumerGroup == "" {
		s.ConsumerGroup = m.Service.Name
	}
	return s, true
}

// checkEventing checks one declaration on its own. Declarations are checked although nothing serves
// them yet, so that a function that is accepted today is accepted when something does.
func checkEventing(m *Method, wrong *problems) {
	source, hasSource := m.Source()
	if hasSource && source.Topic == "" && source.EventLog == "" {
		wrong.addf("method %s has an eventing source without a name: set in.topic or in.event_log", m.FullName)
	}
	out := m.Eventing.GetOut()
	if out == nil {
		return
	}
	if out.GetTopic() == "" {
		wrong.addf("method %s has an eventing destination without a name: set out.topic", m.FullName)
	} else if out.GetTopic() == source.Topic {
		wrong.addf("method %s reads the topic %q and writes to it, a loop: use two topics", m.FullName, source.Topic)
	}
}

// checkConsumers refuses two methods of one consumer with one input type (D4): messages are
// given to methods by type.
func checkConsumers(services []*Service, wrong *problems) {
	type route struct {
		source Source
		input  protoreflect.FullName
	}
	for _, s := range services {
		taken := map[route]*Method{}
		for _, m := range s.Methods {
			source, ok := m.Source()
			if !ok {
				continue
			}
			r := route{source, m.Input.FullName()}
			if other := taken[r]; other != nil {
				wrong.addf(
					"methods %s and %s both take %s from the same source: give them different consumer groups", other.FullName,
					m.FullName, r.input)
				continue
			}
			taken[r] = m
		}
	}
}
