package discovery

import (
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// The version of the Cloudstate protocol that this proxy speaks.
const (
	ProtocolMajor = 0
	ProtocolMinor = 2
)

// Full names of the protocol services by which functions declare the kind of an entity.
const (
	actionProtocol       = "cloudstate.action.ActionProtocol"
	replicatedProtocol   = "cloudstate.crdt.Crdt"
	eventSourcedProtocol = "cloudstate.eventsourced.EventSourced"
	valueProtocol        = "cloudstate.valueentity.ValueEntity"
)

// anonymousPersistenceID is what one SDK declares for every entity whose user gave no name; it names nothing.
const anonymousPersistenceID = "entity"

// typeURLPrefix precedes the full name of a message in a google.protobuf.Any.
const typeURLPrefix = "type.googleapis.com/"

// NewProxyInfo returns what the proxy tells a function about itself: protocol 0.2 and the four kinds.
func NewProxyInfo(name, version string) *cloudstate.ProxyInfo {
	return &cloudstate.ProxyInfo{
		ProtocolMajorVersion: ProtocolMajor,
		ProtocolMinorVersion: ProtocolMinor,
		ProxyName:            name,
		ProxyVersion:         version,
		SupportedEntityTypes: []string{actionProtocol, replicatedProtocol, eventSourcedProtocol, valueProtocol},
	}
}

// ProtocolService returns the full name of the protocol service for a kind, as it stands in EntitySpec; "" for none.
func ProtocolService(kind entities.Kind) string {
	switch kind {
	case entities.Action:
		return actionProtocol
	case entities.Replicated:
		return replicatedProtocol
	case entities.EventSourced:
		return eventSourcedProtocol
	case entities.Value:
		return valueProtocol
	default:
		return ""
	}
}

// kindOf is the inverse of ProtocolService; KindUnspecified for a name that is none of the four.
func kindOf(protocolService string) entities.Kind {
	switch protocolService {
	case actionProtocol:
		return entities.Action
	case replicatedProtocol:
		return entities.Replicated
	case eventSourcedProtocol:
		return entities.EventSourced
	case valueProtocol:
		return entities.Value
	default:
		return entities.KindUnspecified
	}
}
