package sim

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
)

const (
	// appendBytes is what the log takes in one append, in seeds without cells h and l.
	appendBytes = 1 << 20
	// One in largeOf seeds has cells h and l, whose commands are near the limit of the log, which
	// is low there, and cells m, which get the effects of cells l.
	largeOf, largeSeed = 24, 5
	narrowBytes        = 120_000
	// routingRoom is what the log must take in addition to what a command stores (partitions/core),
	// and largest what a command may store, about.
	routingRoom = 8<<10 + 61
	largest     = narrowBytes - routingRoom
	// overhead is the most that a command stores in addition to what its text asks for.
	overhead = 4000
	// fanOut is how many effects a command has at most, each of which may store as much as the log
	// takes.
	fanOut = 12
)

var largeKeys = []string{"l0", "l1", "h0", "h1"}

// askLarge returns a command for a cell h, with a large state or a large answer, or for a cell l,
// with many effects, the sum of which is large, or what their targets store.
func (w *world) askLarge(key string, n, amount int) string {
	size := []int{
		largest / 3, largest * 3 / 4, largest - overhead, largest - w.rng.IntN(overhead),
		largest + w.rng.IntN(overhead), 2 * largest,
	}[w.rng.IntN(6)]
	count := 2 + w.rng.IntN(fanOut-1)
	switch {
	case n == 9:
		return "get"
	case key[0] == 'h' && n < 6:
		return fmt.Sprintf("big %d %d", amount, size)
	case key[0] == 'h':
		return fmt.Sprintf("wide %d %d", amount, size)
	case n < 5:
		return fmt.Sprintf("fan %d m%s %d %d %d", amount, key[1:], count, 0, max(size/count-200, 0))
	default:
		return fmt.Sprintf("fan %d m%s %d %d %d", amount, key[1:], count, min(size, largest-overhead), 0)
	}
}

// large returns bounds for the bytes that an operation stores, if its text has a size.
func (o *operation) large() (least, most int) {
	words := strings.Fields(o.text)
	number := func(i int) int {
		n, err := strconv.Atoi(words[i])
		if err != nil {
			panic(err)
		}
		return n
	}
	switch words[0] {
	case "big":
		least = number(2)
	case "wide": // its answer does not count
	case "fan":
		return number(3) * number(5), number(3)*(number(5)+320) + overhead/2
	default:
		return 0, 0
	}
	return least, least + overhead
}

// compareSize: a command is too large exactly if it does not fit.
func (w *world) compareSize(o *operation, r result, tooLarge bool) {
	least, most := o.large()
	if tooLarge {
		w.fault("command too large")
	}
	switch {
	case tooLarge && most < w.limit-routingRoom:
		w.wrong("%s is said to be too large: it stores %d bytes at most, and the log takes %d", o, most, w.limit)
	case r.class == done && least > w.limit:
		w.wrong("%s is done: it stores more than %d bytes, and the log takes %d", o, least, w.limit)
	}
}

// unkept reports whether a repeat is told that its command took effect, and its answer was too
// large to be kept.
func unkept(err error) bool {
	e, ok := errors.AsType[*entities.Error](err)
	return ok && e.Reason == entities.TooLarge && e.Outcome == entities.Applied
}

// fits checks that an append is no larger than the log takes.
func (w *world) fits(op *simlog.Op) {
	if size := broker.Size(op.Records); w.large && size > w.limit {
		w.wrong("op %d of %s, partition %d, has %d bytes, and the log takes %d", op.ID, op.Client, op.Partition.ID, size,
			w.limit)
	}
}

// pad extends a text to a length.
func pad(text string, size int) string { return text + strings.Repeat(".", max(size-len(text), 0)) }

// strain sends, after the faults, commands with many effects whose targets store as much as the log
// takes: all of them arrive.
func (w *world) strain(t *testing.T) {
	t.Helper()
	for i := range 2 {
		w.order(fmt.Sprint("l", i%2), fmt.Sprintf("fan 1 m%d %d %d 0", i%2, fanOut, largest-overhead))
		w.order(fmt.Sprint("h", i%2), fmt.Sprintf("big 1 %d", largest*3/4))
	}
	w.bring(t, "large commands are answered", func() bool { return len(w.waiting) == 0 })
	for _, o := range w.history[len(w.history)-4:] {
		if o.result.class != done {
			w.wrong("after the faults have ended, %s is answered %+v", o, o.result)
		}
	}
}
