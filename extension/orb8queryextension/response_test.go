package orb8queryextension

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"google.golang.org/protobuf/encoding/protojson"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

func TestEnumerationsHaveTheSameNumbers(t *testing.T) {
	for number, name := range orb8v1.Direction_name {
		if number != 0 {
			assert.Equal(t, name, "DIRECTION_"+strings.ToUpper(flow.Direction(number).String()))
		}
	}
	for number, name := range orb8v1.EventKind_name {
		if number != 0 && number < int32(storage.EventSyscall) {
			assert.Equal(t, name, "EVENT_KIND_"+strings.ToUpper(flow.EventKind(number).String()))
		}
	}
	assert.Equal(t, "unknown", flow.EventKind(storage.EventSyscall).String(), "each kind of the model is in the API")
	assert.EqualValues(t, orb8v1.EventKind_EVENT_KIND_SYSCALL, storage.EventSyscall)
	assert.EqualValues(t, orb8v1.EventKind_EVENT_KIND_ANOMALY, storage.EventAnomaly)
	for number, name := range orb8v1.Severity_name {
		if number != 0 {
			assert.Equal(t, name, "SEVERITY_"+strings.ToUpper(syscalls.Severity(number).String()))
		}
	}
	assert.Equal(t, "unknown", syscalls.Severity(len(orb8v1.Severity_name)).String(), "each severity of the model is in the API")
}

func TestMessages(t *testing.T) {
	at := func(second int) time.Time { return time.Date(2026, 1, 2, 3, 4, second, 0, time.UTC) }
	record := flow.Record{
		Start: at(1), End: at(2), Node: "node-a", Direction: flow.Ingress, Transport: flow.ICMPv6, Interfaces: []string{"veth0", "br0"},
		Source: flow.Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::1]:1")},
		Destination: flow.Endpoint{
			Addr: netip.MustParseAddrPort("10.0.0.1:2"),
			Identity: flow.Identity{
				CgroupID: 7, Cgroup: "/a", ContainerID: "c0ffee", PodUID: "uid", Pod: "web-0", Namespace: "shop",
				Container: "nginx", Process: "worker", PID: 100,
			},
		},
		ICMPType: 128, ICMPCode: 3, TCPFlags: 18, Bytes: 1 << 60, Packets: 5, Connections: 6, Ended: true, LostPackets: 8,
	}
	flowJSON := `{
		"start": "2026-01-02T03:04:01Z", "end": "2026-01-02T03:04:02Z", "node": "node-a", "direction": "DIRECTION_INGRESS",
		"transport": "ipv6-icmp", "interfaces": ["veth0", "br0"], "icmpType": 128, "icmpCode": 3, "tcpFlags": 18, "ended": true,
		"bytes": "1152921504606846976", "packets": "5", "connections": "6", "lost": "8", "connectionId": "` + record.ConnectionID() + `",
		"source": {"address": "2001:db8::1", "port": 1},
		"destination": {"address": "10.0.0.1", "port": 2, "container": "nginx", "containerId": "c0ffee", "podUid": "uid",
			"pod": "web-0", "namespace": "shop", "cgroup": "/a", "process": "worker", "pid": 100}
	}`
	loss := storage.Loss{Packets: 1, Bytes: 2, Events: 3, EvictedRecords: 4}

	assert.JSONEq(t, `{
		"flows": [`+flowJSON+`], "matched": "2", "truncated": true, "oldest": "2026-01-02T03:04:00Z", "missingNodes": ["node-b"],
		"lost": {"packets": "1", "bytes": "2", "events": "3", "evictedRecords": "4"}
	}`, protojson.Format(flowsResponse(&storage.FlowResult{
		Flows: []storage.Flow{{Record: record}}, Coverage: storage.Coverage{Matched: 2, Lost: loss, Oldest: at(0), MissingNodes: []string{"node-b"}, Next: "x"},
	})))
	assert.False(t, flowsResponse(&storage.FlowResult{Flows: []storage.Flow{{Record: record}}, Coverage: storage.Coverage{Matched: 1}}).GetTruncated())

	assert.JSONEq(t, `{"kind": "EVENT_KIND_RST", "time": "2026-01-02T03:04:02Z", "dropped": "9", "flow": `+flowJSON+`}`,
		protojson.Format(eventResponse(storage.Event{Flow: &flow.Event{Kind: flow.EventRST, Record: record}}, 9)))

	assert.JSONEq(t, `{
		"version": "1.2.3",
		"store": {"backend": "embedded", "records": "1", "bytes": "2", "maxBytes": "3", "headBytes": "7", "oldest": "2026-01-02T03:04:05Z",
			"evictedRecords": "4", "subscribers": 5, "subscriberDrops": "6"},
		"nodes": [{
			"node": "node-a", "version": "0.1.0", "kernel": "6.12", "lastSeen": "2026-01-02T03:04:03Z",
			"started": "2026-01-02T03:04:01Z", "missing": true,
			"network": {"attachMode": "cgroup", "attachPoints": 2, "packets": "10", "bytes": "11", "liveFlows": "12",
				"lost": {"packets": "1", "bytes": "2", "events": "3"}, "ringBufferBytes": "13", "ringBufferUtilization": 0.5,
				"flowTableSize": "14", "flowTableEntries": "15", "interval": "10s", "unparsedPackets": "16",
				"drops": [{"reason": "no_socket", "packets": "9"}, {"reason": "a", "packets": "2"}, {"reason": "b", "packets": "2"}],
				"packetsPerSecond": 1.5, "bytesPerSecond": 2.5, "probes": [{"program": "cgroup_egress", "runs": "3", "runTime": "0.000000007s"}],
				"unavailable": {"process names": "too old"}}
		}]
	}`, protojson.Format(statusResponse(&storage.Status{
		Nodes: []storage.NodeStatus{{
			Node: "node-a", Version: "0.1.0", Kernel: "6.12", Started: at(1),
			Network: &flow.NetworkStatus{
				AttachMode: "cgroup", AttachPoints: 2,
				Interval: 10 * time.Second, Packets: 10, Bytes: 11, LostPackets: 1, LostBytes: 2, LostEvents: 3, UnparsedPackets: 16,
				LiveFlows: 12, RingBufferBytes: 13, RingBufferUtilization: 0.5, FlowTableSize: 14, FlowTableEntries: 15,
				Drops:       map[string]uint64{"b": 2, "no_socket": 9, "a": 2},
				Unavailable: map[string]string{"process names": "too old"}, PacketsPerSecond: 1.5, BytesPerSecond: 2.5,
				Probes: []flow.ProbeCost{{Program: "cgroup_egress", Runs: 3, RunTime: 7}},
			},
			LastSeen: at(3), Missing: true,
		}},
		Store: storage.StoreStatus{
			Backend: "embedded", Records: 1, Bytes: 2, MaxBytes: 3, HeadBytes: 7, Oldest: at(5), EvictedRecords: 4, Subscribers: 5, SubscriberDrops: 6,
		},
	}, "1.2.3")))
}

// A large reply is mostly of a few pods' labels, which it has in memory once.
func TestMessagesShareLabels(t *testing.T) {
	flows := make([]storage.Flow, 3)
	for i, labels := range []string{"app=web,tier=front", "app=web,tier=front", "app=db"} {
		flows[i].Source.Identity.Labels = labels
	}
	got := flowsResponse(&storage.FlowResult{Flows: flows}).GetFlows()
	web := map[string]string{"app": "web", "tier": "front"}
	assert.Equal(t, web, got[0].GetSource().GetLabels())
	assert.Equal(t, web, got[1].GetSource().GetLabels())
	assert.Equal(t, map[string]string{"app": "db"}, got[2].GetSource().GetLabels())
	assert.Nil(t, got[0].GetDestination().GetLabels())
	address := func(f *orb8v1.Flow) uintptr { return reflect.ValueOf(f.GetSource().GetLabels()).Pointer() }
	assert.Equal(t, address(got[0]), address(got[1]))
}

func BenchmarkFlowsResponse(b *testing.B) {
	records := make([]storage.Flow, 1000)
	for i := range records {
		records[i] = storage.Flow{Record: record(uint16(i))}
	}
	b.ReportAllocs()
	for b.Loop() {
		flowsResponse(&storage.FlowResult{Flows: records})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(records)), "ns/flow")
}
