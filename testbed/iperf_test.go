//go:build linux

package testbed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
)

// iperfReport is what matters here of what iperf3 says of a test as JSON.
type iperfReport struct {
	Start struct {
		Connected []struct {
			LocalPort uint16 `json:"local_port"`
		}
	}
	End struct {
		Sent struct {
			Bytes, Retransmits uint64
		} `json:"sum_sent"`
	}
}

const iperfPort = 5201

// iperf sends n bytes from client to server by one connection, beside the one by which iperf3 talks to itself.
func iperf(t *testing.T, client, server *lab.Node, n int) (r iperfReport) {
	t.Helper()
	var serverLog, clientLog bytes.Buffer
	listening := make(chan struct{})
	// On one CPU each: a sender that moves to another one overtakes its own segments.
	serve := exec.Command("taskset", "-c", "0", "iperf3", "-s", "-1", "--forceflush", "-p", strconv.Itoa(iperfPort), "-B", server.IPv4.String())
	serve.Stdout = &notice{w: &serverLog, until: "Server listening", found: listening}
	serve.Stderr = serve.Stdout
	require.NoError(t, server.Start(serve))
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	t.Cleanup(func() {
		_ = serve.Process.Kill() // where it has ended already that is an error, and none
	})
	select {
	case <-listening:
	case err := <-ended:
		require.Fail(t, "iperf3 does not serve", "%v: %s", err, serverLog.String())
	}
	send := exec.Command("taskset", "-c", "0", "iperf3", "-c", server.IPv4.String(), "-p", strconv.Itoa(iperfPort), "-n", strconv.Itoa(n), "-J")
	send.Stdout, send.Stderr = &clientLog, &clientLog
	require.NoError(t, client.Start(send))
	require.NoError(t, send.Wait(), clientLog.String())
	require.NoError(t, <-ended, serverLog.String())
	require.NoError(t, json.Unmarshal(clientLog.Bytes(), &r), clientLog.String())
	require.Len(t, r.Start.Connected, 1)
	return r
}

// Another program's word for what was sent again, and the veths' for what crossed the wire. The losses end long before iperf3
// does: what is sent again after it has looked is not in its count.
func TestIperfSaysTheSame(t *testing.T) {
	_, err := exec.LookPath("iperf3")
	testutil.Require(t, "iperf3", err == nil, "the test compares with iperf3, Debian's package iperf3")
	for _, mode := range attachModes {
		t.Run(mode, func(t *testing.T) {
			const size, losses = 60 << 20, 100
			l := lab.New(t, lab.Options{})
			c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchLab(l, mode)})
			loseOneIn(t, l, 50, losses)
			report := iperf(t, l.Client, l.Server, size)
			require.GreaterOrEqual(t, report.End.Sent.Bytes, uint64(size))
			require.NotZero(t, report.End.Sent.Retransmits, "nothing was lost on the way")

			client, server := l.Client.Counters(t), l.Server.Counters(t)
			wire := map[string]seen{
				"client egress": sentBy(client), "client ingress": receivedBy(client),
				"server egress": sentBy(server), "server ingress": receivedBy(server),
			}
			var retransmits uint64
			var got map[string]seen
			collector.Await(t, "the bytes of the veths and the retransmits of iperf3", func() bool {
				retransmits = 0
				for _, f := range healthFlows(t, c, "--direction", "egress", "--protocol", "tcp") {
					if f.Source.Cgroup == l.Client.Cgroup() && f.Source.Port == report.Start.Connected[0].LocalPort {
						retransmits += f.Retransmits
					}
				}
				got = endpoints(t, c.Flows("--protocol", "tcp"), l.Client, l.Server)
				return retransmits == report.End.Sent.Retransmits && allOf(wire, got, mode)
			}, func() any {
				return fmt.Sprintf("want %d retransmits, %v\ngot  %d, %v", report.End.Sent.Retransmits, wire, retransmits, got)
			})
			t.Logf("%d packets and %d retransmits, as iperf3 and the veths say", got["client egress"].packets, retransmits)
		})
	}
}

// allOf tells whether endpoints saw all that crossed the wire. At sockets that is without the last packets of the two
// connections, which the kernel handles for the end that closed first: see TestLastPacketsOfAnActiveClose.
func allOf(wire, got map[string]seen, mode string) bool {
	const connections, size = 2, headersIPv4 + headersTCP
	for place, w := range wire {
		missing := w.packets - got[place].packets
		if missing > 0 && mode == "tc" || missing > connections || w.bytes-got[place].bytes != missing*size {
			return false
		}
	}
	return true
}
