package gpureceiver

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor/processortest"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/processor/podenrichmentprocessor"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/cuda"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/cuda/cudatest"
)

// cudaPoint is a data point of a cgroup.
type cudaPoint struct {
	value   float64
	started time.Time
}

// cudaPoints are those of a cgroup by metric and kind. Of histograms they are the counts.
func cudaPoints(t *testing.T, md pmetric.Metrics, cgroupID uint64) map[string]cudaPoint {
	t.Helper()
	points := map[string]cudaPoint{}
	add := func(name string, a pcommon.Map, value float64, start pcommon.Timestamp) {
		a.Range(func(_ string, v pcommon.Value) bool { name += " " + v.AsString(); return true })
		_, twice := points[name]
		require.False(t, twice, name)
		points[name] = cudaPoint{value, start.AsTime()}
	}
	for _, rm := range md.ResourceMetrics().All() {
		id, ok := rm.Resource().Attributes().Get(flow.AttrCgroupID)
		if !ok || uint64(id.Int()) != cgroupID {
			continue
		}
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			switch m.Type() {
			case pmetric.MetricTypeSum:
				assert.True(t, m.Sum().IsMonotonic(), m.Name())
				for _, p := range m.Sum().DataPoints().All() {
					add(m.Name(), p.Attributes(), float64(p.IntValue()), p.StartTimestamp())
				}
			case pmetric.MetricTypeHistogram:
				for _, p := range m.Histogram().DataPoints().All() {
					var inBuckets uint64
					for _, n := range p.BucketCounts().All() {
						inBuckets += n
					}
					assert.Equal(t, p.Count(), inBuckets)
					assert.Equal(t, p.ExplicitBounds().Len()+1, p.BucketCounts().Len())
					assert.Positive(t, p.Sum())
					add(m.Name(), p.Attributes(), float64(p.Count()), p.StartTimestamp())
				}
			}
		}
	}
	return points
}

// TestCUDACalls holds that what a program calls becomes the metrics of its cgroup, exactly.
func TestCUDACalls(t *testing.T) {
	testutil.Require(t, "bpf", os.Geteuid() == 0, "loading BPF programs needs root")
	r, host, _ := newTestReceiver(t)
	r.cfg.CUDA = CUDAConfig{Mode: ModeOn, SingleStepped: SteppedSkip}
	g := cudatest.NewGroup(t)
	c := g.Start(t, cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Endbr))
	r.add("cuda", ModeAuto, r.newCUDASource) // what others on this host have is no failure
	before := time.Now()
	_, err := r.scrape(t.Context()) // which loads the programs
	require.NoError(t, err)
	opened := time.Now()

	c.Call(t, "cuLaunchKernel", 50_000, 2)
	c.Call(t, "cuGraphLaunch", 5, 1)
	c.Call(t, "cuMemAlloc_v2", 2, 1, 0, 1<<20)
	c.Call(t, "cuMemcpyHtoD_v2", 3, 1, 0, 0, 4096)
	c.Call(t, "cuMemcpy", 1, 1, 0, 0, 10)
	c.Call(t, "cuStreamSynchronize", 4, 1, 100)
	c.Call(t, "cuCtxSynchronize", 1, 1)
	md, err := r.scrape(t.Context())
	require.NoError(t, err)
	got := cudaPoints(t, md, g.ID)
	values := map[string]float64{}
	for name, p := range got {
		values[name] = p.value
		assert.WithinRange(t, p.started, before, opened, "%s counts from the scrape before", name)
	}
	assert.Equal(t, map[string]float64{
		"gpu.cuda.kernel.launch.calls":          100_005,
		"gpu.cuda.memory.allocations":           2 << 20,
		"gpu.cuda.memory.copies host_to_device": 3 * 4096,
		"gpu.cuda.memory.copies unknown":        10,
		"gpu.cuda.synchronize.calls stream":     4,
		"gpu.cuda.synchronize.calls context":    1,
		"gpu.cuda.synchronize.duration stream":  4,
		"gpu.cuda.synchronize.duration context": 1,
	}, values)

	c.Call(t, "cuLaunchKernel", 1, 1)
	md, err = r.scrape(t.Context())
	require.NoError(t, err)
	again := cudaPoints(t, md, g.ID)
	assert.EqualValues(t, 100_006, again["gpu.cuda.kernel.launch.calls"].value, "it adds up")
	assert.Equal(t, got["gpu.cuda.kernel.launch.calls"].started, again["gpu.cuda.kernel.launch.calls"].started)
	assert.EqualValues(t, 4, again["gpu.cuda.synchronize.calls stream"].value, "what did not change is there")
	for _, e := range host.events {
		assert.Equal(t, componentstatus.StatusOK, e.Status())
	}
}

// TestCUDACallsAreNamed holds that the calls of a container get its pod, from the path of the cgroup alone.
func TestCUDACallsAreNamed(t *testing.T) {
	testutil.Require(t, "bpf", os.Geteuid() == 0, "loading BPF programs needs root")
	const uid = "0f8fad5b-d9cb-469f-a165-70867728950e"
	id := strings.Repeat("c0ffee12", 8)
	g := cudatest.NewGroupAt(t, fmt.Sprintf("orb8-cuda-%d.slice", os.Getpid()), "kubepods.slice",
		"kubepods-pod"+strings.ReplaceAll(uid, "-", "_")+".slice", "cri-containerd-"+id+".scope")
	c := g.Start(t, cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Pushes))
	r, _, _ := newTestReceiver(t)
	r.cfg.CUDA = CUDAConfig{Mode: ModeOn, SingleStepped: SteppedSkip}
	r.add("cuda", ModeAuto, r.newCUDASource) // what others on this host have is no failure
	_, err := r.scrape(t.Context())
	require.NoError(t, err)
	c.Call(t, "cuLaunchKernel", 100_000, 1)
	c.Call(t, "cuStreamSynchronize", 1, 1)
	md, err := r.scrape(t.Context())
	require.NoError(t, err)

	f := podenrichmentprocessor.NewFactory()
	sink := &consumertest.MetricsSink{}
	p, err := f.CreateMetrics(t.Context(), processortest.NewNopSettings(f.Type()), f.CreateDefaultConfig(), sink)
	require.NoError(t, err)
	require.NoError(t, p.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, p.ConsumeMetrics(t.Context(), md))
	require.NoError(t, p.Shutdown(t.Context()))
	named := map[string]float64{}
	for _, md := range sink.AllMetrics() {
		for _, rm := range md.ResourceMetrics().All() {
			pod, _ := rm.Resource().Attributes().Get(flow.AttrPodUID)
			container, _ := rm.Resource().Attributes().Get(flow.AttrContainerID)
			if pod.AsString() != uid || container.AsString() != id {
				continue
			}
			for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
				switch m.Type() {
				case pmetric.MetricTypeSum:
					named[m.Name()] += float64(m.Sum().DataPoints().At(0).IntValue())
				case pmetric.MetricTypeHistogram:
					named[m.Name()] += float64(m.Histogram().DataPoints().At(0).Count())
				}
			}
		}
	}
	assert.Equal(t, map[string]float64{
		"gpu.cuda.kernel.launch.calls": 100_000, "gpu.cuda.synchronize.calls": 1, "gpu.cuda.synchronize.duration": 1,
	}, named)
}

// TestSteppedFunctionsAreSaid holds that the status says what is not counted, and what to do.
func TestSteppedFunctionsAreSaid(t *testing.T) {
	testutil.Require(t, "bpf", os.Geteuid() == 0, "loading BPF programs needs root")
	r, host, _ := newTestReceiver(t)
	r.cfg.CUDA = CUDAConfig{Mode: ModeOn, SingleStepped: SteppedSkip}
	cudatest.NewGroup(t).Start(t, cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Steps))
	r.add("cuda", ModeOn, r.newCUDASource)
	_, err := r.scrape(t.Context())
	require.ErrorContains(t, err, "set cuda.single_stepped to sample or count: libcuda.so.1 (inode ")
	require.Len(t, host.events, 1)
	assert.Equal(t, componentstatus.StatusRecoverableError, host.events[0].Status())
}

func TestNoDriverIsSaid(t *testing.T) {
	_, err := os.Stat(nvidiaDriver)
	testutil.Require(t, "no-gpu", err != nil, "this host has a GPU")
	r, host, _ := newTestReceiver(t)
	r.cfg.CUDA = CUDAConfig{Mode: ModeAuto}
	r.add("cuda", ModeAuto, r.newCUDASource)
	_, err = r.scrape(t.Context())
	require.NoError(t, err)
	why, _ := host.events[0].Attributes().Get(attrAbsent)
	assert.Equal(t, "cuda: NVIDIA's kernel driver is not loaded: there is no /proc/driver/nvidia", why.AsString())
}

// TestSilentSeriesEnd holds that the series of a cgroup ends, and begins anew if it calls again.
func TestSilentSeriesEnd(t *testing.T) {
	start := time.Now()
	s := &cudaSource{until: start, series: map[uint64]*cudaSeries{}}
	s.add(7, cuda.KernelLaunch, &cuda.Count{Calls: 3}, start.Add(time.Second))
	s.expire(start.Add(cudaSeriesTimeout))
	assert.Len(t, s.series, 1)
	s.expire(start.Add(time.Second + cudaSeriesTimeout))
	assert.Empty(t, s.series)
	s.until = start.Add(time.Hour)
	s.add(7, cuda.KernelLaunch, &cuda.Count{Calls: 1}, start.Add(time.Hour+time.Second))
	assert.Equal(t, s.until, s.series[7].start)
	assert.EqualValues(t, 1, s.series[7].kinds[cuda.KernelLaunch].Calls)
}

func TestWaitBuckets(t *testing.T) {
	n := &cuda.Count{Wait: 3 * time.Second}
	for i := range n.Buckets {
		n.Buckets[i] = 1
	}
	p := pmetric.NewHistogramDataPoint()
	putWaits(p, n)
	assert.InDelta(t, 1.024e-6, p.ExplicitBounds().At(0), 1e-12)
	assert.InDelta(t, 4.294967296, p.ExplicitBounds().At(waitBuckets-1), 1e-9)
	assert.EqualValues(t, cuda.Buckets, p.Count())
	assert.Equal(t, []uint64{1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1}, p.BucketCounts().AsRaw())
	assert.InDelta(t, 3, p.Sum(), 0)
}
