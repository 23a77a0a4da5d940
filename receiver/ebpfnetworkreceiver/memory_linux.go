package ebpfnetworkreceiver

import (
	"iter"
	"sync"

	"github.com/orb8/orb8/bpf/network"
)

// flowState is what must be remembered of a flow between intervals.
type flowState struct {
	firstNS, lastNS int64 // monotonic
	owner           owner
	tcp             tcpState
}

// owner is whose socket a flow is seen at: its cgroup, and the process that made it.
type owner struct {
	cgroupID uint64
	pid      uint32
	comm     [16]int8
}

// memory holds the flows that are remembered. There may be hundreds of thousands, so it keeps them small: a key of IPv4 has
// the size of IPv4, owners are kept once, and only what has a tcpState pays for one. It holds no pointers, so that the
// garbage collector need not look at it. Only knows is safe for concurrent use.
type memory struct {
	// mu guards the maps against knows: who writes to them holds it, who reads them need not.
	mu   sync.Mutex
	ipv4 map[ipv4Key]kept
	ipv6 map[network.NetworkFlowKey]kept

	owners owners
	tcp    slots[tcpState] // position 0 is none
}

// ipv4Key is a network.NetworkFlowKey whose addresses are both IPv4.
type ipv4Key struct {
	scope                        uint64
	saddr, daddr                 [4]uint8
	sport, dport                 uint16
	transport, direction, facing uint8
}

// kept is a flowState in memory.
type kept struct {
	firstNS, lastNS int64
	owner, tcp      uint32 // positions
}

func newMemory() *memory {
	return &memory{
		ipv4:   map[ipv4Key]kept{},
		ipv6:   map[network.NetworkFlowKey]kept{},
		owners: newOwners(),
		tcp:    slots[tcpState]{items: make([]tcpState, 1)},
	}
}

func (m *memory) len() int { return len(m.ipv4) + len(m.ipv6) }

// knows tells whether the flow is remembered, and since when it has packets.
func (m *memory) knows(k *network.NetworkFlowKey) (firstNS int64, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, known := m.find(k)
	return at.firstNS, known
}

// get returns the zero value for a flow that is not remembered.
func (m *memory) get(k *network.NetworkFlowKey) (flowState, bool) {
	at, known := m.find(k)
	return m.expand(at), known
}

func (m *memory) find(k *network.NetworkFlowKey) (kept, bool) {
	if k4, ok := shorten(k); ok {
		at, known := m.ipv4[k4]
		return at, known
	}
	at, known := m.ipv6[*k]
	return at, known
}

func (m *memory) expand(at kept) flowState {
	return flowState{firstNS: at.firstNS, lastNS: at.lastNS, owner: m.owners.get(at.owner), tcp: m.tcp.items[at.tcp]}
}

func (m *memory) put(k *network.NetworkFlowKey, st *flowState) {
	at, _ := m.find(k)
	at.firstNS, at.lastNS = st.firstNS, st.lastNS
	at.owner = m.owners.exchange(at.owner, st.owner)
	if at.tcp != 0 {
		m.tcp.items[at.tcp] = st.tcp
	} else if st.tcp != (tcpState{}) {
		at.tcp = m.tcp.add(st.tcp)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if k4, ok := shorten(k); ok {
		m.ipv4[k4] = at
	} else {
		m.ipv6[*k] = at
	}
}

func (m *memory) remove(k *network.NetworkFlowKey) {
	at, known := m.find(k)
	if !known {
		return
	}
	m.owners.exchange(at.owner, owner{})
	if at.tcp != 0 {
		m.tcp.remove(at.tcp)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if k4, ok := shorten(k); ok {
		delete(m.ipv4, k4)
	} else {
		delete(m.ipv6, *k)
	}
}

// all yields every flow; key and state are valid until the next one. The flow at hand may be removed meanwhile.
func (m *memory) all() iter.Seq2[*network.NetworkFlowKey, *flowState] {
	return func(yield func(*network.NetworkFlowKey, *flowState) bool) {
		var key network.NetworkFlowKey
		var st flowState
		for k, at := range m.ipv4 {
			key, st = k.expand(), m.expand(at)
			if !yield(&key, &st) {
				return
			}
		}
		for k, at := range m.ipv6 {
			key, st = k, m.expand(at)
			if !yield(&key, &st) {
				return
			}
		}
	}
}

// shorten tells whether both addresses are IPv4.
func shorten(k *network.NetworkFlowKey) (ipv4Key, bool) {
	if !isIPv4(&k.Saddr) || !isIPv4(&k.Daddr) {
		return ipv4Key{}, false
	}
	return ipv4Key{
		scope: k.Scope,
		saddr: [4]uint8(k.Saddr[12:]), daddr: [4]uint8(k.Daddr[12:]), sport: k.Sport, dport: k.Dport,
		transport: k.Transport, direction: k.Direction, facing: k.Facing,
	}, true
}

func (k *ipv4Key) expand() network.NetworkFlowKey {
	mapped := [16]uint8{10: 0xff, 11: 0xff}
	e := network.NetworkFlowKey{
		Saddr: mapped, Daddr: mapped, Scope: k.scope, Sport: k.sport, Dport: k.dport,
		Transport: k.transport, Direction: k.direction, Facing: k.facing,
	}
	copy(e.Saddr[12:], k.saddr[:])
	copy(e.Daddr[12:], k.daddr[:])
	return e
}

// owners keeps each owner once, as long as a flow has it. Position 0 is nobody.
type owners struct {
	ids   map[owner]uint32
	slots slots[ownerOfMany]
}

type ownerOfMany struct {
	owner
	flows uint32
}

func newOwners() owners {
	return owners{ids: map[owner]uint32{}, slots: slots[ownerOfMany]{items: make([]ownerOfMany, 1)}}
}

func (o *owners) get(id uint32) owner { return o.slots.items[id].owner }

// exchange gives a flow another owner than it had, and returns the new one's position.
func (o *owners) exchange(id uint32, to owner) uint32 {
	had := &o.slots.items[id]
	if had.owner == to {
		return id
	}
	if id != 0 {
		if had.flows--; had.flows == 0 {
			delete(o.ids, had.owner)
			o.slots.remove(id)
		}
	}
	if to == (owner{}) {
		return 0
	}
	id, known := o.ids[to]
	if !known {
		id = o.slots.add(ownerOfMany{owner: to})
		o.ids[to] = id
	}
	o.slots.items[id].flows++
	return id
}

// slots is a list whose items keep their positions. A position that is given back is used again.
type slots[T any] struct {
	items []T
	free  []uint32
}

func (s *slots[T]) add(item T) uint32 {
	if n := len(s.free); n > 0 {
		id := s.free[n-1]
		s.free = s.free[:n-1]
		s.items[id] = item
		return id
	}
	s.items = append(s.items, item)
	return uint32(len(s.items) - 1)
}

func (s *slots[T]) remove(id uint32) { s.free = append(s.free, id) }
