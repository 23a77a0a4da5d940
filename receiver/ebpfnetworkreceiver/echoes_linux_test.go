package ebpfnetworkreceiver

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
)

func TestEventsComeOnce(t *testing.T) {
	const second = uint64(1e9)
	event := func(l look, at uint64) *network.NetworkEvent {
		k, f := observed(l)
		f.FirstNs = at
		return &network.NetworkEvent{Key: *k, Flow: *f}
	}
	at := func(device uint32, side int, src, dst string) look {
		return look{device: device, side: side, packets: 1, src: src, dst: dst}
	}
	type step struct {
		look
		ns   uint64
		want flow.Direction // 0: an echo
	}
	tests := map[string][]step{
		"pod to pod, at both ends": {
			{at(vethA, in, podA, podB), 1, flow.Egress}, {at(vethB, out, podA, podB), 2, flow.Ingress},
		},
		"pod to the world": {
			{at(vethA, in, podA, world), 1, flow.Egress}, {at(cni0, in, podA, world), 2, 0}, {at(eth0, out, podA, world), 3, 0},
		},
		"in transit": {{at(eth0, in, world, other), 1, 0}, {at(eth1, out, world, other), 2, 0}},
		"there and back by the same interface": {
			{at(bond0, out, hostIP, world), 1, flow.Egress}, {at(slave0, out, hostIP, world), 2, 0},
			{at(slave0, in, world, hostIP), 3, 0}, {at(bond0, in, world, hostIP), 4, flow.Ingress},
		},
		"back by another uplink": {
			{at(eth0, out, hostIP, world), 1, flow.Egress}, {at(eth1, in, world, hostIP), 2, flow.Ingress},
		},
		"again after a silence": {
			{at(bond0, out, hostIP, world), 1, flow.Egress}, {at(slave0, out, hostIP, world), 2 * second, flow.Egress},
		},
		"again and again": {
			{at(eth0, in, world, hostIP), 1, flow.Ingress}, {at(eth0, in, world, hostIP), 2, flow.Ingress},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			h := newEchoes()
			for i, s := range steps {
				e := event(s.look, s.ns)
				require.Equal(t, s.want != 0, h.isNews(host, e), "step %d", i)
				if s.want != 0 {
					assert.EqualValues(t, s.want, e.Key.Direction, "step %d", i)
				}
			}
		})
	}
}

func TestTellersAreBounded(t *testing.T) {
	h := newEchoes()
	first := look{device: bond0, side: out, packets: 1, src: hostIP, dst: world}
	for i := range 3 * maxTellers {
		k, f := observed(first)
		k.Sport = uint16(i)
		require.True(t, h.isNews(host, &network.NetworkEvent{Key: *k, Flow: *f}))
		require.LessOrEqual(t, len(h.now)+len(h.before), 2*maxTellers)
	}
	k, f := observed(look{device: slave0, side: out, packets: 1, src: hostIP, dst: world})
	k.Sport = uint16(3*maxTellers - maxTellers - 1)
	assert.False(t, h.isNews(host, &network.NetworkEvent{Key: *k, Flow: *f}), "of the generation before")
}
