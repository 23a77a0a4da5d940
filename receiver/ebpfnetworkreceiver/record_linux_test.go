package ebpfnetworkreceiver

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/kernelclock"
)

func TestRecord(t *testing.T) {
	c := kernelclock.Clock{Offset: int64(1_000_000 * time.Second)}
	at := func(ns int64) time.Time { return time.Unix(1_000_000, ns).UTC() }
	tests := map[string]struct {
		recorder recorder
		key      network.NetworkFlowKey
		flow     network.NetworkFlow
		want     flow.Record
	}{
		"tcp at a socket": {
			recorder{clock: c, lost: 3},
			key(flow.TCP, flow.Ingress, "10.0.0.1:40000", "10.0.0.2:80"),
			network.NetworkFlow{
				Bytes: 100, Packets: 2, Connections: 1, FirstNs: 5, LastNs: 9, CgroupId: 77, Pid: 12, Comm: comm("nginx"), TcpFlags: syn | ack,
			},
			flow.Record{
				Start: at(5), End: at(9), Direction: flow.Ingress, Transport: flow.TCP,
				Source: flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:40000")},
				Destination: flow.Endpoint{
					Addr:     netip.MustParseAddrPort("10.0.0.2:80"),
					Identity: flow.Identity{CgroupID: 77, PID: 12, Process: "nginx"},
				},
				TCPFlags: syn | ack, Bytes: 100, Packets: 2, Connections: 1, LostPackets: 3,
			},
		},
		"icmp: type and code are no port": {
			recorder{clock: c},
			key(flow.ICMP, flow.Egress, "10.0.0.1:0", "10.0.0.2:2048"), // 8 << 8 | 0, echo request
			network.NetworkFlow{Bytes: 84, Packets: 1, FirstNs: 1, LastNs: 1},
			flow.Record{
				Start: at(1), End: at(1), Direction: flow.Egress, Transport: flow.ICMP,
				Source:      flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:0")},
				Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.2:0")},
				ICMPType:    8, Bytes: 84, Packets: 1,
			},
		},
		"icmpv6 at an interface": {
			recorder{clock: c, interfaces: func(k *network.NetworkFlowKey) []string {
				assert.EqualValues(t, 77, k.Scope)
				return []string{"veth1"}
			}},
			key(flow.ICMPv6, flow.Ingress, "[fe80::1]:0", "[fe80::2]:33281"), // 130 << 8 | 1
			network.NetworkFlow{Bytes: 64, Packets: 1},
			flow.Record{
				Start: at(0), End: at(0), Direction: flow.Ingress, Transport: flow.ICMPv6, Interfaces: []string{"veth1"},
				Source:      flow.Endpoint{Addr: netip.MustParseAddrPort("[fe80::1]:0")},
				Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("[fe80::2]:0")},
				ICMPType:    130, ICMPCode: 1, Bytes: 64, Packets: 1,
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tt.want, tt.recorder.record(&tt.key, &tt.flow, nil))
			tt.want.Ended = true
			ended := flow.OutcomeUnknown
			assert.Equal(t, tt.want, tt.recorder.record(&tt.key, &tt.flow, &ended))
		})
	}
}

func TestReverse(t *testing.T) {
	assert.Equal(t, tcpIn, reverse(&tcpOut))
	assert.Equal(t, tcpOut, reverse(&tcpIn))
}

func TestCommString(t *testing.T) {
	full := comm("sixteen-bytes-xx")
	assert.Equal(t, "sixteen-bytes-xx", commString(&full), "a name without its terminating zero")
	empty := comm("")
	assert.Equal(t, "", commString(&empty))
	hostile := comm("a\xffb") // a process may call itself anything; OTLP strings are UTF-8
	assert.Equal(t, "a\ufffdb", commString(&hostile))
}
