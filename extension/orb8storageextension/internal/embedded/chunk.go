package embedded

import (
	"net/netip"
	"slices"
	"strings"
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
	node, iface                       uint32
	sourceID, destinationID           uint32
	start, end                        int64
	bytes, packets, connections, lost uint64
	tcpFlags                          uint8
	ended                             bool
}

const (
	rowBytes      = uint64(unsafe.Sizeof(row{}))
	identityBytes = uint64(unsafe.Sizeof(flow.Identity{}))
	stringBytes   = uint64(unsafe.Sizeof(""))
)

// view is what a reader needs of a chunk. The writer only appends beyond the lengths of a view that was taken under
// the store's lock, so a view can be read without it.
type view struct {
	rows       []row
	strings    []string
	identities []flow.Identity
	// start is the first and end the last packet of all rows.
	start, end int64
}

// chunk is a run of records in order of arrival, with the dictionary of their strings and identities. A dictionary
// of its own lets a chunk be evicted without counting references.
type chunk struct {
	view
	stringIndex   map[string]uint32
	identityIndex map[flow.Identity]uint32
	// bytes is the memory that the chunk takes, less the two indexes, which live only while it is written.
	bytes uint64
	// written is when the last record arrived.
	written int64
}

func newChunk() *chunk {
	return &chunk{
		view:          view{rows: make([]row, 0, chunkRows)},
		stringIndex:   map[string]uint32{},
		identityIndex: map[flow.Identity]uint32{},
		bytes:         chunkRows * rowBytes,
	}
}

func (c *chunk) full() bool {
	return len(c.rows) == chunkRows
}

// seal drops what only the writer needs.
func (c *chunk) seal() {
	c.stringIndex, c.identityIndex = nil, nil
	c.strings, c.identities = slices.Clone(c.strings), slices.Clone(c.identities)
}

func (c *chunk) append(r *flow.Record, now int64) {
	start, end := r.Start.UnixNano(), r.End.UnixNano()
	if len(c.rows) == 0 {
		c.start, c.end = start, end
	}
	c.start, c.end = min(c.start, start), max(c.end, end)
	c.written = now
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
		iface:         c.stringID(r.Interface),
		sourceID:      c.identityID(r.Source.Identity),
		destinationID: c.identityID(r.Destination.Identity),
		start:         start,
		end:           end,
		bytes:         r.Bytes,
		packets:       r.Packets,
		connections:   r.Connections,
		lost:          r.LostPackets,
		tcpFlags:      r.TCPFlags,
		ended:         r.Ended,
	})
}

func (c *chunk) stringID(s string) uint32 {
	id, known := c.stringIndex[s]
	if !known {
		// The clone keeps a short string from holding on to the message that it was cut from.
		s = strings.Clone(s)
		id = uint32(len(c.strings))
		c.strings = append(c.strings, s)
		c.stringIndex[s] = id
		c.bytes += stringBytes + uint64(len(s))
	}
	return id
}

func (c *chunk) identityID(identity flow.Identity) uint32 {
	id, known := c.identityIndex[identity]
	if !known {
		for _, s := range []*string{
			&identity.Cgroup, &identity.ContainerID, &identity.Runtime, &identity.PodUID, &identity.QOSClass, &identity.Pod,
			&identity.Namespace, &identity.Container, &identity.Unit, &identity.Process,
		} {
			// Identities that differ only in process share their other strings.
			*s = c.strings[c.stringID(*s)]
		}
		id = uint32(len(c.identities))
		c.identities = append(c.identities, identity)
		c.identityIndex[identity] = id
		c.bytes += identityBytes
	}
	return id
}

// record decodes a row into r.
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
		Interface:   v.strings[row.iface],
		ICMPType:    row.icmpType,
		ICMPCode:    row.icmpCode,
		TCPFlags:    row.tcpFlags,
		Bytes:       row.bytes,
		Packets:     row.packets,
		Connections: row.connections,
		Ended:       row.ended,
		LostPackets: row.lost,
	}
}
