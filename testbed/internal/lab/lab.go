//go:build linux

// Package lab makes the small network that the test bed sends traffic through: two endpoints, each in a network
// namespace and a cgroup of its own, joined by veth pairs to a bridge in a host namespace.
//
// Nothing but the test's own traffic crosses the veths: neighbours and bridge entries are static, and every interface
// is NOARP, which also keeps duplicate address detection and multicast reports away. So their counters can be compared
// with what orb8 reports down to the last byte.
package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/testutil"
)

// Options of a Lab. The zero value switches segmentation and receive offloads off.
type Options struct {
	// Offloads leaves GSO, TSO, GRO and checksum offload on, as they are by default.
	Offloads bool
	// BridgeNetfilter lets the bridge hand what it forwards to netfilter, as on many nodes of Kubernetes: it is then the
	// bridge that translates addresses, and not the host's routing. The test is skipped where the kernel has no br_netfilter.
	BridgeNetfilter bool
}

// Lab is the network. Client and Server talk over the bridge; Host is a process of the bridge's own namespace, as a pod
// with hostNetwork is; Agent is the same namespace with another cgroup, for the collector.
type Lab struct {
	Client, Server, Host, Agent *Node

	cgroup *Cgroup
}

// CgroupDir returns where the cgroup is that has those of all nodes in it, and no other process of the machine.
func (l *Lab) CgroupDir() string { return l.cgroup.Dir() }

const bridgeName = "br0"

// New makes a lab and removes it when the test ends. Without root the test is skipped, or fails where BPF tests are
// required.
func New(t testing.TB, o Options) *Lab {
	t.Helper()
	testutil.Require(t, "bpf", os.Geteuid() == 0, "network namespaces and cgroups need root")

	hostNS := newNamespace(t)
	l := &Lab{cgroup: NewCgroup(t)}
	l.Host = l.newNode(t, "host", hostNS, 1)
	l.Agent = l.newNode(t, "agent", hostNS, 1)
	l.Client = l.newNode(t, "client", newNamespace(t), 2)
	l.Server = l.newNode(t, "server", newNamespace(t), 3)
	l.addBridge(t, o)
	for _, n := range []*Node{l.Client, l.Server} {
		l.plug(t, n, o)
	}
	l.introduce(t)
	l.awaitReady(t)
	return l
}

// newNode gives the node number i of the lab's networks: 10.88.0.i and fd88::i.
func (l *Lab) newNode(t testing.TB, name string, ns netns.NsHandle, i byte) *Node {
	t.Helper()
	h, err := netlink.NewHandleAt(ns)
	require.NoError(t, err)
	t.Cleanup(h.Close)
	n := &Node{
		Name: name,
		IPv4: netip.AddrFrom4([4]byte{10, 88, 0, i}),
		IPv6: netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x88, 15: i}),
		mac:  net.HardwareAddr{0x02, 0x88, 0, 0, 0, i},
		ns:   ns,
		link: h,
	}
	n.cgroup = l.cgroup.Child(t, name)
	return n
}

func (l *Lab) addBridge(t testing.TB, o Options) {
	t.Helper()
	l.bridgeNetfilter(t, o.BridgeNetfilter)
	snooping := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = bridgeName, l.Host.mac
	require.NoError(t, l.Host.link.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}))
	l.Host.up(t, "lo")
	l.Host.address(t, bridgeName)
}

// bridgeNetfilter says what the bridge does with packets, which would otherwise depend on whether the machine happens to have
// br_netfilter loaded.
func (l *Lab) bridgeNetfilter(t testing.TB, on bool) {
	t.Helper()
	value := "0"
	if on {
		value = "1"
	}
	err := l.Host.Do(func() error { return os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte(value), 0) })
	missing := errors.Is(err, os.ErrNotExist)
	testutil.Require(t, "br_netfilter", !on || !missing, "the kernel has no br_netfilter")
	if !missing {
		require.NoError(t, err)
	}
}

// plug joins the node's namespace to the bridge by a veth pair: eth0 inside, veth-NAME on the host.
func (l *Lab) plug(t testing.TB, n *Node, o Options) {
	t.Helper()
	n.veth, n.host = "veth-"+n.Name, l.Host
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.veth
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerNamespace = "eth0", n.mac, netlink.NsFd(n.ns)
	require.NoError(t, l.Host.link.LinkAdd(veth))

	port, err := l.Host.link.LinkByName(n.veth)
	require.NoError(t, err)
	bridge, err := l.Host.link.LinkByName(bridgeName)
	require.NoError(t, err)
	require.NoError(t, l.Host.link.LinkSetMaster(port, bridge))
	if !o.Offloads {
		require.NoError(t, l.Host.Do(func() error { return offloadsOff(n.veth) }))
		require.NoError(t, n.Do(func() error { return offloadsOff("eth0") }))
	}
	l.Host.up(t, n.veth)
	n.up(t, "lo")
	n.address(t, "eth0")

	// A bridge that has to learn floods its first packets to every port.
	require.NoError(t, l.Host.link.NeighAppend(&netlink.Neigh{
		LinkIndex: port.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER,
		State: netlink.NUD_NOARP, HardwareAddr: n.mac,
	}))
}

// introduce gives every node the link-layer addresses of the others.
func (l *Lab) introduce(t testing.TB) {
	t.Helper()
	nodes := map[*Node]string{l.Host: bridgeName, l.Client: "eth0", l.Server: "eth0"}
	for n, device := range nodes {
		link, err := n.link.LinkByName(device)
		require.NoError(t, err)
		for peer := range nodes {
			if peer == n {
				continue
			}
			for _, ip := range []netip.Addr{peer.IPv4, peer.IPv6} {
				require.NoError(t, n.link.NeighSet(&netlink.Neigh{
					LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT,
					IP: ip.AsSlice(), HardwareAddr: peer.mac,
				}), "neighbour %s of %s", ip, n.Name)
			}
		}
	}
}

// awaitReady waits until every link carries packets and every node takes those for its address. The kernel sees to
// both a moment after it has been told, and drops what comes before.
func (l *Lab) awaitReady(t testing.TB) {
	t.Helper()
	for _, at := range []struct {
		node   *Node
		device string
	}{
		{l.Client, "eth0"}, {l.Server, "eth0"}, {l.Host, l.Client.veth}, {l.Host, l.Server.veth}, {l.Host, bridgeName},
	} {
		require.Eventually(t, func() bool {
			link, err := at.node.link.LinkByName(at.device)
			return err == nil && link.Attrs().OperState == netlink.OperUp
		}, 10*time.Second, time.Millisecond, "%s of %s is not up", at.device, at.node.Name)
		require.Eventually(t, func() bool {
			routes, err := at.node.link.RouteGet(at.node.IPv6.AsSlice())
			return err == nil && routes[0].Type == unix.RTN_LOCAL
		}, 10*time.Second, time.Millisecond, "%s has no local route to %s", at.node.Name, at.node.IPv6)
	}
}

func (n *Node) up(t testing.TB, device string) {
	t.Helper()
	link, err := n.link.LinkByName(device)
	require.NoError(t, err)
	if device != "lo" {
		require.NoError(t, n.link.LinkSetARPOff(link))
	}
	require.NoError(t, n.link.LinkSetUp(link))
}

func (n *Node) address(t testing.TB, device string) {
	t.Helper()
	n.up(t, device)
	link, err := n.link.LinkByName(device)
	require.NoError(t, err)
	for _, prefix := range []netip.Prefix{netip.PrefixFrom(n.IPv4, 24), netip.PrefixFrom(n.IPv6, 64)} {
		addr, err := netlink.ParseAddr(prefix.String())
		require.NoError(t, err)
		addr.Flags = unix.IFA_F_NODAD // or it may be tentative for a moment, and cannot be bound
		require.NoError(t, n.link.AddrAdd(link, addr), fmt.Sprintf("address %s of %s", prefix, n.Name))
	}
}
