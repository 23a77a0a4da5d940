package storagetest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
)

var (
	whole = gpu.Device{ID: "GPU-8f9f4fc8-0000-0000-0000-000000000001", Index: 1, Model: "NVIDIA H100 80GB HBM3", PCIAddress: "00000000:17:00.0"}
	part  = gpu.Device{
		ID: "MIG-8f9f4fc8-0000-0000-0000-000000000002", Parent: "GPU-8f9f4fc8-0000-0000-0000-000000000003", Index: 2, Model: "NVIDIA H100 80GB HBM3",
		PCIAddress: "00000000:65:00.0", MIGProfile: "1g.10gb",
	}
)

// samples are of two devices, told every 10 s from the start to before the end: one that the web pod has, and one that nobody has.
func (s *suite) samples(start, end float64) []gpu.Sample {
	var all []gpu.Sample
	for second := start; second < end; second += 10 {
		add := func(value float64, series gpu.Series) *gpu.Sample {
			series.Node = "node-a"
			all = append(all, gpu.Sample{Series: series, Time: s.at(second), Value: value})
			return &all[len(all)-1]
		}
		add(1, gpu.Series{Device: part, Identity: web, Metric: gpu.MetricAllocation, Unit: "1", Attributes: `resource=nvidia.com/gpu,x=a\,b\=c`})
		add(second/100, gpu.Series{Device: part, Metric: "gpu.sm.activity", Unit: "1"})
		add(second/100, gpu.Series{Device: whole, Metric: "hw.gpu.utilization", Unit: "1", Attributes: "hw.gpu.task=general"})
		add(1e15+100*second, gpu.Series{Device: whole, Metric: "hw.energy", Unit: "J", Counter: true})
		calls := add(second+1, gpu.Series{Identity: web, Metric: "gpu.cuda.kernel.launch.calls", Unit: "{call}", Counter: true})
		calls.Start = time.Unix(1, 0).UTC() // before anything that a store may cover
		if second >= 30 {
			calls.Start = s.at(25)
		}
	}
	return all
}

func (s *suite) gpu(t *testing.T, q storage.GPUQuery) storage.GPUResult {
	t.Helper()
	result, err := s.QueryGPU(t.Context(), q)
	require.NoError(t, err)
	return result
}

func testGPU(t *testing.T, s *suite) {
	for second := 0.; second < 50; second += 10 {
		require.NoError(t, s.WriteGPU(t.Context(), s.samples(second, second+10)))
	}
	level := func(start, mean, least, most, last float64, samples uint32) storage.GPUPoint {
		return storage.GPUPoint{Start: s.at(start), Value: mean, Min: least, Max: most, Last: last, Samples: samples}
	}
	growth := func(start, value float64, samples uint32) storage.GPUPoint {
		return storage.GPUPoint{Start: s.at(start), Value: value, Samples: samples}
	}
	want := []storage.GPUSeries{
		{Series: gpu.Series{Node: "node-a", Identity: web, Metric: "gpu.cuda.kernel.launch.calls", Unit: "{call}", Counter: true},
			Points: []storage.GPUPoint{growth(10, 20+31+10, 4)}},
		{Series: gpu.Series{Node: "node-a", Device: whole, Metric: "hw.energy", Unit: "J", Counter: true}, Points: []storage.GPUPoint{growth(10, 4000, 4)}},
		{Series: gpu.Series{Node: "node-a", Device: whole, Metric: "hw.gpu.utilization", Unit: "1", Attributes: "hw.gpu.task=general"},
			Points: []storage.GPUPoint{level(0, .2, 0, .4, .4, 5)}},
		{Series: gpu.Series{Node: "node-a", Device: part, Identity: web, Metric: gpu.MetricAllocation, Unit: "1", Attributes: `resource=nvidia.com/gpu,x=a\,b\=c`},
			Points: []storage.GPUPoint{level(0, 1, 1, 1, 1, 5)}},
		{Series: gpu.Series{Node: "node-a", Device: part, Identity: web, Metric: "gpu.sm.activity", Unit: "1"}, Points: []storage.GPUPoint{level(0, .2, 0, .4, .4, 5)}},
	}
	s.everywhere(t, func(t *testing.T) {
		result := s.gpu(t, storage.GPUQuery{})
		assert.Equal(t, want, result.Series)
		assert.Equal(t, 5, result.Matched)
		assert.Zero(t, result.Lost)
		cut := s.gpu(t, storage.GPUQuery{Limit: 2})
		assert.Equal(t, want[:2], cut.Series)
		assert.Equal(t, 5, cut.Matched)

		cards := storage.GPUSelection{Allow: []storage.GPUFilter{{Devices: []string{whole.ID}}}}
		assert.Equal(t, []storage.GPUSeries{
			{Series: want[1].Series, Points: []storage.GPUPoint{growth(20, 2000, 2)}},
			{Series: want[2].Series, Points: []storage.GPUPoint{level(20, .25, .2, .3, .3, 2)}},
		}, s.gpu(t, storage.GPUQuery{Since: s.at(11), Until: s.at(40), Selection: cards}).Series, "a counter grows from the sample before the range")

		pod := storage.GPUSelection{
			Allow: []storage.GPUFilter{{Pods: []string{"shop/web-0"}, Nodes: []string{"node-a"}}}, Deny: []storage.GPUFilter{{Metrics: []string{gpu.MetricAllocation}}},
		}
		steps := s.gpu(t, storage.GPUQuery{Since: s.at(10), Step: time.Millisecond, Selection: pod})
		require.Len(t, steps.Series, 2)
		assert.Equal(t, []storage.GPUPoint{growth(10, 10, 1), growth(20, 10, 1), growth(30, 31, 1), growth(40, 10, 1)}, steps.Series[0].Points, "it began again at 25")
		assert.Len(t, steps.Series[1].Points, 4)
		assert.Empty(t, s.gpu(t, storage.GPUQuery{Since: s.at(41)}).Series)

		_, err := s.QueryGPU(t.Context(), storage.GPUQuery{Step: time.Millisecond, MaxPoints: 3})
		var points *storage.PointsError
		assert.ErrorAs(t, err, &points)
	})
}
