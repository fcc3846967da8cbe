//go:build mutation_reader

package record

// This build lets records of every owner count. TestReaderRule must fail.
const (
	filterOwners   = false
	followOrdinals = true
)
