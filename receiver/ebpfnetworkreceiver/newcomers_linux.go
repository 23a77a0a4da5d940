package ebpfnetworkreceiver

import (
	"sync"
	"time"

	"github.com/orb8/orb8/bpf/network"
)

// newcomers tells flows that are new from those that are new to the kernel alone: to it every flow is, once in each
// generation of its table. One goroutine reads events, and asks; another drains the generations.
type newcomers struct {
	flows *memory
	// onItsWay is how long a packet may take from the interface that tells of it to the one that counts it.
	onItsWay time.Duration

	mu       sync.Mutex
	draining bool
	// waiting are events of flows that the drain under way may yet find to be known.
	waiting []newcomer
}

type newcomer struct {
	key   network.NetworkFlowKey // the tracker's
	event network.NetworkEvent
}

// maxWaiting bounds the memory of those that wait, to 2 MB. What finds no place counts as new: in a flood most flows are.
const maxWaiting = 8192

// begin is to be called before the generation is closed that is drained next.
func (n *newcomers) begin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.draining = true
}

// isNew decides about the event of a flow's first packet in a generation. What cannot be decided yet comes from end.
func (n *newcomers) isNew(k *network.NetworkFlowKey, e *network.NetworkEvent) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	known, isNew := n.decide(k, e)
	if !known && n.draining && len(n.waiting) < maxWaiting {
		n.waiting = append(n.waiting, newcomer{*k, *e})
		return false
	}
	return isNew
}

// decide says new of a flow that is not known, and of one that is known by the very packet of the event.
func (n *newcomers) decide(k *network.NetworkFlowKey, e *network.NetworkEvent) (known, isNew bool) {
	since, known := n.flows.knows(k)
	return known, !known || int64(e.Flow.FirstNs) <= since+int64(n.onItsWay)
}

// end is to be called when the drain is over. It hands the events of new flows to yield that had to wait for it.
func (n *newcomers) end(yield func(*network.NetworkEvent)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.draining = false
	for i := range n.waiting {
		w := &n.waiting[i]
		if _, isNew := n.decide(&w.key, &w.event); isNew {
			yield(&w.event)
		}
	}
	n.waiting = n.waiting[:0]
}
