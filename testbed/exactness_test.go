//go:build linux

package testbed

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
	"github.com/orb8/orb8/testbed/internal/traffic"
)

// Header sizes on these wires: every TCP segment has the timestamp option, a SYN has 8 bytes of options more.
const (
	headersIPv4, headersIPv6 = 20, 40
	headersUDP               = 8
	headersTCP               = 20 + 12
	optionsSYN               = 8
)

// seen is what one endpoint has of a transport in one direction.
type seen struct{ packets, bytes uint64 }

// endpoints sums flows by "CGROUP DIRECTION", and fails on a lossy row.
func endpoints(t *testing.T, flows []collector.Flow, nodes ...*lab.Node) map[string]seen {
	t.Helper()
	sums := map[string]seen{}
	for _, f := range flows {
		for _, n := range nodes {
			if f.Local().Cgroup == n.Cgroup() {
				sum := sums[n.Name+" "+f.Direction]
				sum.packets += f.Packets
				sum.bytes += f.Bytes
				sums[n.Name+" "+f.Direction] = sum
			}
		}
		assert.Zero(t, f.Lost, "%+v", f)
	}
	return sums
}

// What orb8 says must be what crossed the wire, to the byte, for each endpoint by its own cgroup: in both attach modes, with
// IPv4 and IPv6, between two pods and between a pod and a process of the host.
func TestBytesAndPacketsAreThoseOfTheWire(t *testing.T) {
	loads := map[string]traffic.Load{
		"tcp4": {Network: "tcp4", Flows: 3, Writes: 100, WriteSize: 4000, Reply: 70_000},
		"tcp6": {Network: "tcp6", Flows: 3, Writes: 100, WriteSize: 4000, Reply: 70_000},
		"udp4": {Network: "udp4", Flows: 50, Writes: 3, WriteSize: 1000, Reply: 20},
		"udp6": {Network: "udp6", Flows: 50, Writes: 3, WriteSize: 1000, Reply: 20},
	}
	for _, mode := range attachModes {
		for _, offloads := range []bool{false, true} {
			for _, clientName := range []string{"pod", "host"} {
				t.Run(fmt.Sprintf("%s/offloads=%v/%s", mode, offloads, clientName), func(t *testing.T) {
					for name, load := range loads {
						t.Run(name, func(t *testing.T) { testWire(t, mode, offloads, clientName == "host", load) })
					}
				})
			}
		}
	}
}

func testWire(t *testing.T, mode string, offloads, fromHost bool, load traffic.Load) {
	l := lab.New(t, lab.Options{Offloads: offloads})
	client := l.Client
	if fromHost {
		client = l.Host
	}
	c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchLab(l, mode)})
	sent, received := traffic.Exchange(t, client, l.Server, load)

	there, back := onTheWire(load, sent, received), onTheWire(load, received, sent)
	if !offloads {
		// With offloads off a source that is not ours says the same: the veth's own counters.
		wire := l.Server.Counters(t)
		require.Equal(t, seen{wire.ReceivedPackets, wire.ReceivedBytes}, there)
		require.Equal(t, seen{wire.SentPackets, wire.SentBytes}, back)
	}
	want := map[string]seen{
		client.Name + " egress": there, "server ingress": there,
		"server egress": back, client.Name + " ingress": back,
	}
	var got map[string]seen
	collector.Await(t, "every byte and packet, at both ends", func() bool {
		got = endpoints(t, c.Flows(), client, l.Server)
		return maps.Equal(want, got)
	}, func() any { return fmt.Sprintf("want %v\ngot  %v", want, got) })
}

// onTheWire is what from sent, as it must have crossed the wire: payload and headers, segment by segment.
func onTheWire(load traffic.Load, from, to traffic.Report) seen {
	ip := uint64(headersIPv4)
	if load.Network[3] == '6' {
		ip = headersIPv6
	}
	if load.Network[:3] == "udp" {
		return seen{to.DatagramsReceived, from.BytesSent + to.DatagramsReceived*(ip+headersUDP)}
	}
	return seen{from.SegmentsSent, from.BytesSent + from.SegmentsSent*(ip+headersTCP) + uint64(load.Flows)*optionsSYN}
}

// watchLab is a configuration that sees both ends of the lab, and nothing else of the machine, where others may send what they
// like: in tc mode the bridge is where the host's own processes send.
func watchLab(l *lab.Lab, mode string) string { return watch(mode, l.CgroupDir()) }

// watchHost is watchLab for what belongs to no process of the lab: in cgroup mode it sees the whole machine.
func watchHost(mode string) string { return watch(mode, "") }

func watch(mode, cgroupDir string) string {
	return fmt.Sprintf("receivers: {ebpf_network: {attach: {mode: %s, cgroup_path: %q, interfaces: {include: [br0, 'veth*']}}}}", mode, cgroupDir)
}

func TestBurstOfFlowsAtDefaultSettingsLosesNothing(t *testing.T) {
	const flows, packets = 20_000, 3
	l := lab.New(t, lab.Options{Offloads: true})
	c := collector.Start(t, collector.Options{Node: l.Agent, Overlay: watchLab(l, "cgroup")})
	traffic.Exchange(t, l.Client, l.Server, traffic.Load{Network: "udp4", Flows: flows, Writes: packets, WriteSize: 64})
	require.EqualValues(t, flows*packets, l.Server.Counters(t).ReceivedPackets)

	var rows []collector.Flow
	rows = c.AwaitFlows("20,000 flows from the client", func(all []collector.Flow) bool {
		rows = rows[:0]
		for _, f := range all {
			if f.Source.Cgroup == l.Client.Cgroup() {
				rows = append(rows, f)
			}
		}
		var sum uint64
		for _, f := range rows {
			sum += f.Packets
		}
		return len(rows) == flows && sum == flows*packets
	}, "--direction", "egress")
	for _, f := range rows {
		if f.Source.Cgroup == l.Client.Cgroup() {
			require.EqualValues(t, packets, f.Packets, "%+v", f)
			require.EqualValues(t, packets*(headersIPv4+headersUDP+64), f.Bytes, "%+v", f)
			require.Zero(t, f.Lost)
		}
	}
	assert.Zero(t, lost(t, c))
}

// A table and a ring buffer far too small must not make packets disappear: what is in no flow is in the loss.
func TestFlowsAndLossAreAllOfIt(t *testing.T) {
	const flows, packets = 20_000, 3
	// Only the lab is watched: the rest of the machine must have no part in what is lost.
	tests := map[string]struct {
		attach func(l *lab.Lab) string
		seen   uint64 // how often a packet is seen
	}{
		"cgroup": {func(l *lab.Lab) string { return "{mode: cgroup, cgroup_path: " + cgroupPath(t, l.Client) + "}" }, 1},
		"tc":     {func(*lab.Lab) string { return "{mode: tc, interfaces: {include: ['veth*']}}" }, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := lab.New(t, lab.Options{Offloads: true})
			c := collector.Start(t, collector.Options{Node: l.Agent, Overlay: fmt.Sprintf(
				"receivers: {ebpf_network: {flow_table_size: 64, ring_buffer_size: 4096, attach: %s}}", tt.attach(l))})
			traffic.Exchange(t, l.Client, l.Server, traffic.Load{Network: "udp4", Flows: flows, Writes: packets, WriteSize: 64})
			sent := l.Server.Counters(t).ReceivedPackets
			require.EqualValues(t, flows*packets, sent)

			var counted, missing uint64
			collector.Await(t, "flows + lost = all", func() bool {
				counted, missing = 0, lost(t, c)
				for _, f := range c.Flows() {
					counted += f.Packets
				}
				return counted+missing == tt.seen*sent
			}, func() any { return fmt.Sprintf("counted %d, lost %d, of %d", counted, missing, tt.seen*sent) })
			assert.NotZero(t, missing, "the table was large enough")
			t.Logf("%d packets counted, %d lost", counted, missing)

			_, stderr, _ := c.CLI("flows", "--limit", "1")
			assert.Contains(t, stderr, "lost", "the CLI keeps quiet about it")
		})
	}
}

// cgroupPath is where a node's cgroup can be read.
func cgroupPath(t testing.TB, n *lab.Node) string {
	t.Helper()
	mount, err := cgroup.FindMount("")
	require.NoError(t, err)
	return mount.Path + n.Cgroup()
}

// lost is how many packets the status says were lost.
func lost(t testing.TB, c *collector.Collector) uint64 {
	t.Helper()
	return loss(t, c).packets
}

// loss is what the status says was lost.
func loss(t testing.TB, c *collector.Collector) (sum seen) {
	t.Helper()
	stdout, stderr, code := c.CLI("status", "-o", "json")
	require.Zero(t, code, stderr)
	var status struct {
		Nodes []struct {
			Network struct {
				Lost struct{ Packets, Bytes uint64 } `json:"lost"`
			} `json:"network"`
		} `json:"nodes"`
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &status), stdout)
	for _, n := range status.Nodes {
		sum.packets += n.Network.Lost.Packets
		sum.bytes += n.Network.Lost.Bytes
	}
	return sum
}

// The limit of cgroup mode that its documentation states: a process that closes first, and does not wait for the other
// side's end, leaves the last two packets of the connection to the kernel, without a socket. tc mode sees them.
func TestLastPacketsOfAnActiveClose(t *testing.T) {
	for _, mode := range attachModes {
		t.Run(mode, func(t *testing.T) {
			l := lab.New(t, lab.Options{})
			c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchHost(mode)})
			port := closeFirst(t, l)

			wire := l.Client.Counters(t)
			want := map[string]seen{
				"client egress":  {wire.SentPackets, wire.SentBytes},
				"client ingress": {wire.ReceivedPackets, wire.ReceivedBytes},
				"server egress":  {wire.ReceivedPackets, wire.ReceivedBytes},
				"server ingress": {wire.SentPackets, wire.SentBytes},
			}
			if mode == "cgroup" {
				const size = headersIPv4 + headersTCP
				want["client egress"] = seen{wire.SentPackets - 1, wire.SentBytes - size}          // the last ACK
				want["client ingress"] = seen{wire.ReceivedPackets - 1, wire.ReceivedBytes - size} // the FIN that it answers
			}
			var got map[string]seen
			collector.Await(t, "what each end can see", func() bool {
				got = map[string]seen{}
				for _, f := range c.Flows("--port", fmt.Sprint(port)) {
					end := "client"
					if f.Local().Port == port {
						end = "server"
					}
					got[end+" "+f.Direction] = seen{f.Packets, f.Bytes}
				}
				return maps.Equal(want, got)
			}, func() any { return fmt.Sprintf("want %v\ngot  %v", want, got) })
		})
	}
}

// closeFirst makes one connection over the lab whose client closes before the server does, and returns the server's port.
func closeFirst(t *testing.T, l *lab.Lab) uint16 {
	t.Helper()
	var listener net.Listener
	require.NoError(t, l.Server.Do(func() (err error) {
		listener, err = net.Listen("tcp4", l.Server.IPv4.String()+":0")
		return err
	}))
	defer listener.Close()
	var client net.Conn
	require.NoError(t, l.Client.Do(func() (err error) {
		client, err = net.Dial("tcp4", listener.Addr().String())
		return err
	}))
	server, err := listener.Accept()
	require.NoError(t, err)
	_, err = client.Write(make([]byte, 1000))
	require.NoError(t, err)
	require.NoError(t, client.Close())
	_, err = io.Copy(io.Discard, server)
	require.NoError(t, err)
	// Until here the server has acknowledged the client's FIN by a packet of its own.
	require.Eventually(t, func() bool { return l.Client.Counters(t).ReceivedPackets >= 3 }, 5*time.Second, time.Millisecond)
	require.NoError(t, server.Close())
	require.Eventually(t, func() bool {
		wire := l.Client.Counters(t)
		return wire.SentPackets == 5 && wire.ReceivedPackets == 4
	}, 5*time.Second, time.Millisecond, "SYN, ACK, data, FIN, ACK one way; SYN-ACK, ACK of the data and of the FIN, FIN the other")
	return uint16(listener.Addr().(*net.TCPAddr).Port)
}
