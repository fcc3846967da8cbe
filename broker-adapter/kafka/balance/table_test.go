package balance

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

func exampleNotice() Notice {
	return Notice{Generation: 5, IDs: []string{"a-1", "b-2"}, Table: &broker.Table{
		Generation: 5, Leaving: 1,
		Members: []broker.Member{
			{Name: "a", Address: "10.0.0.1:7", Incarnation: 1}, {Name: "b", Address: "10.0.0.2:7", Incarnation: 1 << 60},
		},
		Owners:     []int32{0, 1, -1, 1},
		Standbys:   [][]int32{{1}, {0}, {0, 1}, nil},
		HandedOver: []int32{1, 3},
	}}
}

// TestNoticeBytes checks the encoded form: during an upgrade, workers of two releases share a
// group.
func TestNoticeBytes(t *testing.T) {
	const golden = "03" + "00000005" + "02" + "0161" + "0a31302e302e302e313a37" + "0000000000000001" + "03612d31" +
		"0162" + "0a31302e302e302e323a37" + "1000000000000000" + "03622d32" + "01" + "04" + "0001000200000002" +
		"010001" + "010000" + "0200000001" + "00" + "020102"
	if got := hex.EncodeToString(exampleNotice().Encode()); got != golden {
		t.Errorf("encoded %s, want %s", got, golden)
	}
	n, err := DecodeNotice(exampleNotice().Encode())
	if err != nil || !reflect.DeepEqual(n, exampleNotice()) {
		t.Errorf("decoded %+v, %v", n, err)
	}
	notice := exampleNotice()
	notice.Table.Members[1].Public = "b:9"
	if got := hex.EncodeToString(notice.Encode()); got != golden+"00"+"03623a39" {
		t.Errorf("with a public address encoded %s, want it after everything else", got)
	}
	if n, err := DecodeNotice(notice.Encode()); err != nil || !reflect.DeepEqual(n, notice) {
		t.Errorf("with a public address decoded %+v, %v", n, err)
	}
	notice.Table.Members[0].Serves, notice.Table.Members[1].Serves, notice.Table.Members[1].New = "s1", "s1", true
	const served = "01" + "027331" + "02" + "03" // one answer, both gave it, the second is new
	if got := hex.EncodeToString(notice.Encode()); got != golden+"00"+"03623a39"+served {
		t.Errorf("with what is served encoded %s, want it after everything else", got)
	}
	if n, err := DecodeNotice(notice.Encode()); err != nil || !reflect.DeepEqual(n, notice) {
		t.Errorf("with what is served decoded %+v, %v", n, err)
	}
	notice.Table.Members[0].Public, notice.Table.Members[1].Public, notice.Table.Members[0].Serves = "", "", ""
	if n, err := DecodeNotice(notice.Encode()); err != nil || !reflect.DeepEqual(n, notice) {
		t.Errorf("with what one serves, and no public address, decoded %+v, %v", n, err)
	}
	short := Notice{Generation: 5}
	if n, err := DecodeNotice(short.Encode()); err != nil || n.Table != nil || n.Generation != 5 {
		t.Errorf("a notice without table: %+v, %v", n, err)
	}
	if _, err := DecodeNotice([]byte{2}); err == nil {
		t.Error("a table of another version was read")
	}
}

// TestJoinDataBytes checks the encoded form of join data.
func TestJoinDataBytes(t *testing.T) {
	j := joinData{
		address: "a:7", incarnation: 2, leaving: true, requests: 3,
		images: imagesOf(map[int32]int64{4: 0, 300: broker.Warm, 5: broker.Warm + 1, -1: 0}),
	}
	const golden = "02" + "03613a37" + "0000000000000002" + "01" + "03" + "03" + "0400" + "010b" + "a7020a"
	if got := hex.EncodeToString(j.encode()); got != golden {
		t.Errorf("encoded %s, want %s", got, golden)
	}
	back, err := decodeJoinData(j.encode())
	if err != nil || back.address != j.address || back.incarnation != j.incarnation || back.leaving != j.leaving ||
		back.requests != j.requests {
		t.Errorf("decoded %+v, %v", back, err)
	}
	if want := []broker.Image{
		{Partition: 4}, {Partition: 5, Lag: 2047}, {Partition: 300, Lag: broker.Warm},
	}; !slices.Equal(back.images, want) {
		t.Errorf("images %v, want %v: a warm one stays warm, and the others cold", back.images, want)
	}
	j.public = "a:9"
	if got := hex.EncodeToString(j.encode()); got != golden+"03613a39" {
		t.Errorf("with a public address encoded %s, want it after everything else", got)
	}
	if back, err := decodeJoinData(j.encode()); err != nil || back.public != "a:9" || len(back.images) != 3 {
		t.Errorf("with a public address decoded %+v, %v", back, err)
	}
	j.serves = "s1"
	if got := hex.EncodeToString(j.encode()); got != golden+"03613a39"+"027331" {
		t.Errorf("with what is served encoded %s, want it after everything else", got)
	}
	j.public = ""
	if back, err := decodeJoinData(j.encode()); err != nil || back.public != "" || back.serves != "s1" {
		t.Errorf("with what is served decoded %+v, %v", back, err)
	}
	if _, err := decodeJoinData([]byte{1}); err == nil {
		t.Error("join data of another version were read")
	}
}

func FuzzDecodeNotice(f *testing.F) {
	whole := exampleNotice().Encode()
	for n := range whole {
		f.Add(whole[:n])
	}
	f.Add(whole)
	f.Add(append(exampleNotice().Encode(), "\x00\x03b:9"...))
	f.Add([]byte{3, 0, 0, 0, 1, 0, 0, 1, 0, 9, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := DecodeNotice(b)
		if err != nil {
			return
		}
		if n.Table != nil {
			for p := range n.Table.Owners {
				n.Table.Owner(int32(p)) // must not panic
				for _, s := range n.Table.Standbys[p] {
					_ = n.Table.Members[s]
				}
			}
		}
		again, err := DecodeNotice(n.Encode())
		if err != nil || !bytes.Equal(again.Encode(), n.Encode()) {
			t.Errorf("notice %+v does not survive encoding: %v", n, err)
		}
	})
}

func FuzzDecodeJoinData(f *testing.F) {
	f.Add(joinData{address: "a:7", images: []broker.Image{{Partition: 3, Lag: 9}}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := decodeJoinData(b)
		if err != nil {
			return
		}
		again, err := decodeJoinData(j.encode())
		if err != nil || !bytes.Equal(again.encode(), j.encode()) {
			t.Errorf("join data %+v do not survive encoding: %v", j, err)
		}
	})
}

// recordSize estimates the record in which Kafka keeps a group (GroupMetadataValue): for each
// member its ids, client and host, its join data and its assignment.
func record(members []kmsg.JoinGroupResponseMember, plan []kmsg.SyncGroupRequestGroupAssignment) int {
	size := 100
	for i := range members {
		size += len(members[i].MemberID) + len(*members[i].InstanceID) + len("millrace-worker-0000") +
			len("/10.111.111.111") + 40
		size += len(members[i].ProtocolMetadata) + len(plan[i].MemberAssignment)
	}
	return size
}

// TestLargeGroupFits rebalances groups of many workers, all images warm, and compares the record of
// the group with Kafka's limit.
func TestLargeGroupFits(t *testing.T) {
	for _, c := range []struct {
		workers, partitions int
		everywhere          bool
	}{
		{1, 16, true},
		{10, 256, true},
		{60, 256, true},
		{100, 256, false},
		{200, 1024, false},
		{1000, 4096, false},
		{1000, 16384, false},
	} {
		t.Run(fmt.Sprintf("%d workers, %d partitions", c.workers, c.partitions), func(t *testing.T) {
			members := make([]kmsg.JoinGroupResponseMember, c.workers)
			for i := range members {
				name := fmt.Sprintf("worker-%04d", i)
				members[i].InstanceID, members[i].MemberID = &name, name+"-01234567-0123-0123-0123-0123456789ab"
			}
			var plan []kmsg.SyncGroupRequestGroupAssignment
			table := &broker.Table{}
			for range 2 { // once to have something to say
				for i := range members {
					members[i].ProtocolMetadata = joinDataOf(table, *members[i].InstanceID)
				}
				var err error
				if plan, err = lead(broker.Membership{Topic: "shop.journal", Standbys: 1}, members,
					int32(c.partitions)); err != nil {
					t.Fatal(err)
				}
				n := noticeOf(t, plan[0])
				if table = n.Table; table == nil || len(table.Members) != c.workers || len(table.Owners) != c.partitions {
					t.Fatalf("the first worker gets table %+v", table)
				}
				if last := noticeOf(t, plan[len(plan)-1]); (last.Table != nil) != c.everywhere || last.Generation != n.Generation {
					t.Errorf("the last worker gets table %v", last.Table != nil)
				}
			}
			size := record(members, plan)
			t.Logf("the record takes %d bytes, the table %d", size, len(exampleOf(table).Encode()))
			if size > 1<<20 {
				t.Errorf("the record takes %d bytes", size)
			}
		})
	}
}

func exampleOf(table *broker.Table) Notice {
	n := Notice{Table: table}
	for _, m := range table.Members {
		n.IDs = append(n.IDs, m.Name+"-01234567-0123-0123-0123-0123456789ab")
	}
	return n
}

func joinDataOf(table *broker.Table, name string) []byte {
	m := broker.Membership{
		Topic: "shop.journal", Address: "10.111.111.111:7000", Public: "10.111.111.111:9000", Incarnation: 1 << 63,
		Serves: func() string { return strings.Repeat("s", 256) },
		Images: func() map[int32]int64 {
			lags := map[int32]int64{}
			for _, p := range slices.Concat(table.Owned(name), table.Followed(name)) {
				lags[p] = 0
			}
			return lags
		},
	}
	return New(m, TablesBudget, nil).JoinGroupMetadata([]string{m.Topic},
		map[string][]int32{m.Topic: table.Owned(name)}, table.Generation)
}

// lead computes the assignments of a group as its leader does.
func lead(m broker.Membership, members []kmsg.JoinGroupResponseMember,
	partitions int32,
) ([]kmsg.SyncGroupRequestGroupAssignment, error) {
	of, err := kgo.NewConsumerBalancer(New(m, TablesBudget, nil), members)
	if err != nil {
		return nil, err
	}
	of.SetBalanceInfo(kgo.BalanceInfo{Generation: 1})
	plan, err := of.BalanceOrError(map[string]int32{m.Topic: partitions})
	if err != nil {
		return nil, err
	}
	return plan.IntoSyncAssignment(), nil
}

func noticeOf(t *testing.T, plan kmsg.SyncGroupRequestGroupAssignment) Notice {
	t.Helper()
	var got Notice
	if _, err := New(broker.Membership{}, TablesBudget,
		func(n Notice) { got = n }).ParseSyncAssignment(plan.MemberAssignment); err != nil {
		t.Fatal(err)
	}
	return got
}

// TestBalanceRefuses: if no plan can be made, members keep their assignments instead of getting
// empty ones.
func TestBalanceRefuses(t *testing.T) {
	leader := broker.Membership{Topic: "shop.journal"}
	name := "w"
	foreign := kmsg.NewConsumerMemberMetadata()
	foreign.Topics = []string{"shop.journal"}
	for what, c := range map[string]struct {
		metadata   []byte
		partitions int32
	}{
		"an unknown topic":      {joinDataOf(&broker.Table{}, "w"), 0},
		"too many partitions":   {joinDataOf(&broker.Table{}, "w"), maxPartitions + 1},
		"a member without data": {foreign.AppendTo(nil), 4},
	} {
		members := []kmsg.JoinGroupResponseMember{{InstanceID: &name, MemberID: "w-1", ProtocolMetadata: c.metadata}}
		if _, err := lead(leader, members, c.partitions); err == nil {
			t.Errorf("%s: balanced", what)
		}
	}
}

// TestOnlyPartitionsWithDataAreAssigned: a topic may have more partitions than hold data, never
// fewer.
func TestOnlyPartitionsWithDataAreAssigned(t *testing.T) {
	leader := broker.Membership{Topic: "shop.journal", Partitions: 4}
	name := "w"
	members := []kmsg.JoinGroupResponseMember{{
		InstanceID: &name, MemberID: "w-1",
		ProtocolMetadata: joinDataOf(&broker.Table{}, "w"),
	}}
	plan, err := lead(leader, members, 8)
	if err != nil {
		t.Fatal(err)
	}
	if table := noticeOf(t, plan[0]).Table; len(table.Owners) != 4 {
		t.Errorf("%d partitions were assigned", len(table.Owners))
	}
	if _, err := lead(leader, members, 2); err == nil {
		t.Error("assigned although the topic has fewer partitions than hold data")
	}
}
