package core

import (
	"errors"
	"time"

	"github.com/millrace-io/millrace/entities"
)

var errLog = errors.New("the log said no")

// tick is how often the loop looks at the clock.
const tick = 100 * time.Millisecond

func reply(text string) *entities.Reply {
	return &entities.Reply{Payload: entities.Payload{TypeURL: "t/text", Value: []byte(text)}}
}

// command is one for an event-sourced entity.
func command(id, text string) *entities.Command {
	return &entities.Command{
		Type: &entities.EntityType{Service: "test.Words", Name: "words", Kind: entities.EventSourced},
		Key:  entities.Key{Type: "words", ID: id}, Payload: entities.Payload{Value: []byte(text)},
	}
}

func withID(cmd *entities.Command, id string) *entities.Command {
	cmd.ID = id
	return cmd
}
