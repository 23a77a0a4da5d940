package ebpfsyscallreceiver

import (
	"context"
	"maps"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/metadata"
)

// seriesTimeout drops the series of a silent cgroup, so that series do not pile up as containers come and go.
const seriesTimeout = 10 * time.Minute

const (
	// otherNumber stands for all numbers that have no name, of which a process can make up any.
	otherNumber = -1
	otherName   = "other"
)

// series adds up the counts of cgroups.
type series struct {
	latency bool
	cgroups map[uint64]*cgroupSeries
}

// cgroupSeries adds up since start. It ends when its cgroup has been silent for seriesTimeout.
type cgroupSeries struct {
	start, last time.Time
	calls       map[syscalls.Call]*callSeries
}

type callSeries struct {
	calls   uint64
	errors  map[string]uint64
	latency syscalls.Latency
}

func newSeries(latency bool) *series {
	return &series{latency: latency, cgroups: map[uint64]*cgroupSeries{}}
}

// add takes the counts of an interval.
func (s *series) add(start, end time.Time, c *counts) {
	for i, g := range c.cgroups {
		cgroup := s.cgroups[g.id]
		if cgroup == nil {
			cgroup = &cgroupSeries{start: start, calls: map[syscalls.Call]*callSeries{}}
			s.cgroups[g.id] = cgroup
		}
		cgroup.last = end
		for _, n := range c.of(i) {
			cgroup.add(&n)
		}
	}
	maps.DeleteFunc(s.cgroups, func(_ uint64, c *cgroupSeries) bool { return end.Sub(c.last) >= seriesTimeout })
}

func (c *cgroupSeries) add(n *syscalls.Count) {
	call := n.Call
	if names := call.ABI.Names(); call.Number < 0 || int(call.Number) >= len(names) || names[call.Number] == "" {
		call.Number = otherNumber
	}
	sum := c.calls[call]
	if sum == nil {
		sum = &callSeries{}
		c.calls[call] = sum
	}
	sum.calls += n.Calls
	if len(n.Errors) > 0 && sum.errors == nil {
		sum.errors = map[string]uint64{}
	}
	for name, calls := range n.Errors {
		sum.errors[name] += calls
	}
	if n.Latency != nil {
		sum.latency.Add(n.Latency)
	}
}

// record hands the series to the metrics builder, those of one cgroup under one resource.
func (s *series) record(mb *metadata.MetricsBuilder, now pcommon.Timestamp) {
	for id, c := range s.cgroups {
		for call, sum := range c.calls {
			name, abi := metricName(call), metadata.MapAttributeOrb8SyscallAbi[call.ABI.String()]
			mb.RecordOrb8SyscallCallsDataPoint(now, int64(sum.calls), name, abi)
			for errno, calls := range sum.errors {
				mb.RecordOrb8SyscallErrorsDataPoint(now, int64(calls), name, abi, errno)
			}
		}
		rb := mb.NewResourceBuilder()
		rb.SetOrb8CgroupID(int64(id))
		mb.EmitForResource(metadata.WithResource(rb.Emit()), metadata.WithStartTimeOverride(pcommon.NewTimestampFromTime(c.start)))
	}
}

func metricName(c syscalls.Call) string {
	if c.Number == otherNumber {
		return otherName
	}
	return c.Name()
}

// durationName and its kin are not in metadata.yaml: mdatagen makes no histograms.
const (
	durationName        = "orb8.syscall.duration"
	durationDescription = "Time from the entry of a system call to its return. Only where latency is measured."
	// durationStep is how many of the kernel's buckets are one here, and durationBuckets how many there are with an upper bound:
	// from 1.024 us to 4.3 s, each four times the one before.
	durationStep    = 2
	durationBuckets = 12
)

// appendDurations adds the histograms. Their bounds are the kernel's own, so that no bucket is guessed. They are explicit ones:
// exponential histograms have powers of two of a second, which these are not, and reach only those Prometheus servers that
// scrape native histograms.
func (s *series) appendDurations(md pmetric.Metrics, version string, now pcommon.Timestamp) {
	for id, c := range s.cgroups {
		rm := md.ResourceMetrics().AppendEmpty()
		rm.Resource().Attributes().PutInt(flow.AttrCgroupID, int64(id))
		sm := rm.ScopeMetrics().AppendEmpty()
		sm.Scope().SetName(metadata.ScopeName)
		sm.Scope().SetVersion(version)
		m := sm.Metrics().AppendEmpty()
		m.SetName(durationName)
		m.SetDescription(durationDescription)
		m.SetUnit("s")
		h := m.SetEmptyHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		for call, sum := range c.calls {
			dp := h.DataPoints().AppendEmpty()
			dp.SetStartTimestamp(pcommon.NewTimestampFromTime(c.start))
			dp.SetTimestamp(now)
			dp.Attributes().PutStr(syscalls.AttrName, metricName(call))
			dp.Attributes().PutStr(syscalls.AttrABI, call.ABI.String())
			putDuration(dp, &sum.latency)
		}
	}
}

func putDuration(dp pmetric.HistogramDataPoint, l *syscalls.Latency) {
	bounds, buckets := dp.ExplicitBounds(), dp.BucketCounts()
	bounds.EnsureCapacity(durationBuckets)
	buckets.EnsureCapacity(durationBuckets + 1)
	next := 0
	for i := range durationBuckets {
		last := (i + 1) * durationStep
		bounds.Append(syscalls.Bound(last).Seconds())
		buckets.Append(sum(l.Buckets[next : last+1]))
		next = last + 1
	}
	buckets.Append(sum(l.Buckets[next:]))
	dp.SetCount(l.Calls())
	dp.SetSum(l.Sum.Seconds())
}

func sum(values []uint64) (total uint64) {
	for _, v := range values {
		total += v
	}
	return total
}

func (r *syscallReceiver) sendMetrics(start, end time.Time, s *syscalls.Status) {
	if r.metrics == nil {
		return
	}
	r.series.add(start, end, r.counts)
	now := pcommon.NewTimestampFromTime(end)
	r.series.record(r.mb, now)
	r.mb.RecordOrb8SyscallLostCallsDataPoint(now, int64(s.LostCalls))
	r.mb.RecordOrb8SyscallRingBufferDropsDataPoint(now, int64(s.LostEvents))
	r.mb.RecordOrb8SyscallRingBufferThinnedDataPoint(now, int64(r.kernelLoss.Thinned))
	r.mb.RecordOrb8SyscallRingBufferUtilizationDataPoint(now, s.RingBufferUtilization)
	r.mb.RecordOrb8SyscallCgroupsDataPoint(now, int64(s.Cgroups))
	if s.Latency {
		r.mb.RecordOrb8SyscallUnmeasuredDataPoint(now, int64(r.kernelLoss.Unmeasured))
	}
	md := r.mb.Emit(metadata.WithStartTimeOverride(pcommon.NewTimestampFromTime(r.started)))
	if s.Latency {
		r.series.appendDurations(md, r.set.BuildInfo.Version, now)
	}
	points := md.DataPointCount()
	ctx := r.obs.StartMetricsOp(context.Background())
	err := r.metrics.ConsumeMetrics(ctx, md)
	r.obs.EndMetricsOp(ctx, metadata.Type.String(), points, err)
}
