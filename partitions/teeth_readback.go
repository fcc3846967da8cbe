//go:build mutation_readback

package partitions

// This build takes an acknowledged claim for a valid one. TestReadBack must fail.
const (
	checkContiguity = true
	checkReadBack   = false
)
