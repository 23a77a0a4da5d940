//go:build linux

package traffic

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/testbed/internal/lab"
)

func TestMain(m *testing.M) {
	RunIfChild()
	os.Exit(m.Run())
}

// The headers of a datagram, and those of a segment with the timestamp option that every segment of a connection carries.
const (
	ipv4, ipv6   = 20, 40
	udp          = 8
	tcp          = 20 + 12
	tcpSYNExtras = 8 // the further options of a SYN: MSS, SACK permitted, window scale
)

// What the children say they sent must be what crossed the wire, with nothing else beside it: all that the test bed says
// about orb8's exactness rests on this.
func TestExchangeIsAllThatCrossesTheWire(t *testing.T) {
	tests := map[string]struct {
		load    Load
		headers uint64
	}{
		"tcp4": {Load{Network: "tcp4", Flows: 3, Writes: 100, WriteSize: 4000, Reply: 70_000}, ipv4 + tcp},
		"tcp6": {Load{Network: "tcp6", Flows: 3, Writes: 100, WriteSize: 4000, Reply: 70_000}, ipv6 + tcp},
		"udp4": {Load{Network: "udp4", Flows: 50, Writes: 3, WriteSize: 100, Reply: 20}, ipv4 + udp},
		"udp6": {Load{Network: "udp6", Flows: 50, Writes: 3, WriteSize: 100, Reply: 20}, ipv6 + udp},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := lab.New(t, lab.Options{})
			sent, received := Exchange(t, l.Client, l.Server, tt.load)

			payload := uint64(tt.load.Flows * tt.load.Writes * tt.load.WriteSize)
			assert.Equal(t, payload, sent.BytesSent)
			assert.Equal(t, payload, received.BytesReceived)
			assert.Equal(t, received.BytesSent, sent.BytesReceived)
			assert.Equal(t, sent.Local, received.Remote)
			assert.Equal(t, sent.Remote, received.Local)

			packetsThere, packetsBack, extras := sent.SegmentsSent, received.SegmentsSent, uint64(tt.load.Flows*tcpSYNExtras)
			if sent.SegmentsSent == 0 {
				packetsThere, packetsBack, extras = received.DatagramsReceived, sent.DatagramsReceived, 0
			} else {
				assert.Equal(t, received.SegmentsReceived, sent.SegmentsSent)
				assert.Equal(t, sent.SegmentsReceived, received.SegmentsSent)
				assert.Zero(t, sent.Retransmits+received.Retransmits)
			}
			there := sent.BytesSent + packetsThere*tt.headers + extras
			back := received.BytesSent + packetsBack*tt.headers + extras
			assert.Equal(t, lab.Counters{
				SentPackets: packetsThere, SentBytes: there, ReceivedPackets: packetsBack, ReceivedBytes: back,
			}, l.Client.Counters(t), "client")
			assert.Equal(t, lab.Counters{
				SentPackets: packetsBack, SentBytes: back, ReceivedPackets: packetsThere, ReceivedBytes: there,
			}, l.Server.Counters(t), "server")
		})
	}
}

func TestExchangeWithTheHost(t *testing.T) {
	l := lab.New(t, lab.Options{})
	sent, received := Exchange(t, l.Host, l.Server, Load{Network: "udp4", Writes: 7, WriteSize: 100})
	assert.EqualValues(t, 700, sent.BytesSent)
	assert.EqualValues(t, 7, received.DatagramsReceived)
	assert.Equal(t, lab.Counters{ReceivedPackets: 7, ReceivedBytes: 7 * (ipv4 + udp + 100)}, l.Server.Counters(t))
	assert.Zero(t, l.Client.Counters(t), "the bridge floods")
}

func TestBurstOfManyFlows(t *testing.T) {
	l := lab.New(t, lab.Options{Offloads: true})
	_, received := Exchange(t, l.Client, l.Server, Load{Network: "udp4", Flows: 2000, Writes: 3, WriteSize: 32})
	assert.EqualValues(t, 6000, received.DatagramsReceived)
}

func TestSuperPacketsAreThereWithOffloadsOnly(t *testing.T) {
	load := Load{Network: "tcp4", Writes: 100, WriteSize: 60_000}
	for _, offloads := range []bool{false, true} {
		l := lab.New(t, lab.Options{Offloads: offloads})
		sent, _ := Exchange(t, l.Client, l.Server, load)
		crossed := l.Client.Counters(t).SentPackets
		if offloads {
			assert.Less(t, crossed, sent.SegmentsSent/2)
		} else {
			assert.Equal(t, sent.SegmentsSent, crossed)
		}
	}
}
