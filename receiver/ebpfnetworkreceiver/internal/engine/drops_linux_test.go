package engine

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/testutil"
)

// patience is how long a test waits for what the kernel does in its own time. To flip a table takes a grace
// period of the kernel, and where many others run that has been seen to take 10 s.
const patience = time.Minute

// witness is a count of dropped packets that the kernel keeps itself.
type witness func() uint64

func newDrops(t *testing.T) *Drops {
	t.Helper()
	d, err := NewDrops()
	testutil.Require(t, "drops", err == nil, fmt.Sprintf("drops cannot be counted here: %v", err))
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	return d
}

// await drains until at least as many packets of mine were dropped as the witness says, and returns all of mine.
func (d *Drops) await(t *testing.T, mine func(*flow.Drop) bool, dropped witness) (drops []flow.Drop, packets uint64) {
	t.Helper()
	require.Eventually(t, func() bool {
		require.NoError(t, d.Drain(func(x *flow.Drop) {
			if mine(x) {
				drops = append(drops, *x)
				packets += x.Packets
			}
		}))
		return dropped() > 0 && packets >= dropped()
	}, patience, time.Millisecond)
	return drops, packets
}

// procCounter reads a counter of /proc/net/snmp or netstat, which have a line of names over a line of values. Of the own
// thread: the process may have a thread in another namespace, and that may be its first.
func procCounter(t *testing.T, file, group, name string) uint64 {
	t.Helper()
	f, err := os.Open("/proc/thread-self/net/" + file)
	require.NoError(t, err)
	defer f.Close()
	var names []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if fields[0] != group+":" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, n := range names {
			if n == name {
				v, err := strconv.ParseUint(fields[i], 10, 64)
				require.NoError(t, err)
				return v
			}
		}
	}
	require.Failf(t, "no such counter", "%s %s in %s", group, name, file)
	return 0
}

// procFields returns the fields of the line of a file of /proc/net that has the wanted field.
func procFields(t *testing.T, file string, index int, want string) []string {
	t.Helper()
	all, err := os.ReadFile("/proc/thread-self/net/" + file)
	require.NoError(t, err)
	for line := range strings.Lines(string(all)) {
		if f := strings.Fields(line); len(f) > index && f[index] == want {
			return f
		}
	}
	require.Failf(t, "no such line", "%s in %s", want, file)
	return nil
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	require.NoError(t, err)
	return n
}

// inQuietNamespace is inNewNamespace with a loopback interface that is up.
func inQuietNamespace(t *testing.T) bool {
	t.Helper()
	if !inNewNamespace(t) {
		return false
	}
	lo, err := netlink.LinkByName("lo")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetUp(lo))
	return true
}

func listenUDP(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func addressOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// send sends n datagrams of size bytes. From a socket that is not connected: nobody tells it that the port is closed.
func send(t *testing.T, c *net.UDPConn, to string, n, size int) {
	t.Helper()
	for range n {
		_, err := c.WriteToUDPAddrPort(make([]byte, size), netip.MustParseAddrPort(to))
		require.NoError(t, err)
	}
}

func control(t *testing.T, c syscall.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { err = f(int(fd)) }))
	require.NoError(t, err)
}

func TestADatagramToAClosedPort(t *testing.T) {
	if !inQuietNamespace(t) {
		return
	}
	d := newDrops(t)
	c := listenUDP(t, "127.0.0.1:0")
	send(t, c, "127.0.0.1:9", 100, 10)
	drops, packets := d.await(t, func(x *flow.Drop) bool { return x.Source == addressOf(c) },
		func() uint64 { return procCounter(t, "snmp", "Udp", "NoPorts") })
	assert.EqualValues(t, 100, packets)
	for _, x := range drops {
		assert.Equal(t, "no_socket", x.Reason)
		assert.Equal(t, flow.UDP, x.Transport)
		assert.Equal(t, netip.MustParseAddrPort("127.0.0.1:9"), x.Destination)
	}
}

// The ports are behind an extension header.
func TestADatagramWithExtensionHeaders(t *testing.T) {
	if !inQuietNamespace(t) {
		return
	}
	d := newDrops(t)
	c := listenUDP(t, "[::1]:0")
	padding := string([]byte{0, 0, 1, 4, 0, 0, 0, 0}) // a hop-by-hop header of 8 bytes that says nothing
	control(t, c, func(fd int) error { return unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, padding) })
	send(t, c, "[::1]:9", 50, 10)
	drops, packets := d.await(t, func(x *flow.Drop) bool { return x.Source == addressOf(c) },
		func() uint64 { return number(t, procFields(t, "snmp6", 0, "Udp6NoPorts")[1]) })
	assert.EqualValues(t, 50, packets)
	for _, x := range drops {
		assert.Equal(t, "no_socket", x.Reason)
		assert.Equal(t, flow.UDP, x.Transport)
		assert.Equal(t, netip.MustParseAddrPort("[::1]:9"), x.Destination)
	}
}

// A super-packet that is dropped counts as the packets that it would have become on the wire.
func TestASuperPacketIsItsSegments(t *testing.T) {
	if !inQuietNamespace(t) {
		return
	}
	d := newDrops(t)
	c := listenUDP(t, "127.0.0.1:0")
	control(t, c, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 100) })
	send(t, c, "127.0.0.1:9", 3, 450)
	_, packets := d.await(t, func(x *flow.Drop) bool { return x.Source == addressOf(c) },
		func() uint64 { return 5 * procCounter(t, "snmp", "Udp", "NoPorts") })
	assert.EqualValues(t, 3*5, packets)
}

func TestASocketThatNobodyReads(t *testing.T) {
	if !inQuietNamespace(t) {
		return
	}
	d := newDrops(t)
	server, client := listenUDP(t, "127.0.0.1:0"), listenUDP(t, "127.0.0.1:0")
	require.NoError(t, server.SetReadBuffer(1)) // the kernel's minimum, about two kilobytes
	send(t, client, addressOf(server).String(), 300, 500)
	const drops, localAddress = 12, 1
	local := "0100007F:" + strings.ToUpper(strconv.FormatUint(1<<16|uint64(addressOf(server).Port()), 16)[1:])
	dropped := func() uint64 { return number(t, procFields(t, "udp", localAddress, local)[drops]) }
	all, packets := d.await(t, func(x *flow.Drop) bool { return x.Source == addressOf(client) }, dropped)
	assert.Equal(t, dropped(), packets)
	assert.Greater(t, packets, uint64(200))
	for _, x := range all {
		assert.Equal(t, "socket_rcvbuff", x.Reason)
		if d.hasReceiver(t) {
			assert.Equal(t, ownCgroup(t), x.CgroupID)
		}
	}
}

// hasReceiver tells whether the tracepoint names the receiving socket.
func (d *Drops) hasReceiver(t *testing.T) bool {
	t.Helper()
	var has bool
	require.NoError(t, d.objs.HasReceiver.Get(&has))
	return has
}

func ownCgroup(t *testing.T) uint64 {
	t.Helper()
	mount, err := cgroup.FindMount("")
	require.NoError(t, err)
	all, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	for line := range strings.Lines(string(all)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			var st unix.Stat_t
			require.NoError(t, unix.Stat(mount.Path+path, &st))
			return st.Ino
		}
	}
	require.Fail(t, "this process is in no cgroup v2")
	return 0
}

func TestAFirewall(t *testing.T) {
	if !inQuietNamespace(t) {
		return
	}
	d := newDrops(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	server := l.Addr().(*net.TCPAddr).AddrPort()
	dropped := dropTCP(t)
	_, err = net.DialTimeout("tcp4", server.String(), 100*time.Millisecond)
	require.Error(t, err)
	drops, packets := d.await(t, func(x *flow.Drop) bool { return x.Destination == server }, dropped)
	assert.Equal(t, dropped(), packets)
	for _, x := range drops {
		assert.Equal(t, "netfilter_drop", x.Reason)
		assert.Equal(t, flow.TCP, x.Transport)
		assert.NotZero(t, x.Source.Port())
	}
}

// dropTCP makes the namespace drop all TCP that comes in, and returns nftables' own count of it.
func dropTCP(t *testing.T) witness {
	t.Helper()
	nft, err := nftables.New()
	require.NoError(t, err)
	table := nft.AddTable(&nftables.Table{Name: "orb8-test", Family: nftables.TableFamilyIPv4})
	chain := nft.AddChain(&nftables.Chain{
		Name: "input", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	require.NoError(t, nft.Flush())
	return func() uint64 {
		rules, err := nft.GetRules(table, chain)
		require.NoError(t, err)
		require.Len(t, rules, 1)
		return rules[0].Exprs[2].(*expr.Counter).Packets
	}
}

// A host with strict reverse path filtering drops what comes from an address that it has no way back to.
func TestASourceWithoutAWayBack(t *testing.T) {
	if !inQuietNamespace(t) {
		return
	}
	for _, name := range []string{"all", "default"} {
		require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("1"), 0))
	}
	d := newDrops(t)
	other := otherNamespace(t)
	addVeth(t, "veth0", "veth1", netlink.NsFd(int(other)))
	inside, err := netlink.NewHandleAt(other, unix.NETLINK_ROUTE)
	require.NoError(t, err)
	defer inside.Close()
	here, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	require.NoError(t, err)
	defer here.Close()
	host := plug(t, here, "veth0", "10.0.0.1/24")
	plug(t, inside, "veth1", "10.0.0.2/24")
	plug(t, inside, "lo", "203.0.113.7/32")
	far, err := inside.LinkByName("veth1")
	require.NoError(t, err)
	// The host would not answer a question from such an address.
	require.NoError(t, inside.NeighAdd(&netlink.Neigh{
		LinkIndex: far.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.IPv4(10, 0, 0, 1), HardwareAddr: host.Attrs().HardwareAddr,
	}))
	require.Eventually(t, func() bool {
		l, err := here.LinkByName("veth0")
		return err == nil && l.Attrs().OperState == netlink.OperUp
	}, patience, time.Millisecond)

	var c *net.UDPConn
	inNamespace(t, other, func() { c = listenUDP(t, "203.0.113.7:0") })
	send(t, c, "10.0.0.1:9", 40, 10)
	drops, packets := d.await(t, func(x *flow.Drop) bool { return x.Source == addressOf(c) },
		func() uint64 { return procCounter(t, "netstat", "TcpExt", "IPReversePathFilter") })
	assert.EqualValues(t, 40, packets)
	for _, x := range drops {
		assert.Equal(t, "ip_rpfilter", x.Reason)
	}
}

// inNamespace runs f on a thread that ends with it.
func inNamespace(t *testing.T, ns netns.NsHandle, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		if assert.NoError(t, netns.Set(ns)) {
			f()
		}
	}()
	<-done
}

func plug(t *testing.T, h *netlink.Handle, name, address string) netlink.Link {
	t.Helper()
	l, err := h.LinkByName(name)
	require.NoError(t, err)
	a, err := netlink.ParseAddr(address)
	require.NoError(t, err)
	require.NoError(t, h.AddrAdd(l, a))
	require.NoError(t, h.LinkSetUp(l))
	return l
}

// More flows than the table holds: the others are counted without their details.
func TestTheTableOfDropsIsFull(t *testing.T) {
	if !inQuietNamespace(t) {
		return
	}
	d := newDrops(t)
	size := int(d.objs.Drops0.MaxEntries())
	c := listenUDP(t, "127.0.0.1:0")
	for port := range size + 500 {
		send(t, c, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), uint16(1+port)).String(), 1, 0)
	}
	var flows, undetailed int
	require.Eventually(t, func() bool {
		require.NoError(t, d.Drain(func(x *flow.Drop) {
			switch {
			case x.Source == addressOf(c):
				assert.EqualValues(t, 1, x.Packets)
				flows++
			case x.Reason == "no_socket" || x.Reason == "cpu_backlog": // the latter when the machine is busy
				if !x.Source.IsValid() {
					undetailed += int(x.Packets)
				}
			}
		}))
		return flows+undetailed >= size+500
	}, patience, time.Millisecond)
	assert.NotZero(t, undetailed)
	// The rest of the host may have dropped a few as well.
	assert.InDelta(t, size+500, flows+undetailed, 50)
}

// Drops that happen while the table is drained again and again are all counted, once.
func TestDropsWhileDraining(t *testing.T) {
	if !inQuietNamespace(t) {
		return
	}
	const datagrams = 20_000
	d := newDrops(t)
	a, b := listenUDP(t, "127.0.0.1:0"), listenUDP(t, "127.0.0.1:0")
	done := make(chan struct{}, 2)
	for _, c := range []*net.UDPConn{a, b} {
		go func() {
			defer func() { done <- struct{}{} }()
			for range datagrams {
				_, err := c.WriteToUDPAddrPort(nil, netip.MustParseAddrPort("127.0.0.1:9"))
				assert.NoError(t, err)
			}
		}()
	}
	var packets, noSocket, missed uint64
	drains := 0
	drain := func() {
		drains++
		require.NoError(t, d.Drain(func(x *flow.Drop) {
			switch {
			case x.Reason == reasonMissed:
				missed += x.Packets
			case x.Source == addressOf(a) || x.Source == addressOf(b):
				packets += x.Packets // some may have found the backlog of a CPU full
				if x.Reason == "no_socket" {
					noSocket += x.Packets
				}
			}
		}))
	}
	for ended := 0; ended < 2; {
		select {
		case <-done:
			ended++
		default:
			drain()
		}
	}
	require.Eventually(t, func() bool {
		drain()
		return packets+missed >= 2*datagrams
	}, patience, time.Millisecond)
	assert.EqualValues(t, 2*datagrams, packets+missed)
	noPorts := procCounter(t, "snmp", "Udp", "NoPorts")
	assert.LessOrEqual(t, noSocket, noPorts)
	assert.LessOrEqual(t, noPorts, noSocket+missed)
	assert.Greater(t, drains, 3, "too few drains to prove anything")
}

// The kernel frees a FIN that nobody reads, and what meets a TIME_WAIT stub, as it frees a drop for which it has no
// better reason. They are none.
func TestOrdinaryConnectionsDropNothing(t *testing.T) {
	if !inQuietNamespace(t) {
		return
	}
	d := newDrops(t)
	if !d.hasReceiver(t) {
		t.Skip("before Linux 6.11 a packet that meets a TIME_WAIT stub looks like a drop without a reason")
	}
	// Drops are those of the whole host: nobody else has this address, whatever the others' connections drop.
	server := netip.MustParseAddr("127.88.0.1")
	for range 50 {
		sendTCPTo(t, server, 3)
	}
	sentinel := listenUDP(t, "127.0.0.1:0")
	send(t, sentinel, "127.0.0.1:9", 1, 0)
	d.await(t, func(x *flow.Drop) bool {
		if x.Transport == flow.TCP && (x.Source.Addr() == server || x.Destination.Addr() == server) {
			assert.NotContains(t, []string{"not_specified", "queue_purge"}, x.Reason, *x)
		}
		return x.Source == addressOf(sentinel)
	}, func() uint64 { return 1 })
}

// What counting drops costs, by the kernel's own measure: a dropped datagram, and a connection that drops nothing.
func BenchmarkDrops(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("loading BPF programs needs root")
	}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	require.NoError(b, err)
	defer stats.Close()
	d, err := NewDrops()
	require.NoError(b, err)
	defer d.Close()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(b, err)
	defer c.Close()
	for name, load := range map[string]func(){
		"datagram": func() {
			_, err := c.WriteToUDPAddrPort(nil, netip.MustParseAddrPort("127.0.0.1:9"))
			require.NoError(b, err)
		},
		"connection": func() { sendTCP(b, 1) },
	} {
		b.Run(name, func(b *testing.B) {
			before, err := d.objs.Dropped.Stats()
			require.NoError(b, err)
			for b.Loop() {
				load()
			}
			after, err := d.objs.Dropped.Stats()
			require.NoError(b, err)
			runs := float64(after.RunCount - before.RunCount)
			b.ReportMetric(float64(after.Runtime-before.Runtime)/runs, "ns/run")
			b.ReportMetric(runs/float64(b.N), "runs/op")
		})
	}
}
