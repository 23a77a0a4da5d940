package embedded

import "github.com/orb8/orb8/internal/flow"

// What one direction of a connection has in common wherever it is seen: the initial sequence numbers, which no address
// translation changes, or else the addresses on one node.
type (
	connectedKey struct {
		isns     uint64
		toServer bool
	}
	// addressedKey has no direction in its tuple.
	addressedKey struct {
		node  uint32
		tuple tuple
	}
)

// sightings are the flows of one such key: the best witness at the sending and at the receiving end.
type sightings struct {
	sent, received *aggregate
	// doubtful tells that more than one flow at an end has the same addresses: nobody knows which belong together.
	doubtful bool
}

// join finds, for every flow, the same traffic as seen at the other end.
func (a *aggregation) join() {
	connected := make(map[connectedKey]uint32, len(a.flows)/2)
	addressed := map[addressedKey]uint32{}
	places := make([]uint32, len(a.flows))
	all := make([]sightings, 0, len(a.flows)/2)
	for i := range a.flows {
		f := &a.flows[i]
		if key, ok := f.connectedKey(); ok {
			places[i] = placeOf(key, connected, &all)
			all[places[i]].add(f, true)
		} else {
			places[i] = placeOf(f.addressedKey(), addressed, &all)
			all[places[i]].add(f, false)
		}
	}
	for i := range a.flows {
		all[places[i]].settle(&a.flows[i])
	}
}

func placeOf[K comparable](key K, index map[K]uint32, all *[]sightings) uint32 {
	at, known := index[key]
	if !known {
		at = uint32(len(*all))
		index[key] = at
		*all = append(*all, sightings{})
	}
	return at
}

// connectedKey returns the key of a flow whose connection is known.
func (f *aggregate) connectedKey() (key connectedKey, ok bool) {
	return connectedKey{isns: f.health.isns, toServer: f.initiator == flow.InitiatorSource},
		f.health.isns != 0 && f.initiator != flow.InitiatorUnknown
}

func (f *aggregate) addressedKey() addressedKey {
	key := addressedKey{node: f.node, tuple: f.newest().tuple}
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
