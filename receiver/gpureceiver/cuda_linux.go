package gpureceiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/zap"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/cuda"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/metadata"
)

const (
	// nvidiaDriver is there while the kernel's driver is loaded.
	nvidiaDriver = "/proc/driver/nvidia"
	// cudaRetry is how long a host that does not let us is not asked again: it takes loading programs.
	cudaRetry = 5 * time.Minute
	// cudaSeriesTimeout drops the series of a silent cgroup, so that series do not pile up as containers come and go.
	cudaSeriesTimeout = 10 * time.Minute
)

// cudaSource counts calls of libcuda by cgroup.
type cudaSource struct {
	cfg       CUDAConfig
	logger    *zap.Logger
	telemetry *metadata.TelemetryBuilder

	engine *cuda.Engine
	// refused is why there is none, and tried when that was found.
	refused error
	tried   time.Time
	// until is when the last interval ended.
	until  time.Time
	series map[uint64]*cudaSeries
	loss   cuda.Loss // as of then
}

// cudaSeries is what a cgroup has called since start. It ends when the cgroup has been silent for cudaSeriesTimeout.
type cudaSeries struct {
	start, last time.Time
	kinds       map[cuda.Kind]*cuda.Count
}

func (r *gpuReceiver) newCUDASource() source {
	return &cudaSource{cfg: r.cfg.CUDA, logger: r.set.Logger, telemetry: r.telemetry, series: map[uint64]*cudaSeries{}}
}

func (s *cudaSource) close() error {
	if s.engine == nil {
		return nil
	}
	return s.engine.Close()
}

func (s *cudaSource) scrape(ctx context.Context, to *recorder) error {
	if err := s.open(to.at); err != nil {
		return absence{err}
	}
	loss, err := s.engine.Drain(func(cgroupID uint64, kind cuda.Kind, n *cuda.Count) { s.add(cgroupID, kind, n, to.at) })
	if err == nil {
		s.until = to.at
		s.telemetry.GpuCudaLostCalls.Add(ctx, int64(loss.Calls-s.loss.Calls))
		s.telemetry.GpuCudaUnmeasuredCalls.Add(ctx, int64(loss.Unmeasured-s.loss.Unmeasured+loss.Unreadable-s.loss.Unreadable))
		s.loss = loss
	}
	s.expire(to.at)
	s.record(to)
	return errors.Join(err, s.engine.Err(), s.unseen())
}

// open loads the programs, on a host that has a GPU's driver or where the configuration says that there is something to count.
func (s *cudaSource) open(now time.Time) error {
	if s.engine != nil {
		return nil
	}
	if s.cfg.Mode == ModeAuto {
		if _, err := os.Stat(nvidiaDriver); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("NVIDIA's kernel driver is not loaded: there is no %s", nvidiaDriver)
		}
	}
	if s.refused != nil && now.Sub(s.tried) < cudaRetry {
		return s.refused
	}
	s.tried = now
	s.engine, s.refused = cuda.New(cuda.Options{Stepped: cuda.Stepped(s.cfg.SingleStepped)})
	if s.refused != nil {
		return s.refused
	}
	s.until = now
	if err := s.engine.Quiet(); err != nil {
		s.logger.Info("CUDA libraries of new programs are found with some delay", zap.Error(err))
	}
	return nil
}

// unseen tells which calls of which libraries are not counted, and what to do about it. It is no failure unless the configuration wants
// them counted.
func (s *cudaSource) unseen() error {
	var broken, stepped []string
	for _, f := range s.engine.Files() {
		if f.Err != nil {
			broken = append(broken, fmt.Sprintf("%s (inode %d): %v", f.Name, f.Inode, f.Err))
		}
		if len(f.Stepped) > 0 && !f.Sampled {
			stepped = append(stepped, fmt.Sprintf("%s (inode %d): %s", f.Name, f.Inode, strings.Join(f.Stepped, ", ")))
		}
	}
	if len(broken) == 0 && len(stepped) == 0 {
		return nil
	}
	if len(stepped) > 0 {
		broken = append(broken, "some functions begin with an instruction that makes a probe cost 10 µs a call, and are not counted; "+
			"set cuda.single_stepped to sample or count: "+strings.Join(stepped, "; "))
	}
	return absence{gap{errors.New(strings.Join(broken, "; "))}}
}

func (s *cudaSource) add(cgroupID uint64, kind cuda.Kind, n *cuda.Count, now time.Time) {
	c := s.series[cgroupID]
	if c == nil {
		c = &cudaSeries{start: s.until, kinds: map[cuda.Kind]*cuda.Count{}}
		s.series[cgroupID] = c
	}
	c.last = now
	if c.kinds[kind] == nil {
		c.kinds[kind] = &cuda.Count{}
	}
	c.kinds[kind].Add(n)
}

func (s *cudaSource) expire(now time.Time) {
	maps.DeleteFunc(s.series, func(_ uint64, c *cudaSeries) bool { return now.Sub(c.last) >= cudaSeriesTimeout })
}

// Values of cuda.sync.kind and cuda.memcpy.kind.
var (
	syncKinds = map[cuda.Kind]string{
		cuda.StreamSynchronize: "stream", cuda.ContextSynchronize: "context", cuda.EventSynchronize: "event",
	}
	copyKinds = map[cuda.Kind]string{
		cuda.CopyHostToHost: "host_to_host", cuda.CopyHostToDevice: "host_to_device", cuda.CopyDeviceToHost: "device_to_host",
		cuda.CopyDeviceToDevice: "device_to_device", cuda.CopyDefault: "unknown",
	}
)

func (s *cudaSource) record(to *recorder) {
	for id, c := range s.series {
		whose := container{cgroupID: id}
		to.begin(whose, c.start)
		var launches uint64
		for kind, n := range c.kinds {
			switch {
			case kind == cuda.KernelLaunch, kind == cuda.GraphLaunch:
				launches += n.Calls
			case kind == cuda.Allocation:
				to.add(observation{metric: "gpu.cuda.memory.allocations", container: whose, value: float64(n.Bytes)})
			case kind.Waits():
				to.add(observation{metric: "gpu.cuda.synchronize.calls", part: syncKinds[kind], container: whose, value: float64(n.Calls)})
			default:
				to.add(observation{metric: "gpu.cuda.memory.copies", part: copyKinds[kind], container: whose, value: float64(n.Bytes)})
			}
		}
		if launches > 0 {
			to.add(observation{metric: "gpu.cuda.kernel.launch.calls", container: whose, value: float64(launches)})
		}
	}
	to.append(s.appendDurations)
}

// These are not in metadata.yaml: mdatagen makes no histograms.
const (
	waitMetric      = "gpu.cuda.synchronize.duration"
	waitDescription = "Time for which threads of a container waited for the GPU: from the entry of cuStreamSynchronize and its kin to the return."
	// waitBuckets is how many buckets there are with an upper bound: from 1.024 µs to 4.3 s, each four times the one before; waitStep is
	// how many of the kernel's are one here.
	waitBuckets = 12
	waitStep    = 2
)

// appendDurations adds the histograms of waits. Their bounds are the kernel's own, so that no bucket is guessed.
func (s *cudaSource) appendDurations(md pmetric.Metrics, at pcommon.Timestamp) {
	for id, c := range s.series {
		rm := pmetric.NewResourceMetrics()
		rm.Resource().Attributes().PutInt(flow.AttrCgroupID, int64(id))
		sm := rm.ScopeMetrics().AppendEmpty()
		sm.Scope().SetName(metadata.ScopeName)
		m := sm.Metrics().AppendEmpty()
		m.SetName(waitMetric)
		m.SetDescription(waitDescription)
		m.SetUnit("s")
		h := m.SetEmptyHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		for kind, name := range syncKinds {
			n := c.kinds[kind]
			if n == nil {
				continue
			}
			dp := h.DataPoints().AppendEmpty()
			dp.SetStartTimestamp(pcommon.NewTimestampFromTime(c.start))
			dp.SetTimestamp(at)
			dp.Attributes().PutStr("cuda.sync.kind", name)
			putWaits(dp, n)
		}
		if h.DataPoints().Len() > 0 {
			rm.MoveTo(md.ResourceMetrics().AppendEmpty())
		}
	}
}

func putWaits(dp pmetric.HistogramDataPoint, n *cuda.Count) {
	bounds, buckets := dp.ExplicitBounds(), dp.BucketCounts()
	var count, inThis uint64
	for i, calls := range n.Buckets {
		count += calls
		inThis += calls
		if i%waitStep == 0 && i/waitStep < waitBuckets {
			bounds.Append(cuda.Bound(i).Seconds())
			buckets.Append(inThis)
			inThis = 0
		}
	}
	buckets.Append(inThis)
	dp.SetCount(count)
	dp.SetSum(n.Wait.Seconds())
}
