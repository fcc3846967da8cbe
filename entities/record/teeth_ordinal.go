//go:build mutation_ordinal

package record

// This build lets a record count that does not follow on its owner's last one. TestReaderRule must fail.
const (
	filterOwners   = true
	followOrdinals = false
)
