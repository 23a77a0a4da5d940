package storage

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

// Groups sums records: what every backend does with those that match, once it knows that they count.
type Groups struct {
	query *AggregateQuery
	// key is of the values of By, with a NUL after each.
	key    []byte
	by     []string
	values []uint64
	groups map[string]*group
	// made are groups, and room for what they have, that are not used yet.
	made       []group
	madeBy     []string
	madeValues []uint64
	// cells are the groups and their buckets.
	cells int
}

type group struct {
	by      []string
	values  []uint64
	buckets map[int64][]uint64
}

// NewGroups returns no groups yet. It is an error to ask for a dimension or measure that the signal does not have, for no measure,
// or for one of them twice.
func NewGroups(q *AggregateQuery) (*Groups, error) {
	if err := known("by", "dimension", q.By, Dimensions(q.Signal)); err != nil {
		return nil, err
	}
	if err := known("measures", "measure", q.Measures, Measures(q.Signal)); err != nil {
		return nil, err
	}
	if len(q.Measures) == 0 {
		return nil, fmt.Errorf("measures: must not be empty; use some of %s", strings.Join(Measures(q.Signal), ", "))
	}
	return &Groups{
		query: q, by: make([]string, len(q.By)), values: make([]uint64, len(q.Measures)), groups: map[string]*group{},
	}, nil
}

func known(field, what string, asked, there []string) error {
	for i, name := range asked {
		if !slices.Contains(there, name) {
			return fmt.Errorf("%s[%d]: %q is no %s; use some of %s", field, i, name, what, strings.Join(there, ", "))
		}
		if slices.Contains(asked[:i], name) {
			return fmt.Errorf("%s[%d]: %q is there twice", field, i, name)
		}
	}
	return nil
}

// AddFlow adds a flow.
func (g *Groups) AddFlow(r FlowRow) { g.AddInterval(r, r.Own) }

// AddInterval adds a part of a flow to the flow's group.
func (g *Groups) AddInterval(r FlowRow, part *flow.Record) {
	add(g, r, flowDimensions, part, flowMeasures, part.Start)
}

// AddLookup adds a lookup.
func (g *Groups) AddLookup(l *flow.Lookup) {
	add(g, l, lookupDimensions, l, lookupMeasures, l.Time)
}

// AddCounts adds those calls of an interval that the query selects.
func (g *Groups) AddCounts(c *syscalls.Counts) {
	for i := range c.Calls {
		r := SyscallRow{Counts: c, Count: &c.Calls[i]}
		if g.query.Syscalls.Match(c.Node, &c.Identity, r.Count.Call) {
			add(g, r, syscallDimensions, r, syscallMeasures, c.Start)
		}
	}
}

// AddAnomaly adds an anomaly.
func (g *Groups) AddAnomaly(n *syscalls.Anomaly) {
	add(g, n, anomalyDimensions, n, anomalyMeasures, n.Time)
}

func add[D, M any](g *Groups, of D, dimensions map[string]func(D) string, sum M, measures []measure[M], start time.Time) {
	for i, name := range g.query.By {
		g.by[i] = dimensions[name](of)
	}
	for i, name := range g.query.Measures {
		g.values[i] = find(measures, name)(sum)
	}
	g.Add(g.by, g.values, start)
}

// Add adds sums to the group of these dimensions; it keeps neither slice.
func (g *Groups) Add(by []string, values []uint64, start time.Time) {
	if g.Err() != nil {
		return
	}
	g.key = g.key[:0]
	for _, v := range by {
		g.key = append(append(g.key, v...), 0)
	}
	to, there := g.groups[string(g.key)]
	if !there {
		to = g.new(by, len(values))
		g.groups[string(g.key)] = to
		g.cells++
	}
	sum(to.values, values)
	if g.query.Bucket <= 0 {
		return
	}
	if to.buckets == nil {
		to.buckets = map[int64][]uint64{}
	}
	at := BucketOf(start.UnixNano(), g.query.Bucket)
	if to.buckets[at] == nil {
		to.buckets[at] = make([]uint64, len(values))
		g.cells++
	}
	sum(to.buckets[at], values)
}

// new returns a group. There may be many thousands: they are made some at a time.
func (g *Groups) new(by []string, values int) *group {
	if len(g.made) == 0 {
		n := min(len(g.groups)+1, 256)
		g.made, g.madeBy, g.madeValues = make([]group, n), make([]string, n*len(by)), make([]uint64, n*values)
	}
	to := &g.made[0]
	g.made = g.made[1:]
	to.by, g.madeBy = g.madeBy[:len(by):len(by)], g.madeBy[len(by):]
	to.values, g.madeValues = g.madeValues[:values:values], g.madeValues[values:]
	copy(to.by, by)
	return to
}

// Err returns ErrTooManyGroups once there are: what is added after that is not.
func (g *Groups) Err() error {
	if g.query.MaxGroups > 0 && g.cells > g.query.MaxGroups {
		return ErrTooManyGroups
	}
	return nil
}

// BucketOf returns the beginning of the bucket that an instant is in, both in nanoseconds since the epoch.
func BucketOf(n int64, width time.Duration) int64 {
	w := int64(width)
	at := n - n%w
	if n%w < 0 {
		at -= w
	}
	return at
}

func sum(to, values []uint64) {
	for i, v := range values {
		to[i] += v
	}
}

// Len returns how many groups there are.
func (g *Groups) Len() int { return len(g.groups) }

// Result returns the largest groups, and sets Matched of the coverage.
func (g *Groups) Result(c Coverage) AggregateResult {
	total := &group{values: make([]uint64, len(g.query.Measures)), buckets: map[int64][]uint64{}}
	all := make([]*group, 0, len(g.groups))
	for _, one := range g.groups {
		all = append(all, one)
		sum(total.values, one.values)
		for at, values := range one.buckets {
			if total.buckets[at] == nil {
				total.buckets[at] = make([]uint64, len(values))
			}
			sum(total.buckets[at], values)
		}
	}
	c.Matched = len(all)
	all = largest(all, g.query.Top)
	result := AggregateResult{Coverage: c, Total: total.public(), Groups: make([]Group, len(all))}
	for i, one := range all {
		result.Groups[i] = one.public()
	}
	return result
}

func (g *group) compare(o *group) int {
	return cmp.Or(-slices.Compare(g.values, o.values), slices.Compare(g.by, o.by))
}

// largest returns the largest groups in their order, all where top is 0. It sorts a few times as many as it returns, and not all.
func largest(all []*group, top int) []*group {
	if top <= 0 || len(all) <= 2*top {
		slices.SortFunc(all, (*group).compare)
		if top > 0 {
			all = all[:min(len(all), top)]
		}
		return all
	}
	best := make([]*group, 0, 2*top)
	var least *group
	for _, g := range all {
		if least != nil && g.compare(least) > 0 {
			continue
		}
		if best = append(best, g); len(best) == cap(best) {
			slices.SortFunc(best, (*group).compare)
			best = best[:top]
			least = best[top-1]
		}
	}
	slices.SortFunc(best, (*group).compare)
	return best[:top]
}

func (g *group) public() Group {
	out := Group{By: g.by, Values: g.values}
	for _, at := range slices.Sorted(maps.Keys(g.buckets)) {
		out.Buckets = append(out.Buckets, Bucket{Start: time.Unix(0, at).UTC(), Values: g.buckets[at]})
	}
	return out
}
