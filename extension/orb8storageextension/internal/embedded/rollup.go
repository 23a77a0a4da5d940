package embedded

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// rollupKey is what a rollup keeps of the flows that it sums: who saw them where. Words and identities are those of the index.
type rollupKey struct {
	near, far rollupView
	transport flow.Transport
}

// rollupView is what one end tells. The far one has no direction where nobody looked there.
type rollupView struct {
	source, destination, node uint32
	direction                 flow.Direction
}

// rollupSums are the measures of flows, in the order of storage.Measures.
type rollupSums [6]uint64

func (s *rollupSums) add(o *rollupSums) {
	for i := range s {
		s[i] += o[i]
	}
}

// resent returns the retransmits alone.
func (s *rollupSums) resent() rollupSums { return rollupSums{3: s[3]} }

func (f *aggregate) sums() rollupSums {
	end := flow.Record{Initiator: f.initiator, Outcome: f.outcome}
	return rollupSums{f.bytes, f.packets, f.connections, f.health.retransmits, f.health.zeroWindows, storage.FlowMeasure("errors")(&end)}
}

func (f *aggregate) rollupView() rollupView {
	r := f.newest()
	return rollupView{r.sourceID, r.destinationID, r.node, r.direction}
}

// openFlow is a flow of which only one end was seen, or none: the others may be in another block.
type openFlow struct {
	rollupKey
	rollupSums
	sighting
}

// sighting is what is needed to find who else saw a flow.
type sighting struct {
	start, end int64
	// hash is that of the connection where that is known, and toServer its direction; else that of the addresses, on one node.
	hash                uint64
	connected, toServer bool
	node                string
	direction           flow.Direction
}

func (f *aggregate) sighting() sighting {
	r := f.newest()
	s := sighting{start: f.start, end: f.end, direction: r.direction, node: f.nodeName(), hash: r.sameFlow()}
	if f.health.isns != 0 && f.initiator != flow.InitiatorUnknown {
		s.hash, s.connected, s.toServer = sameConnection(f.health.isns), true, f.initiator == flow.InitiatorSource
	}
	return s
}

// open tells that what else was seen of a flow may be elsewhere. Of those whose connection is not known that matters where the other
// view is the one that counts.
func (f *aggregate) open() bool {
	if f.far != nil || f.folded {
		return false
	}
	connected := f.health.isns != 0 && f.initiator != flow.InitiatorUnknown
	switch f.newest().direction {
	case flow.Egress:
		return connected || f.initiator == flow.InitiatorDestination
	case flow.Ingress:
		return connected || f.initiator != flow.InitiatorDestination
	}
	return true
}

// seenBy tells whether a row is of the same flow, at the other end or, where s is at none, at any.
func (s *sighting) seenBy(r *row, h *health, node string) bool {
	if r.direction == flow.Transit || r.direction == s.direction {
		return false
	}
	if s.connected {
		return connectionOf(h) == s.hash && r.initiator != flow.InitiatorUnknown && (r.initiator == flow.InitiatorSource) == s.toServer
	}
	return node == s.node && r.sameFlow() == s.hash
}

// rollupRows is how many rows of one client are summed at once.
const rollupRows = 1 << 16

// rollup sums the flows of a block as it is written. Rows come in the order of an index: what is seen of a connection comes
// together, unless its client's address is translated.
type rollup struct {
	view view
	flow uint64
	at   map[rollupKey]int
	keys []rollupKey
	sums []rollupSums
	open []openFlow
}

func newRollup(w words) *rollup {
	return &rollup{view: view{words: w}, at: map[rollupKey]int{}}
}

func (u *rollup) add(r *row, h *health, sameFlow uint64) {
	if n := len(u.view.rows); n > 0 && (*u.view.rows[n-1].client() != *r.client() || n >= rollupRows && sameFlow != u.flow) {
		u.flush()
	}
	u.view.append(r, h)
	u.flow = sameFlow
}

func (u *rollup) flush() {
	a := newAggregation(math.MinInt64, math.MaxInt64)
	a.add(&u.view)
	a.join()
	for i := range a.flows {
		f := &a.flows[i]
		if f.folded {
			continue
		}
		key := rollupKey{near: f.rollupView(), transport: f.newest().transport}
		if f.far != nil {
			key.far = f.far.rollupView()
		}
		if f.open() {
			u.open = append(u.open, openFlow{key, f.sums(), f.sighting()})
			continue
		}
		at, known := u.at[key]
		if !known {
			at = len(u.keys)
			u.at[key] = at
			u.keys, u.sums = append(u.keys, key), append(u.sums, rollupSums{})
		}
		sums := f.sums()
		u.sums[at].add(&sums)
		if f.far != nil && key.near.direction == flow.Ingress {
			sums = f.far.sums()
			sums = sums.resent()
			u.sums[at].add(&sums)
		}
	}
	u.view.rows, u.view.health = u.view.rows[:0], u.view.health[:0]
}

func (k *rollupKey) encode(b []byte) []byte {
	b = append(b, byte(k.near.direction)|byte(k.far.direction)<<4, byte(k.transport))
	views := []rollupView{k.near, k.far}
	if k.far.direction == 0 {
		views = views[:1]
	}
	for _, v := range views {
		for _, n := range []uint32{v.source, v.destination, v.node} {
			b = binary.AppendUvarint(b, uint64(n))
		}
	}
	return b
}

func (k *rollupKey) decode(r *pageReader) {
	head := r.bytes(2)
	if r.short {
		return
	}
	*k = rollupKey{transport: flow.Transport(head[1])}
	k.near.direction, k.far.direction = flow.Direction(head[0]&15), flow.Direction(head[0]>>4)
	k.near.source, k.near.destination, k.near.node = uint32(r.number()), uint32(r.number()), uint32(r.number())
	if k.far.direction != 0 {
		k.far.source, k.far.destination, k.far.node = uint32(r.number()), uint32(r.number()), uint32(r.number())
	}
}

func (s *rollupSums) encode(b []byte) []byte {
	for _, n := range s {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func (s *rollupSums) decode(r *pageReader) {
	for i := range s {
		s[i] = r.number()
	}
}

// encode returns the section of an index.
func (u *rollup) encode() []byte {
	if len(u.view.rows) > 0 {
		u.flush()
	}
	b := binary.AppendUvarint(nil, uint64(len(u.keys)))
	for i := range u.keys {
		b = u.sums[i].encode(u.keys[i].encode(b))
	}
	b = binary.AppendUvarint(b, uint64(len(u.open)))
	for i := range u.open {
		o := &u.open[i]
		b = o.rollupSums.encode(o.rollupKey.encode(b))
		b = binary.AppendVarint(binary.AppendVarint(b, o.start), o.end-o.start)
		b = binary.LittleEndian.AppendUint64(b, o.hash)
		var flags byte
		if o.connected {
			flags |= 1
		}
		if o.toServer {
			flags |= 2
		}
		b = append(b, flags)
	}
	return b
}

var errRollup = errors.New("its rollup ends too early")

// rollup hands what an index sums to a function, for which the sums are valid until it returns. It returns where the open flows are.
func (x *index) rollup(sum func(*rollupKey, *rollupSums)) (open int, err error) {
	r := &pageReader{buf: x.rollups}
	var key rollupKey
	var sums rollupSums
	for range r.number() {
		key.decode(r)
		sums.decode(r)
		if r.short {
			return 0, errRollup
		}
		sum(&key, &sums)
	}
	return r.at, nil
}

// hasOpenFlows tells whether there are open flows at a place.
func (x *index) hasOpenFlows(at int) bool {
	return (&pageReader{buf: x.rollups, at: at}).number() > 0
}

// openFlows hands the open flows of an index to a function.
func (x *index) openFlows(at int, w *words, open func(*openFlow)) error {
	r := &pageReader{buf: x.rollups, at: at}
	for range r.number() {
		var o openFlow
		o.rollupKey.decode(r)
		o.rollupSums.decode(r)
		o.start = unzigzag(r.number())
		o.end = o.start + unzigzag(r.number())
		rest := r.bytes(9)
		if r.short {
			return errRollup
		}
		o.hash, o.connected, o.toServer = binary.LittleEndian.Uint64(rest), rest[8]&1 != 0, rest[8]&2 != 0
		o.node, o.direction = w.strings[o.near.node], o.near.direction
		open(&o)
	}
	return nil
}

// other returns a row of the same flow at the other end.
func (x *index) other(w *words, s *sighting) (other rollupView, found bool, err error) {
	x.find(s.hash, func(page uint32) {
		if found || err != nil {
			return
		}
		err = x.read(page, func(r *row, h *health) {
			if !found && s.seenBy(r, h, w.strings[r.node]) {
				other, found = rollupView{r.sourceID, r.destinationID, r.node, r.direction}, true
			}
		})
	})
	return other, found, err
}
