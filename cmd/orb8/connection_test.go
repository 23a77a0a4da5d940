package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// connections are a healthy connection to a virtual IP, both directions of it, and two that broke.
func connections() *orb8v1.QueryFlowsResponse {
	web := &orb8v1.Endpoint{Address: "10.244.1.4", Port: 41000, Pod: "web-0", Namespace: "shop", Process: "nginx", Pid: 7}
	service := &orb8v1.Endpoint{Address: "10.96.100.100", Port: 80}
	cart := &orb8v1.Endpoint{Address: "10.244.2.9", Port: 8080, Pod: "cart-0", Namespace: "shop", Process: "java", Pid: 8}
	in, out := orb8v1.Direction_DIRECTION_INGRESS, orb8v1.Direction_DIRECTION_EGRESS
	source, destination := orb8v1.Initiator_INITIATOR_SOURCE, orb8v1.Initiator_INITIATOR_DESTINATION
	flows := []*orb8v1.Flow{
		{
			Direction: out, Source: web, Destination: service, Backend: cart, Initiator: source, Outcome: "closed",
			Bytes: 5120, Packets: 20, Connections: 1, ConnectionId: "00c0ffee00c0ffee", TcpFlags: 0x1b, Ended: true,
			Srtt: durationpb.New(1500 * time.Microsecond), MinRtt: durationpb.New(250 * time.Microsecond),
			Handshake: durationpb.New(2 * time.Millisecond), Retransmits: 2,
			OtherEnd: &orb8v1.OtherEnd{Node: "worker-2", Bytes: 5000, Packets: 18},
		},
		{
			Direction: in, Source: service, Destination: web, Backend: cart, Initiator: destination, Outcome: "closed",
			Bytes: 1 << 20, Packets: 800, ConnectionId: "00c0ffee00c0ffee", TcpFlags: 0x1b, Ended: true, ZeroWindows: 1,
			OtherEnd: &orb8v1.OtherEnd{Node: "worker-2", Bytes: 1 << 20, Packets: 800},
		},
		{
			Direction: in, Source: &orb8v1.Endpoint{Address: "192.168.0.1", Port: 40001}, Destination: cart, Origin: web, Initiator: source,
			Outcome: "reset", Bytes: 60, Packets: 1, ConnectionId: "1122334455667788", TcpFlags: 6, Ended: true,
		},
		{
			Direction: out, Source: web, Destination: &orb8v1.Endpoint{Address: "10.244.2.9", Port: 81}, Initiator: source, Outcome: "refused",
			Bytes: 60, Packets: 1, Connections: 1, ConnectionId: "8877665544332211", TcpFlags: 2, Ended: true,
		},
	}
	for i, f := range flows {
		f.Transport, f.Node = "tcp", "worker-1"
		f.Start, f.End = ago(time.Minute), ago(time.Duration(i)*time.Second)
	}
	return &orb8v1.QueryFlowsResponse{Flows: flows, Matched: uint64(len(flows))}
}

func TestConnectionsGolden(t *testing.T) {
	agent := (&fakeCollector{flows: connections()}).serve(t)
	for golden, args := range map[string][]string{
		"connections.txt":      {"flows"},
		"connections_wide.txt": {"flows", "-o", "wide"},
		"connections.jsonl":    {"flows", "-o", "jsonl"},
	} {
		t.Run(golden, func(t *testing.T) {
			got := orb8(t, agent, args...)
			require.Zero(t, got.code, got.stderr)
			assertGolden(t, golden, got.stdout)
		})
	}
}

func TestEndsAreSeparateForPrograms(t *testing.T) {
	tests := map[string]struct {
		args     []string
		separate bool
	}{
		"table":        {nil, false},
		"wide":         {[]string{"-o", "wide"}, false},
		"json":         {[]string{"-o", "json"}, true},
		"jsonl":        {[]string{"-o", "jsonl"}, true},
		"table, ends":  {[]string{"--ends"}, true},
		"json, joined": {[]string{"-o", "json", "--ends=false"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			collector := &fakeCollector{flows: connections()}
			got := orb8(t, collector.serve(t), append([]string{"flows"}, tt.args...)...)
			require.Zero(t, got.code, got.stderr)
			assert.Equal(t, tt.separate, collector.asked.GetSeparateEnds())
		})
	}
}

func TestNamesReadInTheOrderOfTheWay(t *testing.T) {
	rows := connections().GetFlows()
	tests := map[string]struct {
		flow                *orb8v1.Flow
		source, destination string
	}{
		"to a service":             {rows[0], "web-0:41000", "10.96.100.100:80→cart-0"},
		"from a service":           {rows[1], "cart-0→10.96.100.100:80", "web-0:41000"},
		"from a client behind NAT": {rows[2], "web-0→192.168.0.1:40001", "cart-0:8080"},
		"to a client behind NAT": {&orb8v1.Flow{
			Source: rows[2].GetDestination(), Destination: rows[2].GetSource(), Origin: rows[2].GetOrigin(),
			Initiator: orb8v1.Initiator_INITIATOR_DESTINATION,
		}, "cart-0:8080", "192.168.0.1:40001→web-0"},
		"nothing translated": {rows[3], "web-0:41000", "10.244.2.9:81"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tt.source, sourceName(flowRow(tt.flow)))
			assert.Equal(t, tt.destination, destinationName(flowRow(tt.flow)))
		})
	}
}

func TestTrouble(t *testing.T) {
	tests := map[string]struct {
		flow *orb8v1.Flow
		want string
	}{
		"none":          {&orb8v1.Flow{}, ""},
		"closed":        {&orb8v1.Flow{Outcome: "closed"}, ""},
		"refused":       {&orb8v1.Flow{Outcome: "refused"}, "refused"},
		"unknown":       {&orb8v1.Flow{Outcome: "melted"}, "melted"},
		"retransmits":   {&orb8v1.Flow{Outcome: "closed", Retransmits: 3}, "retx:3"},
		"everything":    {&orb8v1.Flow{Outcome: "timeout", Retransmits: 3, ZeroWindows: 4}, "timeout,retx:3,zwin:4"},
		"large numbers": {&orb8v1.Flow{Retransmits: 12_345_678}, "retx:12.3M"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tt.want, trouble(flowRow(tt.flow))) })
	}
}
