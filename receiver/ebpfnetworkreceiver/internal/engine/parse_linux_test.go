package engine

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/testutil"
)

// fragment4 makes a packet a fragment: offset in bytes, more says that others follow.
func fragment4(packet []byte, id uint16, offset int, more bool) []byte {
	binary.BigEndian.PutUint16(packet[4:], id)
	flags := uint16(offset / 8)
	if more {
		flags |= 0x2000
	}
	binary.BigEndian.PutUint16(packet[6:], flags)
	return packet
}

// fragment6 is a fragment header before a payload.
func fragment6(next byte, id uint32, offset int, more bool, payload []byte) []byte {
	h := make([]byte, 8, 8+len(payload))
	h[0] = next
	flags := uint16(offset)
	if more {
		flags |= 1
	}
	binary.BigEndian.PutUint16(h[2:], flags)
	binary.BigEndian.PutUint32(h[4:], id)
	return append(h, payload...)
}

func TestFragmentsBelongToTheirDatagram(t *testing.T) {
	datagram := udp(32)
	tests := map[string][][]byte{
		"ipv4": {
			ethernet(0x0800, fragment4(ipv4(17, nil, datagram[:24]), 7, 0, true)...),
			ethernet(0x0800, fragment4(ipv4(17, nil, datagram[24:32]), 7, 24, true)...),
			ethernet(0x0800, fragment4(ipv4(17, nil, datagram[32:]), 7, 32, false)...),
		},
		"ipv6": {
			ethernet(0x86dd, ipv6(44, fragment6(17, 9, 0, true, datagram[:24]))...),
			ethernet(0x86dd, ipv6(44, fragment6(17, 9, 24, true, datagram[24:32]))...),
			ethernet(0x86dd, ipv6(44, fragment6(17, 9, 32, false, datagram[32:]))...),
		},
	}
	e := newEngine(t, nil)
	for name, frames := range tests {
		t.Run(name, func(t *testing.T) {
			var bytes uint64
			for _, f := range frames {
				e.pass(t, f, 1)
				bytes += uint64(len(f) - 14)
			}
			flows := e.drained(t)
			require.Len(t, flows, 1)
			for k, f := range flows {
				assert.EqualValues(t, 5000, k.Sport)
				assert.EqualValues(t, 53, k.Dport)
				assert.EqualValues(t, 3, f.Packets)
				assert.Equal(t, bytes, f.Bytes)
			}
		})
	}
	t.Run("without the first", func(t *testing.T) {
		e.pass(t, ethernet(0x0800, fragment4(ipv4(17, nil, datagram[24:32]), 8, 24, false)...), 1)
		for k, f := range e.drained(t) {
			assert.Zero(t, k.Sport, "another datagram's ports must not be guessed")
			assert.EqualValues(t, 17, k.Transport)
			assert.EqualValues(t, 1, f.Packets)
		}
	})
}

func TestTunnels(t *testing.T) {
	inner := ipv4(17, nil, udp(10))
	copy(inner[12:], []byte{192, 168, 0, 1})
	copy(inner[16:], []byte{192, 168, 0, 2})
	inner6 := ipv6(6, tcp(0x10, 1, 3))
	over := func(port uint16, header []byte, payload []byte) []byte {
		h := udp(len(header) + len(payload))
		binary.BigEndian.PutUint16(h[2:], port)
		copy(h[8:], append(append([]byte{}, header...), payload...))
		return h
	}
	geneve := func(proto uint16, options int, payload []byte) []byte {
		h := make([]byte, 8+options)
		h[0] = byte(options / 4)
		binary.BigEndian.PutUint16(h[2:], proto)
		return over(6081, h, payload)
	}
	gre := func(flags, proto uint16, payload []byte) []byte {
		h := make([]byte, 4)
		binary.BigEndian.PutUint16(h, flags)
		binary.BigEndian.PutUint16(h[2:], proto)
		for _, bit := range []uint16{0x8000, 0x2000, 0x1000} {
			if flags&bit != 0 {
				h = append(h, 0, 0, 0, 0)
			}
		}
		return append(h, payload...)
	}
	vni := make([]byte, 8)
	in4 := netip.MustParseAddr("192.168.0.1")
	tests := map[string]struct {
		frame   []byte
		src     netip.Addr
		bytes   int
		outside network.NetworkFlowKey
	}{
		"vxlan":                      {ethernet(0x0800, ipv4(17, nil, over(4789, vni, ethernet(0x0800, inner...)))...), in4, 38, network.NetworkFlowKey{Transport: 17, Dport: 4789}},
		"vxlan on the kernel's port": {ethernet(0x0800, ipv4(17, nil, over(8472, vni, ethernet(0x0800, inner...)))...), in4, 38, network.NetworkFlowKey{Transport: 17, Dport: 8472}},
		"geneve with options":        {ethernet(0x86dd, ipv6(17, geneve(0x6558, 12, ethernet(0x86dd, inner6...)))...), client6, 63, network.NetworkFlowKey{Transport: 17, Dport: 6081}},
		"geneve without ethernet":    {ethernet(0x0800, ipv4(17, nil, geneve(0x0800, 0, inner))...), in4, 38, network.NetworkFlowKey{Transport: 17, Dport: 6081}},
		"gre":                        {ethernet(0x0800, ipv4(47, nil, gre(0, 0x0800, inner))...), in4, 38, network.NetworkFlowKey{Transport: 47}},
		"gre with everything":        {ethernet(0x0800, ipv4(47, nil, gre(0xb000, 0x86dd, inner6))...), client6, 63, network.NetworkFlowKey{Transport: 47}},
		"ip in ip":                   {ethernet(0x0800, ipv4(4, nil, inner)...), in4, 38, network.NetworkFlowKey{Transport: 4}},
		"ipv6 in ipv6":               {ethernet(0x86dd, ipv6(41, inner6)...), client6, 63, network.NetworkFlowKey{Transport: 41}},
	}
	for _, inside := range []bool{true, false} {
		e := newEngine(t, func(o *Options) { o.Tunnels = inside })
		for name, tt := range tests {
			e.pass(t, tt.frame, 1)
			flows := e.drained(t)
			require.Len(t, flows, 1, name)
			for k, f := range flows {
				if inside {
					assert.Equal(t, tt.src, netip.AddrFrom16(k.Saddr).Unmap(), name)
					assert.EqualValues(t, 5000, k.Sport, name)
					assert.EqualValues(t, 53, k.Dport, name)
					assert.EqualValues(t, tt.bytes, f.Bytes, name)
				} else {
					assert.Equal(t, tt.outside.Transport, k.Transport, name)
					assert.Equal(t, tt.outside.Dport, k.Dport, name)
					assert.EqualValues(t, len(tt.frame)-14, f.Bytes, name)
				}
			}
		}
	}
}

func TestBrokenTunnelsAreCountedByWhatIsOutside(t *testing.T) {
	e := newEngine(t, func(o *Options) { o.Tunnels = true })
	vxlan := udp(8)
	binary.BigEndian.PutUint16(vxlan[2:], 4789)
	for name, frame := range map[string][]byte{
		"nothing inside":      ethernet(0x0800, ipv4(17, nil, vxlan)...),
		"gre version 1, PPTP": ethernet(0x0800, ipv4(47, nil, []byte{0x20, 0x01, 0x88, 0x0b, 0, 0, 0, 0})...),
		"half an IP header":   ethernet(0x0800, ipv4(4, nil, make([]byte, 10))...),
		"arp inside":          ethernet(0x0800, ipv4(47, nil, []byte{0, 0, 8, 6, 0, 0, 0, 0})...),
	} {
		e.pass(t, frame, 1)
		flows := e.drained(t)
		require.Len(t, flows, 1, name)
		for k, f := range flows {
			assert.Equal(t, client4.As16(), k.Saddr, name)
			assert.EqualValues(t, len(frame)-14, f.Bytes, name)
		}
	}
}

// Whatever arrives, the program leaves it to whoever comes next and counts it: as a flow's, as unparsed, or as no IP.
func FuzzPacket(f *testing.F) {
	testutil.Require(f, "bpf", os.Geteuid() == 0, "loading BPF programs needs root") // its seeds are tests
	for _, frame := range [][]byte{
		ethernet(0x0800, ipv4(17, nil, udp(10))...),
		ethernet(0x0800, ipv4(6, []byte{1, 1, 1, 0}, tcp(0x02, 1, 3))...),
		ethernet(0x86dd, ipv6(0, append([]byte{44, 0, 1, 4, 0, 0, 0, 0}, fragment6(17, 1, 0, true, udp(8))...))...),
		ethernet(0x8100, append([]byte{0, 5, 0x08, 0}, ipv4(4, nil, ipv4(1, nil, make([]byte, 8)))...)...),
		ethernet(0x0800, ipv4(47, nil, []byte{0xb0, 0, 0x65, 0x58, 0, 0, 0, 0})...),
	} {
		f.Add(frame)
	}
	e, err := New(Options{RingBufferSize: 1 << 20, FlowTableSize: 1000, Tunnels: true, DNSPorts: [4]uint16{53}, Interfaces: true})
	require.NoError(f, err)
	f.Cleanup(func() { e.Close() })
	f.Fuzz(func(t *testing.T, frame []byte) {
		before, err := e.Losses()
		require.NoError(t, err)
		verdict, err := e.objs.TcFromHost.Run(&ebpf.RunOptions{Data: frame})
		if err != nil {
			return // not even a frame: the kernel refuses to run a program on it
		}
		require.EqualValues(t, 0xffffffff, verdict)
		after, err := e.Losses()
		require.NoError(t, err)
		var packets, bytes uint64
		for k, f := range e.drained(t) {
			packets += f.Packets
			bytes += f.Bytes
			require.Zero(t, k.Pad)
		}
		require.LessOrEqual(t, packets+after.Unparsed-before.Unparsed, uint64(1), "counted twice")
		require.LessOrEqual(t, bytes, uint64(len(frame)), "more bytes than there were")
		require.Equal(t, before.Packets, after.Packets)
		e.readAll(t)
	})
}
