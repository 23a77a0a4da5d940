package ebpfnetworkreceiver

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
)

// The model is a map of merged packets: whatever kind a flow is of, its sum is the same.
func TestOverflowSumsLikeMerge(t *testing.T) {
	const most = 12
	udp6 := key(flow.UDP, flow.Egress, "[fd00::1]:1", "[fd00::2]:2")
	icmp := key(flow.ICMP, flow.Ingress, "10.0.0.1:0", "10.0.0.2:2048")
	o, model := newOverflow(), map[network.NetworkFlowKey]network.NetworkFlow{}
	rnd := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for i := range 5000 {
		k := []network.NetworkFlowKey{udpOut, tcpOut, tcpIn, udp6, icmp}[rnd.IntN(5)]
		k.Sport += uint16(rnd.IntN(4))
		if rnd.IntN(10) == 0 {
			want, known := model[k]
			got, ok := o.take(&k)
			require.Equal(t, known, ok)
			require.Equal(t, want, got)
			delete(model, k)
			continue
		}
		now := uint64(1_000_000 + i)
		f := network.NetworkFlow{
			Packets: uint64(1 + rnd.IntN(3)), Bytes: rnd.Uint64N(9000), FirstNs: now, LastNs: now,
			CgroupId: uint64(k.Sport), Pid: uint32(k.Sport % 3), Comm: comm("nginx"),
		}
		if k.Transport == uint8(flow.TCP) {
			f.TcpFlags, f.Seen, f.ClientIsn, f.Connections = uint8(1<<rnd.IntN(6)), seenSYN, rnd.Uint32N(2), rnd.Uint32N(2)
		}
		sum, known := model[k]
		if !o.add(&k, &f, most) {
			require.False(t, known, "a flow that has a place keeps it")
			require.Len(t, model, most)
			refused++
			continue
		}
		model[k] = merge(sum, f)
		require.Equal(t, len(model), o.len())
	}
	assert.NotZero(t, refused)
	all := map[network.NetworkFlowKey]network.NetworkFlow{}
	for k, f := range o.all() {
		all[*k] = *f
	}
	assert.Equal(t, model, all)
}

func TestMemoryOfOverflow(t *testing.T) {
	const flows = 100_000
	before := heap()
	o := newOverflow()
	for i := range flows {
		k := udpOut
		binary.BigEndian.PutUint32(k.Saddr[12:], uint32(i))
		require.True(t, o.add(&k, &network.NetworkFlow{Packets: 1, FirstNs: 1, CgroupId: 1}, flows))
	}
	took := (heap() - before) / flows
	t.Logf("%d bytes a flow", took)
	assert.LessOrEqual(t, took, uint64(120))
	assert.Equal(t, flows, o.len())
}
