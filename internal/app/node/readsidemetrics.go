package node

import (
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/internal/observe"
	"github.com/millrace-io/millrace/projections"
)

// projectionMetrics show each dataset of each partition that has an image here.
func (n *Node) projectionMetrics() observe.Source {
	type f = *projections.Status
	labels := []string{"projection", "dataset", "partition"}
	return measured([]column[f]{
		gauge("millrace_projections_state", "State of the rows: 1 building, 2 live, 3 paused, 4 stopped, 5 unsupported.",
			func(s f) int { return int(s.State) }, labels...),
		gauge("millrace_projections_position_offset", "Offset up to which records are in the rows.",
			func(s f) int64 { return s.Position }, labels...),
		gauge("millrace_projections_lag_records", "Records of the partition's image that are not in the rows yet.",
			func(s f) int64 { return s.Lag() }, labels...),
		gauge("millrace_projections_lag_seconds", "Age of the last record in the rows, while there are later ones.",
			func(s f) float64 { return s.Behind.Seconds() }, labels...),
		gauge("millrace_projections_rows", "Rows.", func(s f) uint64 { return s.Rows }, labels...),
		gauge("millrace_projections_parked_entities", "Entities whose records could not be folded.",
			func(s f) uint64 { return s.Parked }, labels...),
		counter("millrace_projections_skipped_records_total", "Records that could not be folded and were skipped.",
			func(s f) uint64 { return s.Skipped }, labels...),
		counter("millrace_projections_unmapped_records_total", "Records of types that the definition does not name.",
			func(s f) uint64 { return s.Unmapped }, labels...),
		gauge("millrace_projections_incomplete_parts", "Indexes and aggregates that are being made from the rows.",
			func(s f) int { return s.Incomplete }, labels...),
		gauge("millrace_projections_records_per_second", "Records folded per second.",
			func(s f) float64 { return s.Rate }, labels...),
	}, func(take func(f, ...string)) {
		for _, s := range n.readSide.engine.Status() {
			take(&s, strings.Join(s.Views, ", "), strconv.FormatUint(uint64(s.Dataset), 10),
				strconv.Itoa(int(s.Partition.Partition)))
		}
	})
}
