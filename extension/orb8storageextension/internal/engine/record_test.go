package engine

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/syscalls"
)

var who = flow.Identity{
	CgroupID: 7, Cgroup: "/kubepods/pod1/c1", ContainerID: "0123456789abcdef", Runtime: "containerd", PodUID: "8f9f", QOSClass: "burstable", Pod: "web-0",
	Namespace: "shop", Container: "web", Workload: "web", WorkloadKind: "StatefulSet", Service: "web-svc", Labels: "app=web",
	Process: "nginx", PID: 100,
}

func record() flow.Record {
	return flow.Record{
		Start: time.Unix(1, 1).UTC(), End: time.Unix(2, 999_999_999).UTC(), Node: "node-a", Direction: flow.Ingress, Transport: flow.TCP,
		Source: flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:40000"), Name: "Client.example",
			Identity: flow.Identity{Pod: "client-0", Namespace: "default", KubernetesNode: "node-b", Workload: "client", WorkloadKind: "Deployment"}},
		Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.2:80"), Identity: who},
		Interfaces:  []string{"eth0", "veth1"}, Bytes: 1 << 63, Packets: 1, Connections: 1, TCPFlags: 0x12,
		TCPHealth: flow.TCPHealth{HasISNs: true, ClientISN: 1, ServerISN: 1 << 31, SRTT: 1234 * time.Microsecond}, Initiator: flow.InitiatorSource,
		Ended: true, Outcome: flow.OutcomeReset, LostPackets: 3,
	}
}

// body returns the line of a batch's only record.
func body(b *batch) string { return only(b).Body().Str() }

func only(b *batch) plog.LogRecord {
	return b.logs.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0)
}

func TestFlowLine(t *testing.T) {
	r := record()
	b := newBatch(flow.EventNameFlow)
	b.flow(&r)
	l, err := parse([]byte(body(b)))
	require.NoError(t, err)
	got, err := l.flow()
	require.NoError(t, err)
	assert.Equal(t, r, got)

	resource := b.logs.ResourceLogs().At(0).Resource().Attributes().AsRaw()
	assert.Equal(t, map[string]any{"service.namespace": "orb8", "service.name": "orb8.network.flow", "service.instance.id": "node-a"}, resource)
	assert.Equal(t, r.End, only(b).Timestamp().AsTime())
	assert.Equal(t, map[string]any{
		"orb8.record.id": l.id, "orb8.connection.id": r.ConnectionID(), "orb8.flow.tuple": tupleID(&r), "network.transport": "tcp",
		"source.address": "10.0.0.1", "source.port": int64(40000), "destination.address": "10.0.0.2", "destination.port": int64(80),
		"source.dns.name": "client.example", "source.k8s.pod.name": "client-0", "source.k8s.namespace.name": "default",
		"source.orb8.workload.name": "client", "destination.k8s.pod.name": "web-0", "destination.k8s.namespace.name": "shop",
		"destination.k8s.container.name": "web", "destination.container.id": "0123456789abcdef", "destination.k8s.service.name": "web-svc",
		"destination.orb8.workload.name": "web",
	}, only(b).Attributes().AsRaw())
	assert.NotEqual(t, r.ConnectionID(), tupleID(&r))
	r.HasISNs = false
	assert.Equal(t, r.ConnectionID(), tupleID(&r))
}

func TestOtherLines(t *testing.T) {
	call := syscalls.Call{ABI: syscalls.ARM64, Number: 56}
	at := time.Unix(5, 6).UTC()
	t.Run("lookup", func(t *testing.T) {
		want := flow.Lookup{
			Time: at, Node: "node-a", Direction: flow.Egress, Transport: flow.UDP, Name: "A.example", Type: "A", RCode: "NOERROR", Queries: 2,
			Client:  flow.Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::1]:5353"), Identity: who},
			Server:  flow.Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::53]:53"), Identity: flow.Identity{Pod: "dns-0"}},
			Answers: []flow.Answer{{Name: "a.example", TTL: time.Minute, Type: "TXT", Data: `"a  b"`}}, Latency: time.Millisecond,
		}
		b := newBatch(flow.EventNameLookup)
		b.lookup(&want)
		l, err := parse([]byte(body(b)))
		require.NoError(t, err)
		got, err := l.lookup()
		require.NoError(t, err)
		assert.Equal(t, want, got)
		name, _ := only(b).Attributes().Get("dns.question.name")
		assert.Equal(t, "a.example", name.Str())
	})
	t.Run("counts", func(t *testing.T) {
		want := syscalls.Counts{Start: at.Add(-time.Second), End: at, Node: "node-a", Identity: who, LostCalls: 1, Calls: []syscalls.Count{
			{Call: call, Calls: 1 << 40, Errors: map[string]uint64{"ENOENT": 2}, Latency: &syscalls.Latency{Sum: time.Second}},
			{Call: syscalls.Call{ABI: syscalls.ARM, Number: 9999}, Calls: 2},
		}}
		b := newBatch(syscalls.EventNameCounts)
		b.counts(&want)
		l, err := parse([]byte(body(b)))
		require.NoError(t, err)
		got, err := l.counts()
		require.NoError(t, err)
		assert.Equal(t, want, got)
	})
	t.Run("anomaly", func(t *testing.T) {
		want := syscalls.Anomaly{
			Time: at, Node: "node-a", Identity: who, Workload: "shop/web", Rule: "new", Severity: syscalls.SeverityWarning, Call: call, Message: "it does",
			Evidence: &syscalls.Event{Time: at, Node: "node-a", Call: call, TID: 1, Sampling: 1, Identity: flow.Identity{Process: "nginx", PID: 100},
				Arguments: []syscalls.Argument{{Name: "z", Value: "1"}, {Name: "a", Value: ""}}},
		}
		b := newBatch(syscalls.EventNameAnomaly)
		b.anomaly(&want)
		l, err := parse([]byte(body(b)))
		require.NoError(t, err)
		got, err := l.anomaly()
		require.NoError(t, err)
		assert.Equal(t, want, got)
	})
	t.Run("sample", func(t *testing.T) {
		want := gpu.Sample{
			Series: gpu.Series{Node: "node-a", Identity: who, Metric: "hw.gpu.utilization", Unit: "1", Attributes: "k=v", Counter: true,
				Device: gpu.Device{ID: "GPU-1", Parent: "GPU-0", Index: 3, Model: "H100", PCIAddress: "0000:01:00.0", MIGProfile: "1g.10gb"}},
			Time: at, Start: at.Add(-time.Hour), Value: 1,
		}
		b := newBatch(eventSample)
		b.sample(&want)
		l, err := parse([]byte(body(b)))
		require.NoError(t, err)
		got, err := l.sample()
		require.NoError(t, err)
		assert.Equal(t, want, got)
	})
}

func TestLinesThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "event or time is missing", `{"event":"x"}`: "missing", `{"event":1,"time":1}`: "missing", `{"event":"x","time":"1"}`: "missing", `hello`: "not JSON",
	} {
		_, err := parse([]byte(text))
		assert.ErrorContains(t, err, want, text)
	}
}

// A record that was sent again is known by what the agent wrote, whatever was added to it on the way.
func TestID(t *testing.T) {
	first, again, other := record(), record(), record()
	again.Source.Identity, again.Destination.Identity.Pod = flow.Identity{}, "renamed"
	other.Bytes++
	ids := map[string]bool{}
	for _, r := range []*flow.Record{&first, &again, &other} {
		b := newBatch(flow.EventNameFlow)
		b.flow(r)
		l, err := parse([]byte(body(b)))
		require.NoError(t, err)
		ids[l.id] = true
	}
	assert.Len(t, ids, 2)
}
