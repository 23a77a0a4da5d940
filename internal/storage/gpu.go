package storage

import (
	"strings"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
)

// GPUQuery selects samples of GPUs. The zero value selects all that the store covers.
type GPUQuery struct {
	// Since and Until bound the range [Since, Until) of gpu.Sample.Time. Zero values are no bounds.
	Since, Until time.Time
	Selection    GPUSelection
	// Step divides the range into steps that begin at multiples of it since the epoch. 0 makes the range one step.
	Step time.Duration
	// Limit is the most series to return; 0 means no limit.
	Limit int
	// MaxPoints is how many points the series may have together before the query fails with a PointsError; 0 means no limit.
	MaxPoints int
}

// gpuLookBack is how long before the range the sample may be that a counter's growth is counted from: the growth between two samples
// is that of the range which the later one is in, so that ranges next to each other leave nothing out. Scrapes are a minute apart at
// most, as a rule.
const gpuLookBack = 2 * time.Minute

// From returns since when a store reads samples to answer the query; the zero time is from the oldest on.
func (q *GPUQuery) From() time.Time {
	if q.Since.IsZero() {
		return q.Since
	}
	return q.Since.Add(-gpuLookBack)
}

// GPUResult is the answer to a GPUQuery.
type GPUResult struct {
	// Series are ordered by node, device, metric, attributes and container.
	Series []GPUSeries
	// A node is missing that does not report, whether or not it has GPUs. Samples that were lost on the way to the store are not
	// known to it: there are gaps instead.
	Coverage
}

// GPUSeries is what was measured of one metric of a device. Its identity is of the container that it was measured for. Of a metric
// of the whole device it is the container to which alone the device was allocated at the time; of a device that is shared by
// containers, or is nobody's, there is none.
type GPUSeries struct {
	// Series has the details of the newest sample.
	gpu.Series
	// Points are ordered by time. There is none for a step without samples, and a counter has none for a step of which it is not
	// known how much it grew, because there is nothing before it.
	Points []GPUPoint
}

// GPUPoint is what was measured in one step.
type GPUPoint struct {
	// Start is that of the step; where the range is the only one, it is the time of the first sample.
	Start time.Time
	// Value is the mean of the samples, or how much a counter grew.
	Value float64
	// Min, Max and Last (the newest) are of samples of a level; 0 of a counter.
	Min, Max, Last float64
	Samples        uint32
}

// GPUSelection matches a series that matches any filter of Allow (any series, when Allow is empty) and none of Deny.
type GPUSelection struct {
	Allow, Deny []GPUFilter
}

// Match tells whether a series with that identity is selected.
func (s *GPUSelection) Match(series *gpu.Series, who *flow.Identity) bool {
	return matchLists(s.Allow, s.Deny, func(f *GPUFilter) bool { return f.matchDevice(series) && f.matchContainer(who) })
}

// mayMatch tells whether the series is selected if the right container has its device.
func (s *GPUSelection) mayMatch(series *gpu.Series) bool {
	return matchLists(s.Allow, nil, func(f *GPUFilter) bool { return f.matchDevice(series) })
}

// GPUFilter matches a series when each field that is set matches. Within a field any value may match.
type GPUFilter struct {
	// As in Filter.
	Pods, Namespaces, Containers []string
	Nodes                        []string
	// Devices are UUIDs or beginnings of them: of the device, or of the GPU that a MIG instance is of.
	Devices []string
	// Metrics are names.
	Metrics []string
}

func (f *GPUFilter) matchDevice(s *gpu.Series) bool {
	return matchValue(f.Nodes, s.Node) && matchValue(f.Metrics, s.Metric) && matchAny(f.Devices, func(id string) bool {
		return strings.HasPrefix(s.Device.ID, id) || strings.HasPrefix(s.Device.Parent, id)
	})
}

func (f *GPUFilter) matchContainer(who *flow.Identity) bool {
	return matchValue(f.Namespaces, who.Namespace) &&
		matchAny(f.Pods, func(pod string) bool { return isNamed(pod, who.Namespace, who.Pod) }) &&
		matchAny(f.Containers, func(container string) bool { return isContainer(container, who) })
}
