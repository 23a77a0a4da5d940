package embedded

import "github.com/orb8/orb8/internal/flow"

// wireKey is what one direction of a connection has in common wherever it is seen: the initial sequence numbers, which no
// address translation changes, or else the addresses on one node.
type wireKey struct {
	isns     uint64
	toServer bool
	// node and tuple, without a direction, are set where isns is 0.
	node  uint32
	tuple tuple
}

// sightings are the flows of one wireKey: the best witness at the sending and at the receiving end.
type sightings struct {
	sent, received *aggregate
	// doubtful tells that more than one flow at an end has the same addresses: nobody knows which belong together.
	doubtful bool
}

// join finds, for every flow, the same traffic as seen at the other end.
func (a *aggregation) join() {
	index := make(map[wireKey]uint32, len(a.flows))
	places := make([]uint32, len(a.flows))
	var all []sightings
	for i := range a.flows {
		key := a.flows[i].wireKey()
		at, known := index[key]
		if !known {
			at = uint32(len(all))
			index[key] = at
			all = append(all, sightings{})
		}
		places[i] = at
		all[at].add(&a.flows[i], key.isns != 0)
	}
	for i := range a.flows {
		all[places[i]].settle(&a.flows[i])
	}
}

func (f *aggregate) wireKey() wireKey {
	if f.health.isns != 0 && f.initiator != flow.InitiatorUnknown {
		return wireKey{isns: f.health.isns, toServer: f.initiator == flow.InitiatorSource}
	}
	key := wireKey{node: f.node, tuple: f.newest().tuple}
	key.tuple.direction = 0
	return key
}

// add takes a flow; interfaces tells whether several flows at an end must be the same one, seen at several interfaces.
func (s *sightings) add(f *aggregate, interfaces bool) {
	end := &s.received
	switch f.newest().direction {
	case flow.Egress:
		end = &s.sent
	case flow.Transit: // at neither end
		return
	}
	if *end == nil {
		*end = f
		return
	}
	s.doubtful = !interfaces
	if f.nearerThan(*end) {
		*end = f
	}
}

// nearerThan tells which of two interfaces is nearer to the endpoint: the one that knows whose socket it is, else the first
// that a packet passes at the sender, and the last at the receiver.
func (f *aggregate) nearerThan(g *aggregate) bool {
	if known := f.cgroup() != 0; known != (g.cgroup() != 0) {
		return known
	}
	if f.newest().direction == flow.Egress {
		return f.start < g.start
	}
	return f.start > g.start
}

// cgroup returns the cgroup id of the local endpoint.
func (f *aggregate) cgroup() uint64 {
	r := f.newest()
	if r.direction == flow.Egress {
		return f.view.identities[r.sourceID].CgroupID
	}
	return f.view.identities[r.destinationID].CgroupID
}

// settle tells a flow who saw the same.
func (s *sightings) settle(f *aggregate) {
	if s.doubtful {
		return
	}
	switch f.newest().direction {
	case flow.Egress:
		f.far = s.received
	case flow.Ingress:
		f.far = s.sent
	}
	if w := s.witness(); w != nil {
		f.folded = f != w
	}
}

// witness returns the flow whose row stands for all: the client's, or the sender's where no client is known.
func (s *sightings) witness() *aggregate {
	if s.sent == nil || s.received != nil && s.received.initiator == flow.InitiatorDestination {
		return s.received
	}
	return s.sent
}
