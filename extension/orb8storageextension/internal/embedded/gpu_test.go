package embedded

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
)

// metricsOfACard is how many series a scrape has of each card.
const metricsOfACard = 30

// scrape returns what a node with so many cards tells at one instant.
func scrape(cards, seconds int) []gpu.Sample {
	var samples []gpu.Sample
	for card := range cards {
		series := gpu.Series{Node: "node-a", Unit: "1", Device: gpu.Device{
			ID: fmt.Sprintf("GPU-8f9f4fc8-0000-0000-0000-%012d", card), Index: uint32(card), Model: "NVIDIA H100 80GB HBM3",
			PCIAddress: fmt.Sprintf("00000000:%02x:00.0", card),
		}}
		for i := range metricsOfACard - 1 {
			series.Metric, series.Counter = fmt.Sprint("gpu.metric.", i), i%3 == 0
			s := gpu.Sample{Series: series, Time: at(seconds), Value: float64(i + seconds)}
			if series.Counter {
				s.Start = at(-1)
			}
			samples = append(samples, s)
		}
		series.Metric, series.Counter, series.Identity = gpu.MetricAllocation, false, flow.Identity{Pod: fmt.Sprint("train-", card), Namespace: "ml"}
		samples = append(samples, gpu.Sample{Series: series, Time: at(seconds), Value: 1})
	}
	return samples
}

func queryGPU(t testing.TB, s *Store, q storage.GPUQuery) storage.GPUResult {
	t.Helper()
	result, err := s.QueryGPU(t.Context(), q)
	require.NoError(t, err)
	return result
}

func TestSamplesOfManyChunksAreOneSeries(t *testing.T) {
	s, c := newTestStore(64 << 20)
	const scrapes = 100
	for i := range scrapes {
		c.set(i)
		_, err := s.WriteGPU(t.Context(), scrape(4, i))
		require.NoError(t, err)
	}
	require.Greater(t, len(s.gpu.segments), 1)
	assert.EqualValues(t, 4*metricsOfACard*scrapes, s.Status().Store.Records)
	result := queryGPU(t, s, storage.GPUQuery{Selection: storage.GPUSelection{Allow: []storage.GPUFilter{{Pods: []string{"train-2"}}}}})
	require.Equal(t, metricsOfACard, result.Matched)
	for _, series := range result.Series {
		require.Len(t, series.Points, 1)
		want := storage.GPUPoint{Start: at(0), Value: (scrapes - 1) / 2., Max: scrapes - 1, Last: scrapes - 1, Samples: scrapes}
		var n int
		_, err := fmt.Sscanf(series.Metric, "gpu.metric.%d", &n)
		switch {
		case series.Metric == gpu.MetricAllocation:
			want.Value, want.Min, want.Max, want.Last = 1, 1, 1, 1
		case series.Counter:
			require.NoError(t, err)
			want = storage.GPUPoint{Start: at(1), Value: scrapes - 1, Samples: scrapes - 1}
		default:
			require.NoError(t, err)
			of := float64(n)
			want.Value, want.Min, want.Max, want.Last = want.Value+of, of, want.Max+of, want.Last+of
		}
		assert.Equal(t, want, series.Points[0], series.Metric)
	}
	chunk := s.gpu.segments[0]
	assert.Less(t, float64(chunk.size())/float64(chunk.count), 32., "bytes a sample")
}

func TestSamplesHaveAShareOfTheMemory(t *testing.T) {
	s, c := newTestStore(MinBytes)
	const scrapes = 500
	for i := range scrapes {
		c.set(i)
		_, err := s.WriteGPU(t.Context(), scrape(8, i))
		require.NoError(t, err)
		require.LessOrEqual(t, s.gpu.bytes, uint64(MinBytes/gpuShare))
	}
	result := queryGPU(t, s, storage.GPUQuery{Selection: storage.GPUSelection{Allow: []storage.GPUFilter{{Metrics: []string{gpu.MetricAllocation}}}}})
	require.NotZero(t, result.Lost.EvictedRecords)
	assert.True(t, result.Oldest.After(at(0)))
	var left uint64
	for _, series := range queryGPU(t, s, storage.GPUQuery{}).Series {
		if !series.Counter {
			left += uint64(series.Points[0].Samples)
		}
	}
	const levels = 8 * (metricsOfACard - 10)
	assert.EqualValues(t, levels*scrapes, left+result.Lost.EvictedRecords*levels/(8*metricsOfACard), "every sample is there or counted")
	assert.Zero(t, query(t, s, storage.FlowQuery{}).Lost, "it is not the flows' loss")
}

func TestSamplesExpire(t *testing.T) {
	s, c := newTestStore(MinBytes)
	_, err := s.WriteGPU(t.Context(), scrape(1, 0))
	require.NoError(t, err)
	c.set(3601)
	require.NoError(t, s.WriteStatus(t.Context(), status("node-a", 0, 3601, 5)))
	result := queryGPU(t, s, storage.GPUQuery{})
	assert.Empty(t, result.Series)
	assert.Zero(t, result.Lost, "neither what has expired nor what of its flows the node lost")
	c.set(3700)
	assert.Equal(t, []string{"node-a"}, queryGPU(t, s, storage.GPUQuery{}).MissingNodes)
}

func TestAGPUQueryEndsWithItsContext(t *testing.T) {
	s, _ := newTestStore(MinBytes)
	_, err := s.WriteGPU(t.Context(), scrape(1, 0))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.QueryGPU(ctx, storage.GPUQuery{})
	assert.ErrorIs(t, err, context.Canceled)
}

func TestScrapesThatComeAgainAreStoredOnce(t *testing.T) {
	s, _ := openTestStore(t, t.TempDir())
	for _, want := range []bool{true, false} {
		fresh, err := s.WriteGPU(t.Context(), scrape(2, 1))
		require.NoError(t, err)
		assert.Equal(t, want, fresh)
	}
	fresh, err := s.WriteGPU(t.Context(), scrape(2, 2))
	require.NoError(t, err)
	assert.True(t, fresh)
	assert.EqualValues(t, 2*2*metricsOfACard, s.Status().Store.Records)
}

func TestAQueryMayRunWhileSamplesAreWritten(t *testing.T) {
	s, _ := newTestStore(MinBytes)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 300 {
			_, err := s.WriteGPU(context.Background(), scrape(8, i))
			assert.NoError(t, err)
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		for _, series := range queryGPU(t, s, storage.GPUQuery{}).Series {
			p := series.Points[0]
			if series.Metric == gpu.MetricAllocation {
				require.Equal(t, [2]float64{1, 1}, [2]float64{p.Min, p.Max})
			} else if !series.Counter {
				require.LessOrEqual(t, p.Max-p.Min, 299., "%v", p)
			}
		}
	}
}

// What 8 GPUs tell in an hour, every 10 s: the power of one pod's card, a point a minute.
func BenchmarkQueryGPUHour(b *testing.B) {
	for _, where := range []string{"memory", "blocks"} {
		b.Run(where, func(b *testing.B) {
			s, c := openTestStore(b, b.TempDir())
			for i := range 360 {
				c.set(10 * i)
				_, err := s.WriteGPU(b.Context(), scrape(8, 10*i))
				require.NoError(b, err)
			}
			if where == "blocks" {
				seal(b, s)
			}
			q := storage.GPUQuery{Step: time.Minute, Selection: storage.GPUSelection{Allow: []storage.GPUFilter{{Pods: []string{"train-3"}, Metrics: []string{"gpu.metric.4"}}}}}
			for b.Loop() {
				require.Len(b, queryGPU(b, s, q).Series, 1)
			}
			b.ReportMetric(float64(s.Status().Store.Bytes)/float64(s.Status().Store.Records), "B/sample")
		})
	}
}

// What 100 nodes of 8 GPUs tell every 10 s, asked for as `orb8 gpu` does: some metrics of all, in the last two minutes.
func BenchmarkQueryGPUFleet(b *testing.B) {
	for _, where := range []string{"memory", "blocks"} {
		b.Run(where, func(b *testing.B) {
			s, c := openTestStore(b, b.TempDir(), func(s *Settings) { s.Disk.HeadBytes = 1 << 30 })
			const scrapes = 30
			for i := range scrapes {
				c.set(10 * i)
				for node := range 100 {
					samples := scrape(8, 10*i)
					for j := range samples {
						samples[j].Node = fmt.Sprint("node-", node)
						samples[j].Device.ID = fmt.Sprint(samples[j].Device.ID, node)
					}
					_, err := s.WriteGPU(b.Context(), samples)
					require.NoError(b, err)
				}
			}
			if where == "blocks" {
				seal(b, s)
			}
			var metrics []string
			for i := range 11 {
				metrics = append(metrics, fmt.Sprint("gpu.metric.", i))
			}
			q := storage.GPUQuery{
				Since: at(10*scrapes - 120), Selection: storage.GPUSelection{Allow: []storage.GPUFilter{{Metrics: append(metrics, "gpu.allocation")}}},
			}
			for b.Loop() {
				require.Len(b, queryGPU(b, s, q).Series, 100*8*12)
			}
		})
	}
}
