package embedded

import (
	"encoding/binary"
	"math/bits"

	"github.com/orb8/orb8/internal/flow"
)

// What the two bytes before a row say.
const (
	// The first has the direction in its lowest two bits, the initiator in the next, and these.
	pageEnded = 1 << (4 + iota)
	pageHealth
	pageSameFlow
	pageSameISNs
)

const (
	// The second has the outcome in its lowest three bits, and these.
	pageLost = 1 << (3 + iota)
	pageConnections
	pageNames
)

// pageWriter encodes the rows of a page, each as how it differs from the one before.
type pageWriter struct {
	buf     []byte
	rows    int
	last    row
	isns    uint64
	hasISNs bool
}

// put appends a row, whose addresses have these numbers.
func (w *pageWriter) put(r *row, h *health, source, destination uint32) {
	first, second := byte(r.direction)&3|byte(r.initiator)&3<<2, byte(r.outcome)&7
	if r.ended {
		first |= pageEnded
	}
	same, last := w.rows > 0, &w.last
	if a, b := r.tuple, last.tuple; same {
		b.direction = a.direction
		same = a == b
	}
	if same {
		first |= pageSameFlow
	}
	if h != nil {
		first |= pageHealth
		if w.hasISNs && h.isns == w.isns {
			first |= pageSameISNs
		}
	}
	if r.lost != 0 {
		second |= pageLost
	}
	if r.connections != 0 {
		second |= pageConnections
	}
	if r.peerName != last.peerName || r.interfaces != last.interfaces {
		second |= pageNames
	}
	w.buf = append(w.buf, first, second, r.tcpFlags)
	if !same {
		w.number(uint64(source), uint64(destination))
		w.buf = append(w.buf, byte(r.transport), r.icmpType, r.icmpCode)
		w.buf = binary.LittleEndian.AppendUint16(w.buf, r.sourcePort)
		w.buf = binary.LittleEndian.AppendUint16(w.buf, r.destinationPort)
	}
	if second&pageNames != 0 {
		w.number(uint64(r.peerName), uint64(r.interfaces))
	}
	w.number(uint64(r.node), uint64(r.sourceID), uint64(r.destinationID), zigzag(r.start-last.start), zigzag(r.end-r.start), r.bytes, r.packets)
	if r.lost != 0 {
		w.number(r.lost)
	}
	if r.connections != 0 {
		w.number(r.connections)
	}
	if h != nil {
		if first&pageSameISNs == 0 {
			w.buf = binary.LittleEndian.AppendUint64(w.buf, h.isns)
		}
		w.number(uint64(h.srtt), uint64(h.minRTT), uint64(h.handshake), uint64(h.retransmits), uint64(h.zeroWindows))
		w.isns, w.hasISNs = h.isns, true
	}
	w.last = *r
	w.rows++
}

func (w *pageWriter) number(numbers ...uint64) {
	for _, n := range numbers {
		w.buf = binary.AppendUvarint(w.buf, n)
	}
}

func zigzag(n int64) uint64   { return uint64(n)<<1 ^ uint64(n>>63) }
func unzigzag(n uint64) int64 { return int64(n>>1) ^ -int64(n&1) }

// pageReader decodes what pageWriter encoded.
type pageReader struct {
	buf []byte
	// at is where the next byte is read.
	at        int
	addresses []byte
	// short tells that the buffer ended too early: what was read after that is zero.
	short  bool
	row    row
	health health
}

// next decodes the next row into row, and its health, of which hasHealth tells whether there is one. Of row, health is not set.
func (r *pageReader) next() (hasHealth bool) {
	head := r.bytes(3)
	if r.short {
		return false
	}
	first, second := head[0], head[1]
	row := &r.row
	row.tcpFlags = head[2]
	row.ended = first&pageEnded != 0
	row.outcome = flow.Outcome(second & 7)
	if first&pageSameFlow == 0 {
		source, destination := r.number(), r.number()
		fixed := r.bytes(7)
		if r.short || (max(source, destination)+1)*16 > uint64(len(r.addresses)) {
			r.short = true
			return false
		}
		row.tuple = tuple{
			source: [16]byte(r.addresses[source*16:]), destination: [16]byte(r.addresses[destination*16:]),
			transport: flow.Transport(fixed[0]), icmpType: fixed[1], icmpCode: fixed[2],
			sourcePort: binary.LittleEndian.Uint16(fixed[3:]), destinationPort: binary.LittleEndian.Uint16(fixed[5:]),
		}
	}
	row.direction, row.initiator = flow.Direction(first&3), flow.Initiator(first>>2&3)
	if second&pageNames != 0 {
		row.peerName, row.interfaces = uint32(r.number()), uint32(r.number())
	}
	row.node, row.sourceID, row.destinationID = uint32(r.number()), uint32(r.number()), uint32(r.number())
	row.start += unzigzag(r.number())
	row.end = row.start + unzigzag(r.number())
	row.bytes, row.packets = r.number(), r.number()
	row.lost, row.connections = 0, 0
	if second&pageLost != 0 {
		row.lost = r.number()
	}
	if second&pageConnections != 0 {
		row.connections = r.number()
	}
	if first&pageHealth == 0 {
		return false
	}
	if first&pageSameISNs == 0 {
		if b := r.bytes(8); b != nil {
			r.health.isns = binary.LittleEndian.Uint64(b)
		}
	}
	h := &r.health
	h.srtt, h.minRTT, h.handshake = uint32(r.number()), uint32(r.number()), uint32(r.number())
	h.retransmits, h.zeroWindows = uint32(r.number()), uint32(r.number())
	return true
}

func (r *pageReader) number() uint64 {
	if r.at < len(r.buf) && r.buf[r.at] < 0x80 {
		r.at++
		return uint64(r.buf[r.at-1])
	}
	return r.longNumber()
}

// longNumber reads a number of several bytes. Those of at most eight, which are nearly all, it reads at once: a loop over bytes whose
// number nobody foresees is what reading a page would spend most of its time on.
func (r *pageReader) longNumber() uint64 {
	if len(r.buf)-r.at >= 8 {
		n := binary.LittleEndian.Uint64(r.buf[r.at:])
		if ends := ^n & 0x8080808080808080; ends != 0 {
			r.at += bits.TrailingZeros64(ends)/8 + 1
			n &= (ends ^ (ends - 1)) & 0x7f7f7f7f7f7f7f7f
			n = n&0x007f007f007f007f | n&0x7f007f007f007f00>>1
			n = n&0x00003fff00003fff | n&0x3fff00003fff0000>>2
			return n&0x000000000fffffff | n&0x0fffffff00000000>>4
		}
	}
	n, width := binary.Uvarint(r.buf[r.at:])
	if width <= 0 {
		r.end()
		return 0
	}
	r.at += width
	return n
}

func (r *pageReader) bytes(n int) []byte {
	if n > len(r.buf)-r.at {
		r.end()
		return nil
	}
	r.at += n
	return r.buf[r.at-n : r.at]
}

// end notes that the buffer ended too early: nothing more is read.
func (r *pageReader) end() { r.short, r.at = true, len(r.buf) }
