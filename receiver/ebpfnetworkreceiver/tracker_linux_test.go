package ebpfnetworkreceiver

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/kernelclock"
)

const (
	syn = 0x02
	ack = 0x10
)

// book is a tracker and what it has emitted since it was last asked.
type book struct {
	*tracker
	records []flow.Record
}

func newBook(change func(*Config)) *book {
	cfg := createDefaultConfig().(*Config)
	if change != nil {
		change(cfg)
	}
	b := &book{}
	b.tracker = newTracker(cfg, recorder{}, func(r flow.Record) { b.records = append(b.records, r) })
	return b
}

// interval plays one interval and returns its records.
func (b *book) interval(lost uint64, observations ...func(*tracker)) []flow.Record {
	b.records = nil
	b.begin(kernelclock.Read(), lost)
	for _, o := range observations {
		o(b.tracker)
	}
	b.end()
	return b.records
}

func key(transport flow.Transport, d flow.Direction, src, dst string) network.NetworkFlowKey {
	s, e := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	return network.NetworkFlowKey{
		Saddr: s.Addr().As16(), Daddr: e.Addr().As16(), Sport: s.Port(), Dport: e.Port(),
		Transport: uint8(transport), Direction: uint8(d), Scope: 77,
	}
}

func seen(k network.NetworkFlowKey, f network.NetworkFlow) func(*tracker) {
	now := uint64(kernelclock.Now())
	if f.FirstNs == 0 {
		f.FirstNs, f.LastNs = now, now
	}
	f.CgroupId = 77
	return func(t *tracker) { t.observe(&k, &f) }
}

var (
	tcpOut = key(flow.TCP, flow.Egress, "10.0.0.1:40000", "10.0.0.2:80")
	tcpIn  = key(flow.TCP, flow.Ingress, "10.0.0.2:80", "10.0.0.1:40000")
	udpOut = key(flow.UDP, flow.Egress, "10.0.0.1:5000", "10.0.0.2:53")
)

func TestConnectionsOfTCPAreItsSYNs(t *testing.T) {
	b := newBook(nil)
	first := b.interval(0, seen(tcpOut, network.NetworkFlow{Packets: 1, Connections: 1, ClientIsn: 7, TcpFlags: syn, Seen: seenSYN | seenFromClient}))
	require.Len(t, first, 1)
	assert.EqualValues(t, 1, first[0].Connections)

	again := b.interval(0, seen(tcpOut, network.NetworkFlow{Packets: 1, Connections: 1, ClientIsn: 7, TcpFlags: syn, Seen: seenSYN | seenFromClient}))
	assert.EqualValues(t, 0, again[0].Connections, "the same SYN, sent again")

	reused := b.interval(0, seen(tcpOut, network.NetworkFlow{Packets: 9, Connections: 1, ClientIsn: 8, TcpFlags: syn | ack, Seen: seenSYN | seenFromClient}))
	assert.EqualValues(t, 1, reused[0].Connections, "another connection with the same ports")

	midstream := newBook(nil).interval(0, seen(tcpOut, network.NetworkFlow{Packets: 5, TcpFlags: ack}))
	assert.EqualValues(t, 0, midstream[0].Connections, "opened before orb8 was there")
}

// Of a packet here and there, as on a bridge that keeps out of the way afterwards, nothing comes later to put it right.
func TestHalvesOfAHandshakeAreOneConnection(t *testing.T) {
	half := seen(tcpOut, network.NetworkFlow{Packets: 1, Connections: 1, ClientIsn: 7, TcpFlags: syn, Seen: seenSYN | seenFromClient})
	otherHalf := seen(tcpIn, network.NetworkFlow{
		Packets: 1, ClientIsn: 7, ServerIsn: 8, TcpFlags: syn | ack, Seen: seenSYN | seenSYNACK | seenFromServer,
	})
	for name, intervals := range map[string][][]func(*tracker){
		"the SYN is drained first":      {{half, otherHalf}},
		"the SYN-ACK is drained first":  {{otherHalf, half}},
		"a flip between them":           {{half}, {otherHalf}},
		"a flip between them, turned":   {{otherHalf}, {half}},
		"a SYN-ACK without its own SYN": {{otherHalf}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook(nil)
			for _, observations := range intervals {
				b.interval(0, observations...)
			}
			if len(intervals) == 2 {
				b.idle = 0
				assert.Len(t, b.interval(0), 2, "the ends of both")
			}
			require.NotEmpty(t, b.records)
			for _, r := range b.records {
				assert.True(t, r.HasISNs, "%+v", r)
				assert.EqualValues(t, 7, r.ClientISN)
				assert.EqualValues(t, 8, r.ServerISN)
			}
		})
	}
}

func TestConnectionsOfTheOthersAreTheirFirstRecords(t *testing.T) {
	b := newBook(nil)
	assert.EqualValues(t, 1, b.interval(0, seen(udpOut, network.NetworkFlow{Packets: 3}))[0].Connections)
	assert.EqualValues(t, 0, b.interval(0, seen(udpOut, network.NetworkFlow{Packets: 3}))[0].Connections)
}

func TestEndOfTCP(t *testing.T) {
	tests := map[string]struct {
		intervals [][]func(*tracker)
		// ended is, interval by interval, how many records are the last of their flow.
		ended []int
	}{
		"both sides finish in one interval": {
			[][]func(*tracker){{
				seen(tcpOut, network.NetworkFlow{TcpFlags: ack | tcpFIN}), seen(tcpIn, network.NetworkFlow{TcpFlags: ack | tcpFIN}),
			}},
			[]int{2},
		},
		"one side finishes an interval later": {
			[][]func(*tracker){
				{seen(tcpOut, network.NetworkFlow{TcpFlags: ack | tcpFIN}), seen(tcpIn, network.NetworkFlow{TcpFlags: ack})},
				{seen(tcpIn, network.NetworkFlow{TcpFlags: ack | tcpFIN})},
			},
			[]int{0, 2}, // the side that had finished first ends by a record of its own, without packets
		},
		"one side only": {
			[][]func(*tracker){{
				seen(tcpOut, network.NetworkFlow{TcpFlags: ack | tcpFIN}), seen(tcpIn, network.NetworkFlow{TcpFlags: ack}),
			}, {}},
			[]int{0, 0},
		},
		"reset ends both": {
			[][]func(*tracker){{
				seen(tcpOut, network.NetworkFlow{TcpFlags: ack}), seen(tcpIn, network.NetworkFlow{TcpFlags: tcpRST}),
			}},
			[]int{2},
		},
		"refused": {
			[][]func(*tracker){{
				seen(tcpOut, network.NetworkFlow{TcpFlags: syn, ClientIsn: 1, Connections: 1, Seen: seenSYN | seenFromClient}), seen(tcpIn, network.NetworkFlow{TcpFlags: tcpRST | ack}),
			}},
			[]int{2},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBook(nil)
			for i, observations := range tt.intervals {
				ended := 0
				for _, r := range b.interval(0, observations...) {
					if r.Ended {
						ended++
					}
				}
				assert.Equal(t, tt.ended[i], ended, "interval %d", i)
			}
		})
	}
}

// The last segment of a connection is sent again when its acknowledgement is lost: after its end was told.
func TestStragglersBelongToTheirConnection(t *testing.T) {
	const both = seenSYN | seenSYNACK | seenFromClient
	b := newBook(nil)
	b.interval(0, seen(tcpOut, network.NetworkFlow{TcpFlags: tcpFIN, Seen: both, ClientIsn: 1, ServerIsn: 2, Connections: 1, Retransmits: 1}),
		seen(tcpIn, network.NetworkFlow{TcpFlags: tcpFIN}))
	assert.Zero(t, b.live)

	got := b.interval(0, seen(tcpOut, network.NetworkFlow{Packets: 1, TcpFlags: tcpFIN | ack, Retransmits: 2}))
	require.Len(t, got, 1)
	assert.True(t, got[0].Ended)
	assert.Equal(t, flow.OutcomeClosed, got[0].Outcome)
	assert.EqualValues(t, 1, got[0].Retransmits, "it was a retransmit")
	assert.True(t, got[0].HasISNs)
	assert.Equal(t, flow.InitiatorUnknown, got[0].Initiator, "no connection begins here")
	assert.Zero(t, b.live)

	got = b.interval(0, seen(tcpOut, network.NetworkFlow{Packets: 1, TcpFlags: syn, Seen: seenSYN | seenFromClient, ClientIsn: 9, Connections: 1}))
	require.Len(t, got, 1)
	assert.False(t, got[0].Ended, "another connection with the same ports")
	assert.Equal(t, 1, b.live)
}

func TestAnEndedFlowIsForgotten(t *testing.T) {
	long := uint64(kernelclock.Now() - int64(closingTimeout))
	b := newBook(nil)
	got := b.interval(0, seen(tcpOut, network.NetworkFlow{FirstNs: long, LastNs: long, TcpFlags: tcpFIN}),
		seen(tcpIn, network.NetworkFlow{FirstNs: long, LastNs: long, TcpFlags: tcpFIN}))
	assert.Len(t, got, 2, "its end is told once")
	assert.Zero(t, b.flows.len())
	assert.Empty(t, b.interval(0))
}

func TestIdleFlowsEnd(t *testing.T) {
	longAgo := uint64(kernelclock.Now() - int64(time.Hour))
	justNow := uint64(kernelclock.Now())
	closing := uint64(kernelclock.Now() - int64(closingTimeout))
	b := newBook(nil)
	b.interval(0, seen(tcpOut, network.NetworkFlow{FirstNs: justNow, LastNs: justNow, Packets: 1, Bytes: 60}))
	require.Equal(t, 1, b.flows.len())

	got := b.interval(0, seen(udpOut, network.NetworkFlow{FirstNs: longAgo, LastNs: longAgo, Packets: 1, Bytes: 60, Pid: 4, Comm: comm("dig")}))
	require.Len(t, got, 2, "its packets and its end")
	assert.False(t, got[0].Ended)
	assert.True(t, got[1].Ended)
	assert.Zero(t, got[1].Packets)
	assert.Zero(t, got[1].Bytes)
	assert.Equal(t, flow.Identity{CgroupID: 77, PID: 4, Process: "dig"}, got[1].Source.Identity, "the end is attributed too")
	assert.Equal(t, 1, b.flows.len(), "the other one lives")

	halfClosed := newBook(nil)
	got = halfClosed.interval(0, seen(tcpOut, network.NetworkFlow{FirstNs: closing, LastNs: closing, TcpFlags: tcpFIN}))
	require.Len(t, got, 2)
	assert.True(t, got[1].Ended, "the last packets of a closing connection may never be seen at a socket")
}

func TestIdentityIsRememberedFromTheFlowsBeginning(t *testing.T) {
	b := newBook(nil)
	b.interval(0, seen(tcpIn, network.NetworkFlow{Packets: 1, Pid: 42, Comm: comm("nginx")}))
	got := b.interval(0, seen(tcpIn, network.NetworkFlow{Packets: 1}))
	assert.Equal(t, flow.Identity{CgroupID: 77, PID: 42, Process: "nginx"}, got[0].Destination.Identity)
}

func TestLossIsSaidInEveryRecordOfItsInterval(t *testing.T) {
	b := newBook(nil)
	assert.EqualValues(t, 5, b.interval(5, seen(udpOut, network.NetworkFlow{Packets: 1}))[0].LostPackets)
	assert.EqualValues(t, 0, b.interval(0, seen(udpOut, network.NetworkFlow{Packets: 1}))[0].LostPackets)
}

func TestSeriesAddUp(t *testing.T) {
	b := newBook(nil)
	other := udpOut
	other.Sport = 5001
	b.interval(0, seen(udpOut, network.NetworkFlow{Packets: 2, Bytes: 200}), seen(other, network.NetworkFlow{Packets: 1, Bytes: 50}))
	b.interval(0, seen(udpOut, network.NetworkFlow{Packets: 1, Bytes: 100}), seen(tcpOut, network.NetworkFlow{Packets: 1, Bytes: 60}))

	require.Len(t, b.series, 2)
	udp := b.series[seriesKey{cgroupID: 77, direction: uint8(flow.Egress), transport: uint8(flow.UDP), ipv4: true}]
	require.NotNil(t, udp)
	assert.EqualValues(t, 4, udp.packets)
	assert.EqualValues(t, 350, udp.bytes)
	assert.EqualValues(t, 2, udp.connections)
}

func TestSilentSeriesAreDropped(t *testing.T) {
	b := newBook(nil)
	b.interval(0, seen(udpOut, network.NetworkFlow{Packets: 1}), seen(tcpOut, network.NetworkFlow{Packets: 1}))
	for key, s := range b.series {
		if flow.Transport(key.transport) == flow.UDP {
			s.lastNS -= int64(seriesTimeout) // may be before the machine was up
		}
	}
	b.interval(0)
	require.Len(t, b.series, 1)
	for key := range b.series {
		assert.Equal(t, flow.TCP, flow.Transport(key.transport))
	}
}

func TestFlowsBeyondTheBoundAreReportedAllTheSame(t *testing.T) {
	b := newBook(func(c *Config) { c.FlowTableSize = 1 })
	var packets uint64
	for i := range 100 {
		k := udpOut
		k.Sport = uint16(i)
		for _, r := range b.interval(0, seen(k, network.NetworkFlow{Packets: 2})) {
			packets += r.Packets
		}
	}
	assert.EqualValues(t, 200, packets)
	assert.Equal(t, 2, b.flows.len())
}

func TestIdleFlowsMakeRoomWhenThereAreMany(t *testing.T) {
	idle := uint64(kernelclock.Now() - int64(10*time.Second)) // longer than an interval, shorter than the idle timeout
	for many, want := range map[int]int{5: 5, 15: 0} {
		b := newBook(func(c *Config) { c.FlowTableSize = 10 })
		for i := range many {
			k := udpOut
			k.Sport = uint16(i)
			seen(k, network.NetworkFlow{FirstNs: idle, LastNs: idle})(b.tracker)
		}
		b.interval(0)
		assert.Equal(t, want, b.flows.len(), "of %d", many)
	}
}

func comm(s string) (c [16]int8) {
	for i := range s {
		c[i] = int8(s[i])
	}
	return c
}

func BenchmarkTracker(b *testing.B) {
	const flows = 10_000
	keys := make([]network.NetworkFlowKey, flows)
	for i := range keys {
		keys[i] = udpOut
		keys[i].Sport, keys[i].Scope = uint16(i), uint64(i%50)
	}
	out := newBatch("")
	tr := newTracker(createDefaultConfig().(*Config), recorder{}, func(r flow.Record) {
		out.addFlow(&r)
		if out.Records >= maxBatch {
			out = newBatch("")
		}
	})
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n%flows == 0 {
			tr.begin(kernelclock.Read(), 0)
		}
		now := uint64(kernelclock.Now())
		f := network.NetworkFlow{Packets: 3, Bytes: 300, FirstNs: now, LastNs: now, CgroupId: uint64(n % 50)}
		tr.observe(&keys[n%flows], &f)
		if n++; n%flows == 0 {
			tr.end()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/record")
}
