package ebpfnetworkreceiver

import (
	"bytes"
	"net/netip"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/kernelclock"
)

// recorder turns what the kernel counted into flow records.
type recorder struct {
	clock kernelclock.Clock
	// interfaces returns those that saw a flow in this interval. It is nil in cgroup mode, where flows are seen at sockets.
	interfaces func(*network.NetworkFlowKey) []string
	// lost is how many packets were lost while the record's interval lasted.
	lost uint64
}

// record makes a flow record of an interval. ended is how the flow ended, nil while it lives.
func (c *recorder) record(k *network.NetworkFlowKey, f *network.NetworkFlow, ended *flow.Outcome) flow.Record {
	r := flow.Record{
		Start:       c.clock.Wall(int64(f.FirstNs)),
		End:         c.clock.Wall(int64(f.LastNs)),
		Direction:   flow.Direction(k.Direction),
		Transport:   flow.Transport(k.Transport),
		Source:      flow.Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom16(k.Saddr).Unmap(), k.Sport)},
		Destination: flow.Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom16(k.Daddr).Unmap(), k.Dport)},
		TCPFlags:    f.TcpFlags,
		Bytes:       f.Bytes,
		Packets:     f.Packets,
		Connections: uint64(f.Connections),
		Ended:       ended != nil,
		LostPackets: c.lost,
	}
	if r.Transport == flow.TCP {
		r.TCPHealth, r.Initiator = health(f), initiator(f.Seen)
		if ended != nil {
			r.Outcome = *ended
		}
	}
	if r.Transport == flow.ICMP || r.Transport == flow.ICMPv6 {
		r.ICMPType, r.ICMPCode = uint8(k.Dport>>8), uint8(k.Dport)
		r.Destination.Addr = netip.AddrPortFrom(r.Destination.Addr.Addr(), 0)
	}
	if c.interfaces != nil {
		r.Interfaces = c.interfaces(k)
	}
	r.Local().Identity = flow.Identity{CgroupID: f.CgroupId, PID: f.Pid, Process: commString(&f.Comm)}
	return r
}

// reverse returns the key of the other direction at the same place.
func reverse(k *network.NetworkFlowKey) network.NetworkFlowKey {
	r := *k
	r.Saddr, r.Daddr = k.Daddr, k.Saddr
	r.Sport, r.Dport = k.Dport, k.Sport
	if d := flow.Direction(k.Direction); d != flow.Transit {
		r.Direction = uint8(flow.Ingress + flow.Egress - d)
	}
	return r
}

func isIPv4(addr *[16]uint8) bool { return netip.AddrFrom16(*addr).Is4In6() }

func commString(comm *[16]int8) string {
	var b [16]byte
	for i, c := range comm {
		b[i] = byte(c)
	}
	name, _, _ := bytes.Cut(b[:], []byte{0})
	return string(bytes.ToValidUTF8(name, []byte("\ufffd")))
}
