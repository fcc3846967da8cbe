package host

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/discovery"
)

// checkEffects says why a refusal of an effect could not be reported to the entity that asks for
// it. It would otherwise show only when the target has refused, when the command that asks can no
// longer fail.
func checkEffects(out *entities.Outcome, service *discovery.Service) error {
	for i := range out.Effects {
		e := &out.Effects[i]
		if e.OnRefused == "" {
			continue
		}
		if err := checkOnRefused(e, service); err != nil {
			return fmt.Errorf("effect %d of %d, on %s/%s: %w", i+1, len(out.Effects), e.Service, e.Method, err)
		}
	}
	return nil
}

// checkOnRefused says why a method cannot be told of a refusal. Only the runtime may call such a
// method (see discovery.Method.LearnsRefusals), so it must exist for nothing else.
func checkOnRefused(e *entities.SideEffect, service *discovery.Service) error {
	m := service.Method(e.OnRefused)
	switch {
	case e.IgnoreRefusal:
		return errors.New("it names a method for a refusal and says that a refusal does not matter: leave one out")
	case m == nil:
		return unknownMethod(service, e.OnRefused)
	case !m.LearnsRefusals():
		return fmt.Errorf("%s takes a %s: declare it to take a %s", m.FullName, m.Input.FullName(),
			discovery.RefusedMessage)
	default:
		return nil
	}
}
