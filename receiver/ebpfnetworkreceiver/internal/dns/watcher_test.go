package dns

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/orb8/orb8/internal/flow"
)

// lookup is what curl's question for the address of www.example.com becomes, at the client, without an answer.
func lookup() flow.Lookup {
	return flow.Lookup{
		Time: time.Unix(0, at(0)).UTC(), Direction: flow.Egress, Transport: flow.UDP,
		Client: flow.Endpoint{Addr: client, Identity: flow.Identity{CgroupID: 7, Process: "curl", PID: 42}},
		Server: flow.Endpoint{Addr: server},
		Name:   "www.example.com", Type: "A", Queries: 1,
	}
}

func TestWatcher(t *testing.T) {
	const ms = time.Millisecond
	q := ask("www.example.com.", dnsmessage.TypeA)
	query := queryOf(t, 7, q)
	response := responseTo(t, 7, q, 0, a("www.example.com.", 60, "192.0.2.1"))
	noName := responseTo(t, 7, q, dnsmessage.RCodeNameError)
	other := ask("other.example.com.", dnsmessage.TypeA)
	answered := func(change ...func(*flow.Lookup)) flow.Lookup {
		l := lookup()
		l.RCode, l.Latency = "NOERROR", 3*ms
		l.Answers = []flow.Answer{{Name: "www.example.com", Type: "A", TTL: time.Minute, Data: "192.0.2.1"}}
		for _, c := range change {
			c(&l)
		}
		return l
	}
	unanswered := func(l *flow.Lookup) { l.RCode, l.Latency, l.Answers = flow.RCodeTimeout, timeout, nil }
	tcp := func(p *Packet, seq uint32, payload []byte) *Packet {
		return with(p, func(p *Packet) { p.Transport, p.Seq, p.Payload, p.Length = flow.TCP, seq, payload, len(payload) })
	}
	at := func(iface string, p *Packet) *Packet {
		return with(p, func(p *Packet) { p.Interface, p.Scope = iface, 0 })
	}

	tests := map[string]struct {
		packets []*Packet
		want    []flow.Lookup
		counts  Counts
	}{
		"answered": {[]*Packet{sent(0, query), received(3*ms, response)}, []flow.Lookup{answered()}, Counts{}},
		"in other letters": {
			[]*Packet{sent(0, query), received(3*ms, responseTo(t, 7, ask("wWw.eXample.com.", dnsmessage.TypeA), 3))},
			[]flow.Lookup{answered(func(l *flow.Lookup) { l.RCode, l.Answers = "NXDOMAIN", nil })}, Counts{},
		},
		"without the question": {
			[]*Packet{sent(0, query), received(3*ms, pack(t, dnsmessage.Message{Header: dnsmessage.Header{ID: 7, Response: true, RCode: 1}}))},
			[]flow.Lookup{answered(func(l *flow.Lookup) { l.RCode, l.Answers = "FORMERR", nil })}, Counts{},
		},
		"truncated": {
			[]*Packet{sent(0, query), received(3*ms, pack(t, dnsmessage.Message{Header: dnsmessage.Header{ID: 7, Response: true, Truncated: true}, Questions: []dnsmessage.Question{q}}))},
			[]flow.Lookup{answered(func(l *flow.Lookup) { l.Answers, l.Truncated = nil, true })}, Counts{},
		},
		"cut off by the capture": {
			[]*Packet{sent(0, query), with(received(3*ms, response), func(p *Packet) { p.Payload = p.Payload[:len(p.Payload)-1] })},
			[]flow.Lookup{answered(func(l *flow.Lookup) { l.Answers, l.Incomplete = nil, true })}, Counts{},
		},
		"asked again": {
			[]*Packet{sent(0, query), sent(1*ms, query), sent(2*ms, query), received(3*ms, response)},
			[]flow.Lookup{answered(func(l *flow.Lookup) { l.Queries = 3 })}, Counts{},
		},
		"answered twice": {
			[]*Packet{sent(0, query), received(3*ms, response), received(4*ms, response)},
			[]flow.Lookup{answered()}, Counts{Unmatched: 1},
		},
		"the same id again": {
			[]*Packet{sent(0, query), received(3*ms, response), sent(10*ms, query), received(14*ms, noName)},
			[]flow.Lookup{answered(), answered(func(l *flow.Lookup) {
				l.Time, l.Latency, l.RCode, l.Answers = l.Time.Add(10*ms), 4*ms, "NXDOMAIN", nil
			})}, Counts{},
		},
		"the id is taken for another question": {
			[]*Packet{sent(0, query), sent(2*ms, queryOf(t, 7, other)), received(3*ms, response), received(6*ms, responseTo(t, 7, other, 3))},
			[]flow.Lookup{
				answered(func(l *flow.Lookup) { l.RCode, l.Latency, l.Answers = flow.RCodeTimeout, 2*ms, nil }),
				answered(func(l *flow.Lookup) {
					l.Name, l.Time, l.RCode, l.Latency, l.Answers = "other.example.com", l.Time.Add(2*ms), "NXDOMAIN", 4*ms, nil
				}),
			}, Counts{Unmatched: 1},
		},
		"two questions of one socket": {
			[]*Packet{sent(0, query), sent(0, queryOf(t, 8, other)), received(2*ms, responseTo(t, 8, other, 3)), received(3*ms, response)},
			[]flow.Lookup{
				answered(func(l *flow.Lookup) {
					l.Name, l.RCode, l.Latency, l.Answers = "other.example.com", "NXDOMAIN", 2*ms, nil
				}),
				answered(),
			}, Counts{},
		},
		"another socket's response": {
			[]*Packet{sent(0, query), with(received(3*ms, response), func(p *Packet) { p.Destination = netip.MustParseAddrPort("10.0.0.1:40001") })},
			[]flow.Lookup{answered(unanswered)}, Counts{Unmatched: 1},
		},
		"another container's response": {
			[]*Packet{sent(0, query), with(received(3*ms, response), func(p *Packet) { p.Scope = 8 })},
			[]flow.Lookup{answered(unanswered)}, Counts{Unmatched: 1},
		},
		"no answer": {
			[]*Packet{sent(0, query), sent(1*ms, query)},
			[]flow.Lookup{answered(unanswered, func(l *flow.Lookup) { l.Queries = 2 })}, Counts{},
		},
		"both ends on one host, in one cgroup": {
			[]*Packet{
				sent(0, query),
				with(sent(1*ms, query), func(p *Packet) { p.Direction, p.Local = flow.Ingress, flow.Identity{Process: "dnsmasq"} }),
				with(received(2*ms, response), func(p *Packet) { p.Direction = flow.Egress }),
				received(3*ms, response),
			},
			[]flow.Lookup{
				answered(func(l *flow.Lookup) {
					l.Direction, l.Time, l.Latency = flow.Ingress, l.Time.Add(ms), ms
					l.Client.Identity, l.Server.Identity = flow.Identity{}, flow.Identity{Process: "dnsmasq"}
				}),
				answered(),
			}, Counts{},
		},
		"at an interface, and back at another": {
			[]*Packet{at("eth0", sent(0, query)), at("eth1", received(3*ms, response))},
			[]flow.Lookup{answered(func(l *flow.Lookup) { l.Interface = "eth0" })}, Counts{},
		},
		"TCP, out of order": {
			[]*Packet{
				tcp(sent(0, nil), 100, prefixed(query)),
				tcp(received(1*ms, nil), 900, prefixed(response)[:10]),
				tcp(received(2*ms, nil), 930, prefixed(response)[30:]),
				tcp(received(3*ms, nil), 910, prefixed(response)[10:30]),
			},
			[]flow.Lookup{answered(func(l *flow.Lookup) { l.Transport = flow.TCP })}, Counts{},
		},
		"two messages in a segment": {
			[]*Packet{
				tcp(sent(0, nil), 100, prefixed(query, queryOf(t, 8, other))),
				tcp(received(3*ms, nil), 900, prefixed(response, responseTo(t, 8, other, 3))),
			},
			[]flow.Lookup{
				answered(func(l *flow.Lookup) { l.Transport = flow.TCP }),
				answered(func(l *flow.Lookup) {
					l.Transport, l.Name, l.RCode, l.Answers = flow.TCP, "other.example.com", "NXDOMAIN", nil
				}),
			}, Counts{},
		},
		"a stream that cannot be followed": {
			[]*Packet{with(tcp(sent(0, nil), 100, prefixed(query)), func(p *Packet) { p.Length += 100 })},
			[]flow.Lookup{answered(unanswered, func(l *flow.Lookup) { l.Transport = flow.TCP })}, Counts{Overflow: 1},
		},
		"no DNS":    {[]*Packet{sent(0, []byte("\x16\x03\x01\x00 no DNS")), sent(0, []byte{1}), sent(0, nil)}, nil, Counts{Malformed: 3}},
		"an update": {[]*Packet{sent(0, pack(t, dnsmessage.Message{Header: dnsmessage.Header{OpCode: 5}}))}, nil, Counts{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWatcher()
			var got []flow.Lookup
			var last int64
			for _, p := range tt.packets {
				got = append(got, w.Observe(p)...)
				last = p.Time
			}
			assert.Empty(t, w.Expire(last), "too early")
			got = append(got, w.Expire(tt.packets[0].Time+int64(timeout))...)
			assert.Equal(t, tt.want, got)
			assert.Equal(t, tt.counts, w.Counts())
		})
	}
}

func TestNamesAreThoseOfTheClient(t *testing.T) {
	q := ask("WWW.example.com.", dnsmessage.TypeA)
	response := responseTo(t, 7, q, 0, cname("WWW.example.com.", 60, "web.example.com."), a("web.example.com.", 60, "192.0.2.1"))
	w := newWatcher()
	assert.Empty(t, w.Observe(received(0, response)))
	assert.Empty(t, w.Name(cart, web, at(time.Second)), "nobody had asked")

	// At the server's end the names are not the server's.
	w.Observe(with(sent(0, queryOf(t, 7, q)), func(p *Packet) { p.Direction, p.Scope, p.Asker = flow.Ingress, 8, shop }))
	require.Len(t, w.Observe(with(received(0, response), func(p *Packet) { p.Direction, p.Scope = flow.Egress, 8 })), 1)
	assert.Empty(t, w.Name(shop, web, at(time.Second)))

	w.Observe(sent(0, queryOf(t, 7, q)))
	require.Len(t, w.Observe(received(0, response)), 1)
	assert.Equal(t, "www.example.com", w.Name(cart, web, at(time.Second)))
	assert.Empty(t, w.Name(shop, web, at(time.Second)))
	assert.Empty(t, w.Name(Asker{CgroupID: 7, Addr: client.Addr()}, web, at(time.Second)))
}

func TestMemoryIsBounded(t *testing.T) {
	w := newWatcher()
	query := queryOf(t, 7, ask("www.example.com.", dnsmessage.TypeA))
	for i := range maxPending + 5 {
		w.Observe(with(sent(0, query), func(p *Packet) { p.Scope = uint64(i) }))
	}
	assert.Equal(t, maxPending, w.pending.Len())
	for i := range maxStreams + 7 {
		w.Observe(with(sent(0, []byte{0}), func(p *Packet) { p.Transport, p.Scope = flow.TCP, uint64(i) }))
	}
	assert.Equal(t, maxStreams, w.streams.Len())
	assert.Equal(t, Counts{Overflow: 12}, w.Counts())

	assert.Len(t, w.Expire(at(timeout)), maxPending)
	assert.Zero(t, w.pending.Len())
	assert.Zero(t, w.streams.Len())
}

func BenchmarkLookup(b *testing.B) {
	w := newWatcher()
	q := ask("www.example.com.", dnsmessage.TypeA)
	query, response := sent(0, queryOf(b, 7, q)), received(0, responseTo(b, 7, q, 0, a("www.example.com.", 60, "192.0.2.1")))
	b.ReportAllocs()
	for b.Loop() {
		w.Observe(query)
		if len(w.Observe(response)) != 1 {
			b.Fatal("no lookup")
		}
	}
}
