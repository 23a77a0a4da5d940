//go:build linux

package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Routed is a Lab whose Host also routes IPv4 between the bridge and two other hosts: West behind the uplinks uplink0 and
// uplink1, and East behind uplink2. Flows are spread over the two uplinks of West, in both directions.
type Routed struct {
	*Lab
	West, East *Node
}

// uplink is a link between Host and another host, with a subnet of its own: 10.89.i.1 on Host's end.
type uplink struct {
	name         string
	here, there  netip.Addr
	macHere, mac net.HardwareAddr
}

func newUplink(i byte) uplink {
	return uplink{
		name: fmt.Sprintf("uplink%d", i),
		here: netip.AddrFrom4([4]byte{10, 89, i, 1}), there: netip.AddrFrom4([4]byte{10, 89, i, 2}),
		macHere: net.HardwareAddr{0x02, 0x89, 0, 0, i, 1}, mac: net.HardwareAddr{0x02, 0x89, 0, 0, i, 2},
	}
}

// NewRouted makes a routed lab and removes it when the test ends. Its offloads are off.
func NewRouted(t testing.TB) *Routed {
	t.Helper()
	r := &Routed{Lab: New(t, Options{})}
	r.West = r.newNode(t, "west", newNamespace(t), 4)
	r.East = r.newNode(t, "east", newNamespace(t), 5)
	r.West.IPv4, r.East.IPv4 = netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("198.51.100.1")
	for _, n := range []*Node{r.Host, r.West, r.East} {
		n.routes(t)
	}
	for _, n := range []*Node{r.West, r.East} {
		n.up(t, "lo")
		n.assign(t, "lo", netip.PrefixFrom(n.IPv4, 32))
	}
	for i, n := range []*Node{r.West, r.West, r.East} {
		r.connect(t, newUplink(byte(i)), n)
	}
	r.Client.via(t, netip.MustParsePrefix("0.0.0.0/0"), netip.Addr{}, r.Host.IPv4)
	r.Server.via(t, netip.MustParsePrefix("0.0.0.0/0"), netip.Addr{}, r.Host.IPv4)
	r.East.via(t, netip.MustParsePrefix("0.0.0.0/0"), r.East.IPv4, newUplink(2).here)
	r.Host.via(t, netip.PrefixFrom(r.East.IPv4, 32), netip.Addr{}, newUplink(2).there)
	r.RouteToWest(t, 0, 1)
	r.RouteFromWest(t, 0, 1)
	return r
}

// RouteToWest makes Host send what is for West through these uplinks.
func (r *Routed) RouteToWest(t testing.TB, uplinks ...byte) {
	t.Helper()
	var gateways []netip.Addr
	for _, i := range uplinks {
		gateways = append(gateways, newUplink(i).there)
	}
	r.Host.via(t, netip.PrefixFrom(r.West.IPv4, 32), netip.Addr{}, gateways...)
}

// RouteFromWest makes West send through these uplinks.
func (r *Routed) RouteFromWest(t testing.TB, uplinks ...byte) {
	t.Helper()
	var gateways []netip.Addr
	for _, i := range uplinks {
		gateways = append(gateways, newUplink(i).here)
	}
	r.West.via(t, netip.MustParsePrefix("0.0.0.0/0"), r.West.IPv4, gateways...)
}

// UplinkCounters reads the counters of Host's end of an uplink: what Host sent and received.
func (r *Routed) UplinkCounters(t testing.TB, i byte) Counters {
	t.Helper()
	link, err := r.Host.link.LinkByName(newUplink(i).name)
	require.NoError(t, err)
	s := link.Attrs().Statistics
	return Counters{
		SentPackets: s.TxPackets, SentBytes: s.TxBytes - ethernetHeader*s.TxPackets,
		ReceivedPackets: s.RxPackets, ReceivedBytes: s.RxBytes - ethernetHeader*s.RxPackets,
	}
}

func (r *Routed) connect(t testing.TB, u uplink, n *Node) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = u.name, u.macHere
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerNamespace = u.name, u.mac, netlink.NsFd(n.ns)
	require.NoError(t, r.Host.link.LinkAdd(veth))
	for _, end := range []struct {
		node       *Node
		addr, peer netip.Addr
		peerMAC    net.HardwareAddr
	}{{r.Host, u.here, u.there, u.mac}, {n, u.there, u.here, u.macHere}} {
		require.NoError(t, end.node.Do(func() error { return offloadsOff(u.name) }))
		end.node.up(t, u.name)
		end.node.assign(t, u.name, netip.PrefixFrom(end.addr, 24))
		link, err := end.node.link.LinkByName(u.name)
		require.NoError(t, err)
		require.NoError(t, end.node.link.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: end.peer.AsSlice(), HardwareAddr: end.peerMAC,
		}))
	}
	for _, node := range []*Node{r.Host, n} {
		require.Eventually(t, func() bool {
			link, err := node.link.LinkByName(u.name)
			return err == nil && link.Attrs().OperState == netlink.OperUp
		}, 10*time.Second, time.Millisecond, "%s of %s is not up", u.name, node.Name)
	}
}

// routes makes a router of the node: one that takes what comes from anywhere, spreads flows by their ports, and tells
// nobody of better ways.
func (n *Node) routes(t testing.TB) {
	t.Helper()
	require.NoError(t, n.Do(func() error {
		for name, value := range map[string]string{
			"ip_forward": "1", "fib_multipath_hash_policy": "1", "conf/all/send_redirects": "0",
			"conf/default/send_redirects": "0", "conf/all/rp_filter": "0", "conf/default/rp_filter": "0",
		} {
			if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (n *Node) assign(t testing.TB, device string, prefix netip.Prefix) {
	t.Helper()
	link, err := n.link.LinkByName(device)
	require.NoError(t, err)
	addr, err := netlink.ParseAddr(prefix.String())
	require.NoError(t, err)
	require.NoError(t, n.link.AddrAdd(link, addr))
}

// via makes a route, or replaces it: with several gateways, flows are spread over them. The zero src is left to the kernel.
func (n *Node) via(t testing.TB, dst netip.Prefix, src netip.Addr, gateways ...netip.Addr) {
	t.Helper()
	route := &netlink.Route{
		Dst: &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), 32)}, Protocol: unix.RTPROT_STATIC,
	}
	if src.IsValid() {
		route.Src = src.AsSlice()
	}
	if len(gateways) == 1 {
		route.Gw = gateways[0].AsSlice()
	} else {
		for _, gateway := range gateways {
			route.MultiPath = append(route.MultiPath, &netlink.NexthopInfo{Gw: gateway.AsSlice()})
		}
	}
	require.NoError(t, n.link.RouteReplace(route), "route of %s to %s", n.Name, dst)
}
