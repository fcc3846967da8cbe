//go:build !mutation_reader

package record

// filterOwners is rule R2: records of others than the current owner do not count. A mutation build switches it off to show
// that a test notices.
const filterOwners = true
