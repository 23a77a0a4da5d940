package ebpfsyscallreceiver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/metadata"
)

// second is so many seconds after an instant that all tests share.
func second(n int) time.Time {
	return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(n) * time.Second)
}

func amd64(number int32) syscalls.Call { return syscalls.Call{ABI: syscalls.X86_64, Number: number} }

// interval makes counts as the engine hands them out.
func interval(cgroups ...uint64) (c *counts, add func(syscalls.Count)) {
	c = &counts{}
	return c, func(n syscalls.Count) {
		for _, id := range cgroups {
			c.add(id, &n)
		}
	}
}

// emitted returns the data points of all sums as text: cgroup, metric, attributes.
func emitted(t *testing.T, s *series) map[string]int64 {
	t.Helper()
	mb := metadata.NewMetricsBuilder(metadata.NewDefaultMetricsBuilderConfig(), receivertest.NewNopSettings(metadata.Type))
	s.record(mb, pcommon.NewTimestampFromTime(second(100)))
	points := map[string]int64{}
	for _, rm := range mb.Emit().ResourceMetrics().All() {
		id, _ := rm.Resource().Attributes().Get("orb8.cgroup.id")
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			for _, dp := range m.Sum().DataPoints().All() {
				key := id.AsString() + " " + m.Name()
				for _, name := range []string{"orb8.syscall.abi", "orb8.syscall.name", "error.type"} {
					if v, ok := dp.Attributes().Get(name); ok {
						key += " " + v.Str()
					}
				}
				require.NotContains(t, points, key, "twice")
				points[key] = dp.IntValue()
			}
		}
	}
	return points
}

func TestSeriesAddUp(t *testing.T) {
	s := newSeries(true)
	for range 2 {
		c, add := interval(7)
		add(syscalls.Count{Call: amd64(0), Calls: 10, Errors: map[string]uint64{"EAGAIN": 3, "EBADF": 1}})
		add(syscalls.Count{Call: syscalls.Call{ABI: syscalls.I386, Number: 3}, Calls: 2})
		add(syscalls.Count{Call: amd64(5000), Calls: 1})
		add(syscalls.Count{Call: amd64(-77), Calls: 4})
		s.add(second(0), second(5), c)
	}
	c, add := interval(8)
	add(syscalls.Count{Call: amd64(0), Calls: 1, Errors: map[string]uint64{"EAGAIN": 1}})
	s.add(second(5), second(10), c)
	assert.Equal(t, map[string]int64{
		"7 orb8.syscall.calls x86_64 read":         20,
		"7 orb8.syscall.errors x86_64 read EAGAIN": 6,
		"7 orb8.syscall.errors x86_64 read EBADF":  2,
		"7 orb8.syscall.calls i386 read":           4,
		"7 orb8.syscall.calls x86_64 other":        10,
		"8 orb8.syscall.calls x86_64 read":         1,
		"8 orb8.syscall.errors x86_64 read EAGAIN": 1,
	}, emitted(t, s))
}

func TestNumbersThatAProcessMakesUpAreOneSeries(t *testing.T) {
	s := newSeries(false)
	c, add := interval(7)
	for n := range int32(10000) {
		add(syscalls.Count{Call: amd64(1000 + n), Calls: 1})
	}
	s.add(second(0), second(5), c)
	assert.Equal(t, map[string]int64{"7 orb8.syscall.calls x86_64 other": 10000}, emitted(t, s))
}

func TestSeriesOfASilentCgroupEndAndBeginAnew(t *testing.T) {
	s := newSeries(false)
	both, add := interval(7, 8)
	add(syscalls.Count{Call: amd64(0), Calls: 1})
	s.add(second(0), second(5), both)
	later := int(seriesTimeout / time.Second)
	one, add := interval(7)
	add(syscalls.Count{Call: amd64(0), Calls: 1})
	s.add(second(later), second(later+4), one)
	assert.Len(t, emitted(t, s), 2, "not long enough")
	s.add(second(later+4), second(later+5), one)
	assert.Equal(t, map[string]int64{"7 orb8.syscall.calls x86_64 read": 3}, emitted(t, s))
	s.add(second(later+5), second(later+10), both)
	assert.EqualValues(t, 1, emitted(t, s)["8 orb8.syscall.calls x86_64 read"])
	assert.Equal(t, second(later+5), s.cgroups[8].start, "since then")
}

func TestDurationBucketsAreTheKernels(t *testing.T) {
	var l syscalls.Latency
	for i := range l.Buckets {
		l.Buckets[i] = uint64(1) << i
	}
	l.Sum = 3 * time.Second
	dp := pmetric.NewHistogramDataPoint()
	putDuration(dp, &l)
	require.Equal(t, durationBuckets, dp.ExplicitBounds().Len())
	require.Equal(t, durationBuckets+1, dp.BucketCounts().Len())
	assert.InDelta(t, 1.024e-6, dp.ExplicitBounds().At(0), 1e-15)
	assert.InDelta(t, 4.294967296, dp.ExplicitBounds().At(durationBuckets-1), 1e-9)
	assert.Equal(t, l.Calls(), dp.Count())
	assert.InDelta(t, 3.0, dp.Sum(), 1e-9)
	var below uint64
	for i := range durationBuckets {
		below += dp.BucketCounts().At(i)
		// All kernel buckets up to that with the same bound, and no other.
		var want uint64
		for k := range syscalls.LatencyBuckets {
			if syscalls.Bound(k).Seconds() <= dp.ExplicitBounds().At(i) {
				want += l.Buckets[k]
			}
		}
		assert.Equal(t, want, below, "at most %g s", dp.ExplicitBounds().At(i))
	}
	assert.Equal(t, l.Calls(), below+dp.BucketCounts().At(durationBuckets))
}

func TestDurations(t *testing.T) {
	s := newSeries(true)
	c, add := interval(7)
	latency := syscalls.Latency{Sum: time.Millisecond}
	latency.Buckets[0] = 4
	add(syscalls.Count{Call: amd64(0), Calls: 5, Latency: &latency})
	add(syscalls.Count{Call: amd64(7000), Calls: 0, Latency: &latency}) // entered in the interval before
	s.add(second(0), second(5), c)
	s.add(second(5), second(10), c)
	md := pmetric.NewMetrics()
	s.appendDurations(md, "1.2.3", pcommon.NewTimestampFromTime(second(10)))
	require.Equal(t, 1, md.ResourceMetrics().Len())
	m := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0)
	assert.Equal(t, durationName, m.Name())
	assert.Equal(t, "s", m.Unit())
	names := map[string]uint64{}
	for _, dp := range m.Histogram().DataPoints().All() {
		name, _ := dp.Attributes().Get("orb8.syscall.name")
		names[name.Str()] = dp.Count()
		assert.Equal(t, second(0), dp.StartTimestamp().AsTime())
	}
	assert.Equal(t, map[string]uint64{"read": 8, "other": 8}, names)
}
