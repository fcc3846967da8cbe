package memstore

import (
	"bytes"
	"hash/maphash"
)

// node is a node of a treap: a binary search tree by key that is a heap by priority. Priorities are
// hashes of the keys, so the tree is balanced in expectation and the same rows always make the same
// tree. Nodes never change once they are reachable from a root; what changes is copied along its
// path. nil is the empty tree.
type node struct {
	key, value  []byte
	priority    uint64
	left, right *node
	size        uint64 // bytes of keys and values in this tree
}

// seed is the process's own: the shape of a tree is of no consequence.
var seed = maphash.MakeSeed() //nolint:gochecknoglobals // a constant that only exists at run time

// leaf returns a tree of one row. It keeps both slices.
func leaf(key, value []byte) *node {
	return &node{key: key, value: value, priority: maphash.Bytes(seed, key), size: uint64(len(key) + len(value))}
}

// with returns a copy of n over other children. It is the only way in which a node of a tree that
// readers may have changes.
func (n *node) with(left, right *node) *node {
	c := *n
	c.left, c.right = left, right
	c.size = uint64(len(n.key)+len(n.value)) + left.bytes() + right.bytes()
	return &c
}

// bytes returns the size of all rows of a tree, which each node knows: Size asks for it often.
func (n *node) bytes() uint64 {
	if n == nil {
		return 0
	}
	return n.size
}

// get returns the node of a row, nil if there is none. It copies nothing: the caller does, where
// the contract asks for it.
func (n *node) get(key []byte) *node {
	for n != nil {
		switch order := bytes.Compare(key, n.key); {
		case order < 0:
			n = n.left
		case order > 0:
			n = n.right
		default:
			return n
		}
	}
	return nil
}

// put returns the tree with the row set. It keeps both slices.
func (n *node) put(row *node) *node {
	if n == nil {
		return row
	}
	order := bytes.Compare(row.key, n.key)
	switch {
	case order == 0:
		return row.with(n.left, n.right)
	case row.priority > n.priority: // then the key cannot lie below n
		left, right := n.split(row.key)
		return row.with(left, right)
	case order < 0:
		return n.with(n.left.put(row), n.right)
	default:
		return n.with(n.left, n.right.put(row))
	}
}

// remove returns the tree without the row; without such a row, the tree itself.
func (n *node) remove(key []byte) *node {
	if n.get(key) == nil {
		return n
	}
	switch order := bytes.Compare(key, n.key); {
	case order < 0:
		return n.with(n.left.remove(key), n.right)
	case order > 0:
		return n.with(n.left, n.right.remove(key))
	default:
		return merge(n.left, n.right)
	}
}

// split returns the rows below the key and the others. Trees that were split keep their balance:
// the priorities stay as they are.
func (n *node) split(key []byte) (below, others *node) {
	if n == nil {
		return nil, nil
	}
	if bytes.Compare(n.key, key) < 0 {
		middle, others := n.right.split(key)
		return n.with(n.left, middle), others
	}
	below, middle := n.left.split(key)
	return below, n.with(middle, n.right)
}

// merge joins two trees, all keys of the first below all keys of the second.
func merge(low, high *node) *node {
	switch {
	case low == nil:
		return high
	case high == nil:
		return low
	case low.priority > high.priority:
		return low.with(low.left, merge(low.right, high))
	default:
		return high.with(merge(low, high.left), high.right)
	}
}

// scan yields the rows with lower <= key < upper in order, without an upper bound if that is empty.
// It returns false when yield stopped it.
func (n *node) scan(lower, upper []byte, yield func(key, value []byte) bool) bool {
	if n == nil {
		return true
	}
	inLower := bytes.Compare(n.key, lower) >= 0
	inUpper := len(upper) == 0 || bytes.Compare(n.key, upper) < 0
	if inLower && !n.left.scan(lower, upper, yield) {
		return false
	}
	if inLower && inUpper && !yield(n.key, n.value) {
		return false
	}
	return !inUpper || n.right.scan(lower, upper, yield)
}

// ceiling returns the row with the least key that is not below the given one; floor that with the
// greatest key below it, or the greatest of all without one. nil is none.
func (n *node) ceiling(key []byte) (found *node) {
	for n != nil {
		if bytes.Compare(n.key, key) >= 0 {
			found, n = n, n.left
		} else {
			n = n.right
		}
	}
	return found
}

func (n *node) floor(key []byte) (found *node) {
	for n != nil {
		if len(key) == 0 || bytes.Compare(n.key, key) < 0 {
			found, n = n, n.right
		} else {
			n = n.left
		}
	}
	return found
}
