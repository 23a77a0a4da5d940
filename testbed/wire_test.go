//go:build linux

package testbed

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
)

// Frames that take some parsing, on a real interface, read by orb8 and by tshark. Every kind goes to an address of its own.

var (
	wireSource4 = netip.MustParseAddr("10.88.0.2")
	wireSource6 = netip.MustParseAddr("fd88::2")
)

func wireUDP(payload int) []byte {
	h := make([]byte, 8+payload)
	binary.BigEndian.PutUint16(h[0:], 5000)
	binary.BigEndian.PutUint16(h[2:], 6000)
	binary.BigEndian.PutUint16(h[4:], uint16(len(h)))
	return h
}

// wireIPv4 makes a packet; fragment is the flags and offset field.
func wireIPv4(to netip.Addr, options []byte, fragment uint16, payload []byte) []byte {
	h := make([]byte, 20, 1500)
	h[0] = 0x40 | byte((20+len(options))/4)
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(options)+len(payload)))
	binary.BigEndian.PutUint16(h[4:], 77)
	binary.BigEndian.PutUint16(h[6:], fragment)
	h[8], h[9] = 64, 17
	copy(h[12:], wireSource4.AsSlice())
	copy(h[16:], to.AsSlice())
	h = append(h, options...)
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
	return append(h, payload...)
}

func wireIPv6(to netip.Addr, next byte, payload []byte) []byte {
	h := make([]byte, 40, 1500)
	h[0] = 0x60
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	h[6], h[7] = next, 64
	copy(h[8:], wireSource6.AsSlice())
	copy(h[24:], to.AsSlice())
	return append(h, payload...)
}

func wireFragment6(offset uint16, more bool, payload []byte) []byte {
	if more {
		offset |= 1
	}
	h := []byte{17, 0, byte(offset >> 8), byte(offset), 0, 0, 0, 9}
	return append(h, payload...)
}

// wireFrames are the frames of every kind by their destination.
func wireFrames() (frames [][]byte) {
	four := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 88, 7, n}) }
	six := func(n byte) netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x88, 14: 7, 15: n}) }
	ether := func(proto uint16, packet []byte, tags ...uint16) {
		f := []byte{2, 0x88, 0, 0, 0, 3, 2, 0x88, 0, 0, 0, 2}
		for _, tpid := range tags {
			f = binary.BigEndian.AppendUint16(f, tpid)
			f = append(f, 0, 5)
		}
		frames = append(frames, append(binary.BigEndian.AppendUint16(f, proto), packet...))
	}
	long := wireUDP(3000)
	for range 3 {
		ether(0x0800, wireIPv4(four(1), nil, 0, wireUDP(100)))                            // nothing special
		ether(0x0800, wireIPv4(four(2), []byte{7, 7, 4, 0, 0, 0, 0, 0}, 0, wireUDP(100))) // record route
		ether(0x0800, wireIPv4(four(3), nil, 0x2000, long[:1000]))                        // fragments
		ether(0x0800, wireIPv4(four(3), nil, 0x2000|1000/8, long[1000:2000]))             //
		ether(0x0800, wireIPv4(four(3), nil, 2000/8, long[2000:]))                        //
		ether(0x0800, wireIPv4(four(4), nil, 0, wireUDP(100)), 0x8100)                    // VLAN
		ether(0x0800, wireIPv4(four(5), nil, 0, wireUDP(100)), 0x88a8, 0x8100)            // QinQ
		ether(0x86dd, wireIPv6(six(1), 17, wireUDP(100)))                                 //
		ether(0x86dd, wireIPv6(six(2), 0, append([]byte{60, 0, 1, 4, 0, 0, 0, 0, 17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, wireUDP(100)...)))
		ether(0x86dd, wireIPv6(six(3), 44, wireFragment6(0, true, long[:1000])))
		ether(0x86dd, wireIPv6(six(3), 44, wireFragment6(1000, true, long[1000:2000])))
		ether(0x86dd, wireIPv6(six(3), 44, wireFragment6(2000, false, long[2000:])))
		ether(0x86dd, wireIPv6(six(4), 17, wireUDP(100)), 0x8100)
	}
	return frames
}

// wireFlow is what a destination got: packets and bytes, and the ports that they belong to.
type wireFlow struct {
	seen
	ports string
}

func TestFramesThatTakeParsingAgreeWithTshark(t *testing.T) {
	l := lab.New(t, lab.Options{})
	_, err := exec.LookPath("tshark")
	testutil.Require(t, "tshark", err == nil, "the test compares with tshark, Debian's package tshark")
	c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: fmt.Sprintf(
		"receivers: {ebpf_network: {attach: {mode: tc, interfaces: {include: [%s]}}}}", l.Client.Interface())})
	frames := wireFrames()
	capture := filepath.Join(t.TempDir(), "wire.pcap")
	var log bytes.Buffer
	tshark := exec.Command("tshark", "-i", l.Client.Interface(), "-c", strconv.Itoa(len(frames)), "-a", "duration:15", "-w", capture)
	started := make(chan struct{})
	tshark.Stderr = &notice{w: &log, until: "Capture started", found: started}
	require.NoError(t, l.Host.Start(tshark))
	<-started
	require.NoError(t, l.Client.Do(func() error { return sendFrames("eth0", frames) }))
	require.NoError(t, tshark.Wait(), log.String())

	want := readCapture(t, capture)
	require.Len(t, want, 9)
	var got map[string]wireFlow
	collector.Await(t, "what tshark read", func() bool {
		got = map[string]wireFlow{}
		for _, f := range c.Flows("--ip", wireSource4.String(), "--ip", wireSource6.String()) {
			sum := got[f.Destination.Address]
			sum.packets += f.Packets
			sum.bytes += f.Bytes
			sum.ports = fmt.Sprintf("%d %d", f.Source.Port, f.Destination.Port)
			got[f.Destination.Address] = sum
		}
		return maps.Equal(want, got)
	}, func() any { return fmt.Sprintf("want %v\ngot  %v", want, got) })
}

// readCapture sums a capture by destination. tshark puts fragments together: the ports are with the last.
func readCapture(t *testing.T, path string) map[string]wireFlow {
	t.Helper()
	out, err := exec.Command("tshark", "-r", path, "-T", "fields", "-E", "separator=;", "-E", "occurrence=f",
		"-e", "ip.dst", "-e", "ip.len", "-e", "ipv6.dst", "-e", "ipv6.plen", "-e", "udp.srcport", "-e", "udp.dstport").Output()
	require.NoError(t, err)
	flows := map[string]wireFlow{}
	for line := range strings.Lines(string(out)) {
		field := strings.Split(strings.TrimSpace(line), ";")
		require.Len(t, field, 6, line)
		to, length, header := field[0], field[1], 0
		if to == "" {
			to, length, header = field[2], field[3], 40
		}
		n, err := strconv.Atoi(length)
		require.NoError(t, err, line)
		f := flows[to]
		f.packets++
		f.bytes += uint64(n + header)
		if field[4] != "" {
			f.ports = field[4] + " " + field[5]
		}
		flows[to] = f
	}
	return flows
}

// sendFrames sends Ethernet frames as they are.
func sendFrames(device string, frames [][]byte) error {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, f := range frames {
		if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: i.Index}); err != nil {
			return err
		}
	}
	return nil
}

// notice closes found when what is written to it contains until.
type notice struct {
	w     *bytes.Buffer
	until string
	found chan struct{}
}

func (n *notice) Write(p []byte) (int, error) {
	before := strings.Contains(n.w.String(), n.until)
	n.w.Write(p)
	if !before && strings.Contains(n.w.String(), n.until) {
		close(n.found)
	}
	return len(p), nil
}

// A device without a link layer: what is written into a tun device comes in as bare IP packets.
func TestDeviceWithoutLinkLayer(t *testing.T) {
	l := lab.New(t, lab.Options{})
	c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: "receivers: {ebpf_network: {attach: {mode: tc, interfaces: {include: [tun0]}}}}"})
	to4, to6 := netip.MustParseAddr("10.88.7.1"), netip.MustParseAddr("fd88::7:1")
	packets := [][]byte{
		wireIPv4(to4, nil, 0, wireUDP(100)), wireIPv4(to4, nil, 0, wireUDP(7)), wireIPv6(to6, 17, wireUDP(100)),
	}
	require.NoError(t, l.Host.Do(func() error { return writeTun(t, "tun0", packets) }))
	want := map[string]seen{to4.String(): {2, 128 + 35}, to6.String(): {1, 148}}
	var got map[string]seen
	collector.Await(t, "the packets of the tun device", func() bool {
		got = map[string]seen{}
		for _, f := range c.Flows("--port", "6000") {
			got[f.Destination.Address] = seen{f.Packets, f.Bytes}
		}
		return maps.Equal(want, got)
	}, func() any { return fmt.Sprintf("want %v\ngot  %v", want, got) })
}

// writeTun makes a tun device, waits until orb8 has found it, and writes packets into it as if they had come in there.
func writeTun(t *testing.T, name string, packets [][]byte) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open /dev/net/tun: %w", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return err
	}
	device, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(device); err != nil {
		return err
	}
	// In this goroutine: another one's thread is in another namespace.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		attached, err := link.QueryPrograms(link.QueryOptions{Target: device.Attrs().Index, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return err
		}
		if len(attached.Programs) > 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not watched", name)
		}
	}
	for _, p := range packets {
		if _, err := unix.Write(fd, p); err != nil {
			return err
		}
	}
	return nil
}
