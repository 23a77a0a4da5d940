package ebpfnetworkreceiver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
)

func TestRetransmitsAreThoseOfTheInterval(t *testing.T) {
	const first = seenSYN | seenFromClient
	tests := map[string]struct {
		intervals []network.NetworkFlow
		want      []uint32
	}{
		"a connection seen from its beginning": {
			[]network.NetworkFlow{
				{Seen: first, ClientIsn: 1, Connections: 1, Retransmits: 2}, {Retransmits: 2}, {Retransmits: 7},
			},
			[]uint32{2, 0, 5},
		},
		"a connection older than orb8: its past is not ours": {
			[]network.NetworkFlow{{TcpFlags: ack, Retransmits: 100}, {TcpFlags: ack, Retransmits: 103}},
			[]uint32{0, 3},
		},
		"another connection with the same ports counts from 0": {
			[]network.NetworkFlow{
				{Seen: first, ClientIsn: 1, Connections: 1, Retransmits: 9}, {Seen: first, ClientIsn: 2, Connections: 1, Retransmits: 1},
			},
			[]uint32{9, 1},
		},
		"an interval without the connection's socket": {
			[]network.NetworkFlow{{Seen: first, ClientIsn: 1, Connections: 1, Retransmits: 4}, {}, {Retransmits: 5}},
			[]uint32{4, 0, 1},
		},
		"SYNs sent again and again": {
			[]network.NetworkFlow{
				{Seen: first, ClientIsn: 1, Connections: 1, Retransmits: 2}, {Seen: first, ClientIsn: 1, Connections: 1, Retransmits: 3},
			},
			[]uint32{2, 1},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var c tcpState
			for i, f := range tt.intervals {
				c.learn(&f, tcpState{})
				assert.Equal(t, tt.want[i], f.Retransmits, "interval %d", i)
			}
		})
	}
}

func TestTheConnectionIsKnownInEveryInterval(t *testing.T) {
	var c tcpState
	handshake := network.NetworkFlow{Seen: seenSYN | seenSYNACK | seenFromClient, ClientIsn: 10, ServerIsn: 20, Connections: 1}
	c.learn(&handshake, tcpState{})
	later := network.NetworkFlow{TcpFlags: ack}
	c.learn(&later, tcpState{})
	got := health(&later)
	assert.True(t, got.HasISNs)
	assert.EqualValues(t, 10, got.ClientISN)
	assert.EqualValues(t, 20, got.ServerISN)
	assert.Equal(t, flow.InitiatorSource, initiator(later.Seen))
}

// A flip between SYN and SYN-ACK leaves each half of the handshake in another generation.
func TestAHandshakeCutInTwoIsPutTogether(t *testing.T) {
	var there, back tcpState
	syn := network.NetworkFlow{Seen: seenSYN | seenFromClient, ClientIsn: 10, Connections: 1}
	there.learn(&syn, tcpState{})
	synAck := network.NetworkFlow{Seen: seenSYN | seenSYNACK | seenFromServer, ClientIsn: 10, ServerIsn: 20}
	back.learn(&synAck, there)
	data := network.NetworkFlow{TcpFlags: ack}
	there.learn(&data, back)
	assert.True(t, health(&data).HasISNs)
	assert.EqualValues(t, 20, data.ServerIsn)
	assert.Equal(t, flow.InitiatorSource, initiator(data.Seen))
	assert.Equal(t, flow.InitiatorDestination, initiator(synAck.Seen))

	stranger := tcpState{clientISN: 11, serverISN: 21, seen: seenSYN | seenSYNACK | seenFromServer}
	var other tcpState
	another := network.NetworkFlow{Seen: seenSYN | seenFromClient, ClientIsn: 99, Connections: 1}
	other.learn(&another, stranger)
	assert.False(t, health(&another).HasISNs, "the other direction is of an earlier connection")
}

func TestOutcome(t *testing.T) {
	const opened, established = seenSYN | seenFromClient, seenSYN | seenSYNACK | seenFromClient
	tests := map[string]struct {
		mine, theirs tcpState
		now, silent  flow.Outcome
	}{
		"alive":                {tcpState{seen: established, tcpFlags: ack}, tcpState{tcpFlags: ack}, flow.OutcomeUnknown, flow.OutcomeUnknown},
		"both finished":        {tcpState{seen: established, tcpFlags: tcpFIN}, tcpState{tcpFlags: tcpFIN}, flow.OutcomeClosed, flow.OutcomeClosed},
		"one finished":         {tcpState{seen: established, tcpFlags: tcpFIN}, tcpState{tcpFlags: ack}, flow.OutcomeUnknown, flow.OutcomeClosed},
		"reset":                {tcpState{seen: established, tcpFlags: tcpRST}, tcpState{tcpFlags: ack}, flow.OutcomeReset, flow.OutcomeReset},
		"reset by the other":   {tcpState{seen: established, tcpFlags: ack}, tcpState{tcpFlags: tcpRST}, flow.OutcomeReset, flow.OutcomeReset},
		"refused":              {tcpState{seen: opened, tcpFlags: syn}, tcpState{tcpFlags: tcpRST | ack}, flow.OutcomeRefused, flow.OutcomeRefused},
		"never answered":       {tcpState{seen: opened, tcpFlags: syn}, tcpState{}, flow.OutcomeUnknown, flow.OutcomeTimeout},
		"reset, opened unseen": {tcpState{tcpFlags: tcpRST}, tcpState{tcpFlags: ack}, flow.OutcomeReset, flow.OutcomeReset},
		"no TCP at all":        {tcpState{}, tcpState{}, flow.OutcomeUnknown, flow.OutcomeUnknown},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tt.now, outcome(tt.mine, tt.theirs))
			assert.Equal(t, tt.silent, outcomeOfSilence(tt.mine, tt.theirs))
		})
	}
}

func TestHealth(t *testing.T) {
	got := health(&network.NetworkFlow{SrttUs: 1500, MinRttUs: 1000, HandshakeUs: 2000, Retransmits: 3, ZeroWindows: 4})
	assert.Equal(t, flow.TCPHealth{
		SRTT: 1500 * time.Microsecond, MinRTT: time.Millisecond, Handshake: 2 * time.Millisecond, Retransmits: 3, ZeroWindows: 4,
	}, got)
	assert.Zero(t, health(&network.NetworkFlow{MinRttUs: ^uint32(0)}).MinRTT, "the kernel's word for none yet")
}
