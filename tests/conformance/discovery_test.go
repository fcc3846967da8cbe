package conformance_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

func discoveryCases() []conformanceCase {
	return []conformanceCase{
		{"discovery/verify proxy info and entity discovery", verifyProxyInfo},
	}
}

// verifyProxyInfo: millrace says 0.2 and exactly the four entity types, and all declared services
// are described.
func verifyProxyInfo(t *testing.T, s *subject) {
	if s.info.GetProtocolMajorVersion() != 0 || s.info.GetProtocolMinorVersion() != 2 {
		t.Errorf("protocol version is %d.%d, want 0.2", s.info.GetProtocolMajorVersion(), s.info.GetProtocolMinorVersion())
	}
	want := []string{
		"cloudstate.action.ActionProtocol", "cloudstate.crdt.Crdt", "cloudstate.eventsourced.EventSourced", "cloudstate.valueentity.ValueEntity",
	}
	if got := slices.Sorted(slices.Values(s.info.GetSupportedEntityTypes())); !slices.Equal(got, want) {
		t.Errorf("supported entity types are %v, want %v", got, want)
	}
	if s.info.GetProxyName() == "" {
		t.Error("the proxy has no name")
	}
	described := describedServices(t, s)
	for _, e := range s.spec.GetEntities() {
		if !slices.Contains(described, e.GetServiceName()) {
			t.Errorf("service %s is declared and not described", e.GetServiceName())
		}
	}
}

// describedServices lists the services of the descriptor set that the function sent.
func describedServices(t *testing.T, s *subject) []string {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(s.spec.GetProto(), set); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range set.GetFile() {
		for _, service := range file.GetService() {
			names = append(names, file.GetPackage()+"."+service.GetName())
		}
	}
	return names
}
