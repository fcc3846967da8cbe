package query

import (
	"fmt"
	"math"
	"math/big"
	"testing"
)

// TestGroups: the groups of all partitions, added.
func TestGroups(t *testing.T) {
	for _, partitions := range []int32{1, 4} {
		b := orders(t, partitions)
		fill(b)
		b.put(`order_id: "n1" total_cents: -7`)
		b.put(`order_id: "n2" total_cents: -8`)
		b.put(`order_id: "hidden" total_cents: 1000 items: 99`)
		got, err := b.call("Statuses", "")
		want := `{"groups":[{"orders":"2","cents":"-15"},{"status":"OPEN","orders":"15","cents":"21000","items":"30"},{"status":"SHIPPED","orders":"15","cents":"22500","items":"30"}]}`
		if err != nil || got != want {
			t.Errorf("%d partitions: %s, %v", partitions, got, err)
		}
	}
}

// TestSumsOverflow: sums of partitions that fit, and whose sum does not.
func TestSumsOverflow(t *testing.T) {
	b := orders(t, 4)
	for i := range 3 {
		b.put(fmt.Sprintf(`order_id: "o%d" total_cents: %d`, i, int64(math.MaxInt64)))
	}
	_, err := b.call("Statuses", "")
	wantRefusal(t, "sum", err, "OUT_OF_RANGE: orders.Statuses: the sum cents does not fit into 64 bits: sum a smaller unit, or group by more fields")
	b.put(fmt.Sprintf(`order_id: "minus" total_cents: %d`, int64(math.MinInt64)))
	b.put(fmt.Sprintf(`order_id: "minus2" total_cents: %d`, int64(math.MinInt64)))
	if got, err := b.call("Statuses", ""); err != nil || got != `{"groups":[{"orders":"5","cents":"9223372036854775805"}]}` {
		t.Errorf("it fits again: %s, %v", got, err)
	}
}

// TestSum: the arithmetic of 128 bits.
func TestSum(t *testing.T) {
	toBig := func(s Sum) *big.Int {
		return new(big.Int).Add(new(big.Int).Lsh(big.NewInt(s.High), 64), new(big.Int).SetUint64(s.Low))
	}
	values := []Sum{
		{0, 0},
		{0, 1},
		{-1, math.MaxUint64},
		{0, math.MaxUint64},
		{-1, 0},
		{math.MaxInt64, math.MaxUint64},
		{math.MinInt64, 0},
		{0, math.MaxInt64},
		{-1, 1 << 63},
		{5, 7},
		{-6, 9},
	}
	limit := new(big.Int).Lsh(big.NewInt(1), 127)
	for _, a := range values {
		for _, b := range values {
			want := new(big.Int).Add(toBig(a), toBig(b))
			fits := want.Cmp(limit) < 0 && want.Cmp(new(big.Int).Neg(limit)) >= 0
			got, ok := a.plus(b)
			if ok != fits || ok && toBig(got).Cmp(want) != 0 {
				t.Errorf("%v + %v is %v, %v, want %v, %v", a, b, toBig(got), ok, want, fits)
			}
		}
		n, ok := a.signed()
		if toBig(a).IsInt64() != ok || ok && toBig(a).Int64() != n {
			t.Errorf("%v as an int64 is %d, %v", a, n, ok)
		}
	}
}

// TestCounts: by the aggregate where there is one, else by entries of the index.
func TestCounts(t *testing.T) {
	b := orders(t, 4, func(o *Options) { o.MaxExamined = 12 })
	fill(b)
	for _, c := range []struct{ method, request, want string }{
		{"CountByCustomer", `customer_id: "c1"`, `{"count":"10"}`},
		{"CountByCustomer", `customer_id: "c1" filter: "status = OPEN"`, `{"count":"5"}`},
		{"CountByCustomer", `customer_id: "c9"`, `{}`},
		{"CountByStatus", `status: OPEN from: 2000`, `{"count":"5"}`},
		{"CountOfStatus", `status: OPEN`, `{"count":"15"}`},
		{"CountOfStatus", ``, `{}`},
	} {
		if got, err := b.call(c.method, c.request); err != nil || got != c.want {
			t.Errorf("%s {%s}: %s, %v, want %s", c.method, c.request, got, err, c.want)
		}
	}
	if last := b.scans[len(b.scans)-1]; last.Table != Groups || last.Number != 21 {
		t.Errorf("not counted by the aggregate: %+v", last)
	}
	_, err := b.call("CountByStatus", `status: OPEN`)
	wantRefusal(t, "too many", err, "RESOURCE_EXHAUSTED: orders.CountByStatus: more than 12 entries would be counted: add an aggregate with a count that is grouped by the fields of the condition")
}
