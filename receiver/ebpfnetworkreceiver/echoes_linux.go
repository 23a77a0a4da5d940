package ebpfnetworkreceiver

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/engine"
)

// echoes finds the events that interfaces repeat. It is not safe for concurrent use.
//
// Unlike counts, events cannot wait for all interfaces to have told theirs. So those of an endpoint are taken from the
// interface that faces it, and those of this host from the interfaces of one height: whichever was first to tell of a
// connection, until it falls silent. What only passes through this host has no events.
type echoes struct {
	// now and before bound what is remembered: when now is full, before goes.
	now, before map[network.NetworkFlowKey]teller
}

type teller struct {
	height int
	lastNS uint64
}

const (
	maxTellers    = 8192
	tellerSilence = uint64(time.Second)
)

func newEchoes() *echoes { return &echoes{now: map[network.NetworkFlowKey]teller{}} }

// isNews tells whether an event is no echo, and if so sets its direction to that of the endpoint.
func (h *echoes) isNews(d *engine.Devices, e *network.NetworkEvent) bool {
	key, dev, side := place(d, &e.Key)
	local := key.Daddr
	if side == out {
		local = key.Saddr
	}
	if !dev.Endpoint && (!d.IsLocal(netip.AddrFrom16(local).Unmap()) || h.isEcho(key, dev.Height, e.Flow.FirstNs)) {
		return false
	}
	e.Key.Direction = key.Direction
	return true
}

func (h *echoes) isEcho(key network.NetworkFlowKey, height int, now uint64) bool {
	key = connectionOf(key)
	t, known := h.now[key]
	if !known {
		t, known = h.before[key]
	}
	if known && t.height != height && now < t.lastNS+tellerSilence {
		return true
	}
	if len(h.now) >= maxTellers {
		h.now, h.before = map[network.NetworkFlowKey]teller{}, h.now
	}
	h.now[key] = teller{height, now}
	return false
}

// connectionOf returns a key that both directions have.
func connectionOf(k network.NetworkFlowKey) network.NetworkFlowKey {
	k.Direction = uint8(flow.Egress)
	if c := bytes.Compare(k.Saddr[:], k.Daddr[:]); c > 0 || c == 0 && k.Sport > k.Dport {
		k = reverse(&k)
		k.Direction = uint8(flow.Egress)
	}
	return k
}
