package ebpfnetworkreceiver

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/orb8/orb8/internal/flow"
)

var update = flag.Bool("update", false, "write the golden files")

// second is so many seconds after an instant that all tests share.
func second(n int) time.Time {
	return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(n) * time.Second)
}

// end is one end of the tests' connection, which goes through a virtual IP and a source NAT.
type end struct {
	local, peer string
	client      bool
	identity    flow.Identity
}

var (
	clientEnd = end{"10.0.0.1:40000", "10.96.0.10:80", true, flow.Identity{CgroupID: 7, Process: "curl", PID: 100}}
	serverEnd = end{"10.0.0.2:8080", "192.168.0.1:50000", false, flow.Identity{CgroupID: 8, Process: "nginx", PID: 200}}
)

// record returns what the end sent or received from one second to another.
func (e end) record(d flow.Direction, from, to int, change func(*flow.Record)) *flow.Record {
	r := &flow.Record{
		Start: second(from), End: second(to), Direction: d, Transport: flow.TCP, Bytes: 1000, Packets: 10,
		TCPHealth: flow.TCPHealth{ClientISN: 11, ServerISN: 22, HasISNs: true},
	}
	r.Initiator = flow.InitiatorDestination
	if e.client == (d == flow.Egress) {
		r.Initiator = flow.InitiatorSource
	}
	*r.Local() = flow.Endpoint{Addr: netip.MustParseAddrPort(e.local), Identity: e.identity}
	r.Peer().Addr = netip.MustParseAddrPort(e.peer)
	if change != nil {
		change(r)
	}
	return r
}

func ended(o flow.Outcome) func(*flow.Record) {
	return func(r *flow.Record) { r.Ended, r.Outcome = true, o }
}

func newTestSpans() *spans {
	return newSpans(&Config{IdleTimeout: time.Minute, FlowTableSize: 4}, nil)
}

// play gives both ends' records of a whole connection, over two intervals, to spans of their own, as on two nodes.
func play(t *testing.T) (client, server ptrace.Traces) {
	t.Helper()
	halves := map[bool]ptrace.Traces{}
	for _, e := range []end{clientEnd, serverEnd} {
		s := newTestSpans()
		s.add(e.record(flow.Egress, 0, 4, func(r *flow.Record) {
			r.SRTT, r.MinRTT, r.Handshake, r.Retransmits = 3*time.Millisecond, 2*time.Millisecond, time.Millisecond, 1
		}))
		s.add(e.record(flow.Ingress, 1, 4, func(r *flow.Record) { r.ZeroWindows = 2 }))
		require.Zero(t, s.end(second(5), "1.2.3").SpanCount(), "it is open")
		s.add(e.record(flow.Ingress, 6, 7, ended(flow.OutcomeClosed)))
		s.add(e.record(flow.Egress, 6, 8, func(r *flow.Record) {
			ended(flow.OutcomeClosed)(r)
			r.SRTT, r.MinRTT, r.Retransmits = 5*time.Millisecond, 4*time.Millisecond, 2
		}))
		halves[e.client] = s.end(second(10), "1.2.3")
		assert.Empty(t, s.open, "a span is made once")
	}
	return halves[true], halves[false]
}

func TestSpansGolden(t *testing.T) {
	client, server := play(t)
	assertGoldenTraces(t, "client.json", client)
	assertGoldenTraces(t, "server.json", server)
}

func assertGoldenTraces(t *testing.T, name string, got ptrace.Traces) {
	t.Helper()
	var marshaler ptrace.JSONMarshaler
	text, err := marshaler.MarshalTraces(got)
	require.NoError(t, err)
	path := filepath.Join("testdata", "spans", name)
	if *update {
		var indented bytes.Buffer
		require.NoError(t, json.Indent(&indented, text, "", "  "))
		indented.WriteByte('\n')
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, indented.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "write it with: go test ./receiver/ebpfnetworkreceiver -run TestSpansGolden -update")
	assert.JSONEq(t, string(want), string(text))
}

func only(t *testing.T, td ptrace.Traces) (pcommon.Resource, ptrace.Span) {
	t.Helper()
	require.Equal(t, 1, td.SpanCount())
	rs := td.ResourceSpans().At(0)
	return rs.Resource(), rs.ScopeSpans().At(0).Spans().At(0)
}

func TestTwoHalvesAreOneTrace(t *testing.T) {
	client, server := play(t)
	_, c := only(t, client)
	_, s := only(t, server)
	assert.False(t, c.TraceID().IsEmpty())
	assert.Equal(t, c.TraceID(), s.TraceID())
	assert.Equal(t, c.SpanID(), s.ParentSpanID())
	assert.NotEqual(t, c.SpanID(), s.SpanID())
	assert.True(t, c.ParentSpanID().IsEmpty())
	assert.Equal(t, ptrace.SpanKindClient, c.Kind())
	assert.Equal(t, ptrace.SpanKindServer, s.Kind())
}

func TestIDsAreTheConnectionsOwn(t *testing.T) {
	ids := func(change func(*connection)) spanIDs {
		c := &connection{id: "00c0ffee00c0ffee", start: second(0), health: flow.TCPHealth{ClientISN: 1, ServerISN: 2, HasISNs: true}}
		change(c)
		return idsOf(c)
	}
	base := ids(func(*connection) {})
	assert.Equal(t, base, ids(func(c *connection) { c.start, c.id, c.client = second(9), "", true }), "whoever saw it, and when")
	unanswered := func(c *connection) { c.health = flow.TCPHealth{} }
	changes := map[string]func(*connection){
		"client's number": func(c *connection) { c.health.ClientISN++ },
		"server's number": func(c *connection) { c.health.ServerISN++ },
		"swapped":         func(c *connection) { c.health.ClientISN, c.health.ServerISN = 2, 1 },
		"unanswered":      unanswered,
		"unanswered, again a second later": func(c *connection) {
			unanswered(c)
			c.start = second(1)
		},
		"unanswered, other addresses": func(c *connection) {
			unanswered(c)
			c.id = "1122334455667788"
		},
	}
	seen := map[pcommon.TraceID]string{base.trace: "base"}
	for name, change := range changes {
		got := ids(change)
		assert.Empty(t, seen[got.trace], "%s has the trace of another", name)
		seen[got.trace] = name
	}
}

func TestStatusOfASpan(t *testing.T) {
	tests := map[flow.Outcome]struct {
		code      ptrace.StatusCode
		errorType any
	}{
		flow.OutcomeUnknown: {ptrace.StatusCodeUnset, nil},
		flow.OutcomeClosed:  {ptrace.StatusCodeUnset, nil},
		flow.OutcomeReset:   {ptrace.StatusCodeError, "reset"},
		flow.OutcomeRefused: {ptrace.StatusCodeError, "refused"},
		flow.OutcomeTimeout: {ptrace.StatusCodeError, "timeout"},
	}
	for outcome, tt := range tests {
		t.Run(outcome.String(), func(t *testing.T) {
			s := newTestSpans()
			s.add(clientEnd.record(flow.Egress, 0, 1, ended(outcome)))
			_, span := only(t, s.end(second(1), ""))
			assert.Equal(t, tt.code, span.Status().Code())
			assert.Equal(t, tt.errorType, span.Attributes().AsRaw()[flow.AttrErrorType])
		})
	}
}

func TestWhatMakesNoSpan(t *testing.T) {
	end := ended(flow.OutcomeClosed)
	tests := map[string]func(*flow.Record){
		"UDP": func(r *flow.Record) { end(r); r.Transport = flow.UDP },
		"opened before the receiver": func(r *flow.Record) {
			end(r)
			r.Initiator, r.TCPHealth = flow.InitiatorUnknown, flow.TCPHealth{}
		},
		"nobody knows who opened it": func(r *flow.Record) { end(r); r.Initiator, r.TCPFlags = flow.InitiatorUnknown, tcpSYN },
		"handshake not seen":         func(r *flow.Record) { end(r); r.TCPHealth = flow.TCPHealth{} },
		"still open":                 func(*flow.Record) {},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			s := newTestSpans()
			s.add(clientEnd.record(flow.Egress, 0, 1, change))
			assert.Zero(t, s.end(second(2), "").SpanCount())
		})
	}
}

func TestAttemptsWithoutAnAnswerAreSpans(t *testing.T) {
	for _, outcome := range []flow.Outcome{flow.OutcomeRefused, flow.OutcomeTimeout} {
		s := newTestSpans()
		s.add(clientEnd.record(flow.Egress, 0, 3, func(r *flow.Record) {
			ended(outcome)(r)
			r.TCPHealth = flow.TCPHealth{}
		}))
		_, span := only(t, s.end(second(3), ""))
		assert.Equal(t, ptrace.SpanKindClient, span.Kind(), outcome)
		assert.False(t, span.TraceID().IsEmpty(), outcome)
		assert.False(t, span.SpanID().IsEmpty(), outcome)
	}
}

func TestBothDirectionsMustEnd(t *testing.T) {
	s := newTestSpans()
	s.add(clientEnd.record(flow.Egress, 0, 1, ended(flow.OutcomeClosed)))
	s.add(clientEnd.record(flow.Ingress, 0, 1, nil))
	assert.Zero(t, s.end(second(1), "").SpanCount())
	s.add(clientEnd.record(flow.Ingress, 2, 2, ended(flow.OutcomeClosed)))
	_, span := only(t, s.end(second(2), ""))
	assert.Equal(t, second(2), span.EndTimestamp().AsTime())
}

func TestSilenceIsAnEndToo(t *testing.T) {
	s := newTestSpans()
	s.add(clientEnd.record(flow.Egress, 0, 1, nil))
	assert.Zero(t, s.end(second(60), "").SpanCount())
	assert.Equal(t, 1, s.end(second(61), "").SpanCount())
	assert.Empty(t, s.open)
}

func TestAddressesUsedAgainAreAnotherConnection(t *testing.T) {
	s := newTestSpans()
	s.add(clientEnd.record(flow.Egress, 0, 1, nil))
	s.add(clientEnd.record(flow.Egress, 2, 3, func(r *flow.Record) {
		r.ClientISN = 33
		ended(flow.OutcomeClosed)(r)
	}))
	td := s.end(second(4), "")
	require.Equal(t, 2, td.SpanCount())
	spans := td.ResourceSpans().At(0).ScopeSpans().At(0).Spans()
	assert.NotEqual(t, spans.At(0).TraceID(), spans.At(1).TraceID())
	assert.Equal(t, second(1), spans.At(0).EndTimestamp().AsTime())
	assert.Equal(t, second(2), spans.At(1).StartTimestamp().AsTime())
	assert.Zero(t, s.end(second(4), "").SpanCount())
}

func TestInterfacesOfBothDirectionsAreListed(t *testing.T) {
	s := newTestSpans()
	s.isHost = func(netip.Addr) bool { return false }
	for i, path := range [][]string{{"veth0", "eth0"}, {"eth1", "veth0"}, nil} {
		s.add(clientEnd.record(flow.Egress, 0, 1, func(r *flow.Record) {
			ended(flow.OutcomeClosed)(r)
			r.Interfaces = path
			r.Source.Identity.CgroupID = uint64(i) // an interface does not always know whose packet it is
		}))
	}
	_, span := only(t, s.end(second(1), ""))
	list, _ := span.Attributes().Get(flow.AttrInterfaces)
	assert.Equal(t, []any{"veth0", "eth0", "eth1"}, list.Slice().AsRaw())
}

func TestWhatPassesByHasNoSpan(t *testing.T) {
	s := newTestSpans()
	s.add(clientEnd.record(flow.Transit, 0, 1, ended(flow.OutcomeClosed)))
	assert.Zero(t, s.end(second(1), "").SpanCount())
}

func TestNamespacesWithTheSameAddressesAreApart(t *testing.T) {
	s := newTestSpans()
	for cgroup := range uint64(3) {
		s.add(clientEnd.record(flow.Egress, 0, 1, func(r *flow.Record) {
			ended(flow.OutcomeClosed)(r)
			r.Source.Identity.CgroupID = cgroup + 1
		}))
	}
	td := s.end(second(1), "")
	assert.Equal(t, 3, td.SpanCount())
	assert.Equal(t, 3, td.ResourceSpans().Len())
}

// A host that translates addresses sees the connections of its pods twice: theirs, and one that looks like its own.
func TestTranslationsRepeatNoSpan(t *testing.T) {
	const hostAddr = "192.168.0.1"
	translated := end{hostAddr + ":50000", "10.0.0.2:8080", true, flow.Identity{}}
	published := end{hostAddr + ":80", "203.0.113.9:40000", false, flow.Identity{}}
	tests := map[string]struct {
		views []end
		want  []end
	}{
		"of a client":            {[]end{clientEnd, translated}, []end{clientEnd}},
		"seen by the host first": {[]end{translated, clientEnd}, []end{clientEnd}},
		"of a server":            {[]end{published, serverEnd}, []end{serverEnd}},
		"both ends are here":     {[]end{clientEnd, translated, published, serverEnd}, []end{clientEnd, serverEnd}},
		"the host's own":         {[]end{translated}, []end{translated}},
	}
	for name, tt := range tests {
		for order, last := range map[string]int{"first over": 0, "last over": len(tt.views) - 1} {
			t.Run(name+"/"+order, func(t *testing.T) {
				s := newSpans(&Config{IdleTimeout: time.Minute, FlowTableSize: 4}, func(a netip.Addr) bool { return a.String() == hostAddr })
				for _, e := range tt.views {
					s.add(e.record(flow.Egress, 0, 1, nil))
				}
				var got []string
				over := func(e end) {
					s.add(e.record(flow.Egress, 2, 3, ended(flow.OutcomeClosed)))
					for _, rs := range s.end(second(3), "").ResourceSpans().All() {
						for _, span := range rs.ScopeSpans().At(0).Spans().All() {
							local, attrs := "client", span.Attributes().AsRaw()
							if span.Kind() == ptrace.SpanKindServer {
								local = "server"
							}
							got = append(got, fmt.Sprintf("%v:%v", attrs[local+".address"], attrs[local+".port"]))
						}
					}
				}
				over(tt.views[last])
				for i, e := range tt.views {
					if i != last {
						over(e)
					}
				}
				var want []string
				for _, e := range tt.want {
					want = append(want, e.local)
				}
				assert.ElementsMatch(t, want, got)
				assert.Empty(t, s.halves)
			})
		}
	}
}

func TestSpansOfOneServiceShareAResource(t *testing.T) {
	s := newTestSpans()
	for port := range uint16(3) {
		s.add(clientEnd.record(flow.Egress, 0, 1, func(r *flow.Record) {
			ended(flow.OutcomeClosed)(r)
			r.Source.Addr = netip.AddrPortFrom(r.Source.Addr.Addr(), 1000+port)
		}))
	}
	s.add(clientEnd.record(flow.Egress, 0, 1, func(r *flow.Record) {
		ended(flow.OutcomeClosed)(r)
		r.Source.Identity.Process = ""
	}))
	td := s.end(second(1), "")
	names := map[string]int{}
	for _, rs := range td.ResourceSpans().All() {
		name, _ := rs.Resource().Attributes().Get(flow.AttrServiceName)
		names[name.Str()] = rs.ScopeSpans().At(0).Spans().Len()
	}
	assert.Equal(t, map[string]int{"curl": 3, unknownService: 1}, names)
}

func TestOpenConnectionsAreBounded(t *testing.T) {
	s := newTestSpans()
	for port := range uint16(100) {
		s.add(clientEnd.record(flow.Egress, 0, 1, func(r *flow.Record) { r.Source.Addr = netip.AddrPortFrom(r.Source.Addr.Addr(), port) }))
	}
	assert.Len(t, s.open, 8)
	for range 100 {
		for isn := range uint32(2) {
			s.add(clientEnd.record(flow.Egress, 0, 1, func(r *flow.Record) {
				r.Source.Addr, r.ClientISN = netip.AddrPortFrom(r.Source.Addr.Addr(), 0), isn
			}))
		}
	}
	assert.LessOrEqual(t, len(s.open)+len(s.replaced), 8)
}

func BenchmarkSpans(b *testing.B) {
	s := newSpans(createDefaultConfig().(*Config), nil)
	records := make([]*flow.Record, 2000)
	for i := range records {
		d := flow.Egress
		if i%2 == 1 {
			d = flow.Ingress
		}
		records[i] = clientEnd.record(d, 0, 1, func(r *flow.Record) {
			ended(flow.OutcomeClosed)(r)
			r.Local().Addr = netip.AddrPortFrom(r.Local().Addr.Addr(), uint16(i/2))
			r.ClientISN = uint32(i / 2)
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, r := range records {
			s.add(r)
		}
		if got := s.end(second(1), "").SpanCount(); got != len(records)/2 {
			b.Fatal(got)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(records)/2), "ns/connection")
}
