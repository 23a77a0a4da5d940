//go:build linux

package traffic

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	netipv4 "golang.org/x/net/ipv4"
	netipv6 "golang.org/x/net/ipv6"

	"github.com/orb8/orb8/testbed/internal/lab"
)

// Echo sends load.Writes echo requests of load.WriteSize bytes from client to server, whose kernel answers each, and returns
// what the client saw. The network is icmp4 or icmp6.
func Echo(t testing.TB, client, server *lab.Node, load Load) Report {
	t.Helper()
	ip := server.IPv4
	if load.Network == "icmp6" {
		ip = server.IPv6
	}
	c := start(t, client, part{Load: load, Address: netip.AddrPortFrom(ip, 0)})
	var report Report
	c.read(&report)
	c.wait()
	return report
}

// echo asks and waits for the answer before it asks again. The payload's sizes are those of what follows the ICMP header.
func echo(p part) (r Report, err error) {
	listen, request, reply := "ip4:icmp", icmp.Type(netipv4.ICMPTypeEcho), icmp.Type(netipv4.ICMPTypeEchoReply)
	if p.Network == "icmp6" {
		listen, request, reply = "ip6:ipv6-icmp", netipv6.ICMPTypeEchoRequest, netipv6.ICMPTypeEchoReply
	}
	conn, err := icmp.ListenPacket(listen, "")
	if err != nil {
		return r, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return r, err
	}
	answer := make([]byte, p.WriteSize+1500)
	for i := range p.Writes {
		m := icmp.Message{Type: request, Body: &icmp.Echo{ID: 1, Seq: i, Data: make([]byte, p.WriteSize)}}
		packet, err := m.Marshal(nil) // of ICMPv6 the kernel makes the checksum
		if err != nil {
			return r, err
		}
		if _, err := conn.WriteTo(packet, &net.IPAddr{IP: p.Address.Addr().AsSlice()}); err != nil {
			return r, err
		}
		r.BytesSent += uint64(p.WriteSize)
		r.DatagramsSent++
		n, _, err := conn.ReadFrom(answer)
		if err != nil {
			return r, err
		}
		got, err := icmp.ParseMessage(reply.Protocol(), answer[:n])
		if err != nil {
			return r, err
		}
		body, ok := got.Body.(*icmp.Echo)
		if !ok || got.Type != reply || body.Seq != i {
			return r, fmt.Errorf("not the answer to request %d: %+v", i, got)
		}
		r.BytesReceived += uint64(len(body.Data))
		r.DatagramsReceived++
	}
	return r, nil
}
