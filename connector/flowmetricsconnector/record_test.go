package flowmetricsconnector

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
)

// sample is a record of a TCP client.
func sample() flow.Record {
	return flow.Record{
		Start: time.Unix(100, 0), End: time.Unix(105, 0), Direction: flow.Egress, Transport: flow.TCP,
		Source:      flow.Endpoint{Addr: netip.MustParseAddrPort("10.1.0.1:40000")},
		Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("203.0.113.7:443"), Name: "api.example.com"},
		Bytes:       1500, Packets: 3, Connections: 1, TCPFlags: 0x1b, Initiator: flow.InitiatorSource,
		TCPHealth: flow.TCPHealth{Retransmits: 2, ZeroWindows: 4, HasISNs: true, ClientISN: 1, ServerISN: 2, SRTT: time.Millisecond},
	}
}

func logRecord(r flow.Record) plog.LogRecord {
	lr := plog.NewLogRecord()
	r.PutTo(lr)
	return lr
}

func TestReadNamesBothEnds(t *testing.T) {
	local := named(map[string]string{flow.AttrUnit: "curl.service"})
	curl, api := workload{name: "curl.service"}, workload{name: "api.example.com"}
	for name, test := range map[string]struct {
		change func(*flow.Record)
		want   key
	}{
		"egress": {func(*flow.Record) {}, key{curl, api, flow.Egress, flow.TCP}},
		"ingress": {func(r *flow.Record) {
			r.Direction = flow.Ingress
			r.Source, r.Destination = r.Destination, r.Source
		}, key{api, curl, flow.Ingress, flow.TCP}},
		// Neither end is the resource's.
		"transit":         {func(r *flow.Record) { r.Direction = flow.Transit }, key{workload{name: "private"}, api, flow.Transit, flow.TCP}},
		"without a name":  {func(r *flow.Record) { r.Destination.Name = "" }, key{curl, workload{name: "public"}, flow.Egress, flow.TCP}},
		"other transport": {func(r *flow.Record) { r.Transport = 47 }, key{curl, api, flow.Egress, 47}},
	} {
		t.Run(name, func(t *testing.T) {
			r := sample()
			test.change(&r)
			got, _, ok := read(local, logRecord(r))
			require.True(t, ok)
			assert.Equal(t, test.want, got)
		})
	}
}

func TestReadTakesThePeersIdentity(t *testing.T) {
	lr := logRecord(sample())
	lr.Attributes().PutStr(flow.PrefixDestination+flow.AttrNamespace, "shop")
	lr.Attributes().PutStr(flow.PrefixDestination+"k8s.deployment.name", "api")
	got, _, ok := read(&naming{}, lr)
	require.True(t, ok)
	assert.Equal(t, workload{"shop", "api"}, got.destination)
	assert.Equal(t, workload{name: "private"}, got.source)
}

func TestReadCounts(t *testing.T) {
	_, got, ok := read(&naming{}, logRecord(sample()))
	require.True(t, ok)
	assert.Equal(t, counts{bytes: 1500, packets: 3, connections: 1, retransmits: 2, zeroWindows: 4}, got)
}

func TestOutcomesAreCountedFromClientToServer(t *testing.T) {
	for outcome, counter := range map[flow.Outcome]int{
		flow.OutcomeClosed: closed, flow.OutcomeReset: reset, flow.OutcomeRefused: refused, flow.OutcomeTimeout: timedOut,
	} {
		for initiator, want := range map[flow.Initiator]uint64{
			flow.InitiatorSource: 1, flow.InitiatorDestination: 0, flow.InitiatorUnknown: 0,
		} {
			r := sample()
			r.Ended, r.Outcome, r.Initiator = true, outcome, initiator
			_, got, ok := read(&naming{}, logRecord(r))
			require.True(t, ok)
			assert.Equal(t, want, got[counter], "%s, initiator %d", outcome, initiator)
			assert.Equal(t, want, got[closed]+got[reset]+got[refused]+got[timedOut], "one connection has one outcome")
		}
	}
}

// A client that is its own server differs from it by the port alone.
func TestOutcomeOfAConnectionWithinAnAddress(t *testing.T) {
	r := sample()
	r.Destination.Addr = netip.AddrPortFrom(r.Source.Addr.Addr(), 443)
	r.Ended, r.Outcome, r.Initiator = true, flow.OutcomeClosed, flow.InitiatorDestination
	_, got, ok := read(&naming{}, logRecord(r))
	require.True(t, ok)
	assert.Zero(t, got[closed])
}

func TestMalformedRecords(t *testing.T) {
	for name, spoil := range map[string]func(plog.LogRecord){
		"no direction":       func(lr plog.LogRecord) { lr.Attributes().Remove(flow.AttrDirection) },
		"unknown direction":  func(lr plog.LogRecord) { lr.Attributes().PutStr(flow.AttrDirection, "up") },
		"no transport":       func(lr plog.LogRecord) { lr.Attributes().Remove(flow.AttrTransport) },
		"unknown transport":  func(lr plog.LogRecord) { lr.Attributes().PutStr(flow.AttrTransport, "256") },
		"unknown outcome":    func(lr plog.LogRecord) { lr.Attributes().PutStr(flow.AttrOutcome, "won") },
		"no source":          func(lr plog.LogRecord) { lr.Attributes().Remove(flow.AttrSourceAddress) },
		"source is a number": func(lr plog.LogRecord) { lr.Attributes().PutInt(flow.AttrSourceAddress, 7) },
		"no destination": func(lr plog.LogRecord) {
			lr.Attributes().Remove(flow.AttrDestinationAddress)
			lr.Attributes().Remove(flow.PrefixDestination + flow.AttrDNSName)
		},
		"bytes below 0":       func(lr plog.LogRecord) { lr.Attributes().PutInt(flow.AttrBytes, -1) },
		"retransmits below 0": func(lr plog.LogRecord) { lr.Attributes().PutInt(flow.AttrRetransmits, -1) },
	} {
		lr := logRecord(sample())
		_, _, ok := read(&naming{}, lr)
		require.True(t, ok)
		spoil(lr)
		_, _, ok = read(&naming{}, lr)
		assert.False(t, ok, name)
	}
}

// Whatever the flow model reads, the connector reads the same, and nothing makes it panic.
func FuzzReadAgreesWithTheFlowModel(f *testing.F) {
	var marshaler plog.ProtoMarshaler
	for _, change := range []func(*flow.Record){
		func(*flow.Record) {},
		func(r *flow.Record) { r.Direction = flow.Transit },
		func(r *flow.Record) { r.Transport, r.ICMPType = flow.ICMPv6, 128 },
		func(r *flow.Record) { r.Ended, r.Outcome = true, flow.OutcomeReset },
	} {
		r := sample()
		change(&r)
		ld := plog.NewLogs()
		rl := ld.ResourceLogs().AppendEmpty()
		rl.Resource().Attributes().PutStr(flow.AttrUnit, "curl.service")
		logRecord(r).CopyTo(rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty())
		data, err := marshaler.MarshalLogs(ld)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var unmarshaler plog.ProtoUnmarshaler
		ld, err := unmarshaler.UnmarshalLogs(data)
		if err != nil {
			return
		}
		for _, rl := range ld.ResourceLogs().All() {
			for _, sl := range rl.ScopeLogs().All() {
				for _, lr := range sl.LogRecords().All() {
					agree(t, rl, lr)
				}
			}
		}
	})
}

func agree(t *testing.T, rl plog.ResourceLogs, lr plog.LogRecord) {
	var local naming
	for name, v := range rl.Resource().Attributes().All() {
		local.note(name, v)
	}
	k, n, ok := read(&local, lr)
	seen := map[string]bool{}
	for name := range lr.Attributes().All() {
		if seen[name] {
			return // which of two values is meant, nobody can tell
		}
		seen[name] = true
	}
	want, err := flow.RecordFrom(rl.Resource(), lr)
	if err != nil {
		return
	}
	for _, v := range []uint64{want.Bytes, want.Packets, want.Connections, want.Retransmits, want.ZeroWindows} {
		if int64(v) < 0 {
			require.False(t, ok)
			return
		}
	}
	require.True(t, ok)
	require.Equal(t, want.Direction, k.direction)
	require.Equal(t, want.Transport, k.transport)
	require.Equal(t, []uint64{want.Bytes, want.Packets, want.Connections, want.Retransmits, want.ZeroWindows}, n[:closed])
}
