package engine

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/bpf/network"
)

func TestEvents(t *testing.T) {
	const newFlow, syn, fin, rst = network.NetworkEventKindEVENT_NEW, network.NetworkEventKindEVENT_SYN, network.NetworkEventKindEVENT_FIN, network.NetworkEventKindEVENT_RST
	frames := [][]byte{
		ethernet(0x0800, ipv4(17, nil, udp(1))...),
		ethernet(0x0800, ipv4(17, nil, udp(1))...), // known by now
		ethernet(0x0800, ipv4(6, nil, tcp(0x02, 1, 0))...),
		ethernet(0x0800, ipv4(6, nil, tcp(0x12, 1, 0))...),
		ethernet(0x0800, ipv4(6, nil, tcp(0x18, 1, 9))...),
		ethernet(0x0800, ipv4(6, nil, tcp(0x11, 1, 0))...),
		ethernet(0x0800, ipv4(6, nil, tcp(0x14, 1, 0))...),
	}
	for _, enabled := range []bool{true, false} {
		e := newEngine(t, func(o *Options) { o.Events = enabled })
		for _, f := range frames {
			e.pass(t, f, 1)
		}
		var kinds []network.NetworkEventKind
		for _, ev := range e.readAll(t) {
			kinds = append(kinds, network.NetworkEventKind(ev.Kind))
			assert.EqualValues(t, 1, ev.Flow.Packets)
			assert.Equal(t, client4.As16(), ev.Key.Saddr)
		}
		if enabled {
			assert.Equal(t, []network.NetworkEventKind{newFlow, syn, fin, rst}, kinds)
		} else {
			assert.Empty(t, kinds)
		}
	}
}

func TestPacketEvents(t *testing.T) {
	const packets = 2000
	count := func(change func(*Options)) (n int) {
		e := newEngine(t, func(o *Options) { o.RingBufferSize = 4 << 20; change(o) })
		e.pass(t, ethernet(0x0800, ipv4(17, nil, udp(0))...), packets)
		for _, ev := range e.readAll(t) {
			if network.NetworkEventKind(ev.Kind) == network.NetworkEventKindEVENT_PACKET {
				n++
			}
		}
		return n
	}
	assert.Zero(t, count(func(*Options) {}))
	assert.Equal(t, 4, count(func(o *Options) { o.FirstPackets = 5 }), "the first is an event of its own kind")
	assert.Equal(t, packets-1, count(func(o *Options) { o.Sampling = 1 }))
	assert.InDelta(t, packets/10, count(func(o *Options) { o.Sampling = 10 }), packets/20)
	assert.Zero(t, count(func(o *Options) { o.FirstPackets, o.Sampling, o.Events = 5, 1, false }))
}

// Above 80 % of the ring buffer sampled events are thinned out, so that those that count find room.
func TestSampledEventsGiveWay(t *testing.T) {
	e := newEngine(t, func(o *Options) { o.RingBufferSize, o.Sampling = 64<<10, 1 })
	e.pass(t, ethernet(0x0800, ipv4(17, nil, udp(0))...), 500)
	loss, err := e.Losses()
	require.NoError(t, err)
	assert.NotZero(t, loss.Thinned)
	assert.Zero(t, loss.Events, "the rest of the ring buffer is for the others")
	assert.Greater(t, e.RingBufferUtilization(), 0.8)

	e.pass(t, ethernet(0x0800, ipv4(6, nil, tcp(0x02, 1, 0))...), 1)
	syns := 0
	for _, ev := range e.readAll(t) {
		if network.NetworkEventKind(ev.Kind) == network.NetworkEventKindEVENT_SYN {
			syns++
		}
	}
	assert.Equal(t, 1, syns)
	e.pass(t, ethernet(0x0800, ipv4(17, nil, udp(0))...), 50)
	after, err := e.Losses()
	require.NoError(t, err)
	assert.Equal(t, loss.Thinned, after.Thinned, "there is room again")
}

func TestDNSPayload(t *testing.T) {
	e := newEngine(t, func(o *Options) { o.DNSPorts, o.Events, o.RingBufferSize = [4]uint16{5353, 53}, false, 1<<20 })
	message := func(n int) []byte {
		h := udp(n)
		for i := range n {
			h[8+i] = byte(i)
		}
		return h
	}
	for _, n := range []int{0, 1, 192, 193, 1232, 1400} {
		e.pass(t, ethernet(0x0800, ipv4(17, nil, message(n))...), 1)
	}
	require.NoError(t, e.Flush())
	var lengths, whole []int
	require.NoError(t, e.ReadEvents(func(ev *network.NetworkEvent, payload Payload) {
		require.Equal(t, network.NetworkEventKindEVENT_DNS, network.NetworkEventKind(ev.Kind))
		for i, b := range payload.Captured {
			require.Equal(t, byte(i), b)
		}
		lengths = append(lengths, len(payload.Captured))
		whole = append(whole, payload.Length)
	}))
	assert.Equal(t, []int{1, 192, 193, 1232, 1232}, lengths, "an empty datagram says nothing; a long one is cut")
	assert.Equal(t, []int{1, 192, 193, 1232, 1400}, whole)

	e.pass(t, ethernet(0x0800, ipv4(17, nil, append([]byte{0x13, 0x88, 0x13, 0x89}, message(9)[4:]...))...), 1)
	assert.Empty(t, e.readAll(t), "another port")
}

// A flood of new flows leaves half of the ring buffer to packets that find the flow table full.
func TestNewFlowsLeaveRoomForOverflow(t *testing.T) {
	e := newEngine(t, func(o *Options) { o.RingBufferSize = 64 << 10 })
	for i := range 900 {
		datagram := udp(0)
		binary.BigEndian.PutUint16(datagram, uint16(i))
		e.pass(t, ethernet(0x0800, ipv4(17, nil, datagram)...), 1)
	}
	assert.InDelta(t, 0.5, e.RingBufferUtilization(), 0.02)
	loss, err := e.Losses()
	require.NoError(t, err)
	assert.NotZero(t, loss.Events, "what is left out is counted")
	assert.Zero(t, loss.Packets)
}
