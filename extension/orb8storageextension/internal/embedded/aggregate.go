package embedded

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// flowKey tells flows apart. Node and local are indexes into the aggregation's dictionaries, so that
// hashing a key touches no string.
type flowKey struct {
	tuple
	node uint32
	// cgroup is the local endpoint's cgroup id; where it is 0, local is the index of its identity.
	cgroup uint64
	local  uint32
}

// aggregate is one flow of a query's answer, in progress.
type aggregate struct {
	start, end                        int64
	bytes, packets, connections, lost uint64
	health                            healthSum
	// view and index are where the newest record is.
	view  *view
	index uint32
	node  uint32
	// far is the same flow at the other end; nil where it was not seen there. folded tells that far, or another place
	// that saw it, is the better witness: where ends are joined, the flow's row is theirs.
	far       *aggregate
	folded    bool
	tcpFlags  uint8
	initiator flow.Initiator
	outcome   flow.Outcome
	// interfaces are the lists that its records have, each once.
	interfaces []string
	// buckets are where buckets are asked for, in no order; ended is the one in which the outcome was seen.
	buckets []bucket
	ended   int64
	key     []byte
}

// bucket is what of a flow began in a bucket of time.
type bucket struct {
	at                                                    int64
	bytes, packets, connections, retransmits, zeroWindows uint64
}

// aggregation sums the rows of many chunks into flows.
type aggregation struct {
	since, until int64
	// bucket is the width of buckets; 0 is none.
	bucket time.Duration
	// index is where the latest flow of a key is in flows: a later TCP connection of the same endpoints is another one.
	index map[flowKey]uint32
	flows []aggregate
	// Dictionaries that hold across chunks.
	strings    map[string]uint32
	identities map[flow.Identity]uint32
}

func newAggregation(since, until int64) *aggregation {
	return &aggregation{
		since:      since,
		until:      until,
		index:      map[flowKey]uint32{},
		strings:    map[string]uint32{},
		identities: map[flow.Identity]uint32{},
	}
}

// expect makes room for so many flows more: growing by and by would copy what is there again and again.
func (a *aggregation) expect(flows int) {
	if len(a.flows) == 0 {
		a.index = make(map[flowKey]uint32, flows)
	}
	a.flows = slices.Grow(a.flows, flows)
}

// add adds all rows of a view.
func (a *aggregation) add(v *view) {
	t := a.translation(v)
	for i := range v.rows {
		a.addRow(&t, uint32(i))
	}
}

// addRows adds some rows of a view.
func (a *aggregation) addRows(v *view, rows []uint32) {
	t := a.translation(v)
	for _, i := range rows {
		a.addRow(&t, i)
	}
}

// translation gives the words of a view their index in a dictionary that holds across views. Most are never asked for.
type translation struct {
	view *view
	// nodes and identities have the index plus 1; 0 is not asked for yet.
	nodes, identities []uint32
}

func (a *aggregation) translation(v *view) translation {
	return translation{view: v, nodes: make([]uint32, len(v.strings)), identities: make([]uint32, len(v.identities))}
}

func inWhole[T comparable](known []uint32, at uint32, of []T, to map[T]uint32) uint32 {
	if known[at] == 0 {
		id, found := to[of[at]]
		if !found {
			id = uint32(len(to))
			to[of[at]] = id
		}
		known[at] = id + 1
	}
	return known[at] - 1
}

func (a *aggregation) addRow(t *translation, i uint32) {
	v := t.view
	r := &v.rows[i]
	if r.end < a.since || r.start >= a.until {
		return
	}
	key := flowKey{tuple: r.tuple, node: inWhole(t.nodes, r.node, v.strings, a.strings)}
	local := r.local()
	if key.cgroup = v.identities[local].CgroupID; key.cgroup == 0 {
		key.local = inWhole(t.identities, local, v.identities, a.identities)
	}
	at, known := a.index[key]
	if !known || a.flows[at].isBefore(v, r) {
		at = uint32(len(a.flows))
		a.index[key] = at
		a.flows = append(a.flows, aggregate{start: r.start, end: r.end, node: key.node})
	}
	a.flows[at].add(v, i)
	if a.bucket > 0 {
		a.flows[at].addTo(storage.BucketOf(r.start, a.bucket), v, r)
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

// isBefore tells whether the row is of a later TCP connection than the flow. A row without a connection's identity is of
// the one at hand: its handshake is not over yet, or was not seen.
func (f *aggregate) isBefore(v *view, r *row) bool {
	if r.health == 0 || f.health.isns == 0 {
		return false
	}
	isns := v.health[r.health-1].isns
	return isns != 0 && isns != f.health.isns
}

func (f *aggregate) add(v *view, i uint32) {
	r := &v.rows[i]
	// Equal ends: the later arrival is the newer.
	newest := r.end >= f.end
	if newest {
		f.end, f.view, f.index = r.end, v, i
	}
	f.start = min(f.start, r.start)
	f.bytes += r.bytes
	f.packets += r.packets
	f.connections += r.connections
	f.lost += r.lost
	f.tcpFlags |= r.tcpFlags
	if list := v.strings[r.interfaces]; list != "" && !slices.Contains(f.interfaces, list) {
		f.interfaces = append(f.interfaces, list)
	}
	if r.health != 0 {
		f.health.add(&v.health[r.health-1], newest)
	}
	f.initiator, f.outcome = cmp.Or(r.initiator, f.initiator), cmp.Or(r.outcome, f.outcome)
}

// addTo adds a row to a bucket. Records of a flow come in order, mostly: it is the last one, or a new one.
func (f *aggregate) addTo(at int64, v *view, r *row) {
	i := len(f.buckets) - 1
	for i >= 0 && f.buckets[i].at != at {
		i--
	}
	if i < 0 {
		i = len(f.buckets)
		f.buckets = append(f.buckets, bucket{at: at})
	}
	b := &f.buckets[i]
	b.bytes += r.bytes
	b.packets += r.packets
	b.connections += r.connections
	if r.health != 0 {
		b.retransmits += uint64(v.health[r.health-1].retransmits)
		b.zeroWindows += uint64(v.health[r.health-1].zeroWindows)
	}
	if r.outcome != flow.OutcomeUnknown {
		f.ended = at
	}
}

func (f *aggregate) newest() *row {
	return &f.view.rows[f.index]
}

func (f *aggregate) nodeName() string {
	return f.view.strings[f.newest().node]
}

// record decodes the flow into r.
func (f *aggregate) record(r *flow.Record) {
	f.who(r)
	r.Interfaces = f.allInterfaces()
}

// who decodes the flow into r, all but its interfaces, which nothing selects by.
func (f *aggregate) who(r *flow.Record) {
	f.view.record(int(f.index), r)
	r.Start = time.Unix(0, f.start).UTC()
	r.Bytes, r.Packets, r.Connections, r.LostPackets = f.bytes, f.packets, f.connections, f.lost
	r.TCPFlags = f.tcpFlags
	r.TCPHealth = f.health.expand()
	r.Initiator, r.Outcome = f.initiator, f.outcome
}

// allInterfaces returns those of all records. Their order is that of the first record, which is the order in which packets
// pass them; those that a change of route added come after.
func (f *aggregate) allInterfaces() []string {
	var all []string
	for _, list := range f.interfaces {
		for _, name := range splitInterfaces(list) {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

// answer returns the rows of a query's page, what to go on from, and how many rows it selects.
func (a *aggregation) answer(query *storage.FlowQuery) (rows []storage.Flow, next string, matched int, err error) {
	order := make([]*aggregate, 0, len(a.flows))
	s := selector{selection: &query.Selection, joined: !query.SeparateEnds}
	for i := range a.flows {
		if s.selects(&a.flows[i]) {
			order = append(order, &a.flows[i])
		}
	}
	matched = len(order)
	if query.After == "" && query.Limit > 0 {
		order = newest(order, query.Limit)
	} else {
		slices.SortFunc(order, compare)
	}
	from, to, next, err := storage.Page(storage.SignalFlows, matched, func(i int) []byte { return order[i].orderKey() }, query.After, query.Limit)
	if err != nil {
		return nil, "", 0, err
	}
	order = order[from:to]
	rows = make([]storage.Flow, len(order))
	for i, f := range order {
		f.record(&rows[i].Record)
		if f.far != nil {
			rows[i].Other = &flow.Record{}
			f.far.record(rows[i].Other)
		}
	}
	return rows, next, matched, nil
}

// groups adds the flows that a selection has joined rows for.
func (a *aggregation) groups(selection *storage.Selection, groups *storage.Groups) {
	s := selector{selection: selection, joined: true}
	for i := range a.flows {
		a.group(&a.flows[i], &s, groups)
	}
}

// group adds a flow, if it is selected.
func (a *aggregation) group(f *aggregate, s *selector, groups *storage.Groups) {
	if !s.selects(f) {
		return
	}
	f.who(&s.near)
	row := storage.FlowRow{Own: &s.near}
	if f.far != nil {
		f.far.who(&s.far)
		row.Far = &s.far
	}
	// What was sent again only its sender's socket knows.
	if f.far != nil && s.near.Direction == flow.Ingress {
		f.far.addResent(row, groups, a.bucket)
	}
	if a.bucket == 0 {
		groups.AddFlow(row)
		return
	}
	for _, b := range f.buckets {
		part := flow.Record{
			Start: time.Unix(0, b.at), Initiator: f.initiator, Bytes: b.bytes, Packets: b.packets, Connections: b.connections,
			TCPHealth: flow.TCPHealth{Retransmits: b.retransmits, ZeroWindows: b.zeroWindows},
		}
		if b.at == f.ended {
			part.Outcome = f.outcome
		}
		groups.AddInterval(row, &part)
	}
}

// addResent adds how many segments of this flow, the sender's view of row, were sent again.
func (f *aggregate) addResent(row storage.FlowRow, groups *storage.Groups, bucket time.Duration) {
	if bucket == 0 {
		groups.AddInterval(row, &flow.Record{TCPHealth: flow.TCPHealth{Retransmits: row.Far.Retransmits}})
		return
	}
	for _, b := range f.buckets {
		if b.retransmits > 0 {
			groups.AddInterval(row, &flow.Record{Start: time.Unix(0, b.at), TCPHealth: flow.TCPHealth{Retransmits: b.retransmits}})
		}
	}
}

// selector decides which flows are rows. Its records are there to be used again for each flow.
type selector struct {
	selection *storage.Selection
	joined    bool
	near, far flow.Record
}

// selects tells whether a flow is a row of the answer. A joined row is, when either end's own row would be.
func (s *selector) selects(f *aggregate) bool {
	if s.joined && f.folded {
		return false
	}
	if s.selection.Empty() {
		return true
	}
	f.who(&s.near)
	if f.far == nil {
		return s.selection.Match(&s.near)
	}
	f.far.who(&s.far)
	return s.selection.MatchEnds(&s.near, &s.far) || s.joined && s.selection.MatchEnds(&s.far, &s.near)
}

// newest returns the first so many in their order. It sorts a few times as many, and not all.
func newest(all []*aggregate, n int) []*aggregate {
	if len(all) <= 2*n {
		slices.SortFunc(all, compare)
		return all[:min(n, len(all))]
	}
	best := make([]*aggregate, 0, 2*n)
	var last *aggregate
	for _, f := range all {
		if last != nil && compare(f, last) > 0 {
			continue
		}
		if best = append(best, f); len(best) == cap(best) {
			slices.SortFunc(best, compare)
			best = best[:n]
			last = best[n-1]
		}
	}
	slices.SortFunc(best, compare)
	return best[:n]
}

// compare orders flows as storage.FlowResult promises.
func compare(a, b *aggregate) int {
	if c := cmp.Or(cmp.Compare(b.end, a.end), cmp.Compare(b.start, a.start)); c != 0 {
		return c
	}
	return bytes.Compare(a.orderKey(), b.orderKey())
}

// orderKey is made when it is asked for, which is rare, and kept: where instants are coarse, many rows have the same.
func (f *aggregate) orderKey() []byte {
	if f.key == nil {
		var r flow.Record
		f.record(&r)
		f.key = storage.FlowKey(&r)
	}
	return f.key
}
