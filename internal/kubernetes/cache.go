package kubernetes

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// maxObserved bounds how many pods are remembered that the API has not told of yet and that were seen to use another
// pod's address.
const maxObserved = 4096

// Cache is what is known of the pods, Services and nodes. It is filled by a Watcher, and by Observe. Its methods are safe for
// concurrent use; what they return is not to be changed.
type Cache struct {
	keepDeleted time.Duration
	// wide is whether the whole cluster is known and not one node of it.
	wide bool
	now  func() time.Time
	// changed is called, without the lock, when something became known.
	changed func()

	mu       sync.RWMutex
	pods     map[string]*entry // by UID, and static ones by that of their cgroup too
	names    map[podName]*entry
	claims   map[netip.Addr]*claim
	nodes    map[string]*Node
	services map[string]*Service
	slices   map[string]*slice
	// backends are the Services that have an endpoint, once for each slice.
	backends  map[endpoint][]*Service
	nodePorts map[Port]*Service
	// ranges are those that nodes give to pods, and, where the cluster is known, those that pods are found in.
	ranges ranges
	// gone are the deleted pods, in the order in which they are to be forgotten.
	gone     []departure
	observed int
	// unsynced is how many kinds of objects have not been read once, of those that are expected.
	unsynced int
	expected bool
	// lost is since when the API has told nothing; zero while it does.
	lost time.Time
}

// podName is what no two pods of a cluster are called at a time.
type podName struct{ namespace, name string }

// entry is a pod in all its states.
type entry struct {
	// pod is nil for one that the API has not told of.
	pod *Pod
	// addresses are all that it ever had.
	addresses []netip.Addr
	// deletedAt is zero while the pod is there.
	deletedAt time.Time
}

type departure struct {
	uid string
	*entry
	at time.Time
}

// NewCache returns an empty cache. Deleted pods are remembered for keepDeleted. Changed is called when something became known.
func NewCache(wide bool, keepDeleted time.Duration, changed func()) *Cache {
	return &Cache{
		keepDeleted: keepDeleted,
		wide:        wide,
		now:         time.Now,
		changed:     changed,
		pods:        map[string]*entry{},
		names:       map[podName]*entry{},
		claims:      map[netip.Addr]*claim{},
		nodes:       map[string]*Node{},
		services:    map[string]*Service{},
		slices:      map[string]*slice{},
		backends:    map[endpoint][]*Service{},
		nodePorts:   map[Port]*Service{},
		ranges:      newRanges(),
	}
}

// Pod returns the pod with the UID, which for a static pod may be the one in its cgroup's path.
func (c *Cache) Pod(uid string) (*Pod, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e := c.pods[uid]
	if e == nil || e.pod == nil {
		return nil, false
	}
	return e.pod, true
}

// PodNamed returns the pod with the name: the one that is there, or else the last that was.
func (c *Cache) PodNamed(namespace, name string) (*Pod, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e := c.names[podName{namespace, name}]
	if e == nil {
		return nil, false
	}
	return e.pod, true
}

// Node returns the node with the name.
func (c *Cache) Node(name string) (*Node, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n, ok := c.nodes[name]
	return n, ok
}

// Sizes returns how many pods, addresses, Services, endpoints and nodes are known, deleted pods that are remembered included.
func (c *Cache) Sizes() map[string]int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return map[string]int{
		"pod": len(c.pods), "address": len(c.claims), "service": len(c.services), "endpoint": len(c.backends), "node": len(c.nodes),
	}
}

// Stale returns since when the API has told nothing, and zero while it does.
func (c *Cache) Stale() time.Time {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.lost
}

// setLost marks the beginning of an outage, and with the zero time its end.
func (c *Cache) setLost(since time.Time) {
	c.mu.Lock()
	c.lost = since
	c.mu.Unlock()
	c.changed()
}

// expect says that n kinds of objects will be read, each of which calls synced.
func (c *Cache) expect(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsynced, c.expected = n, true
}

// Ready tells whether everything that is to be read has been read once.
func (c *Cache) Ready() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.expected && c.unsynced == 0
}

func (c *Cache) synced() {
	c.mu.Lock()
	c.unsynced--
	c.mu.Unlock()
	c.changed()
}

func (c *Cache) setPod(p *Pod) {
	c.mu.Lock()
	c.putPod(p)
	c.sweep()
	c.mu.Unlock()
	c.changed()
}

// deletePod takes the last state of the pod.
func (c *Cache) deletePod(p *Pod) {
	c.mu.Lock()
	c.putPod(p)
	c.endPod(p.UID, c.now())
	c.sweep()
	c.mu.Unlock()
}

// replacePods makes the pods the only ones. Others were deleted while nobody looked: their addresses are known to have been
// theirs until the outage alone.
func (c *Cache) replacePods(pods []*Pod) {
	c.mu.Lock()
	asOf := c.now()
	if !c.lost.IsZero() {
		asOf = c.lost
	}
	there := make(map[*entry]bool, len(pods))
	for _, p := range pods {
		c.putPod(p)
		there[c.pods[p.UID]] = true
	}
	for uid, e := range c.pods {
		if e.pod != nil && uid == e.pod.UID && !there[e] && e.deletedAt.IsZero() {
			c.endPod(uid, asOf)
		}
	}
	c.sweep()
	c.mu.Unlock()
	c.changed()
}

// putPod takes a state of a pod that is newer than the one that is known. The caller holds c.mu.
func (c *Cache) putPod(p *Pod) {
	e := c.pods[p.UID]
	if e == nil && p.staticUID != "" {
		e = c.pods[p.staticUID] // as it was observed
	}
	isNew := e == nil || e.pod == nil
	switch {
	case e == nil:
		e = &entry{}
	case e.pod == nil:
		c.observed--
	default:
		p.inherit(e.pod)
	}
	older := e.pod
	e.pod = p
	c.pods[p.UID] = e
	if p.staticUID != "" {
		c.pods[p.staticUID] = e
	}
	// The last state of a deleted pod may come when its successor is there.
	if other := c.names[podName{p.Namespace, p.Name}]; other == nil || !other.deletedAt.IsZero() || !p.from.Before(other.pod.from) {
		c.names[podName{p.Namespace, p.Name}] = e
	}
	until := p.stopped
	if p.over && until.IsZero() {
		if isNew {
			return // nobody knows until when it had its address
		}
		until = c.now()
	}
	if older != nil {
		for _, addr := range older.Addresses {
			if !slices.Contains(p.Addresses, addr) {
				c.closeClaims(addr, e, c.now())
			}
		}
	}
	for _, addr := range p.Addresses {
		from := p.from
		if len(e.addresses) > 0 && older != nil && !slices.Contains(older.Addresses, addr) {
			// A sandbox made anew. It is as old as its containers, but for a moment.
			from = c.now()
			if !p.running.IsZero() {
				from = p.running.Add(-time.Second)
			}
		}
		c.claimForPod(addr, e, from)
		if p.over {
			c.closeClaims(addr, e, until)
		}
	}
}

// endPod marks a pod as deleted, whose addresses were its own until its last container ended, or else until asOf. The caller
// holds c.mu.
func (c *Cache) endPod(uid string, asOf time.Time) {
	e := c.pods[uid]
	if e == nil || !e.deletedAt.IsZero() {
		return
	}
	e.deletedAt = c.now()
	if e.pod != nil && !e.pod.stopped.IsZero() && e.pod.stopped.Before(asOf) {
		asOf = e.pod.stopped
	}
	for _, addr := range e.addresses {
		c.closeClaims(addr, e, asOf)
	}
	c.gone = append(c.gone, departure{uid, e, e.deletedAt})
}

// sweep forgets the pods that have been gone for long enough. The caller holds c.mu.
func (c *Cache) sweep() {
	limit := c.now().Add(-c.keepDeleted)
	n := 0
	for ; n < len(c.gone) && c.gone[n].at.Before(limit); n++ {
		c.forget(&c.gone[n])
	}
	if n > 0 {
		c.gone = slices.Delete(c.gone, 0, n)
	}
}

func (c *Cache) forget(d *departure) {
	e := d.entry
	switch {
	case e.pod == nil:
		c.observed--
	case !e.deletedAt.Equal(d.at):
		return // it was only observed then, and has become known since
	default:
		if c.pods[e.pod.staticUID] == e {
			delete(c.pods, e.pod.staticUID)
		}
		if name := (podName{e.pod.Namespace, e.pod.Name}); c.names[name] == e {
			delete(c.names, name)
		}
	}
	if c.pods[d.uid] == e {
		delete(c.pods, d.uid)
	}
	for _, addr := range e.addresses {
		c.removeClaims(addr, func(cl *claim) bool { return cl.pod == e })
	}
}

// Sweep forgets the pods that have been gone for long enough; without it that happens when a pod changes.
func (c *Cache) Sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweep()
}
