//go:build linux

package testbed

import (
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
	"github.com/orb8/orb8/testbed/internal/traffic"
)

// headersICMP is that of an echo request or reply.
const headersICMP = 8

// What echoes are counted as is what the veths counted. At the server it is the kernel that answers, as the documentation says:
// the replies are sent by the root cgroup, and in cgroup mode nobody receives the requests.
func TestEchoesAreThoseOfTheWire(t *testing.T) {
	kinds := map[string]struct {
		transport      string
		headers        uint64
		request, reply uint32
	}{
		"icmp4": {"icmp", headersIPv4 + headersICMP, 8, 0},
		"icmp6": {"ipv6-icmp", headersIPv6 + headersICMP, 128, 129},
	}
	for _, mode := range attachModes {
		for network, kind := range kinds {
			t.Run(mode+"/"+network, func(t *testing.T) {
				l := lab.New(t, lab.Options{})
				c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchHost(mode)})
				load := traffic.Load{Network: network, Writes: 30, WriteSize: 56}
				report := traffic.Echo(t, l.Client, l.Server, load)
				require.EqualValues(t, load.Writes, report.DatagramsReceived)

				wire := l.Client.Counters(t)
				require.Equal(t, seen{30, 30 * (56 + kind.headers)}, sentBy(wire), "something else crossed the wire")
				want := map[string]seen{
					"client egress": sentBy(wire), "server ingress": sentBy(wire),
					"server egress": receivedBy(wire), "client ingress": receivedBy(wire),
				}
				owners := map[string]string{"client egress": l.Client.Cgroup(), "server egress": "/"}
				if mode == "cgroup" {
					delete(want, "server ingress")
					owners["client ingress"] = l.Client.Cgroup()
				}
				var flows []collector.Flow
				var got map[string]seen
				collector.Await(t, "every echo", func() bool {
					flows = c.Flows("--protocol", kind.transport, "--ip", labNetwork, "--ip", "fd88::/64")
					got = map[string]seen{}
					for _, f := range flows {
						got[place(l, f)] = got[place(l, f)].plus(seen{f.Packets, f.Bytes})
					}
					return maps.Equal(want, got)
				}, func() any { return fmt.Sprintf("want %v\ngot  %v\n%+v", want, got, flows) })

				for _, f := range flows {
					assert.Zero(t, f.Source.Port)
					assert.Zero(t, f.Destination.Port)
					wantType := kind.request
					if at := place(l, f); at == "client ingress" || at == "server egress" {
						wantType = kind.reply
					}
					require.NotNil(t, f.ICMPType, "%+v", f)
					assert.Equal(t, wantType, *f.ICMPType, "%+v", f)
					assert.Equal(t, owners[place(l, f)], f.Local().Cgroup, "%+v", f)
				}
			})
		}
	}
}

// place is "NODE DIRECTION", by the address of a flow's own end.
func place(l *lab.Lab, f collector.Flow) string {
	for _, n := range []*lab.Node{l.Client, l.Server} {
		if a := f.Local().Address; a == n.IPv4.String() || a == n.IPv6.String() {
			return n.Name + " " + f.Direction
		}
	}
	return f.Local().Address + " " + f.Direction
}
