//go:build !mutation_contiguity && !mutation_readback

package partitions

// The safety lines that a mutation build switches off one by one, to show that a test notices. They are constants, so that
// they cost nothing.
const (
	checkContiguity = true
	checkReadBack   = true
)
