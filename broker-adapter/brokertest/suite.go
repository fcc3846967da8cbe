package brokertest

import (
	"testing"
	"time"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// Options says how to open the log under test and what it can do.
type Options struct {
	// Open returns a log that is ready for use. It is called once per case; the suite closes the
	// log.
	Open func(t *testing.T) broker.Log
	// Reopen returns a log on the data of closed, a closed log from Open or Reopen. Nil: the data
	// does not outlive the log.
	Reopen func(t *testing.T, closed broker.Log) broker.Log
	// Join returns a second client of the log that first is connected to, open at the same time.
	// Nil: one process only.
	Join func(t *testing.T, first broker.Log) broker.Log
	// Kill ends a log as if its process were killed: its group is not told. Nil: the cases that
	// need it are left out. The session of a member must outlast Timeout.
	Kill func(t *testing.T, log broker.Log)
	// Compact makes the log remove what it can from a compacted partition, as far as one step goes:
	// the suite appends a record before each and repeats them until enough is gone. Nil: whether
	// the log removes anything is not tested.
	Compact func(t *testing.T, log broker.Log, p broker.Partition)
	// RestartBalances: the log rebalances a group when a worker is restarted, so that its
	// partitions may move.
	RestartBalances bool
	// Timeout bounds each single wait. 0: one minute.
	Timeout time.Duration
	// Now is the log's clock; append times are compared with it. Nil: the machine's.
	Now func() time.Time
}

const (
	defaultTimeout = time.Minute
	// clockSkew is how far the log's clock may be off.
	clockSkew = 5 * time.Minute
	// quiet is how long a reader waits at the end of an idle partition before its context ends.
	quiet = 100 * time.Millisecond
	// maxRecordBytes is the limit of ordinary topics of the suite, smallLimit that of the cases
	// that exceed it.
	maxRecordBytes = 1 << 20
	smallLimit     = 64 << 10
)

// Run tests a log against the contract of broker.Log.
func Run(t *testing.T, o Options) {
	t.Helper()
	if o.Open == nil {
		t.Fatal("brokertest.Options.Open is nil: say how to open the log under test")
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	cases := []struct {
		name string
		run  func(*fixture)
		// needs names the capability without which the case is left out.
		needs bool
	}{
		{"Append/OffsetsOfLoneWriterAreContiguous", testContiguous, true},
		{"Append/RecordsOfOneAppendStayTogether", testAppendIsOneRun, true},
		{"Append/ResultsComeInOrder", testResultsInOrder, true},
		{"Append/ResultComesFromAnotherGoroutine", testResultIsAsynchronous, true},
		{"Append/BuffersAreFreeAfterTheResult", testBuffersAreLent, true},
		{"Append/TooLarge", testTooLarge, true},
		{"Append/AtTheLimit", testAtTheLimit, true},
		{"Append/JustBelowTheLimit", testJustBelowLimit, true},
		{"Append/UnknownTopic", testAppendUnknownTopic, true},
		{"Append/TwoClientsInterleave", testTwoClients, o.Join != nil},
		{"Record/RoundTrip", testRoundTrip, true},
		{"Record/AppendTime", testAppendTime, true},
		{"Read/FromStartMiddleAndEnd", testReadPositions, true},
		{"Read/Expedited", testExpedite, true},
		{"Read/WaitsAtTheEnd", testReadWaits, true},
		{"Read/WakesOnAppend", testReadWakes, true},
		{"Read/OutOfRange", testReadOutOfRange, true},
		{"Read/UnknownTopic", testReadUnknownTopic, true},
		{"Read/SeesExactlyWhatWasAcknowledged", testConcurrent, true},
		{"Read/TopicsAndPartitionsAreApart", testPartitionsApart, true},
		{"Topic/End", testEnd, true},
		{"Topic/Describe", testDescribe, true},
		{"Topic/DescribeUnknown", testDescribeUnknown, true},
		{"Topic/CreateTwice", testCreateTwice, true},
		{"Topic/CreateCommand", testCreateCommand, true},
		{"Compacted/KeepsTheNewestOfEachKey", testCompacted, true},
		{"Compacted/TombstonesAreNotEmptyValues", testTombstone, true},
		{"Compacted/NeedsKeys", testKeyNeeded, true},
		{"Assignments/AllPartitions", testAssignments, true},
		{"Group/NewcomersFollowFirst", testNewcomersFollowFirst, o.Join != nil},
		{"Group/LeaveMovesToStandbys", testLeaveMoves, o.Join != nil},
		{"Group/RestartKeepsItsPartitions", testRestart, o.Join != nil && o.Kill != nil},
		{"Group/EvictMovesAtOnce", testEvict, o.Join != nil && o.Kill != nil},
		{"Group/EvictTwoAtATime", testEvictTwo, o.Join != nil && o.Kill != nil},
		{"Group/EvictLeavesOthersAlone", testEvictOthers, o.Join != nil},
		{"Group/EvictedMemberComesBack", testEvictedComesBack, o.Join != nil},
		{"Group/WatchSeesWhatMembersSee", testWatch, o.Join != nil},
		{"Close/DeliversOpenResults", testCloseDelivers, true},
		{"Close/WakesReaders", testCloseWakesReaders, true},
		{"Close/RefusesLaterCalls", testClosedRefuses, true},
		{"Reopen/EverythingIsThere", testReopen, o.Reopen != nil},
		{"Reopen/CompactedIsThere", testReopenCompacted, o.Reopen != nil},
	}
	for _, c := range cases {
		if !c.needs {
			t.Logf("%s left out: the log lacks the capability (see Options)", c.name)
			continue
		}
		t.Run(c.name, func(t *testing.T) { c.run(newFixture(t, o)) })
	}
}
