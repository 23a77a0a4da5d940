package embedded

import (
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"github.com/orb8/orb8/internal/flow"
)

// chunkRows is how many records a chunk holds. Chunks are evicted whole: smaller ones evict in finer steps, larger
// ones share their identities among more records.
const chunkRows = 4096

// tuple is the part of a flow's identity that the packets carry. Addresses are in their 16-byte form.
type tuple struct {
	source, destination         [16]byte
	sourcePort, destinationPort uint16
	direction                   flow.Direction
	transport                   flow.Transport
	icmpType, icmpCode          uint8
}

// row is a flow record without pointers, so that the garbage collector never scans the store's bulk. Strings and
// identities are indexes into the chunk's dictionary.
type row struct {
	tuple
	node, interfaces                  uint32
	sourceID, destinationID           uint32
	start, end                        int64
	bytes, packets, connections, lost uint64
	// health is a position in the chunk's column of that name, counted from 1; 0 is none.
	health    uint32
	peerName  uint32
	tcpFlags  uint8
	ended     bool
	initiator flow.Initiator
	outcome   flow.Outcome
}

const rowBytes = uint64(unsafe.Sizeof(row{}))

// view is what a reader needs of a chunk. The writer only appends beyond the lengths of a view that was taken under
// the store's lock, so a view can be read without it.
type view struct {
	words
	rows   []row
	health []health
}

// chunk is a run of flow records.
type chunk struct {
	run
	rows   []row
	health []health
}

func newChunk() *chunk {
	return &chunk{run: newRun(), rows: make([]row, 0, chunkRows)}
}

func (c *chunk) size() uint64 {
	return c.bytes + chunkRows*rowBytes + uint64(len(c.health))*healthBytes
}

func (c *chunk) seal() {
	c.dictionary.seal()
	c.health = slices.Clone(c.health)
}

func (c *chunk) full() bool {
	return len(c.rows) == chunkRows
}

func (c *chunk) view() view {
	return view{words: c.words, rows: c.rows, health: c.health}
}

func (c *chunk) append(r *flow.Record, now int64) {
	start, end := r.Start.UnixNano(), r.End.UnixNano()
	c.note(start, end, now)
	c.rows = append(c.rows, row{
		tuple: tuple{
			source:          r.Source.Addr.Addr().As16(),
			destination:     r.Destination.Addr.Addr().As16(),
			sourcePort:      r.Source.Addr.Port(),
			destinationPort: r.Destination.Addr.Port(),
			direction:       r.Direction,
			transport:       r.Transport,
			icmpType:        r.ICMPType,
			icmpCode:        r.ICMPCode,
		},
		node:          c.stringID(r.Node),
		interfaces:    c.stringID(joinInterfaces(r.Interfaces)),
		sourceID:      c.identityID(r.Source.Identity),
		destinationID: c.identityID(r.Destination.Identity),
		peerName:      c.stringID(r.Peer().Name),
		start:         start,
		end:           end,
		bytes:         r.Bytes,
		packets:       r.Packets,
		connections:   r.Connections,
		lost:          r.LostPackets,
		health:        c.healthID(&r.TCPHealth),
		tcpFlags:      r.TCPFlags,
		ended:         r.Ended,
		initiator:     r.Initiator,
		outcome:       r.Outcome,
	})
}

func (c *chunk) healthID(h *flow.TCPHealth) uint32 {
	if *h == (flow.TCPHealth{}) {
		return 0
	}
	c.health = append(c.health, compact(h))
	return uint32(len(c.health))
}

// record decodes a row into r, all but its interfaces.
func (v *view) record(i int, r *flow.Record) {
	row := &v.rows[i]
	*r = flow.Record{
		Start:     time.Unix(0, row.start).UTC(),
		End:       time.Unix(0, row.end).UTC(),
		Node:      v.strings[row.node],
		Direction: row.direction,
		Transport: row.transport,
		Source: flow.Endpoint{
			Addr:     netip.AddrPortFrom(netip.AddrFrom16(row.source).Unmap(), row.sourcePort),
			Identity: v.identities[row.sourceID],
		},
		Destination: flow.Endpoint{
			Addr:     netip.AddrPortFrom(netip.AddrFrom16(row.destination).Unmap(), row.destinationPort),
			Identity: v.identities[row.destinationID],
		},
		ICMPType:    row.icmpType,
		ICMPCode:    row.icmpCode,
		TCPFlags:    row.tcpFlags,
		Bytes:       row.bytes,
		Packets:     row.packets,
		Connections: row.connections,
		Initiator:   row.initiator,
		Ended:       row.ended,
		Outcome:     row.outcome,
		LostPackets: row.lost,
	}
	r.Peer().Name = v.strings[row.peerName]
	if row.health != 0 {
		r.TCPHealth = v.health[row.health-1].expand()
	}
}
