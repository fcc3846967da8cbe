//go:build !mutation_reader && !mutation_ordinal

package record

// The parts of rule R2 that a mutation build switches off one by one, to show that a test notices: records of others than
// the current owner do not count, and neither do records that do not follow on the owner's last one.
const (
	filterOwners   = true
	followOrdinals = true
)
