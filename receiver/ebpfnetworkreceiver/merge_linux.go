package ebpfnetworkreceiver

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/engine"
)

// merger makes flows of what interfaces saw: a packet that crosses three of them is in three observations, and counts
// once. ADR 7 has the rule and its reasons. It is not safe for concurrent use.
type merger struct {
	devices *engine.Devices
	// ended is when the kernel began another generation.
	ended int64
	// now and before are the flows of this interval and of the one before: a packet may have been on its way between two
	// interfaces when the one ended and the other began.
	now, before flows
	sightings   []sighting
	held        []heldSighting
	// paths has each list of interface names once, by the indexes of the interfaces.
	paths map[string][]string
	// What settle works with, here so that a flow costs no allocation.
	pathKey []byte
	seen    []*sighting
	sides   [2]network.NetworkFlow
	key     network.NetworkFlowKey
}

// flows are those of an interval, and where each of them is.
type flows struct {
	index map[network.NetworkFlowKey]int32
	list  []passage
}

// passage is what a flow did on this host: its key has no scope and no direction.
type passage struct {
	key network.NetworkFlowKey
	// first is the position of its first sighting, counted from 1.
	first int32
	// level is the least height of an interface that saw it on each side, plus 1; 0: none did.
	level [2]int
	path  []string
	// local tells that one of its ends was found to be on this host.
	local bool
	// held tells that its report was put off for one interval.
	held bool
	// late is, for each side, what was reported as passing through and has yet to be seen there.
	late [2]amount
	// early is what was counted on its way out, just before the interval ended, by an interface that is stacked on others: if
	// one of these sees it, it does so in the next.
	early amount
}

type amount struct{ packets, bytes int64 }

// sighting is what one interface saw of a flow on one side.
type sighting struct {
	flow   network.NetworkFlow
	device *engine.Device
	side   int
	// next is the position of the flow's next sighting, counted from 1.
	next int32
}

type heldSighting struct {
	key network.NetworkFlowKey
	sighting
}

// The sides of an interface.
const (
	in  = 0
	out = 1
)

func newMerger() *merger {
	return &merger{
		now:    flows{index: map[network.NetworkFlowKey]int32{}},
		before: flows{index: map[network.NetworkFlowKey]int32{}},
		paths:  map[string][]string{},
	}
}

// begin opens an interval, of which the kernel's part ended at an instant of monotonic time.
func (m *merger) begin(d *engine.Devices, ended int64) {
	m.devices, m.ended = d, ended
	m.now, m.before = m.before, m.now
	clear(m.now.index)
	m.now.list = m.now.list[:0]
	m.sightings = m.sightings[:0]
	clear(m.paths)
	for i := range m.held {
		m.add(&m.held[i].key, m.held[i].sighting)
	}
	m.held = m.held[:0]
}

// observe takes what an interface saw.
func (m *merger) observe(k *network.NetworkFlowKey, f *network.NetworkFlow) {
	key, dev, side := place(m.devices, k)
	s := sighting{flow: *f, device: dev, side: side}
	if dev.Endpoint != (k.Facing != 0) {
		// It was seen before the interface came to be what it is: its endpoint was looked for in the wrong namespace.
		anonymize(&s.flow)
	}
	key.Scope, key.Direction = 0, 0
	m.add(&key, s)
}

// place returns the key that an observation has for whom it is about, the interface that made it, and its side. The scope
// of the key is the interface that faces the endpoint, or 0 for this host.
func place(d *engine.Devices, k *network.NetworkFlowKey) (network.NetworkFlowKey, *engine.Device, int) {
	key, dev, side := *k, d.Get(uint32(k.Scope)), in
	facing := k.Facing != 0
	if dev.Name == "" {
		dev.Endpoint = facing
	}
	if (flow.Direction(k.Direction) == flow.Egress) != facing {
		side = out
	}
	key.Scope, key.Facing, key.Direction = 0, 0, uint8(flow.Ingress)
	if dev.Endpoint {
		key.Scope = k.Scope
	}
	if (side == out) != dev.Endpoint {
		key.Direction = uint8(flow.Egress)
	}
	return key, dev, side
}

func (m *merger) add(key *network.NetworkFlowKey, s sighting) {
	i, known := m.now.index[*key]
	if !known {
		i = int32(len(m.now.list))
		m.now.index[*key] = i
		m.now.list = append(m.now.list, passage{key: *key})
	}
	p := &m.now.list[i]
	s.next = p.first
	m.sightings = append(m.sightings, s)
	p.first = int32(len(m.sightings))
}

// end closes the interval and hands every flow to yield, with the packets of each once for every endpoint on this host.
// After the last interval nothing is put off.
func (m *merger) end(last bool, yield func(*network.NetworkFlowKey, *network.NetworkFlow)) {
	report := func(p *passage, scope uint64, d flow.Direction, f *network.NetworkFlow) {
		m.key = p.key
		m.key.Scope, m.key.Direction = scope, uint8(d)
		yield(&m.key, f)
	}
	for i := range m.now.list {
		m.settle(&m.now.list[i], last, report)
	}
}

// interfaces returns the names of those that saw a flow in this interval, in the order in which packets pass them.
func (m *merger) interfaces(k *network.NetworkFlowKey) []string {
	key := *k
	key.Scope, key.Direction = 0, 0
	if i, ok := m.now.index[key]; ok {
		return m.now.list[i].path
	}
	return nil
}

func (m *merger) settle(p *passage, last bool, report func(*passage, uint64, flow.Direction, *network.NetworkFlow)) {
	var before passage
	if i, ok := m.before.index[p.key]; ok {
		before = m.before.list[i]
	}
	m.arrange(p)
	for _, s := range m.seen {
		if s.device.Endpoint {
			p.local = true
			report(p, uint64(s.device.Index), [...]flow.Direction{in: flow.Egress, out: flow.Ingress}[s.side], &s.flow)
		}
	}
	sides := &m.sides
	sides[in], sides[out] = m.sum(p, in, before.level[in]), m.sum(p, out, before.level[out])
	if p.level[out] < before.level[out] {
		f := &sides[out]
		f.Packets, f.Bytes = f.Packets-min(f.Packets, uint64(before.early.packets)), f.Bytes-min(f.Bytes, uint64(before.early.bytes))
	}
	if sides[out].Packets > 0 && m.devices.IsLocal(netip.AddrFrom16(p.key.Saddr).Unmap()) {
		p.local = true
		report(p, 0, flow.Egress, &sides[out])
	}
	if sides[in].Packets > 0 && m.devices.IsLocal(netip.AddrFrom16(p.key.Daddr).Unmap()) {
		p.local = true
		report(p, 0, flow.Ingress, &sides[in])
	}
	// Of a flow with an end here, what is left over was seen at that end before.
	if p.local || before.local {
		return
	}
	oneSided := (sides[in].Packets == 0) != (sides[out].Packets == 0)
	if oneSided && !before.held && before.late == [2]amount{} && before.early == (amount{}) && !last {
		m.hold(p)
		return
	}
	if f := through(p, &before, sides); f.Packets > 0 {
		report(p, 0, flow.Transit, f)
	}
}

// hold puts the report of a flow off by one interval: where it came from, or where it goes, may yet be seen.
func (m *merger) hold(p *passage) {
	p.held, p.early = true, amount{} // nothing of it is counted yet
	for i := p.first; i != 0; i = m.sightings[i-1].next {
		m.held = append(m.held, heldSighting{p.key, m.sightings[i-1]})
	}
}

// through returns what passed through this host: what came in or what went out, whichever is more, since the flow began.
// It makes it of sides[in].
func through(p, before *passage, sides *[2]network.NetworkFlow) *network.NetworkFlow {
	var seen [2]amount
	for side, f := range sides {
		seen[side] = amount{int64(f.Packets) - before.late[side].packets, int64(f.Bytes) - before.late[side].bytes}
	}
	all := amount{max(0, seen[in].packets, seen[out].packets), max(0, seen[in].bytes, seen[out].bytes)}
	for side := range sides {
		p.late[side] = amount{all.packets - seen[side].packets, all.bytes - seen[side].bytes}
	}
	f := &sides[in]
	// One side has all of the flow; the other may know it for longer.
	connections, zeroWindows := max(f.Connections, sides[out].Connections), max(f.ZeroWindows, sides[out].ZeroWindows)
	*f = merge(*f, sides[out])
	f.Packets, f.Bytes, f.Connections, f.ZeroWindows = uint64(all.packets), uint64(all.bytes), connections, zeroWindows
	// A socket that listens on all addresses looks like the destination of what only passes by.
	anonymize(f)
	return f
}

func anonymize(f *network.NetworkFlow) { f.CgroupId, f.Pid, f.Comm = 0, 0, [16]int8{} }

// arrange puts a flow's sightings into the order in which packets pass the interfaces, and notes what follows from it.
func (m *merger) arrange(p *passage) {
	m.seen = m.seen[:0]
	for i := p.first; i != 0; i = m.sightings[i-1].next {
		m.seen = append(m.seen, &m.sightings[i-1])
	}
	if len(m.seen) > 1 {
		slices.SortFunc(m.seen, inPathOrder)
	}
	m.pathKey = m.pathKey[:0]
	for _, s := range m.seen {
		m.pathKey = binary.NativeEndian.AppendUint32(m.pathKey, s.device.Index)
		if level := s.device.Height + 1; !s.device.Endpoint && (p.level[s.side] == 0 || level < p.level[s.side]) {
			p.level[s.side] = level
		}
	}
	path, known := m.paths[string(m.pathKey)]
	if !known {
		for _, s := range m.seen {
			if s.device.Name != "" && !slices.Contains(path, s.device.Name) {
				path = append(path, s.device.Name)
			}
		}
		m.paths[string(m.pathKey)] = path
	}
	p.path = path
}

// inPathOrder: a packet comes in from the wire up, and goes out down to the wire.
func inPathOrder(a, b *sighting) int {
	up := cmp.Compare(a.device.Height, b.device.Height)
	if a.side == out {
		up = -up
	}
	return cmp.Or(cmp.Compare(a.side, b.side), up, cmp.Compare(a.flow.FirstNs, b.flow.FirstNs), cmp.Compare(a.device.Index, b.device.Index))
}

// sum adds up what was seen on one side by the interfaces nearest to the wire, of which a packet passes just one. Those
// above repeat it, and only name the endpoint if the others cannot. Interfaces that face an endpoint have a report of
// their own. levelBefore is passage.level of the interval before.
func (m *merger) sum(p *passage, side, levelBefore int) network.NetworkFlow {
	level := p.level[side]
	if levelBefore != 0 {
		level = min(level, levelBefore)
	}
	var sum, above network.NetworkFlow
	for _, s := range m.seen {
		switch {
		case s.side != side || s.device.Endpoint:
		case s.device.Height+1 == level:
			sum = merge(sum, s.flow)
			if side == out && s.device.Height > 0 && int64(s.flow.FirstNs) > m.ended-int64(passingTime) {
				p.early.packets += int64(s.flow.Packets)
				p.early.bytes += int64(s.flow.Bytes)
			}
		default:
			above = merge(above, s.flow)
		}
	}
	if sum.CgroupId == 0 && sum.Pid == 0 {
		sum.CgroupId, sum.Pid, sum.Comm = above.CgroupId, above.Pid, above.Comm
	}
	return sum
}
