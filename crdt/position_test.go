package crdt

import (
	"errors"
	"testing"
)

// stood returns the position of a holder that has read offsets 0 to 9 and stood at the end at 1000.
func stood(t *testing.T) *Position {
	t.Helper()
	p := &Position{Lag: 600}
	for offset := range int64(10) {
		p.Read(offset, 990)
	}
	if err := p.Fetched(10, 1000); err != nil {
		t.Fatal(err)
	}
	if !p.Complete(1000) {
		t.Fatal("not complete at the end")
	}
	return p
}

// TestCompleteAtTheEnd: the end that counts is the one that the fetch returned.
func TestCompleteAtTheEnd(t *testing.T) {
	p := &Position{Lag: 600}
	p.Read(0, 10)
	if err := p.Fetched(2, 10); err != nil || p.Complete(10) {
		t.Errorf("complete at offset 1 of a log that ends at 2; %v", err)
	}
	p.Read(1, 10)
	if err := p.Fetched(2, 10); err != nil || !p.Complete(10) {
		t.Errorf("not complete at the end; %v", err)
	}
}

// TestAGapEndsCompleteness: an offset that is missing was compacted away, until the end is reached.
func TestAGapEndsCompleteness(t *testing.T) {
	p := stood(t)
	p.Read(10, 1000)
	if !p.Complete(1001) {
		t.Error("the next offset ended completeness")
	}
	p.Read(12, 1000)
	if p.Complete(1001) {
		t.Error("complete behind a gap")
	}
	if err := p.Fetched(13, 1001); err != nil || !p.Complete(1001) {
		t.Errorf("not complete at the end; %v", err)
	}
	if p.Pass(15); p.Complete(1001) {
		t.Error("complete behind offsets without records")
	}
}

// TestAHolderThatStoodStill is complete for half of the compaction lag, by the wall clock and by
// the times of the records: a frozen machine's clock may have stood still.
func TestAHolderThatStoodStill(t *testing.T) {
	if p := stood(t); !p.Complete(1299) || p.Complete(1300) {
		t.Error("by the wall clock it is not complete up to 299 ms after it stood at the end")
	}
	p := stood(t)
	if p.Read(10, 1289); !p.Complete(1000) {
		t.Error("not complete at a record of 299 ms later")
	}
	if p.Read(11, 1290); p.Complete(1000) {
		t.Error("complete at a record of 300 ms later")
	}
}

// TestALogThatLostItsTail halts the holder for good.
func TestALogThatLostItsTail(t *testing.T) {
	p := stood(t)
	if err := p.Fetched(9, 1000); !errors.Is(err, ErrRegressed) {
		t.Errorf("error %v, want %v", err, ErrRegressed)
	}
	if err := p.Fetched(10, 1000); err != nil || p.Complete(1000) {
		t.Errorf("complete after the log went backwards; %v", err)
	}
}

// TestANewerDelta is neither folded nor passed over, and a snapshot likewise.
func TestANewerDelta(t *testing.T) {
	m := NewMirror(testOptions)
	newer := &Delta{Version: FoldVersion + 1, Type: PNCounter, Commands: []Command{{
		N: 1, Changes: []Change{{Op: OpIncrement, Amount: 1}},
	}}}
	if _, err := m.Take(3, 0, newer); !errors.Is(err, ErrNewer) || m.Now().Root().Count() != 0 {
		t.Errorf("error %v, value %d; want %v, 0", err, m.Now().Root().Count(), ErrNewer)
	}
	if err := m.TakePart(&Part{Version: FoldVersion + 1, Through: 3, Count: 1}); !errors.Is(err, ErrNewer) {
		t.Errorf("error of the snapshot: %v, want %v", err, ErrNewer)
	}
	if m.Through() != -1 {
		t.Errorf("the snapshot counts, through %d", m.Through())
	}
}

// TestDeletedIsForGood: no snapshot of before brings a deleted entity back.
func TestDeletedIsForGood(t *testing.T) {
	m := NewMirror(testOptions)
	one := &Delta{Version: 1, Type: PNCounter, Commands: []Command{{
		N: 1, Changes: []Change{{Op: OpIncrement, Amount: 1}},
	}}}
	if _, err := m.Take(0, 0, one); err != nil {
		t.Fatal(err)
	}
	parts, err := m.Snapshot(0, 7, 1000)
	if err != nil {
		t.Fatal(err)
	}
	m.TakeDelete()
	for _, p := range parts {
		if err := m.TakePart(p); err != nil {
			t.Fatal(err)
		}
	}
	voids, err := m.Take(5, 0, one)
	if err != nil || len(voids) != 1 || voids[0] != Deleted || !m.Now().Deleted() || m.Now().Root().Count() != 0 {
		t.Errorf("a command after deletion: %v, %v; value %d", voids, err, m.Now().Root().Count())
	}
}
