package broker

// ranking is a heap of workers, ordered by a number, then by index.
type ranking struct {
	key  []int
	heap []int32
	// at is the position of each worker in the heap.
	at []int
}

func newRanking(n int, key func(m int32) int) *ranking {
	r := &ranking{key: make([]int, n), heap: make([]int32, n), at: make([]int, n)}
	for i := range n {
		m := int32(i)
		r.key[i], r.heap[i], r.at[i] = key(m), m, i
	}
	for i := n/2 - 1; i >= 0; i-- {
		r.down(i)
	}
	return r
}

func (r *ranking) of(m int32) int { return r.key[m] }

// first returns the worker with the smallest number.
func (r *ranking) first() int32 { return r.heap[0] }

// firstOf returns the first worker that ok accepts, or none. It calls ok for each worker before
// that one and a few more.
func (r *ranking) firstOf(ok func(m int32) bool) int32 {
	// The front holds the positions whose parents were refused: the next in order is among them.
	front := []int{0}
	for len(front) > 0 {
		best := 0
		for i := range front {
			if r.less(front[i], front[best]) {
				best = i
			}
		}
		place := front[best]
		if ok(r.heap[place]) {
			return r.heap[place]
		}
		front[best] = front[len(front)-1]
		front = front[:len(front)-1]
		for _, child := range []int{2*place + 1, 2*place + 2} {
			if child < len(r.heap) {
				front = append(front, child)
			}
		}
	}
	return noWorker
}

// add changes a worker's number.
func (r *ranking) add(m int32, n int) {
	r.key[m] += n
	if n < 0 {
		r.up(r.at[m])
	} else {
		r.down(r.at[m])
	}
}

func (r *ranking) less(i, j int) bool {
	a, b := r.heap[i], r.heap[j]
	return r.key[a] < r.key[b] || r.key[a] == r.key[b] && a < b
}

func (r *ranking) swap(i, j int) {
	r.heap[i], r.heap[j] = r.heap[j], r.heap[i]
	r.at[r.heap[i]], r.at[r.heap[j]] = i, j
}

func (r *ranking) up(i int) {
	for i > 0 && r.less(i, (i-1)/2) {
		r.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (r *ranking) down(i int) {
	for {
		least := i
		for _, child := range []int{2*i + 1, 2*i + 2} {
			if child < len(r.heap) && r.less(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		r.swap(i, least)
		i = least
	}
}
