package ebpfnetworkreceiver

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// spanName is the same for all: addresses and ports are attributes, and names are counted by back ends.
const spanName = "tcp"

// unknownService is what the semantic conventions call a service whose name nobody knows.
const unknownService = "unknown_service"

// spanBatch gathers spans, those of one service in one cgroup under one resource.
type spanBatch struct {
	version string
	traces  ptrace.Traces
	scopes  map[service]ptrace.ScopeSpans
}

type service struct {
	cgroupID uint64
	process  string
}

func newSpanBatch(version string) *spanBatch {
	return &spanBatch{version: version, traces: ptrace.NewTraces(), scopes: map[service]ptrace.ScopeSpans{}}
}

func (b *spanBatch) scope(id *flow.Identity) ptrace.ScopeSpans {
	key := service{cgroupID: id.CgroupID, process: id.Process}
	scope, ok := b.scopes[key]
	if !ok {
		rs := b.traces.ResourceSpans().AppendEmpty()
		if id.CgroupID != 0 {
			rs.Resource().Attributes().PutInt(flow.AttrCgroupID, int64(id.CgroupID))
		}
		rs.Resource().Attributes().PutStr(flow.AttrServiceName, cmp.Or(id.Process, unknownService))
		scope = rs.ScopeSpans().AppendEmpty()
		scope.Scope().SetName(metadata.ScopeName)
		scope.Scope().SetVersion(b.version)
		b.scopes[key] = scope
	}
	return scope
}

// named tells whether the connection makes a span: it is known whose it is, and its identity is its own. An attempt that
// nobody answered has no initial sequence number of a server, and no other half either.
func (c *connection) named() bool {
	return c.initiatorKnown && !c.repeats && (c.health.HasISNs || c.outcome == flow.OutcomeRefused || c.outcome == flow.OutcomeTimeout)
}

// add makes the connection's span, if it is one.
func (b *spanBatch) add(c *connection) {
	if !c.named() {
		return
	}
	span := b.scope(&c.identity).Spans().AppendEmpty()
	span.SetName(spanName)
	span.SetStartTimestamp(pcommon.NewTimestampFromTime(c.start))
	span.SetEndTimestamp(pcommon.NewTimestampFromTime(c.end))

	ids := idsOf(c)
	span.SetTraceID(ids.trace)
	client, server := c.key.local, c.key.peer
	if c.client {
		span.SetKind(ptrace.SpanKindClient)
		span.SetSpanID(ids.client)
	} else {
		client, server = server, client
		span.SetKind(ptrace.SpanKindServer)
		span.SetSpanID(ids.server)
		span.SetParentSpanID(ids.client)
	}
	switch c.outcome {
	case flow.OutcomeRefused, flow.OutcomeReset, flow.OutcomeTimeout:
		span.Status().SetCode(ptrace.StatusCodeError)
		span.Status().SetMessage("connection " + c.outcome.String())
		span.Attributes().PutStr(flow.AttrErrorType, c.outcome.String())
	}
	c.putTo(span.Attributes(), client, server)
}

func (c *connection) putTo(a pcommon.Map, client, server netip.AddrPort) {
	a.EnsureCapacity(24)
	a.PutStr(flow.AttrConnectionID, c.id)
	a.PutStr(flow.AttrClientAddress, client.Addr().String())
	a.PutInt(flow.AttrClientPort, int64(client.Port()))
	a.PutStr(flow.AttrServerAddress, server.Addr().String())
	a.PutInt(flow.AttrServerPort, int64(server.Port()))
	a.PutStr(flow.AttrTransport, flow.TCP.String())
	a.PutStr(flow.AttrNetworkType, networkType(c.ip4))
	a.PutInt(flow.AttrSentBytes, int64(c.sent.bytes))
	a.PutInt(flow.AttrSentPackets, int64(c.sent.packets))
	a.PutInt(flow.AttrReceivedBytes, int64(c.received.bytes))
	a.PutInt(flow.AttrReceivedPackets, int64(c.received.packets))
	a.PutInt(flow.AttrRetransmits, int64(c.health.Retransmits))
	a.PutInt(flow.AttrZeroWindows, int64(c.health.ZeroWindows))
	putText(a, flow.AttrOutcome, c.outcome.String())
	if len(c.interfaces) > 0 {
		list := a.PutEmptySlice(flow.AttrInterfaces)
		for _, name := range c.interfaces {
			list.AppendEmpty().SetStr(name)
		}
	}
	putText(a, flow.AttrProcessName, c.identity.Process)
	if c.identity.PID != 0 {
		a.PutInt(flow.AttrProcessPID, int64(c.identity.PID))
	}
	putSeconds(a, flow.AttrSRTT, c.health.SRTT)
	putSeconds(a, flow.AttrMinRTT, c.health.MinRTT)
	putSeconds(a, flow.AttrHandshake, c.health.Handshake)
}

func networkType(ip4 bool) string {
	if ip4 {
		return "ipv4"
	}
	return "ipv6"
}

func putText(a pcommon.Map, key, value string) {
	if value != "" {
		a.PutStr(key, value)
	}
}

func putSeconds(a pcommon.Map, key string, d time.Duration) {
	if d != 0 {
		a.PutDouble(key, d.Seconds())
	}
}

// spanIDs are those of a connection's two halves.
type spanIDs struct {
	trace          pcommon.TraceID
	client, server pcommon.SpanID
}

// idsOf cuts the ids out of a hash of the initial sequence numbers, so that two nodes give the halves of a connection one
// trace without a word between them. An attempt that was not answered has one half only: the hash of its addresses and
// its start will do.
func idsOf(c *connection) spanIDs {
	var seed [24]byte
	if c.health.HasISNs {
		binary.BigEndian.PutUint32(seed[0:], c.health.ClientISN)
		binary.BigEndian.PutUint32(seed[4:], c.health.ServerISN)
	} else {
		copy(seed[:], c.id)
		binary.BigEndian.PutUint64(seed[16:], uint64(c.start.UnixNano()))
	}
	sum := sha256.Sum256(seed[:])
	return spanIDs{
		trace:  pcommon.TraceID(sum[0:16]),
		client: pcommon.SpanID(sum[16:24]),
		server: pcommon.SpanID(sum[24:32]),
	}
}
