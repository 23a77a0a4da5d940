//go:build linux

package testbed

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
	"github.com/orb8/orb8/testbed/internal/traffic"
)

// tc mode watches several interfaces that see the same packets. What orb8 says is held to the counters of the veths at the
// ends of the lab, which are the kernel's own.

func watchAll() string {
	return "receivers: {ebpf_network: {attach: {mode: tc, interfaces: {include: [br0, 'veth*', 'uplink*']}}}}"
}

// rowsBy sums rows by "DIRECTION SOURCE > DESTINATION" and collects the lists of interfaces that they have.
func rowsBy(t *testing.T, flows []collector.Flow) (map[string]seen, map[string][]string) {
	t.Helper()
	sums, paths := map[string]seen{}, map[string][]string{}
	for _, f := range flows {
		assert.Zero(t, f.Lost)
		key := fmt.Sprintf("%s %s > %s", f.Direction, f.Source.Address, f.Destination.Address)
		sums[key] = seen{sums[key].packets + f.Packets, sums[key].bytes + f.Bytes}
		if path := strings.Join(f.Interfaces, " "); !slices.Contains(paths[key], path) {
			paths[key] = append(paths[key], path)
		}
	}
	for _, list := range paths {
		slices.Sort(list)
	}
	return sums, paths
}

func awaitRows(t *testing.T, c *collector.Collector, want map[string]seen) map[string][]string {
	t.Helper()
	var got map[string]seen
	var paths map[string][]string
	collector.Await(t, "every packet, once for each endpoint", func() bool {
		got, paths = rowsBy(t, c.Flows())
		return maps.Equal(want, got)
	}, func() any { return fmt.Sprintf("want %v\ngot  %v\n%v", want, got, paths) })
	return paths
}

func sentBy(c lab.Counters) seen     { return seen{c.SentPackets, c.SentBytes} }
func receivedBy(c lab.Counters) seen { return seen{c.ReceivedPackets, c.ReceivedBytes} }

func (s seen) plus(o seen) seen { return seen{s.packets + o.packets, s.bytes + o.bytes} }

func TestThreeInterfacesCountAPacketOnce(t *testing.T) {
	for _, network := range []string{"tcp4", "udp4"} {
		t.Run(network, func(t *testing.T) {
			l := lab.NewRouted(t)
			l.RouteToWest(t, 0)
			l.RouteFromWest(t, 0)
			c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchAll()})
			traffic.Exchange(t, l.Client, l.West, traffic.Load{Network: network, Flows: 5, Writes: 50, WriteSize: 1000, Reply: 300})

			pod, uplink := l.Client.Counters(t), l.UplinkCounters(t, 0)
			require.Equal(t, sentBy(pod), sentBy(uplink))
			require.Equal(t, receivedBy(pod), receivedBy(uplink))
			there, back := "egress 10.88.0.2 > 203.0.113.1", "ingress 203.0.113.1 > 10.88.0.2"
			paths := awaitRows(t, c, map[string]seen{there: sentBy(pod), back: receivedBy(pod)})
			assert.Equal(t, []string{"veth-client br0 uplink0"}, paths[there])
			assert.Equal(t, []string{"uplink0 br0 veth-client"}, paths[back])

			// Series count the same, and know nothing of interfaces.
			fromPrometheus := c.Get(c.Prometheus, "/metrics")
			assert.Contains(t, fromPrometheus, "orb8_network_flow_packets_total{")
			assert.NotContains(t, fromPrometheus, "interface")
		})
	}
}

func TestFlowsSpreadOverTwoUplinks(t *testing.T) {
	l := lab.NewRouted(t)
	c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchAll()})
	traffic.Exchange(t, l.Client, l.West, traffic.Load{Network: "udp4", Flows: 60, Writes: 5, WriteSize: 400, Reply: 100})

	pod, up0, up1 := l.Client.Counters(t), l.UplinkCounters(t, 0), l.UplinkCounters(t, 1)
	require.NotZero(t, up0.SentPackets)
	require.NotZero(t, up1.SentPackets)
	require.Equal(t, sentBy(pod), sentBy(up0).plus(sentBy(up1)))
	there, back := "egress 10.88.0.2 > 203.0.113.1", "ingress 203.0.113.1 > 10.88.0.2"
	paths := awaitRows(t, c, map[string]seen{there: sentBy(pod), back: receivedBy(pod)})
	assert.Equal(t, []string{"veth-client br0 uplink0", "veth-client br0 uplink1"}, paths[there])
	assert.Equal(t, []string{"uplink0 br0 veth-client", "uplink1 br0 veth-client"}, paths[back])
}

func TestForwardingBetweenUplinksIsTransit(t *testing.T) {
	for _, network := range []string{"tcp4", "udp4"} {
		t.Run(network, func(t *testing.T) {
			l := lab.NewRouted(t)
			c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchAll()})
			traffic.Exchange(t, l.West, l.East, traffic.Load{Network: network, Flows: 20, Writes: 20, WriteSize: 500, Reply: 200})

			east, up0, up1 := l.UplinkCounters(t, 2), l.UplinkCounters(t, 0), l.UplinkCounters(t, 1)
			require.NotZero(t, up0.ReceivedPackets)
			require.NotZero(t, up1.ReceivedPackets)
			require.Equal(t, sentBy(east), receivedBy(up0).plus(receivedBy(up1)))
			there, back := "transit 203.0.113.1 > 198.51.100.1", "transit 198.51.100.1 > 203.0.113.1"
			paths := awaitRows(t, c, map[string]seen{there: sentBy(east), back: receivedBy(east)})
			assert.Equal(t, []string{"uplink0 uplink2", "uplink1 uplink2"}, paths[there])
			assert.Equal(t, []string{"uplink2 uplink0", "uplink2 uplink1"}, paths[back])
		})
	}
}

// A host that talks through its bridge, and through an uplink: its record is there once, with its own cgroup.
func TestTheHostItselfIsAnEndpoint(t *testing.T) {
	l := lab.NewRouted(t)
	c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchAll()})
	load := traffic.Load{Network: "udp4", Flows: 4, Writes: 5, WriteSize: 100, Reply: 50}
	traffic.Exchange(t, l.Host, l.Client, load)
	traffic.Exchange(t, l.Host, l.East, load)

	pod, east := l.Client.Counters(t), l.UplinkCounters(t, 2)
	paths := awaitRows(t, c, map[string]seen{
		"egress 10.88.0.1 > 10.88.0.2":    receivedBy(pod),
		"ingress 10.88.0.1 > 10.88.0.2":   receivedBy(pod),
		"egress 10.88.0.2 > 10.88.0.1":    sentBy(pod),
		"ingress 10.88.0.2 > 10.88.0.1":   sentBy(pod),
		"egress 10.89.2.1 > 198.51.100.1": sentBy(east), "ingress 198.51.100.1 > 10.89.2.1": receivedBy(east),
	})
	assert.Equal(t, []string{"br0 veth-client"}, paths["egress 10.88.0.1 > 10.88.0.2"])
	assert.Equal(t, []string{"veth-client br0"}, paths["ingress 10.88.0.2 > 10.88.0.1"])
	assert.Equal(t, []string{"uplink2"}, paths["egress 10.89.2.1 > 198.51.100.1"])
	for _, f := range c.Flows() {
		if strings.HasPrefix(f.Local().Address, "10.88.0.1") || strings.HasPrefix(f.Local().Address, "10.89.") {
			assert.Equal(t, l.Host.Cgroup(), f.Local().Cgroup, "%+v", f)
		}
	}
}

// A flow that changes its way while it lives keeps one row, which misses nothing and lists both ways. The peers, which count
// a flow at the first interface that saw it, lose it here.
func TestRouteChangesInTheMiddleOfAFlow(t *testing.T) {
	const packets, payload = 40, 100
	tests := map[string]struct {
		from, to func(*lab.Routed) *lab.Node
		change   func(*testing.T, *lab.Routed, byte)
		key      string
		path     string
	}{
		"on its way out": {
			func(l *lab.Routed) *lab.Node { return l.Client }, func(l *lab.Routed) *lab.Node { return l.West },
			func(t *testing.T, l *lab.Routed, uplink byte) { l.RouteToWest(t, uplink) },
			"egress 10.88.0.2 > 203.0.113.1", "veth-client br0 uplink0 uplink1",
		},
		"on its way in": {
			func(l *lab.Routed) *lab.Node { return l.West }, func(l *lab.Routed) *lab.Node { return l.Client },
			func(t *testing.T, l *lab.Routed, uplink byte) { l.RouteFromWest(t, uplink) },
			"ingress 203.0.113.1 > 10.88.0.2", "uplink0 br0 veth-client uplink1",
		},
		"in transit": {
			func(l *lab.Routed) *lab.Node { return l.West }, func(l *lab.Routed) *lab.Node { return l.East },
			func(t *testing.T, l *lab.Routed, uplink byte) { l.RouteFromWest(t, uplink) },
			"transit 203.0.113.1 > 198.51.100.1", "uplink0 uplink2 uplink1",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := lab.NewRouted(t)
			tt.change(t, l, 0)
			c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchAll()})
			sender, receiver := datagramPair(t, tt.from(l), tt.to(l))
			send := func() {
				for range packets {
					_, err := sender.Write(make([]byte, payload))
					require.NoError(t, err)
				}
				receive(t, receiver, packets)
			}
			send()
			one := seen{packets, packets * (headersIPv4 + headersUDP + payload)}
			awaitRows(t, c, map[string]seen{tt.key: one})
			tt.change(t, l, 1)
			send()
			tt.change(t, l, 0)
			send()
			paths := awaitRows(t, c, map[string]seen{tt.key: one.plus(one).plus(one)})
			assert.ElementsMatch(t, strings.Fields(tt.path), strings.Fields(paths[tt.key][0]))
			assert.Len(t, paths[tt.key], 1, "one row")
			require.EqualValues(t, packets, l.UplinkCounters(t, 1).SentPackets+l.UplinkCounters(t, 1).ReceivedPackets)
		})
	}
}

func datagramPair(t *testing.T, from, to *lab.Node) (sender, receiver *net.UDPConn) {
	t.Helper()
	require.NoError(t, to.Do(func() (err error) {
		receiver, err = net.ListenUDP("udp4", &net.UDPAddr{IP: to.IPv4.AsSlice()})
		return err
	}))
	t.Cleanup(func() { assert.NoError(t, receiver.Close()) })
	require.NoError(t, from.Do(func() (err error) {
		sender, err = net.DialUDP("udp4", &net.UDPAddr{IP: from.IPv4.AsSlice()}, receiver.LocalAddr().(*net.UDPAddr))
		return err
	}))
	t.Cleanup(func() { assert.NoError(t, sender.Close()) })
	return sender, receiver
}

func receive(t *testing.T, conn *net.UDPConn, n int) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	buf := make([]byte, 1<<16)
	for i := range n {
		_, err := conn.Read(buf)
		require.NoError(t, err, "datagram %d", i)
	}
}
