// Package wire translates between the values of package crdt and the deltas of Cloudstate's
// protocol, in which a function and its host tell each other what has changed.
//
//	Changes  a delta that a function sent, checked whole, as changes of the value it was told
//	Delta    what a function is told: how one value becomes another
//
// Both are pure. Elements, keys and values are passed on as they came, by type URL and bytes.
package wire
