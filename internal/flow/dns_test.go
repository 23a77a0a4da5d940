package flow

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// everyLookup has every field set.
func everyLookup() Lookup {
	return Lookup{
		Time: time.Unix(1, 2).UTC(), Node: "node-a", Direction: Egress, Transport: UDP,
		Client: Endpoint{
			Addr:     netip.MustParseAddrPort("10.0.0.1:40000"),
			Identity: Identity{CgroupID: 7, Pod: "web-0", Process: "curl", PID: 42},
		},
		Server:    Endpoint{Addr: netip.MustParseAddrPort("10.96.0.10:53"), Identity: Identity{Pod: "coredns-0"}},
		Interface: "veth1",
		Name:      "www.example.com", Type: "A", RCode: "NOERROR", Latency: 1234 * time.Microsecond, Queries: 3,
		Answers: []Answer{
			{Name: "www.example.com", Type: "CNAME", TTL: 5 * time.Minute, Data: "web.example.com"},
			{Name: "web.example.com", Type: "A", TTL: time.Minute, Data: "192.0.2.1"},
			{Name: "web.example.com", Type: "AAAA", TTL: time.Minute, Data: "2001:db8::1"},
			{Name: "web.example.com", Type: "TXT", Data: `"a  b" ""`},
		},
		Truncated: true, Incomplete: true,
	}
}

// put writes a lookup as the receiver and the processors do.
func put(l *Lookup) (pcommon.Resource, plog.LogRecord) {
	rl := plog.NewLogs().ResourceLogs().AppendEmpty()
	a := rl.Resource().Attributes()
	a.PutStr(AttrNodeName, l.Node)
	a.PutInt(AttrCgroupID, int64(l.Local().Identity.CgroupID))
	a.PutStr(AttrPod, l.Local().Identity.Pod)
	lr := rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
	l.PutTo(lr)
	return rl.Resource(), lr
}

func TestLookupRoundTrip(t *testing.T) {
	every := everyLookup()
	served := everyLookup()
	served.Direction, served.Transport = Ingress, TCP
	served.Client, served.Server = served.Server, served.Client
	bare := Lookup{
		Time: time.Unix(1, 0).UTC(), Direction: Egress, Transport: UDP, Client: Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::1]:1")},
		Server: Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::53]:53")}, Name: ".", Type: "NS", RCode: RCodeTimeout,
		Latency: 10 * time.Second, Queries: 1,
	}
	for name, l := range map[string]Lookup{"every field": every, "at the server": served, "unanswered": bare} {
		t.Run(name, func(t *testing.T) {
			res, lr := put(&l)
			if l.Client.Identity.Pod == "coredns-0" {
				lr.Attributes().PutStr(PrefixSource+AttrPod, "coredns-0")
			} else if l.Server.Identity.Pod != "" {
				lr.Attributes().PutStr(PrefixDestination+AttrPod, "coredns-0")
			}
			got, err := LookupFrom(res, lr)
			require.NoError(t, err)
			assert.Equal(t, l, got)
		})
	}
}

// The names and values are what other tools read: they are not to change unnoticed.
func TestLookupAttributes(t *testing.T) {
	l := everyLookup()
	_, lr := put(&l)
	assert.Equal(t, "orb8.dns", lr.EventName())
	assert.Equal(t, time.Unix(1, 2).UTC(), lr.Timestamp().AsTime())
	assert.Equal(t, map[string]any{
		"source.address": "10.0.0.1", "source.port": int64(40000), "destination.address": "10.96.0.10", "destination.port": int64(53),
		"network.transport": "udp", "network.type": "ipv4", "network.interface.name": "veth1", "orb8.flow.interfaces": []any{"veth1"},
		"orb8.flow.direction": "egress", "process.executable.name": "curl", "process.pid": int64(42),
		"dns.question.name": "www.example.com", "orb8.dns.question.type": "A", "orb8.dns.response_code": "NOERROR",
		"orb8.dns.latency": 0.001234, "orb8.dns.queries": int64(3),
		"dns.answers": []any{"192.0.2.1", "2001:db8::1"},
		"orb8.dns.records": []any{
			"www.example.com 300 CNAME web.example.com", "web.example.com 60 A 192.0.2.1", "web.example.com 60 AAAA 2001:db8::1",
			`web.example.com 0 TXT "a  b" ""`,
		},
		"orb8.dns.truncated": true, "orb8.dns.incomplete": true,
	}, lr.Attributes().AsRaw())

	l = Lookup{RCode: RCodeTimeout, Client: l.Client, Server: l.Server}
	_, lr = put(&l)
	for _, absent := range []string{AttrAnswers, AttrRecords, AttrTruncated, AttrIncomplete} {
		_, ok := lr.Attributes().Get(absent)
		assert.False(t, ok, absent)
	}
}

func TestMalformedLookups(t *testing.T) {
	tests := map[string]struct {
		change func(pcommon.Map)
		want   string
	}{
		"no client":  {func(a pcommon.Map) { a.Remove(AttrSourceAddress) }, `attribute source.address: "" is not an IP address`},
		"bad server": {func(a pcommon.Map) { a.PutStr(AttrDestinationAddress, "ns1") }, `attribute destination.address: "ns1" is not an IP address`},
		"no name":    {func(a pcommon.Map) { a.Remove(AttrQuestionName) }, "attribute dns.question.name: missing"},
		"no type":    {func(a pcommon.Map) { a.PutInt(AttrQuestionType, 1) }, "attribute orb8.dns.question.type: missing"},
		"no rcode":   {func(a pcommon.Map) { a.PutStr(AttrRCode, "") }, "attribute orb8.dns.response_code: missing"},
		"short record": {
			func(a pcommon.Map) { a.PutEmptySlice(AttrRecords).AppendEmpty().SetStr("a 1 A") },
			`attribute orb8.dns.records: answer "a 1 A": use NAME TTL TYPE DATA`,
		},
		"bad TTL": {
			func(a pcommon.Map) { a.PutEmptySlice(AttrRecords).AppendEmpty().SetStr("a 1m A 192.0.2.1") },
			`answer "a 1m A 192.0.2.1": TTL "1m" is not a number of seconds from 0 to 4294967295`,
		},
		"two lines": {
			func(a pcommon.Map) { a.PutEmptySlice(AttrRecords).AppendEmpty().SetStr("a 1 TXT x\ny 1 TXT z") },
			"has a line break; escape it as in a zone file",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := everyLookup()
			res, lr := put(&l)
			tt.change(lr.Attributes())
			_, err := LookupFrom(res, lr)
			assert.ErrorContains(t, err, tt.want)
		})
	}
}

func TestPeerNames(t *testing.T) {
	for _, direction := range []Direction{Egress, Ingress} {
		l := everyLookup()
		r := l.Record()
		r.Direction = direction
		r.Peer().Name = "www.example.com"
		lr := plog.NewLogRecord()
		r.PutTo(lr)
		key := map[Direction]string{Egress: "destination.dns.name", Ingress: "source.dns.name"}[direction]
		v, ok := lr.Attributes().Get(key)
		require.True(t, ok, key)
		assert.Equal(t, "www.example.com", v.Str())
		back, err := RecordFrom(pcommon.NewResource(), lr)
		require.NoError(t, err)
		assert.Equal(t, "www.example.com", back.Peer().Name)
		assert.Empty(t, back.Local().Name)
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add("www.example.com 60 A 192.0.2.1")
	f.Add(`a 0 TXT "x  y"`)
	f.Add("a 4294967296 A x")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAnswer(s)
		if err != nil {
			assert.Zero(t, a)
			return
		}
		back, err := ParseAnswer(a.String())
		require.NoError(t, err)
		assert.Equal(t, a, back)
	})
}
