package ebpfnetworkreceiver

import (
	"time"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
)

const (
	seenSYN        = uint8(network.NetworkSeenSEEN_SYN)
	seenSYNACK     = uint8(network.NetworkSeenSEEN_SYNACK)
	seenFromClient = uint8(network.NetworkSeenSEEN_FROM_CLIENT)
	seenFromServer = uint8(network.NetworkSeenSEEN_FROM_SERVER)
	// seenConnection are the bits that belong to a connection rather than to an interval.
	seenConnection = seenSYN | seenSYNACK | seenFromClient | seenFromServer
)

// tcpState is what is remembered of a TCP flow's newest connection.
type tcpState struct {
	clientISN, serverISN uint32
	seen                 uint8
	tcpFlags             uint8
	// ended is how the connection ended. Its last segments may be sent again after that.
	ended flow.Outcome
	// retransmits is the sending socket's total when it was last read.
	retransmits uint32
}

// learn takes what an interval tells of the connection, and completes the interval's counts by what is remembered: the
// kernel forgets a flow once an interval. other is what is remembered of the other direction.
func (c *tcpState) learn(f *network.NetworkFlow, other tcpState) {
	total := f.Retransmits
	switch {
	case f.Seen&seenSYN != 0 && f.ClientIsn != c.clientISN, f.Seen&seenSYNACK != 0 && f.ServerIsn != c.serverISN && c.seen&seenSYNACK != 0:
		// Another connection with the same ports, or the first that is known. Its socket has counted from 0.
		*c = tcpState{clientISN: f.ClientIsn, serverISN: f.ServerIsn, seen: f.Seen & seenConnection}
	case f.Seen&seenSYN != 0 && f.Connections == 1:
		// The same SYN, sent again after a flip: to the kernel's new generation it looks like the first.
		f.Connections = 0
		f.Retransmits = since(c.retransmits, total)
	case c.seen == 0 && c.retransmits == 0 && c.tcpFlags == 0:
		// A connection older than orb8: what its socket had counted before cannot be told from what it has counted since.
		f.Retransmits = 0
	default:
		f.Retransmits = since(c.retransmits, total)
	}
	c.retransmits = max(c.retransmits, total)
	c.tcpFlags |= f.TcpFlags
	c.merge(f.Seen, f.ClientIsn, f.ServerIsn)
	c.learnFrom(f, other)
}

// learnFrom takes what the other direction knows of the connection, and tells the interval's counts what is known by now: a
// handshake that a flip cut in two, or whose halves took different ways, is known to one direction only.
func (c *tcpState) learnFrom(f *network.NetworkFlow, other tcpState) {
	if other.seen&seenSYNACK != 0 && c.seen&seenSYNACK == 0 && (c.seen&seenSYN == 0 || c.clientISN == other.clientISN) {
		c.merge(turn(other.seen), other.clientISN, other.serverISN)
	}
	f.Seen |= c.seen
	f.ClientIsn, f.ServerIsn = c.clientISN, c.serverISN
}

// halfOpen tells that the client's half of the handshake is known, and not the server's.
func (c *tcpState) halfOpen() bool { return c.seen&(seenSYN|seenSYNACK) == seenSYN }

func (c *tcpState) merge(seen uint8, clientISN, serverISN uint32) {
	if seen&seenSYN != 0 {
		c.clientISN = clientISN
	}
	if seen&seenSYNACK != 0 {
		c.serverISN = serverISN
	}
	c.seen |= seen & seenConnection
}

// turn is what a direction's knowledge is to the other direction.
func turn(seen uint8) uint8 {
	turned := seen & (seenSYN | seenSYNACK)
	if seen&seenFromClient != 0 {
		turned |= seenFromServer
	}
	if seen&seenFromServer != 0 {
		turned |= seenFromClient
	}
	return turned
}

func since(before, now uint32) uint32 {
	if now < before { // a packet that was sent without the connection's socket carries no total
		return 0
	}
	return now - before
}

// outcome tells how the connection of two directions ended, if it has.
func outcome(c, other tcpState) flow.Outcome {
	both, either := c.tcpFlags&other.tcpFlags, c.tcpFlags|other.tcpFlags
	seen := c.seen | other.seen
	switch {
	case either&tcpRST != 0 && seen&seenSYN != 0 && seen&seenSYNACK == 0:
		return flow.OutcomeRefused
	case either&tcpRST != 0:
		return flow.OutcomeReset
	case both&tcpFIN != 0:
		return flow.OutcomeClosed
	}
	return flow.OutcomeUnknown
}

// outcomeOfSilence tells how a connection ended of which nothing has been heard for too long.
func outcomeOfSilence(c, other tcpState) flow.Outcome {
	seen := c.seen | other.seen
	switch {
	case seen&seenSYN != 0 && seen&seenSYNACK == 0 && other.tcpFlags == 0:
		return flow.OutcomeTimeout
	case (c.tcpFlags|other.tcpFlags)&tcpFIN != 0:
		// The last packets of a connection may never be seen at a socket.
		return flow.OutcomeClosed
	}
	return outcome(c, other)
}

// health turns what the kernel and the connection's memory say of an interval into the record's own terms.
func health(f *network.NetworkFlow) flow.TCPHealth {
	return flow.TCPHealth{
		ClientISN: f.ClientIsn, ServerISN: f.ServerIsn, HasISNs: f.Seen&seenSYNACK != 0,
		SRTT: microseconds(f.SrttUs), MinRTT: minRTT(f.MinRttUs), Handshake: microseconds(f.HandshakeUs),
		Retransmits: uint64(f.Retransmits), ZeroWindows: uint64(f.ZeroWindows),
	}
}

func initiator(seen uint8) flow.Initiator {
	switch {
	case seen&seenFromClient != 0:
		return flow.InitiatorSource
	case seen&seenFromServer != 0:
		return flow.InitiatorDestination
	}
	return flow.InitiatorUnknown
}

func microseconds(us uint32) time.Duration { return time.Duration(us) * time.Microsecond }

// minRTT leaves out the kernel's "none yet", which is the largest number.
func minRTT(us uint32) time.Duration {
	if us == ^uint32(0) {
		return 0
	}
	return microseconds(us)
}
