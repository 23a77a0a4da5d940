package storage

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
)

// sameScrape is how far apart the times of samples may be that are of one scrape.
const sameScrape = int64(time.Second)

// PointsError says that an answer would have too many points.
type PointsError struct{ Max int }

func (e *PointsError) Error() string {
	return fmt.Sprintf("the answer has more than %d points; ask for a longer step, a shorter range or fewer series", e.Max)
}

// Timelines makes series of samples, whichever backend they are from and in whichever order they come.
type Timelines struct {
	query        *GPUQuery
	since, until int64
	selected     map[timelineKey]*timeline
	// allocations are of devices, by their ID.
	allocations map[string][]allocation
}

// timelineKey tells series apart. The rest of a device and of an identity may change, as with its index or its names.
type timelineKey struct {
	node, device, metric, attributes string
	container                        container
}

// container tells apart whose a series is.
type container struct{ namespace, pod, name, id, cgroup string }

func containerOf(who *flow.Identity) container {
	c := container{namespace: who.Namespace, pod: who.Pod, name: who.Container, id: who.ContainerID}
	if c.pod == "" && c.id == "" {
		c.cgroup = cmp.Or(who.Cgroup, who.Unit)
		if c.cgroup == "" && who.CgroupID != 0 {
			c.cgroup = fmt.Sprint(who.CgroupID)
		}
	}
	return c
}

// allocation is of a device to a container at one instant.
type allocation struct {
	at  int64
	who *flow.Identity
}

// timeline is all samples of a series.
type timeline struct {
	// newest has the details of the sample at newestAt.
	newest   *gpu.Series
	newestAt int64
	samples  []timedValue
}

type timedValue struct {
	at, start int64
	value     float64
}

// NewTimelines returns none yet.
func NewTimelines(q *GPUQuery) *Timelines {
	t := &Timelines{
		query: q, since: math.MinInt64, until: math.MaxInt64, selected: map[timelineKey]*timeline{}, allocations: map[string][]allocation{},
	}
	if !q.Since.IsZero() {
		t.since = nanos(q.Since)
	}
	if !q.Until.IsZero() {
		t.until = nanos(q.Until)
	}
	return t
}

// nanos returns t in nanoseconds since the epoch; what int64 cannot hold (before 1678, after 2262) is clamped.
func nanos(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// Add adds a sample.
func (t *Timelines) Add(s *gpu.Sample) {
	if at := s.Time.UnixNano(); t.Covers(at, s.Counter) && t.Wants(&s.Series) {
		t.Line(s.Series).Add(at, startOf(s), s.Value)
	}
}

// startOf is in nanoseconds since the epoch; 0 is not known.
func startOf(s *gpu.Sample) int64 {
	if s.Start.IsZero() {
		return 0
	}
	return s.Start.UnixNano()
}

// Covers tells whether the answer may need a sample of that time.
func (t *Timelines) Covers(at int64, counter bool) bool {
	return at < t.until && (at >= t.since || counter)
}

// Wants tells whether the answer may need samples of a series. Whose it is does not matter: the identity need not be there.
func (t *Timelines) Wants(series *gpu.Series) bool {
	return series.Metric == gpu.MetricAllocation || t.query.Selection.mayMatch(series)
}

// Line returns where the samples of a series go.
func (t *Timelines) Line(series gpu.Series) *Line {
	l := &Line{of: t, series: series, allocation: series.Metric == gpu.MetricAllocation && !series.Own()}
	if t.query.Selection.mayMatch(&l.series) {
		key := keyOf(&l.series, &l.series.Identity)
		if t.selected[key] == nil {
			t.selected[key] = &timeline{newestAt: math.MinInt64}
		}
		l.timeline = t.selected[key]
	}
	return l
}

func keyOf(s *gpu.Series, who *flow.Identity) timelineKey {
	return timelineKey{node: s.Node, device: s.Device.ID, metric: s.Metric, attributes: s.Attributes, container: containerOf(who)}
}

// Line takes the samples of one series.
type Line struct {
	of     *Timelines
	series gpu.Series
	// timeline is nil where the samples only say whose a device was.
	timeline   *timeline
	allocation bool
}

// Add adds a sample of a time that the answer covers: times are in nanoseconds since the epoch, a start of 0 is not known.
func (l *Line) Add(at, start int64, value float64) {
	if l.allocation && value > 0 {
		id := l.series.Device.ID
		l.of.allocations[id] = append(l.of.allocations[id], allocation{at, &l.series.Identity})
	}
	if t := l.timeline; t != nil {
		if at >= t.newestAt {
			t.newest, t.newestAt = &l.series, at
		}
		t.samples = append(t.samples, timedValue{at, start, value})
	}
}

// Result returns the series, and sets Matched of the coverage.
func (t *Timelines) Result(c Coverage) (GPUResult, error) {
	for _, all := range t.allocations {
		slices.SortStableFunc(all, func(a, b allocation) int { return cmp.Compare(a.at, b.at) })
	}
	// What a counter that began in the range counted before its first sample is of the range.
	covered := t.since
	if !c.Oldest.IsZero() {
		covered = max(covered, nanos(c.Oldest))
	}
	var all []GPUSeries
	var points int
	for _, line := range t.selected {
		for _, s := range t.fold(line, covered) {
			if !t.query.Selection.Match(&s.Series, &s.Identity) {
				continue
			}
			points += len(s.Points)
			if t.query.MaxPoints > 0 && points > t.query.MaxPoints {
				return GPUResult{}, &PointsError{t.query.MaxPoints}
			}
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b GPUSeries) int { return compareGPUSeries(&a.Series, &b.Series) })
	c.Matched = len(all)
	if t.query.Limit > 0 {
		all = all[:min(t.query.Limit, len(all))]
	}
	return GPUResult{Series: all, Coverage: c}, nil
}

func compareGPUSeries(a, b *gpu.Series) int {
	x, y := containerOf(&a.Identity), containerOf(&b.Identity)
	return cmp.Or(
		cmp.Compare(a.Node, b.Node), cmp.Compare(a.Device.ID, b.Device.ID), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Attributes, b.Attributes),
		cmp.Compare(x.namespace, y.namespace), cmp.Compare(x.pod, y.pod), cmp.Compare(x.name, y.name), cmp.Compare(x.id, y.id), cmp.Compare(x.cgroup, y.cgroup),
	)
}

// fold makes points of samples: one series, or one for each container that the device was allocated to.
func (t *Timelines) fold(l *timeline, covered int64) []GPUSeries {
	if l.newest == nil {
		return nil
	}
	slices.SortStableFunc(l.samples, func(a, b timedValue) int { return cmp.Compare(a.at, b.at) })
	var series []GPUSeries
	index := map[container]int{}
	var who, last *flow.Identity
	var at int
	for i, s := range l.samples {
		if s.at < t.since || i+1 < len(l.samples) && l.samples[i+1].at == s.at {
			continue // of one instant the last arrival counts
		}
		value := s.value
		if l.newest.Counter {
			var known bool
			if value, known = growth(l.samples[:i], s, covered); !known {
				continue
			}
		}
		if who = &l.newest.Identity; l.newest.Own() {
			who = t.owner(l.newest.Device.ID, s.at)
		}
		if who != last {
			last = who
			key := containerOf(who)
			var known bool
			if at, known = index[key]; !known {
				at = len(series)
				index[key] = at
				series = append(series, GPUSeries{Series: *l.newest})
			}
			series[at].Identity = *who
		}
		series[at].add(t.query.Step, s.at, value)
	}
	for i := range series {
		series[i].finish()
	}
	return series
}

// growth returns how much a counter grew up to a sample, if that is known: since the sample before it, or since its start.
func growth(before []timedValue, s timedValue, covered int64) (float64, bool) {
	for i := len(before) - 1; i >= 0 && before[i].at == s.at; i-- {
		before = before[:i]
	}
	if len(before) == 0 {
		return s.value, s.start != 0 && s.start >= covered
	}
	last := before[len(before)-1]
	if s.value < last.value || s.start != 0 && last.start != 0 && s.start != last.start {
		return s.value, true
	}
	return s.value - last.value, true
}

// nobody is whose a device is that no container has, or several.
var nobody = &flow.Identity{}

// owner returns the container that a device was allocated to at an instant, if that was one.
func (t *Timelines) owner(device string, at int64) *flow.Identity {
	all := t.allocations[device]
	from, _ := slices.BinarySearchFunc(all, at-sameScrape, func(a allocation, at int64) int { return cmp.Compare(a.at, at) })
	who := nobody
	for _, a := range all[from:] {
		if a.at > at+sameScrape {
			break
		}
		if who != nobody && who != a.who && containerOf(who) != containerOf(a.who) {
			return nobody
		}
		who = a.who
	}
	return who
}

// add adds what was measured at an instant to its step's point. Instants come in their order; Value is the sum until finish.
func (s *GPUSeries) add(step time.Duration, at int64, value float64) {
	start := at
	if step > 0 {
		start = BucketOf(at, step)
	}
	if n := len(s.Points); n == 0 || step > 0 && s.Points[n-1].Start.UnixNano() != start {
		s.Points = append(s.Points, GPUPoint{Start: time.Unix(0, start).UTC()})
		if !s.Counter {
			p := &s.Points[n]
			p.Min, p.Max = value, value
		}
	}
	p := &s.Points[len(s.Points)-1]
	p.Samples++
	p.Value += value
	if !s.Counter {
		p.Min, p.Max, p.Last = min(p.Min, value), max(p.Max, value), value
	}
}

// finish makes means of the sums of levels.
func (s *GPUSeries) finish() {
	if s.Counter {
		return
	}
	for i := range s.Points {
		p := &s.Points[i]
		// The mean lies between the samples, whatever rounding does to a sum.
		p.Value = min(max(p.Value/float64(p.Samples), p.Min), p.Max)
	}
}
