//go:build linux

package lab

import (
	"net"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Node is a place where processes run: a network namespace and a cgroup.
type Node struct {
	Name       string
	IPv4, IPv6 netip.Addr

	mac    net.HardwareAddr
	ns     netns.NsHandle
	link   *netlink.Handle
	cgroup *Cgroup
	// veth is the name of the host side of the node's veth pair, and host the node that has it; empty for Host and Agent.
	veth string
	host *Node
}

// Cgroup returns the path of the node's cgroup below the cgroup v2 root, with a leading slash.
func (n *Node) Cgroup() string { return n.cgroup.path }

// Interface returns the name of the host side of the node's veth pair.
func (n *Node) Interface() string { return n.veth }

// Start starts the command in the node's network namespace and cgroup: its first instruction already runs there.
func (n *Node) Start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives a test that was killed
	return n.Do(func() error { return n.cgroup.Start(cmd) })
}

// Do runs f on a thread that is in the node's network namespace. Sockets that f opens stay there.
func (n *Node) Do(f func() error) error {
	return inNamespace(n.ns, f)
}

// Counters are what crossed a node's veth pair, seen from the node: layer-3 bytes, without the Ethernet header, and
// packets as the driver counts them (a super-packet is one).
type Counters struct {
	SentPackets, SentBytes         uint64
	ReceivedPackets, ReceivedBytes uint64
}

const ethernetHeader = 14

// Counters reads the counters of the host side of the node's veth pair.
func (n *Node) Counters(t testing.TB) Counters {
	t.Helper()
	require.NotEmpty(t, n.veth, "node %s has no veth pair: use client or server", n.Name)
	link, err := n.host.link.LinkByName(n.veth)
	require.NoError(t, err)
	s := link.Attrs().Statistics
	return Counters{
		SentPackets: s.RxPackets, SentBytes: s.RxBytes - ethernetHeader*s.RxPackets,
		ReceivedPackets: s.TxPackets, ReceivedBytes: s.TxBytes - ethernetHeader*s.TxPackets,
	}
}
