package kubernetes

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// lateness is how long after the end of its last container a pod's address is taken to be still its own: the API
	// rounds that down to a second, and connections are torn down afterwards.
	lateness = 2 * time.Second
	// confirmation is how long, while the API is away, an address is taken to be a pod's own after it was seen to be.
	confirmation = 30 * time.Second
)

// claim is that somebody had an address for a time. One of pod, service and node is set.
type claim struct {
	pod     *entry
	service *Service
	node    *Node
	// shared addresses are the Service's at its ports alone.
	shared bool
	// taken is whether the pod was seen to use, from the beginning of the claim, what was another's until then.
	taken bool
	// from and until are Unix nanoseconds; until is 0 while the claim stands.
	from, until int64
	// seen is the last time, in Unix nanoseconds, at which the pod's own cgroup was seen to use the address.
	seen atomic.Int64
	next *claim
}

// State says how good an answer is.
type State uint8

const (
	// Foreign addresses belong to nothing in the cluster, as far as is known.
	Foreign State = iota
	// Sure answers are final.
	Sure
	// Tentative answers may prove wrong by what the API, or another record, says in the next seconds.
	Tentative
	// Awaited addresses belong to a pod that is not known, but may be soon.
	Awaited
	// Ambiguous addresses belonged to more than one pod at the time.
	Ambiguous
)

// Answer is who had an address. A Node may be the address's own with a Service behind its port.
type Answer struct {
	Pod     *Pod
	Service *Service
	Node    *Node
	State   State
}

// Address returns who had the address from the first to the last packet of a flow.
func (c *Cache) Address(addr netip.Addr, port Port, first, last time.Time) Answer {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var a Answer
	var owner, former *claim
	start, end := first.UnixNano(), last.UnixNano()
	ambiguous := false
	for cl := c.claims[addr]; cl != nil; cl = cl.next {
		switch {
		case cl.node != nil:
			a.Node = cl.node
		case cl.service != nil:
			if !cl.shared || cl.service.hasPort(port) {
				a.Service = cl.service
			}
		case cl.from <= end && (cl.until == 0 || start <= cl.until+int64(lateness)):
			switch {
			case owner == nil:
				owner = cl
			case cl.follows(owner, start):
				owner, ambiguous = cl, false
			case !owner.follows(cl, start):
				ambiguous = ambiguous || owner.pod != cl.pod
				owner = cl
			}
		case cl.until != 0 && cl.until < start && (former == nil || former.until < cl.until):
			former = cl
		}
	}
	switch {
	case a.Node != nil:
		// A pod on the host network has the node's address, and so has every other one: which it is, only a cgroup tells.
		a.State = Sure
		if a.Service == nil {
			a.Service = c.nodePorts[port]
		}
	case a.Service != nil:
		a.State = Sure
		return a
	case ambiguous:
		a.State = Ambiguous
	case owner != nil:
		if a.State = c.trust(owner, end); a.State != Awaited {
			a.Pod = owner.pod.pod
		}
	case former != nil && former.until > start-int64(c.keepDeleted):
		// Packets to somebody who is gone, unless somebody new is not known yet.
		a.Pod, a.State = former.pod.pod, Tentative
		if !c.lost.IsZero() {
			a.Pod, a.State = nil, Awaited
		}
	case c.mayBePod(addr):
		a.State = Awaited
	}
	if a.Service == nil && (a.Pod != nil || a.Node != nil) {
		a.Service = c.backendOf(addr, port)
	}
	return a
}

// follows tells whether the address was no longer the other's at a time, however late the other's last packets may be: its new holder
// itself had been seen to use it.
func (cl *claim) follows(other *claim, at int64) bool {
	return cl.taken && cl.from <= at && other.until != 0 && other.until < cl.from
}

// trust says how good a claim is at a time. While the API is away another pod may have got the address: what the pod was
// seen to use itself is its own.
func (c *Cache) trust(cl *claim, at int64) State {
	if cl.pod.pod == nil {
		return Awaited
	}
	if c.lost.IsZero() || cl.until != 0 || at <= c.lost.UnixNano() {
		return Sure
	}
	switch seen := cl.seen.Load(); {
	case seen >= at:
		return Sure
	case seen > at-int64(confirmation):
		return Tentative
	}
	return Awaited
}

// shared is the range of RFC 6598, which providers give to pods too.
var shared = netip.MustParsePrefix("100.64.0.0/10")

// mayBePod tells whether an address that nobody has may be that of a pod which is not known yet.
func (c *Cache) mayBePod(addr netip.Addr) bool {
	if c.unsynced > 0 {
		return addr.IsPrivate() || shared.Contains(addr)
	}
	return c.ranges.contains(addr)
}

// Backend returns the Service that has the address and port as its endpoint, if it is only one.
func (c *Cache) Backend(addr netip.Addr, port Port) (*Service, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.backendOf(addr, port)
	return s, s != nil
}

// backendOf returns the Service that has the endpoint, if it is only one.
func (c *Cache) backendOf(addr netip.Addr, port Port) *Service {
	var found *Service
	for _, s := range c.backends[endpoint{addr, port}] {
		if found != nil && found.key != s.key {
			return nil
		}
		found = s
	}
	return found
}

// Observe takes note that a pod, known by its cgroup, used an address from the first to the last packet of a flow. It is
// told of every flow, as this is what shows, while the API is away or behind, that an address has moved to another pod.
// What is nobody's by the API stays so: pods also have addresses of networks of their own.
func (c *Cache) Observe(uid string, addr netip.Addr, first, last time.Time) {
	c.mu.RLock()
	done := c.confirm(uid, addr, last.UnixNano())
	c.mu.RUnlock()
	if done {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.contradict(uid, addr, first.UnixNano(), last.UnixNano())
}

// confirm returns false if the observation is news.
func (c *Cache) confirm(uid string, addr netip.Addr, last int64) bool {
	head := c.claims[addr]
	if head == nil {
		return true
	}
	e := c.pods[uid]
	if e != nil && e.pod != nil && e.pod.HostNetwork {
		return true
	}
	for cl := head; cl != nil; cl = cl.next {
		if cl.pod == nil {
			return true // a Service's or a node's: a matter of who translates addresses where
		}
		if cl.pod == e && (cl.until == 0 || last <= cl.until+int64(lateness)) {
			for seen := cl.seen.Load(); last > seen && !cl.seen.CompareAndSwap(seen, last); seen = cl.seen.Load() {
			}
			return true
		}
	}
	return e == nil && c.observed >= maxObserved
}

// contradict gives the address to the pod, and takes it from those that were not seen to use it since. The caller holds c.mu.
func (c *Cache) contradict(uid string, addr netip.Addr, first, last int64) {
	if c.confirm(uid, addr, last) {
		return
	}
	e := c.pods[uid]
	if e == nil {
		e = &entry{}
		c.pods[uid] = e
		c.observed++
		c.gone = append(c.gone, departure{uid, e, c.now()})
	}
	until := first - int64(lateness) - 1
	if !c.lost.IsZero() {
		until = min(until, c.lost.UnixNano())
	}
	for cl := c.claims[addr]; cl != nil; cl = cl.next {
		if cl.until == 0 && cl.seen.Load() < last {
			cl.until = max(until, cl.seen.Load(), cl.from)
		}
	}
	if cl := c.claimForPod(addr, e, time.Unix(0, first)); cl != nil {
		cl.taken = true
	}
	c.confirm(uid, addr, last)
}

// claimForPod gives the address to the pod and returns the claim, or nil if the pod has it. The caller holds c.mu.
func (c *Cache) claimForPod(addr netip.Addr, e *entry, from time.Time) *claim {
	for cl := c.claims[addr]; cl != nil; cl = cl.next {
		// One that an observation has ended stays so, although the API still says otherwise.
		if cl.pod == e && (cl.until == 0 || cl.until >= from.UnixNano()) {
			return nil
		}
	}
	cl := &claim{pod: e, from: from.UnixNano()}
	c.addClaim(addr, cl)
	if !slices.Contains(e.addresses, addr) {
		e.addresses = append(e.addresses, addr)
	}
	return cl
}

func (c *Cache) addClaim(addr netip.Addr, cl *claim) {
	cl.next = c.claims[addr]
	c.claims[addr] = cl
	if c.wide && cl.node == nil && !cl.shared {
		c.ranges.add(around(addr))
	}
}

// closeClaims ends the claims of a pod to the address.
func (c *Cache) closeClaims(addr netip.Addr, e *entry, until time.Time) {
	for cl := c.claims[addr]; cl != nil; cl = cl.next {
		if cl.pod == e && cl.until == 0 {
			cl.until = max(until.UnixNano(), cl.from)
		}
	}
}

func (c *Cache) removeClaims(addr netip.Addr, which func(*claim) bool) {
	var head *claim
	for cl := c.claims[addr]; cl != nil; {
		next := cl.next
		if which(cl) {
			if c.wide && cl.node == nil && !cl.shared {
				c.ranges.remove(around(addr))
			}
		} else {
			cl.next, head = head, cl
		}
		cl = next
	}
	if head == nil {
		delete(c.claims, addr)
		return
	}
	c.claims[addr] = head
}
