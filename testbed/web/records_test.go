//go:build linux

package web

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/syscalls"
)

// who is an end of a flow as an agent's pod_enrichment names it.
type who struct {
	addr                                netip.Addr
	namespace, pod, workload, container string
	service, process, name              string
	node, cgroup                        string
}

func (w who) put(a pcommon.Map, prefix string) {
	for key, value := range map[string]string{
		flow.AttrNamespace: w.namespace, flow.AttrPod: w.pod, flow.AttrDeployment: w.workload, flow.AttrContainer: w.container,
		flow.AttrService: w.service, flow.AttrCgroupPath: w.cgroup,
	} {
		if value != "" {
			a.PutStr(prefix+key, value)
		}
	}
}

// pod names a pod of a Deployment; its address comes from its name.
func pod(node, namespace, workload string, replica int) who {
	hash := fnv.New32a()
	fmt.Fprint(hash, namespace, workload, replica)
	sum := binary.BigEndian.AppendUint32(nil, hash.Sum32())
	return who{
		addr: netip.AddrFrom4([4]byte{10, 244, sum[0], sum[1]}), namespace: namespace, workload: workload, container: workload, node: node,
		pod: fmt.Sprintf("%s-7d9f8b6c5-%05x", workload, hash.Sum32()&0xfffff), process: workload,
	}
}

// talk is a connection that goes on for all of the time, and how it fares.
type talk struct {
	client, server who
	port           uint16
	// bytes a second from the server; the client sends a tenth.
	rate        float64
	retransmits float64 // share of packets
	failing     bool    // every connection is refused
	long        bool    // opened before the range
}

// batch collects log records by resource, as an agent sends them.
type batch struct {
	logs      plog.Logs
	metrics   pmetric.Metrics
	resources map[string]plog.LogRecordSlice
}

func newBatch() *batch {
	return &batch{logs: plog.NewLogs(), metrics: pmetric.NewMetrics(), resources: map[string]plog.LogRecordSlice{}}
}

func (b *batch) of(w who) plog.LogRecordSlice {
	key := fmt.Sprintf("%+v", w)
	records, there := b.resources[key]
	if !there {
		rl := b.logs.ResourceLogs().AppendEmpty()
		a := rl.Resource().Attributes()
		a.PutStr(flow.AttrNodeName, w.node)
		w.put(a, "")
		if w.container != "" {
			a.PutStr(flow.AttrCgroupPath, "/kubepods.slice/"+w.pod+"/"+w.container)
			a.PutStr(flow.AttrContainerID, strings.Repeat(fmt.Sprintf("%08x", fnvOf(w.pod)), 8))
		}
		records = rl.ScopeLogs().AppendEmpty().LogRecords()
		b.resources[key] = records
	}
	return records
}

func fnvOf(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}

// record writes a flow as it was seen at the client's or the server's end.
func (b *batch) record(r flow.Record, local, peer who, peerPrefix string) {
	lr := b.of(local).AppendEmpty()
	r.Local().Identity.Process = local.process
	r.PutTo(lr)
	peer.put(lr.Attributes(), peerPrefix)
}

// add writes what both ends of a talk saw in one interval.
func (b *batch) add(t talk, at time.Time, interval time.Duration, random *rand.Rand) {
	wave := 0.6 + 0.8*random.Float64()
	down := uint64(t.rate * interval.Seconds() * wave)
	client := netip.AddrPortFrom(t.client.addr, uint16(32768+fnvOf(t.client.pod+t.client.name+t.server.name+t.server.pod)%28000))
	if t.failing {
		// Each attempt is a connection of its own.
		client = netip.AddrPortFrom(client.Addr(), uint16(30000+at.Unix()%30000))
	}
	server := netip.AddrPortFrom(t.server.addr, t.port)
	request := flow.Record{
		Start: at, End: at.Add(interval - time.Millisecond), Direction: flow.Egress, Transport: flow.TCP, Initiator: flow.InitiatorSource, TCPFlags: 0x1b,
		Source: flow.Endpoint{Addr: client}, Destination: flow.Endpoint{Addr: server, Name: t.server.name},
		Bytes: down/10 + 40, Packets: down/14000 + 1,
	}
	request.HasISNs, request.ClientISN, request.ServerISN = true, fnvOf(client.String()+server.String()), 7
	if !t.long {
		request.Connections = 1 + random.Uint64N(5)
	}
	request.SRTT, request.MinRTT = 700*time.Microsecond, 300*time.Microsecond
	reply := request
	reply.Source, reply.Destination = flow.Endpoint{Addr: server, Name: t.server.name}, flow.Endpoint{Addr: client}
	reply.Direction, reply.Initiator, reply.Connections = flow.Ingress, flow.InitiatorDestination, 0
	reply.Bytes, reply.Packets = down, down/1400+1
	request.Retransmits = uint64(float64(request.Packets) * t.retransmits * 2 * random.Float64())
	if t.failing {
		request.Connections = 1
		request.Outcome, request.Ended, reply.Outcome, reply.Ended = flow.OutcomeRefused, true, flow.OutcomeRefused, true
		request.Bytes, request.Packets, reply.Bytes, reply.Packets = 60, 1, 40, 1
	}
	if t.client.node != "" {
		b.record(request, t.client, t.server, flow.PrefixDestination)
		b.record(reply, t.client, t.server, flow.PrefixSource)
	}
	if t.server.node != "" {
		reply.Retransmits = uint64(float64(reply.Packets) * t.retransmits * 2 * random.Float64())
		request.Direction, reply.Direction = flow.Ingress, flow.Egress
		request.Destination.Name, reply.Source.Name = "", ""
		b.record(request, t.server, t.client, flow.PrefixSource)
		b.record(reply, t.server, t.client, flow.PrefixDestination)
	}
}

// status is what an agent says of itself every interval.
func (b *batch) status(node string, at time.Time, started time.Time, change func(*flow.NetworkStatus)) {
	s := flow.NetworkStatus{
		Node: node, Version: "0.1.0", Kernel: "6.1.0-25-amd64", Time: at, Started: started, Interval: 20 * time.Second,
		AttachMode: "cgroup", AttachPoints: 2, Packets: 8_400_000, Bytes: 6_200_000_000, LiveFlows: 420,
		RingBufferBytes: 1 << 20, RingBufferUtilization: 0.03, FlowTableSize: 100_000, FlowTableEntries: 512,
	}
	if change != nil {
		change(&s)
	}
	rl := b.logs.ResourceLogs().AppendEmpty()
	rl.Resource().Attributes().PutStr(flow.AttrNodeName, node)
	s.PutTo(rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty())
}

// calls writes the system calls of a pod in one interval.
func (b *batch) calls(w who, at time.Time, interval time.Duration, perSecond map[string]float64) {
	c := syscalls.Counts{Start: at, End: at.Add(interval)}
	for name, n := range perSecond {
		call, err := syscalls.ParseCall(syscalls.X86_64, name)
		if err != nil {
			panic(err)
		}
		c.Calls = append(c.Calls, syscalls.Count{Call: call, Calls: uint64(n * interval.Seconds())})
	}
	c.PutTo(b.of(w).AppendEmpty(), syscalls.X86_64)
}

func (b *batch) anomaly(w who, at time.Time, rule, call, message string, severity syscalls.Severity) {
	parsed, err := syscalls.ParseCall(syscalls.X86_64, call)
	if err != nil {
		panic(err)
	}
	a := syscalls.Anomaly{Time: at, Workload: w.workload, Rule: rule, Severity: severity, Call: parsed, Message: message, Calls: 3}
	a.PutTo(b.of(w).AppendEmpty())
}

// gpu writes a sample of a GPU that works for a pod: of a level, or a count where the unit is one. attributes are further keys and values.
func (b *batch) gpu(w who, index int, metric, unit string, at time.Time, value float64, attributes ...string) {
	rm := b.metrics.ResourceMetrics().AppendEmpty()
	a := rm.Resource().Attributes()
	a.PutStr(flow.AttrNodeName, w.node)
	w.put(a, "")
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName(metric)
	m.SetUnit(unit)
	var points pmetric.NumberDataPointSlice
	if strings.HasPrefix(unit, "{") {
		m.SetEmptySum().SetIsMonotonic(true)
		m.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		points = m.Sum().DataPoints()
	} else {
		points = m.SetEmptyGauge().DataPoints()
	}
	p := points.AppendEmpty()
	p.SetTimestamp(pcommon.NewTimestampFromTime(at))
	p.SetDoubleValue(value)
	p.Attributes().PutStr(gpu.AttrType, gpu.TypeGPU)
	p.Attributes().PutStr(gpu.AttrID, fmt.Sprintf("GPU-%08x-0000-4000-8000-000000000000", index))
	p.Attributes().PutInt(gpu.AttrIndex, int64(index))
	for i := 0; i < len(attributes); i += 2 {
		p.Attributes().PutStr(attributes[i], attributes[i+1])
	}
}
