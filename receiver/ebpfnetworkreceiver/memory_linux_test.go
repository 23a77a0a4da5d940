package ebpfnetworkreceiver

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
)

// The model is a map: whatever the order of events, memory holds what the map does, and nothing of what is gone.
func TestMemoryIsAMap(t *testing.T) {
	var keys []network.NetworkFlowKey
	for _, addrs := range [][2]string{
		{"10.0.0.1:1", "10.0.0.2:2"}, {"10.0.0.2:1", "10.0.0.1:2"}, {"[fd00::1]:1", "[fd00::2]:2"}, {"[::]:1", "10.0.0.2:2"},
		{"10.0.0.1:1", "[::a00:2]:2"}, {"0.0.0.0:0", "0.0.0.0:0"}, {"[::]:0", "[::]:0"},
	} {
		for _, d := range []flow.Direction{flow.Ingress, flow.Egress, flow.Transit} {
			k := key(flow.TCP, d, addrs[0], addrs[1])
			keys = append(keys, k)
			k.Scope = 1<<63 + 5
			keys = append(keys, k)
			k.Transport, k.Facing = uint8(flow.UDP), 1
			keys = append(keys, k)
		}
	}
	states := []flowState{
		{firstNS: 1, lastNS: 2}, {}, {owner: owner{cgroupID: 7}}, {owner: owner{cgroupID: 7, pid: 1, comm: comm("nginx")}},
		{owner: owner{cgroupID: 8}, tcp: tcpState{clientISN: 1, seen: seenSYN}}, {tcp: tcpState{clientISN: 2, retransmits: 3}},
	}
	m, model := newMemory(), map[network.NetworkFlowKey]flowState{}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		k, st := keys[rnd.IntN(len(keys))], states[rnd.IntN(len(states))]
		if rnd.IntN(3) == 0 {
			m.remove(&k)
			delete(model, k)
		} else {
			m.put(&k, &st)
			model[k] = st
		}
		require.Equal(t, len(model), m.len())
		want, known := model[k]
		got, ok := m.get(&k)
		require.Equal(t, want, got)
		require.Equal(t, known, ok)
		since, ok := m.knows(&k)
		require.Equal(t, known, ok)
		require.Equal(t, want.firstNS, since)
	}
	all := map[network.NetworkFlowKey]flowState{}
	for k, st := range m.all() {
		all[*k] = *st
	}
	assert.Equal(t, model, all)

	for k := range maps.Keys(model) {
		m.remove(&k)
	}
	assert.Zero(t, m.len())
	assert.Empty(t, m.owners.ids, "nobody has an owner any more")
	assert.Len(t, m.owners.slots.free, len(m.owners.slots.items)-1)
	assert.Len(t, m.tcp.free, len(m.tcp.items)-1)
	assert.LessOrEqual(t, len(m.tcp.items), len(keys)+1, "positions are used again")
	assert.LessOrEqual(t, len(m.owners.slots.items), len(states)+1)
}

// What the collector takes when there are many flows is mostly this.
func TestMemoryOfAFlow(t *testing.T) {
	const flows = 200_000
	for name, test := range map[string]struct {
		key network.NetworkFlowKey
		tcp tcpState
		// most is the number of bytes that a flow may take.
		most uint64
	}{
		"UDP over IPv4": {key: udpOut, most: 96},
		"TCP over IPv4": {key: tcpOut, tcp: tcpState{clientISN: 1}, most: 126},
		"UDP over IPv6": {key: key(flow.UDP, flow.Egress, "[fd00::1]:1", "[fd00::2]:2"), most: 128},
	} {
		t.Run(name, func(t *testing.T) {
			before := heap()
			m := newMemory()
			for i := range flows {
				k := test.key
				binary.BigEndian.PutUint32(k.Saddr[12:], uint32(i))
				m.put(&k, &flowState{lastNS: 1, owner: owner{cgroupID: 1, pid: uint32(i % 10)}, tcp: test.tcp})
			}
			took := (heap() - before) / flows
			t.Logf("%d bytes", took)
			assert.LessOrEqual(t, took, test.most)
			assert.Equal(t, flows, m.len())
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
