package storage

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

// Signal is a kind of record.
type Signal uint8

const (
	SignalFlows Signal = iota
	SignalLookups
	SignalSyscalls
	SignalAnomalies
)

// AggregateQuery says what to sum, and by what.
type AggregateQuery struct {
	// Since and Until bound the range as in the signal's own query.
	Since, Until time.Time
	Signal       Signal
	// Of the selections, the signal's own counts.
	Flows     Selection
	Lookups   LookupSelection
	Syscalls  SyscallSelection
	Anomalies AnomalySelection
	// By are dimensions of the signal: records that have the same values of all are one group. None makes one group.
	By []string
	// Measures are what is summed, one at least. The first says which groups are largest.
	Measures []string
	// Top is the most groups to return; 0 means no limit.
	Top int
	// Bucket divides the range into buckets that begin at multiples of it since the epoch; a record is in that of its start. 0 is
	// none.
	Bucket time.Duration
	// MaxGroups is how many groups and buckets of groups there may be; 0 means no limit.
	MaxGroups int
}

// ErrTooManyGroups is the error of an aggregation that has more than MaxGroups.
var ErrTooManyGroups = errors.New("too many groups")

// AggregateResult is the answer to an AggregateQuery.
type AggregateResult struct {
	// Groups are ordered by their values, largest first, then by By.
	Groups []Group
	// Total is of all groups, those too that Top cut.
	Total Group
	// Matched is of groups.
	Coverage
}

// Group is what the records with the same values of all dimensions sum up to.
type Group struct {
	// By has a value for each dimension, empty where it is not known; Values a sum for each measure.
	By     []string
	Values []uint64
	// Buckets are ordered by time. Those in which there was nothing are left out.
	Buckets []Bucket
}

// Bucket is the part of a group in a part of the range.
type Bucket struct {
	Start  time.Time
	Values []uint64
}

// Dimensions returns the dimensions that a signal has, sorted.
func Dimensions(signal Signal) []string {
	switch signal {
	case SignalLookups:
		return slices.Sorted(maps.Keys(lookupDimensions))
	case SignalSyscalls:
		return slices.Sorted(maps.Keys(syscallDimensions))
	case SignalAnomalies:
		return slices.Sorted(maps.Keys(anomalyDimensions))
	}
	return slices.Sorted(maps.Keys(flowDimensions))
}

// Measures returns what a signal's records can be summed to, the default first.
func Measures(signal Signal) []string {
	switch signal {
	case SignalLookups:
		return names(lookupMeasures)
	case SignalSyscalls:
		return names(syscallMeasures)
	case SignalAnomalies:
		return names(anomalyMeasures)
	}
	return names(flowMeasures)
}

// FlowRow is a flow as a dimension sees it: Own is the view that counts, Far the other end's, nil where nobody looked there.
type FlowRow struct {
	Own, Far *flow.Record
}

// SyscallRow is the count of one call in the interval of its caller.
type SyscallRow struct {
	*syscalls.Counts
	Count *syscalls.Count
}

// FlowDimension returns the value of a dimension that Dimensions(SignalFlows) has.
func FlowDimension(name string) func(FlowRow) string { return flowDimensions[name] }

// FlowMeasure returns the value of a measure that Measures(SignalFlows) has: of Own alone.
func FlowMeasure(name string) func(*flow.Record) uint64 { return find(flowMeasures, name) }

// source and destination are the end as it was seen there, or else from the other end.
func (r FlowRow) source() (best, second *flow.Endpoint) {
	if r.Far == nil {
		return &r.Own.Source, nil
	}
	if r.Far.Direction == flow.Egress {
		return &r.Far.Source, &r.Own.Source
	}
	return &r.Own.Source, &r.Far.Source
}

func (r FlowRow) destination() (best, second *flow.Endpoint) {
	if r.Far == nil {
		return &r.Own.Destination, nil
	}
	if r.Far.Direction == flow.Ingress {
		return &r.Far.Destination, &r.Own.Destination
	}
	return &r.Own.Destination, &r.Far.Destination
}

var endDimensions = map[string]func(*flow.Endpoint) string{
	"pod":       func(e *flow.Endpoint) string { return qualified(&e.Identity, e.Identity.Pod) },
	"namespace": func(e *flow.Endpoint) string { return e.Identity.Namespace },
	"workload":  func(e *flow.Endpoint) string { return qualified(&e.Identity, e.Identity.Workload) },
	"service":   func(e *flow.Endpoint) string { return qualified(&e.Identity, e.Identity.Service) },
	"container": func(e *flow.Endpoint) string { return e.Identity.Container },
	"name":      func(e *flow.Endpoint) string { return e.Name },
	"cgroup":    func(e *flow.Endpoint) string { return e.Identity.Cgroup },
	"process":   func(e *flow.Endpoint) string { return e.Identity.Process },
}

// qualified is NAMESPACE/NAME.
func qualified(who *flow.Identity, name string) string {
	if name == "" || who.Namespace == "" {
		return name
	}
	return who.Namespace + "/" + name
}

// flowDimensions are those of an end, of the address and node of each, and of the flow.
var flowDimensions = func() map[string]func(FlowRow) string {
	all := map[string]func(FlowRow) string{
		"node":      func(r FlowRow) string { return r.Own.Node },
		"direction": func(r FlowRow) string { return r.Own.Direction.String() },
		"transport": func(r FlowRow) string { return r.Own.Transport.String() },
		"outcome":   func(r FlowRow) string { return view{own: r.Own, far: r.Far}.outcome().String() },

		"source.address":      func(r FlowRow) string { return address(r.Own.Source.Addr) },
		"destination.address": func(r FlowRow) string { return address(r.Own.Destination.Addr) },
		"source.port":         func(r FlowRow) string { return port(r.Own.Source.Addr) },
		"destination.port":    func(r FlowRow) string { return port(r.Own.Destination.Addr) },
		"source.node": func(r FlowRow) string {
			return endNode(r, flow.Egress, func(r *flow.Record) *flow.Endpoint { return &r.Source })
		},
		"destination.node": func(r FlowRow) string {
			return endNode(r, flow.Ingress, func(r *flow.Record) *flow.Endpoint { return &r.Destination })
		},
	}
	for name, of := range endDimensions {
		all["source."+name] = func(r FlowRow) string { return first(of)(r.source()) }
		all["destination."+name] = func(r FlowRow) string { return first(of)(r.destination()) }
	}
	return all
}()

// first takes the second end where the best does not know.
func first(of func(*flow.Endpoint) string) func(best, second *flow.Endpoint) string {
	return func(best, second *flow.Endpoint) string {
		v := of(best)
		if v == "" && second != nil {
			v = of(second)
		}
		return v
	}
}

// endNode is the node of the record where the end is local, or else what a record says of the end.
func endNode(r FlowRow, local flow.Direction, of func(*flow.Record) *flow.Endpoint) string {
	for _, view := range []*flow.Record{r.Own, r.Far} {
		if view != nil && view.Direction == local {
			return view.Node
		}
	}
	node := of(r.Own).Identity.KubernetesNode
	if node == "" && r.Far != nil {
		node = of(r.Far).Identity.KubernetesNode
	}
	return node
}

func address(a netip.AddrPort) string { return a.Addr().String() }

func port(a netip.AddrPort) string {
	if a.Port() == 0 {
		return ""
	}
	return strconv.Itoa(int(a.Port()))
}

var lookupDimensions = func() map[string]func(*flow.Lookup) string {
	all := map[string]func(*flow.Lookup) string{
		"node":           func(l *flow.Lookup) string { return l.Node },
		"name":           func(l *flow.Lookup) string { return l.Name },
		"type":           func(l *flow.Lookup) string { return l.Type },
		"rcode":          func(l *flow.Lookup) string { return l.RCode },
		"client.address": func(l *flow.Lookup) string { return address(l.Client.Addr) },
		"server.address": func(l *flow.Lookup) string { return address(l.Server.Addr) },
	}
	for name, of := range endDimensions {
		all["client."+name] = func(l *flow.Lookup) string { return of(&l.Client) }
		all["server."+name] = func(l *flow.Lookup) string { return of(&l.Server) }
	}
	return all
}()

var callerDimensions = map[string]func(*flow.Identity) string{
	"pod":       func(who *flow.Identity) string { return qualified(who, who.Pod) },
	"namespace": func(who *flow.Identity) string { return who.Namespace },
	"container": func(who *flow.Identity) string { return who.Container },
	"cgroup":    func(who *flow.Identity) string { return who.Cgroup },
}

var syscallDimensions = func() map[string]func(SyscallRow) string {
	all := map[string]func(SyscallRow) string{
		"node":    func(r SyscallRow) string { return r.Node },
		"syscall": func(r SyscallRow) string { return r.Count.Call.Name() },
	}
	for name, of := range callerDimensions {
		all[name] = func(r SyscallRow) string { return of(&r.Identity) }
	}
	return all
}()

var anomalyDimensions = func() map[string]func(*syscalls.Anomaly) string {
	all := map[string]func(*syscalls.Anomaly) string{
		"node":     func(n *syscalls.Anomaly) string { return n.Node },
		"syscall":  func(n *syscalls.Anomaly) string { return n.Call.Name() },
		"rule":     func(n *syscalls.Anomaly) string { return n.Rule },
		"severity": func(n *syscalls.Anomaly) string { return n.Severity.String() },
		"workload": func(n *syscalls.Anomaly) string { return n.Workload },
	}
	for name, of := range callerDimensions {
		all[name] = func(n *syscalls.Anomaly) string { return of(&n.Identity) }
	}
	return all
}()

type measure[R any] struct {
	name string
	of   func(R) uint64
}

func names[R any](measures []measure[R]) []string {
	all := make([]string, len(measures))
	for i, m := range measures {
		all[i] = m.name
	}
	return all
}

func find[R any](measures []measure[R], name string) func(R) uint64 {
	for _, m := range measures {
		if m.name == name {
			return m.of
		}
	}
	return nil
}

var flowMeasures = []measure[*flow.Record]{
	{"bytes", func(r *flow.Record) uint64 { return r.Bytes }},
	{"packets", func(r *flow.Record) uint64 { return r.Packets }},
	{"connections", func(r *flow.Record) uint64 { return r.Connections }},
	// What was sent again only the sender's socket knows: where Own is the receiver's view, a backend adds Far's.
	{"retransmits", func(r *flow.Record) uint64 { return uint64(r.Retransmits) }},
	{"zero_windows", func(r *flow.Record) uint64 { return uint64(r.ZeroWindows) }},
	// A connection ends in both its directions: it counts in the one that its initiator sends.
	{"errors", func(r *flow.Record) uint64 {
		return one(r.Initiator != flow.InitiatorDestination &&
			(r.Outcome == flow.OutcomeReset || r.Outcome == flow.OutcomeRefused || r.Outcome == flow.OutcomeTimeout))
	}},
}

var lookupMeasures = []measure[*flow.Lookup]{
	{"lookups", func(*flow.Lookup) uint64 { return 1 }},
	{"queries", func(l *flow.Lookup) uint64 { return l.Queries }},
	{"errors", func(l *flow.Lookup) uint64 { return one(l.RCode != "NOERROR" && l.RCode != "NXDOMAIN") }},
	{"latency", func(l *flow.Lookup) uint64 { return uint64(max(l.Latency, 0)) }},
}

var syscallMeasures = []measure[SyscallRow]{
	{"calls", func(r SyscallRow) uint64 { return r.Count.Calls }},
	{"errors", func(r SyscallRow) uint64 {
		var sum uint64
		for _, calls := range r.Count.Errors {
			sum += calls
		}
		return sum
	}},
	{"latency", func(r SyscallRow) uint64 {
		if r.Count.Latency == nil {
			return 0
		}
		return uint64(r.Count.Latency.Sum)
	}},
}

var anomalyMeasures = []measure[*syscalls.Anomaly]{
	{"anomalies", func(*syscalls.Anomaly) uint64 { return 1 }},
}

func one(yes bool) uint64 {
	if yes {
		return 1
	}
	return 0
}

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
