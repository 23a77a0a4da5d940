package ebpfnetworkreceiver

import (
	"iter"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
)

// overflow adds up the packets of flows that found the kernel's table full. That happens when there are too many flows to
// spend 200 bytes on each: those that have no state of a connection and no long addresses are kept in a third of it. It is
// not safe for concurrent use.
type overflow struct {
	brief  map[ipv4Key]briefFlow
	full   map[network.NetworkFlowKey]network.NetworkFlow
	owners owners
}

// briefFlow is all that the packets of a flow tell which is not TCP.
type briefFlow struct {
	bytes, packets  uint64
	firstNS, lastNS uint64
	owner           uint32 // position
}

func newOverflow() *overflow {
	return &overflow{
		brief:  map[ipv4Key]briefFlow{},
		full:   map[network.NetworkFlowKey]network.NetworkFlow{},
		owners: newOwners(),
	}
}

func (o *overflow) len() int { return len(o.brief) + len(o.full) }

// add adds a packet, unless its flow would be one more than there may be.
func (o *overflow) add(k *network.NetworkFlowKey, f *network.NetworkFlow, most int) bool {
	k4, short := shorten(k)
	if !short || flow.Transport(k.Transport) == flow.TCP {
		sum, known := o.full[*k]
		if !known && o.len() >= most {
			return false
		}
		o.full[*k] = merge(sum, *f)
		return true
	}
	sum, known := o.brief[k4]
	if !known {
		if o.len() >= most {
			return false
		}
		sum.firstNS = f.FirstNs
		sum.owner = o.owners.exchange(0, owner{cgroupID: f.CgroupId, pid: f.Pid, comm: f.Comm})
	}
	sum.bytes += f.Bytes
	sum.packets += f.Packets
	sum.firstNS, sum.lastNS = min(sum.firstNS, f.FirstNs), max(sum.lastNS, f.LastNs)
	o.brief[k4] = sum
	return true
}

// take returns what there is of a flow, and forgets it.
func (o *overflow) take(k *network.NetworkFlowKey) (network.NetworkFlow, bool) {
	if f, ok := o.full[*k]; ok {
		delete(o.full, *k)
		return f, true
	}
	k4, short := shorten(k)
	if !short {
		return network.NetworkFlow{}, false
	}
	sum, ok := o.brief[k4]
	if !ok {
		return network.NetworkFlow{}, false
	}
	delete(o.brief, k4)
	return o.expand(&sum), true
}

// all yields every flow; key and counts are valid until the next one.
func (o *overflow) all() iter.Seq2[*network.NetworkFlowKey, *network.NetworkFlow] {
	return func(yield func(*network.NetworkFlowKey, *network.NetworkFlow) bool) {
		var key network.NetworkFlowKey
		var f network.NetworkFlow
		for k, sum := range o.brief {
			key, f = k.expand(), o.expand(&sum)
			if !yield(&key, &f) {
				return
			}
		}
		for k, sum := range o.full {
			key, f = k, sum
			if !yield(&key, &f) {
				return
			}
		}
	}
}

func (o *overflow) expand(b *briefFlow) network.NetworkFlow {
	who := o.owners.get(b.owner)
	return network.NetworkFlow{
		Bytes: b.bytes, Packets: b.packets, FirstNs: b.firstNS, LastNs: b.lastNS,
		CgroupId: who.cgroupID, Pid: who.pid, Comm: who.comm,
	}
}
