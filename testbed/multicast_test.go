//go:build linux

package testbed

import (
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	netipv4 "golang.org/x/net/ipv4"

	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
)

// The limit of cgroup mode that its documentation states: it counts what sockets receive, and of a multicast datagram every
// socket of the group receives one. tc mode counts it where it arrives: at the server, and at the host, to which the bridge
// hands it too.
func TestMulticastCountsForEverySocketOfTheGroup(t *testing.T) {
	const datagrams, sockets, payload = 10, 3, 100
	group := &net.UDPAddr{IP: net.IPv4(239, 88, 0, 1), Port: 8888}
	for mode, times := range map[string]uint64{"cgroup": sockets, "tc": 2} {
		t.Run(mode, func(t *testing.T) {
			l := lab.New(t, lab.Options{})
			c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchHost(mode)})
			var members []*net.UDPConn
			require.NoError(t, l.Server.Do(func() error {
				device, err := net.InterfaceByName("eth0")
				if err != nil {
					return err
				}
				for range sockets {
					conn, err := net.ListenMulticastUDP("udp4", device, group)
					if err != nil {
						return err
					}
					t.Cleanup(func() { assert.NoError(t, conn.Close()) })
					members = append(members, conn)
				}
				return nil
			}))
			require.NoError(t, l.Client.Do(func() error { return multicast(l.Client, group, datagrams, payload) }))
			for _, m := range members {
				receive(t, m, datagrams)
			}

			const size = headersIPv4 + headersUDP + payload
			want := map[string]seen{
				"egress":  {datagrams, datagrams * size},
				"ingress": {times * datagrams, times * datagrams * size},
			}
			got := map[string]seen{}
			c.AwaitFlows("what was sent, and what each socket received", func(flows []collector.Flow) bool {
				clear(got)
				for _, f := range flows {
					got[f.Direction] = got[f.Direction].plus(seen{f.Packets, f.Bytes})
				}
				return assert.ObjectsAreEqual(want, got)
			}, "--ip", group.IP.String())
		})
	}
}

// multicast sends datagrams to a group by eth0, from the network namespace that the thread is in.
func multicast(from *lab.Node, group *net.UDPAddr, datagrams, payload int) error {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: from.IPv4.AsSlice()})
	if err != nil {
		return err
	}
	defer conn.Close()
	device, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	packets := netipv4.NewPacketConn(conn)
	if err := packets.SetMulticastInterface(device); err != nil {
		return err
	}
	for range datagrams {
		if _, err := packets.WriteTo(make([]byte, payload), nil, group); err != nil {
			return err
		}
	}
	return nil
}
