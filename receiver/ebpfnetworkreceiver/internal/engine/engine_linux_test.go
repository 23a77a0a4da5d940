package engine

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/testutil"
)

func newEngine(t *testing.T, change func(*Options)) *Engine {
	t.Helper()
	testutil.Require(t, "bpf", os.Geteuid() == 0, "loading BPF programs needs root")
	opts := Options{RingBufferSize: 1 << 20, FlowTableSize: 1000, Events: true, Interfaces: true}
	if change != nil {
		change(&opts)
	}
	e, err := New(opts)
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		t.Fatalf("%+v", verifier)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	return e
}

// pass runs the tc program on a frame, as if it had come from an endpoint behind an interface. Each run is a call of its
// own: a call of several that a signal interrupts is begun anew.
func (e *Engine) pass(t testing.TB, frame []byte, times int) {
	t.Helper()
	for range times {
		verdict, err := e.objs.TcFromHost.Run(&ebpf.RunOptions{Data: frame})
		require.NoError(t, err)
		require.EqualValues(t, 0xffffffff, verdict, "the packet must be left to whoever comes next")
	}
}

// drained flips and returns what was counted.
func (e *Engine) drained(t testing.TB) map[network.NetworkFlowKey]network.NetworkFlow {
	t.Helper()
	require.NoError(t, e.Flip())
	flows := map[network.NetworkFlowKey]network.NetworkFlow{}
	n, err := e.Drain(func(k *network.NetworkFlowKey, f *network.NetworkFlow) { flows[*k] = *f })
	require.NoError(t, err)
	require.Len(t, flows, n)
	return flows
}

// readAll returns the events that are in the ring buffer.
func (e *Engine) readAll(t testing.TB) (events []network.NetworkEvent) {
	t.Helper()
	require.NoError(t, e.Flush())
	require.NoError(t, e.ReadEvents(func(ev *network.NetworkEvent, _ Payload) { events = append(events, *ev) }))
	return events
}

var (
	client4, server4 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	client6, server6 = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
)

func ethernet(proto uint16, payload ...byte) []byte {
	return append(append(make([]byte, 12), byte(proto>>8), byte(proto)), payload...)
}

func ipv4(proto byte, options, payload []byte) []byte {
	h := make([]byte, 20, 60)
	h[0] = 0x40 | byte((20+len(options))/4)
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(options)+len(payload)))
	h[8], h[9] = 64, proto
	copy(h[12:], client4.AsSlice())
	copy(h[16:], server4.AsSlice())
	return append(append(h, options...), payload...)
}

func ipv6(next byte, payload []byte) []byte {
	h := make([]byte, 40, 100)
	h[0] = 0x60
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	h[6], h[7] = next, 64
	copy(h[8:], client6.AsSlice())
	copy(h[24:], server6.AsSlice())
	return append(h, payload...)
}

func udp(payload int) []byte {
	h := make([]byte, 8+payload)
	binary.BigEndian.PutUint16(h[0:], 5000)
	binary.BigEndian.PutUint16(h[2:], 53)
	binary.BigEndian.PutUint16(h[4:], uint16(len(h)))
	return h
}

func tcp(flags byte, seq uint32, payload int) []byte {
	h := make([]byte, 20+payload)
	binary.BigEndian.PutUint16(h[0:], 5000)
	binary.BigEndian.PutUint16(h[2:], 53)
	binary.BigEndian.PutUint32(h[4:], seq)
	h[12], h[13] = 5<<4, flags
	return h
}

func TestPacketsAreCountedToTheirFlow(t *testing.T) {
	const egress = 2
	key := func(src, dst netip.Addr, transport uint8, sport, dport uint16) network.NetworkFlowKey {
		return network.NetworkFlowKey{
			Saddr: src.As16(), Daddr: dst.As16(), Sport: sport, Dport: dport, Transport: transport, Direction: egress, Scope: 1,
		}
	}
	routing := []byte{17, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	hopByHop := []byte{43, 0, 1, 4, 0, 0, 0, 0}
	tests := map[string]struct {
		frame []byte
		want  network.NetworkFlowKey
		bytes uint64
		flags uint8
	}{
		"udp4":            {ethernet(0x0800, ipv4(17, nil, udp(10))...), key(client4, server4, 17, 5000, 53), 38, 0},
		"udp6":            {ethernet(0x86dd, ipv6(17, udp(10))...), key(client6, server6, 17, 5000, 53), 58, 0},
		"tcp4":            {ethernet(0x0800, ipv4(6, nil, tcp(0x18, 1, 5))...), key(client4, server4, 6, 5000, 53), 45, 0x18},
		"tcp6":            {ethernet(0x86dd, ipv6(6, tcp(0x10, 1, 0))...), key(client6, server6, 6, 5000, 53), 60, 0x10},
		"icmp echo":       {ethernet(0x0800, ipv4(1, nil, []byte{8, 0, 0, 0, 0, 0, 0, 0})...), key(client4, server4, 1, 0, 8<<8), 28, 0},
		"icmpv6 too big":  {ethernet(0x86dd, ipv6(58, []byte{2, 1, 0, 0, 0, 0, 0, 0})...), key(client6, server6, 58, 0, 2<<8|1), 48, 0},
		"ip options":      {ethernet(0x0800, ipv4(17, []byte{1, 1, 1, 0}, udp(0))...), key(client4, server4, 17, 5000, 53), 32, 0},
		"other transport": {ethernet(0x0800, ipv4(47, nil, make([]byte, 4))...), key(client4, server4, 47, 0, 0), 24, 0},
		"ethernet padding": {
			append(ethernet(0x0800, ipv4(17, nil, udp(0))...), make([]byte, 18)...), key(client4, server4, 17, 5000, 53), 28, 0,
		},
		"extension headers": {
			ethernet(0x86dd, ipv6(0, append(append(append([]byte{}, hopByHop...), routing...), udp(2)...))...),
			key(client6, server6, 17, 5000, 53), 82, 0,
		},
		"vlan in the packet": {
			ethernet(0x88a8, append([]byte{0, 5, 0x81, 0, 0, 6, 0x08, 0}, ipv4(17, nil, udp(10))...)...),
			key(client4, server4, 17, 5000, 53), 38, 0,
		},
	}
	e := newEngine(t, nil)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e.pass(t, tt.frame, 3)
			got := e.drained(t)
			require.Contains(t, got, tt.want)
			require.Len(t, got, 1)
			f := got[tt.want]
			assert.EqualValues(t, 3, f.Packets)
			assert.Equal(t, 3*tt.bytes, f.Bytes)
			assert.Equal(t, tt.flags, f.TcpFlags)
			assert.NotZero(t, f.FirstNs)
			assert.GreaterOrEqual(t, f.LastNs, f.FirstNs)
		})
	}
}

func TestWhatIsNoPacketIsCountedApart(t *testing.T) {
	tests := map[string]struct {
		frame    []byte
		unparsed uint64
	}{
		"arp is not ours":     {ethernet(0x0806, make([]byte, 28)...), 0},
		"cut in the header":   {ethernet(0x8100, append([]byte{0, 5, 0x08, 0}, ipv4(17, nil, udp(0))[:19]...)...), 1},
		"version 5":           {ethernet(0x0800, append([]byte{0x55}, ipv4(17, nil, udp(0))[1:]...)...), 1},
		"header of 16 bytes":  {ethernet(0x0800, append([]byte{0x44}, ipv4(17, nil, udp(0))[1:]...)...), 1},
		"cut in the ports":    {ethernet(0x0800, ipv4(17, nil, udp(0)[:3])...), 1},
		"tcp offset too low":  {ethernet(0x0800, ipv4(6, nil, append(tcp(0, 0, 0)[:12], 0x10, 0, 0, 0, 0, 0, 0, 0))...), 1},
		"endless ext headers": {ethernet(0x86dd, ipv6(0, make([]byte, 200))...), 1},
		"ipv6 cut":            {ethernet(0x8100, append([]byte{0, 5, 0x86, 0xdd}, ipv6(17, nil)[:39]...)...), 1},
		"tag cut":             {ethernet(0x8100, 0, 5, 0x81, 0, 0), 1},
	}
	e := newEngine(t, nil)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before, err := e.Losses()
			require.NoError(t, err)
			e.pass(t, tt.frame, 1)
			after, err := e.Losses()
			require.NoError(t, err)
			assert.Equal(t, tt.unparsed, after.Unparsed-before.Unparsed)
			assert.Empty(t, e.drained(t))
		})
	}
}

func TestSYNsAreConnections(t *testing.T) {
	e := newEngine(t, nil)
	for _, seq := range []uint32{100, 100, 200} { // a SYN, the same again, another one
		e.pass(t, ethernet(0x0800, ipv4(6, nil, tcp(0x02, seq, 0))...), 1)
	}
	for _, f := range e.drained(t) {
		assert.EqualValues(t, 2, f.Connections)
		assert.EqualValues(t, 200, f.ClientIsn)
		assert.EqualValues(t, 3, f.Packets)
	}
}

// The handshake of a connection, as seen where its client is and where its server is.
func TestHandshake(t *testing.T) {
	const clientISN, serverISN = 1000, 0xfffffff0
	forth := func(h []byte) []byte { return ethernet(0x0800, ipv4(6, nil, h)...) }
	back := func(h []byte) []byte {
		ip := ipv4(6, nil, h)
		copy(ip[12:], server4.AsSlice())
		copy(ip[16:], client4.AsSlice())
		binary.BigEndian.PutUint16(ip[20:], 53)
		binary.BigEndian.PutUint16(ip[22:], 5000)
		return ethernet(0x0800, ip...)
	}
	segment := func(flags byte, seq, ack uint32) []byte {
		h := tcp(flags, seq, 0)
		binary.BigEndian.PutUint32(h[8:], ack)
		return h
	}
	syn, synAck, ack := segment(0x02, clientISN, 0), segment(0x12, serverISN, clientISN+1), segment(0x10, clientISN+1, 0xfffffff1)
	const both = network.NetworkSeenSEEN_SYN | network.NetworkSeenSEEN_SYNACK
	for _, place := range []string{"client", "server"} {
		t.Run(place, func(t *testing.T) {
			e := newEngine(t, nil)
			there, here := e.objs.TcFromHost, e.objs.TcToHost
			if place == "server" {
				there, here = here, there
			}
			for _, step := range []struct {
				prog  *ebpf.Program
				frame []byte
			}{{there, forth(syn)}, {here, back(synAck)}, {there, forth(ack)}} {
				_, err := step.prog.Run(&ebpf.RunOptions{Data: step.frame})
				require.NoError(t, err)
				time.Sleep(2 * time.Millisecond) // what is measured
			}
			flows := e.drained(t)
			require.Len(t, flows, 2)
			for k, f := range flows {
				assert.EqualValues(t, clientISN, f.ClientIsn)
				assert.EqualValues(t, uint32(serverISN), f.ServerIsn)
				assert.Zero(t, f.SrttUs, "these segments have no socket")
				fromClient := k.Dport == 53
				if fromClient {
					assert.EqualValues(t, both|network.NetworkSeenSEEN_FROM_CLIENT, f.Seen)
					assert.EqualValues(t, 1, f.Connections)
				} else {
					assert.EqualValues(t, both|network.NetworkSeenSEEN_FROM_SERVER, f.Seen)
					assert.Zero(t, f.Connections)
				}
				if egress := k.Direction == 2; egress {
					assert.GreaterOrEqual(t, f.HandshakeUs, uint32(2000), "measured by who waits")
					assert.Less(t, f.HandshakeUs, uint32(1_000_000))
				} else {
					assert.Zero(t, f.HandshakeUs)
				}
			}
		})
	}
}

func TestZeroWindowsAreCounted(t *testing.T) {
	e := newEngine(t, nil)
	for _, window := range []uint16{0, 100, 0} {
		h := tcp(0x10, 1, 0)
		binary.BigEndian.PutUint16(h[14:], window)
		e.pass(t, ethernet(0x0800, ipv4(6, nil, h)...), 1)
	}
	for _, f := range e.drained(t) {
		assert.EqualValues(t, 2, f.ZeroWindows)
	}
}

// A full table falls back to the ring buffer, a full ring buffer to the loss counters: together they are everything.
func TestTableThenRingBufferThenLoss(t *testing.T) {
	const table, flows = 8, 200
	e := newEngine(t, func(o *Options) { o.FlowTableSize, o.RingBufferSize, o.Events = table, 4096, false })
	for i := range flows {
		datagram := udp(0)
		binary.BigEndian.PutUint16(datagram, uint16(1000+i))
		e.pass(t, ethernet(0x0800, ipv4(17, nil, datagram)...), 1)
	}
	var inTable, inRing, bytesInRing uint64
	for _, f := range e.drained(t) {
		inTable += f.Packets
	}
	for _, ev := range e.readAll(t) {
		if network.NetworkEventKind(ev.Kind) == network.NetworkEventKindEVENT_OVERFLOW {
			inRing += ev.Flow.Packets
			bytesInRing += ev.Flow.Bytes
		}
	}
	loss, err := e.Losses()
	require.NoError(t, err)
	assert.EqualValues(t, table, inTable)
	assert.NotZero(t, inRing)
	assert.NotZero(t, loss.Packets)
	assert.EqualValues(t, flows, inTable+inRing+loss.Packets)
	assert.EqualValues(t, 28*flows, 28*inTable+bytesInRing+loss.Bytes)
}

func TestPressureAsksForADrainOnce(t *testing.T) {
	e := newEngine(t, func(o *Options) { o.FlowTableSize, o.Events = 100, false })
	fill := func(n int) (asked int) {
		for i := range n {
			datagram := udp(0)
			binary.BigEndian.PutUint16(datagram, uint16(i))
			e.pass(t, ethernet(0x0800, ipv4(17, nil, datagram)...), 1)
		}
		for _, ev := range e.readAll(t) {
			if network.NetworkEventKind(ev.Kind) == network.NetworkEventKindEVENT_PRESSURE {
				asked++
			}
		}
		return asked
	}
	assert.Zero(t, fill(74))
	assert.Len(t, e.drained(t), 74)
	assert.Equal(t, 1, fill(90))
	assert.Len(t, e.drained(t), 90)
	assert.Equal(t, 1, fill(90), "and again in the other generation")
}

// Packets that pass while the table is drained again and again are all counted, once.
func TestNoUpdateMeetsADeletion(t *testing.T) {
	const runs = 50_000
	e := newEngine(t, func(o *Options) { o.Events = false })
	var wg sync.WaitGroup
	for i := range 2 {
		datagram := udp(0)
		binary.BigEndian.PutUint16(datagram, uint16(i))
		for range 2 { // two CPUs on the same flow
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range runs {
					_, err := e.objs.TcFromHost.Run(&ebpf.RunOptions{Data: ethernet(0x0800, ipv4(17, nil, datagram)...)})
					assert.NoError(t, err)
				}
			}()
		}
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	var packets, bytes uint64
	drains := 0
	for running := true; running; drains++ {
		select {
		case <-done:
			running = false
		default:
		}
		for _, f := range e.drained(t) {
			packets += f.Packets
			bytes += f.Bytes
		}
	}
	for _, f := range e.drained(t) {
		packets += f.Packets
		bytes += f.Bytes
	}
	loss, err := e.Losses()
	require.NoError(t, err)
	assert.Zero(t, loss.Packets)
	assert.EqualValues(t, 4*runs, packets)
	assert.EqualValues(t, 28*4*runs, bytes)
	assert.Greater(t, drains, 3, "too few drains to prove anything")
}

func TestDrainOfMoreThanABatch(t *testing.T) {
	const flows = maxFrontEntries + 3<<12 // the rest is more than a batch of ebpfmap.Drainer
	e := newEngine(t, func(o *Options) { o.FlowTableSize, o.Events = 2*flows, false })
	for i := range flows {
		datagram := udp(0)
		binary.BigEndian.PutUint16(datagram, uint16(i))
		e.pass(t, ethernet(0x0800, ipv4(17, nil, datagram)...), 1)
	}
	assert.Len(t, e.drained(t), flows)
	assert.Empty(t, e.drained(t))
}

// The price of a packet, without the stack: `go test -bench Packet`.
func BenchmarkPacket(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("loading BPF programs needs root")
	}
	e, err := New(Options{RingBufferSize: 1 << 20, FlowTableSize: 100_000, Events: true})
	require.NoError(b, err)
	defer e.Close()
	frame := ethernet(0x0800, ipv4(17, nil, udp(36))...)
	_, perRun, err := e.objs.TcFromHost.Benchmark(frame, b.N, b.ResetTimer)
	require.NoError(b, err)
	b.ReportMetric(float64(perRun.Nanoseconds()), "ns/packet")
}

// 100,000 flows take at most 40 MiB of kernel memory, however many CPUs there are: the tables are shared, and both are
// counted, the one that is filled and the one that is empty.
func TestMemoryOfTheFlowTable(t *testing.T) {
	const flows, limit = 100_000, 40 << 20
	e := newEngine(t, func(o *Options) { o.FlowTableSize, o.Events = flows, false })
	memory := func() (sum uint64) {
		for _, m := range []*ebpf.Map{e.objs.Front, e.objs.FrontIndex, e.objs.FrontStates, e.objs.Flows0, e.objs.Flows1} {
			info, err := m.Info()
			require.NoError(t, err)
			n, ok := info.Memlock()
			require.True(t, ok, "the kernel does not tell")
			sum += n
		}
		return sum
	}
	empty := memory()
	for i := range flows {
		datagram := udp(0)
		binary.BigEndian.PutUint32(datagram, uint32(i))
		e.pass(t, ethernet(0x0800, ipv4(17, nil, datagram)...), 1)
	}
	full := memory()
	t.Logf("%.1f MiB with %d flows, %.1f MiB empty", float64(full)/(1<<20), flows, float64(empty)/(1<<20))
	assert.Less(t, full, uint64(limit))
	assert.Len(t, e.drained(t), flows)
	if full == empty {
		t.Skip("before Linux 6.4 the kernel says what a map may take, not what it takes")
	}
	assert.Less(t, memory(), uint64(limit)/4, "entries go back when they are drained")
}
