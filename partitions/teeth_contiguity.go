//go:build mutation_contiguity

package partitions

// This build takes any acknowledgement for contiguous. TestContiguity must fail.
const (
	checkContiguity = false
	checkReadBack   = true
)
