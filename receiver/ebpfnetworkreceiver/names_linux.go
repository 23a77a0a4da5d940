package ebpfnetworkreceiver

import (
	"net/netip"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/kernelclock"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/dns"
)

// namer gives a flow the name by which its local endpoint had looked up the peer when the flow began, until the flow ends.
// Only lookup is safe for concurrent use.
type namer struct {
	watcher *dns.Watcher
	// atInterfaces is true in tc mode.
	atInterfaces bool
	names        *simplelru.LRU[namedFlow, string]
}

// namedFlow is a flow at one of its endpoints.
type namedFlow struct {
	cgroupID            uint64
	source, destination netip.AddrPort
	transport           flow.Transport
	direction           flow.Direction
}

// newNamer returns a namer for at most so many named flows; of more, those go first that have been silent the longest.
func newNamer(w *dns.Watcher, atInterfaces bool, flows int) *namer {
	// It fails only for a size that is not positive.
	names, _ := simplelru.NewLRU[namedFlow, string](flows, nil)
	return &namer{watcher: w, atInterfaces: atInterfaces, names: names}
}

// name names the peer of a flow record.
func (n *namer) name(r *flow.Record, c kernelclock.Clock) {
	key := namedFlow{r.Local().Identity.CgroupID, r.Source.Addr, r.Destination.Addr, r.Transport, r.Direction}
	var name string
	if begins(r) {
		if name = n.lookup(r, c); name != "" {
			n.names.Add(key, name)
		} else {
			n.names.Remove(key)
		}
	} else {
		name, _ = n.names.Get(key)
	}
	if r.Ended {
		n.names.Remove(key)
	}
	r.Peer().Name = name
}

// lookup returns the name of the peer as of the record's start.
func (n *namer) lookup(r *flow.Record, c kernelclock.Clock) string {
	return n.watcher.Name(n.asker(r.Local()), r.Peer().Addr.Addr(), c.Monotonic(r.Start))
}

func (n *namer) asker(local *flow.Endpoint) dns.Asker {
	a := dns.Asker{CgroupID: local.Identity.CgroupID}
	if n.atInterfaces {
		a.Addr = local.Addr.Addr()
	}
	return a
}

// begins tells whether the record has the first packet of its flow. The last record of a flow has the flags of all of it,
// and no packets.
func begins(r *flow.Record) bool {
	if r.Transport == flow.TCP {
		return r.Packets > 0 && r.TCPFlags&tcpSYN != 0
	}
	return r.Connections > 0
}
