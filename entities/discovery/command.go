package discovery

import (
	"github.com/millrace-io/millrace/entities"
)

// Command builds the command for a call with this encoded input. For a stateful service it finds
// the entity's key without decoding the message. Bytes that would not decode as Input are refused,
// so that they never reach a function. The command keeps payload, which must not change afterwards.
//
// A method whose callers stream has no payload in its command: pass nil, and give each message to
// Check.
//
// The error is an *entities.Error: InvalidCommand, or TooLarge for a key above the limit.
func (m *Method) Command(payload []byte, md entities.Metadata) (*entities.Command, error) {
	cmd := &entities.Command{Service: m.Service.Name, Method: m.Name, Metadata: md}
	if m.ClientStreams {
		return cmd, nil
	}
	if err := m.Check(payload); err != nil {
		return nil, err
	}
	cmd.Payload = entities.Payload{TypeURL: m.InputType, Value: payload}
	return m.withKey(cmd)
}

// Retarget builds the command for a forward or an effect that a function aims at this method. Its
// payload is passed on with the type that the function gave it, which need not be that of Input;
// the key is found as if it were.
func (m *Method) Retarget(t entities.Target) (*entities.Command, error) {
	if t.Payload.TypeURL == "" || t.Payload.TypeURL == m.InputType {
		if err := m.Check(t.Payload.Value); err != nil {
			return nil, err
		}
		t.Payload.TypeURL = m.InputType
	}
	return m.withKey(&entities.Command{Service: m.Service.Name, Method: m.Name, Payload: t.Payload, Metadata: t.Metadata})
}

// withKey adds type and key to a command of a stateful service; an action has none. The payload
// is a valid Input, or of a type that the function chose, of which only the top level is read.
func (m *Method) withKey(cmd *entities.Command) (*entities.Command, error) {
	if len(m.key.fields) == 0 {
		return cmd, nil
	}
	id, err := m.key.id(m, cmd.Payload.Value)
	if err != nil {
		return nil, err
	}
	cmd.Type = &m.Service.EntityType
	cmd.Key = entities.Key{Type: m.Service.EntityType.Name, ID: id}
	return cmd, nil
}

// Check returns an *entities.Error with reason InvalidCommand when bytes would not decode as Input.
func (m *Method) Check(payload []byte) error {
	if err := m.shape.check(payload, 1); err != nil {
		return malformed(m, err)
	}
	return nil
}

// malformed is the caller's mistake. The function has not seen the command.
func malformed(m *Method, cause error) *entities.Error {
	return entities.Errorf(entities.InvalidCommand, entities.NotApplied,
		"%s: the request is not a valid %s: %w", m.FullName, m.Input.FullName(), cause)
}
