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

// anonymousPersistenceID is what one SDK declares for every entity whose user gave no name; it
// names nothing.
const anonymousPersistenceID = "entity"

// typeURLPrefix precedes the full name of a message in a google.protobuf.Any. Names are compared
// with it: a function that writes another prefix means another type.
const typeURLPrefix = "type.googleapis.com/"

// NewProxyInfo returns the proxy's description of itself for functions: protocol 0.2 and the kinds
// of the table in package entities.
func NewProxyInfo(name, version string) *cloudstate.ProxyInfo {
	return &cloudstate.ProxyInfo{
		ProtocolMajorVersion: ProtocolMajor,
		ProtocolMinorVersion: ProtocolMinor,
		ProxyName:            name,
		ProxyVersion:         version,
		SupportedEntityTypes: protocols(),
	}
}

// protocols returns the names by which functions declare kinds, sorted.
func protocols() []string {
	kinds := entities.Kinds()
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Spec().Protocol
	}
	return names
}
