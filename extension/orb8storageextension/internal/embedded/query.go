package embedded

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// QueryFlows answers a query; see storage.Reader.
func (s *Store) QueryFlows(ctx context.Context, query storage.FlowQuery) (storage.FlowResult, error) {
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-ctx.Done():
		return storage.FlowResult{}, ctx.Err()
	}
	now := s.settings.Now()
	horizon := s.horizon(now)
	since, until := horizon, int64(math.MaxInt64)
	if !query.Since.IsZero() {
		since = max(since, nanos(query.Since))
	}
	if !query.Until.IsZero() {
		until = nanos(query.Until)
	}
	result, views := s.note(now, since, until)

	a := newAggregation(since, until, &query.Selection)
	for i := range views {
		// A chunk takes well under a millisecond: often enough to notice that nobody waits for the answer any more.
		if err := ctx.Err(); err != nil {
			return storage.FlowResult{}, err
		}
		a.add(&views[i])
	}
	result.Matched = len(a.flows)
	result.Flows = a.rows(query.Limit)
	return result, nil
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

// note takes the views of a range, and all else that a query needs to know of the store. It is the only part of a
// query that holds the lock.
func (s *Store) note(now time.Time, since, until int64) (storage.FlowResult, []view) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	result := storage.FlowResult{Oldest: s.oldest(now), Lost: s.evictions.in(since, until)}
	end := time.Unix(0, min(until, now.UnixNano()))
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		n := s.nodes[name]
		if s.forgotten(n, now) {
			continue
		}
		result.Lost = result.Lost.Add(n.losses.in(since, until))
		if n.missing(end) {
			result.MissingNodes = append(result.MissingNodes, name)
		}
	}
	views := make([]view, 0, len(s.chunks))
	for _, c := range s.chunks {
		if c.end >= since && c.start < until {
			views = append(views, c.view())
		}
	}
	return result, views
}

// flowKey tells flows apart. Node, interface and local are indexes into the aggregation's dictionaries, so that
// hashing a key touches no string.
type flowKey struct {
	tuple
	node, iface uint32
	// cgroup is the local endpoint's cgroup id; where it is 0, local is the index of its identity.
	cgroup uint64
	local  uint32
}

// aggregate is one flow of a query's answer, in progress.
type aggregate struct {
	start, end                        int64
	bytes, packets, connections, lost uint64
	tcpFlags                          uint8
	// view and index are where the newest record is.
	view  *view
	index uint32
}

// aggregation sums the rows of many chunks into flows.
type aggregation struct {
	since, until int64
	selection    *storage.Selection
	index        map[flowKey]uint32
	flows        []aggregate
	// Dictionaries that hold across chunks.
	strings    map[string]uint32
	identities map[flow.Identity]uint32
}

func newAggregation(since, until int64, selection *storage.Selection) *aggregation {
	return &aggregation{
		since:      since,
		until:      until,
		selection:  selection,
		index:      map[flowKey]uint32{},
		strings:    map[string]uint32{},
		identities: map[flow.Identity]uint32{},
	}
}

func (a *aggregation) add(v *view) {
	strings, identities := translate(v.strings, a.strings), translate(v.identities, a.identities)
	all := a.selection.Empty()
	var record flow.Record
	for i := range v.rows {
		r := &v.rows[i]
		if r.end < a.since || r.start >= a.until {
			continue
		}
		if !all {
			v.record(i, &record)
			if !a.selection.Match(&record) {
				continue
			}
		}
		key := flowKey{tuple: r.tuple, node: strings[r.node], iface: strings[r.iface]}
		local := r.sourceID
		if r.direction == flow.Ingress {
			local = r.destinationID
		}
		if key.cgroup = v.identities[local].CgroupID; key.cgroup == 0 {
			key.local = identities[local]
		}
		at, known := a.index[key]
		if !known {
			at = uint32(len(a.flows))
			a.index[key] = at
			a.flows = append(a.flows, aggregate{start: r.start, end: r.end})
		}
		a.flows[at].add(v, uint32(i))
	}
}

// translate returns, for each entry of a chunk's dictionary, its index in a dictionary that holds across chunks.
func translate[T comparable](from []T, to map[T]uint32) []uint32 {
	ids := make([]uint32, len(from))
	for i, v := range from {
		id, known := to[v]
		if !known {
			id = uint32(len(to))
			to[v] = id
		}
		ids[i] = id
	}
	return ids
}

func (f *aggregate) add(v *view, i uint32) {
	r := &v.rows[i]
	// Equal ends: the later arrival is the newer.
	if r.end >= f.end {
		f.end, f.view, f.index = r.end, v, i
	}
	f.start = min(f.start, r.start)
	f.bytes += r.bytes
	f.packets += r.packets
	f.connections += r.connections
	f.lost += r.lost
	f.tcpFlags |= r.tcpFlags
}

func (f *aggregate) newest() *row {
	return &f.view.rows[f.index]
}

func (f *aggregate) node() string {
	return f.view.strings[f.newest().node]
}

// rows returns the newest flows, at most limit unless that is 0.
func (a *aggregation) rows(limit int) []flow.Record {
	order := make([]*aggregate, len(a.flows))
	for i := range order {
		order[i] = &a.flows[i]
	}
	slices.SortStableFunc(order, compare)
	if limit > 0 {
		order = order[:min(limit, len(order))]
	}
	rows := make([]flow.Record, len(order))
	for i, f := range order {
		r := &rows[i]
		f.view.record(int(f.index), r)
		r.Start = time.Unix(0, f.start).UTC()
		r.Bytes, r.Packets, r.Connections, r.LostPackets = f.bytes, f.packets, f.connections, f.lost
		r.TCPFlags = f.tcpFlags
	}
	return rows
}

// compare orders flows as storage.FlowResult promises.
func compare(a, b *aggregate) int {
	if c := cmp.Or(cmp.Compare(b.end, a.end), cmp.Compare(b.start, a.start)); c != 0 {
		return c
	}
	// Rare enough that it may evaluate everything.
	x, y := a.newest(), b.newest()
	return cmp.Or(
		cmp.Compare(a.node(), b.node()),
		slices.Compare(x.source[:], y.source[:]),
		cmp.Compare(x.sourcePort, y.sourcePort),
		slices.Compare(x.destination[:], y.destination[:]),
		cmp.Compare(x.destinationPort, y.destinationPort),
	)
}
