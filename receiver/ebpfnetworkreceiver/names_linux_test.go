package ebpfnetworkreceiver

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/kernelclock"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/dns"
)

const cartCgroup, shopCgroup = 7, 8

// namedPeer is what cart has looked up as www.example.com.
var namedPeer = netip.MustParseAddrPort("192.0.2.1:443")

// askFor makes the watcher see a lookup of www.example.com by the asker, answered at an instant.
func askFor(t testing.TB, w *dns.Watcher, asker dns.Asker, name string, at time.Time, c kernelclock.Clock) {
	t.Helper()
	fqdn := dnsmessage.MustNewName(name + ".")
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 1},
		Questions: []dnsmessage.Question{{Name: fqdn, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	query, err := m.Pack()
	require.NoError(t, err)
	m.Response = true
	m.Answers = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: fqdn, Class: dnsmessage.ClassINET, TTL: 60},
		Body:   &dnsmessage.AResource{A: namedPeer.Addr().As4()},
	}}
	response, err := m.Pack()
	require.NoError(t, err)

	p := dns.Packet{
		Time: c.Monotonic(at), Direction: flow.Egress, Transport: flow.UDP, Scope: asker.CgroupID, Asker: asker,
		Source: netip.MustParseAddrPort("10.0.0.1:5000"), Destination: netip.MustParseAddrPort("10.0.0.53:53"),
		Length: len(query), Payload: query,
	}
	require.Empty(t, w.Observe(&p))
	p.Direction, p.Source, p.Destination, p.Payload, p.Length = flow.Ingress, p.Destination, p.Source, response, len(response)
	require.Len(t, w.Observe(&p), 1)
}

func newTestNamer(atInterfaces bool) *namer {
	w := dns.New(time.Second, func(ns int64) time.Time { return time.Unix(0, ns) })
	return newNamer(w, atInterfaces, 100)
}

// toPeer is a record of cart's connection to the peer, or of its other direction.
func toPeer(d flow.Direction, start time.Time) flow.Record {
	local := flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:40000"), Identity: flow.Identity{CgroupID: cartCgroup}}
	r := flow.Record{
		Direction: d, Transport: flow.TCP, Start: start, End: start, Source: local, Destination: flow.Endpoint{Addr: namedPeer},
		TCPFlags: tcpSYN, Packets: 1,
	}
	if d == flow.Ingress {
		r.Source, r.Destination = r.Destination, r.Source
	}
	return r
}

func TestAFlowHasTheNameOfItsBeginning(t *testing.T) {
	n, c, now := newTestNamer(false), kernelclock.Read(), time.Now()
	name := func(r flow.Record) string {
		n.name(&r, c)
		assert.Empty(t, r.Local().Name)
		return r.Peer().Name
	}
	askFor(t, n.watcher, dns.Asker{CgroupID: cartCgroup}, "www.example.com", now, c)
	first := toPeer(flow.Egress, now.Add(time.Second))
	assert.Equal(t, "www.example.com", name(first))
	assert.Equal(t, "www.example.com", name(toPeer(flow.Ingress, now.Add(time.Second))), "the other direction too")

	// The same address by another name, and much later: the flow goes on as it was.
	askFor(t, n.watcher, dns.Asker{CgroupID: cartCgroup}, "other.example.com", now.Add(2*time.Second), c)
	later := toPeer(flow.Egress, now.Add(time.Hour))
	later.TCPFlags = 0
	assert.Equal(t, "www.example.com", name(later))

	// Its end tells all flags again, and no packets.
	ended := toPeer(flow.Egress, now.Add(2*time.Hour))
	ended.Packets, ended.Ended = 0, true
	assert.Equal(t, "www.example.com", name(ended))
	assert.Empty(t, name(later), "it is over")
	assert.Equal(t, 1, n.names.Len(), "the other direction")

	again := toPeer(flow.Egress, now.Add(3*time.Second))
	assert.Equal(t, "other.example.com", name(again), "a new connection from the same port")
	again.Start = now.Add(time.Hour)
	assert.Empty(t, name(again), "and one long after the name")
	again.TCPFlags = 0
	assert.Empty(t, name(again))
}

func TestWhatIsNotNamed(t *testing.T) {
	c, now := kernelclock.Read(), time.Now()
	tests := map[string]func(*flow.Record){
		"another container":  func(r *flow.Record) { r.Source.Identity.CgroupID = shopCgroup },
		"another address":    func(r *flow.Record) { r.Destination.Addr = netip.MustParseAddrPort("192.0.2.2:443") },
		"before the answer":  func(r *flow.Record) { r.Start = now.Add(-time.Second) },
		"begun unseen":       func(r *flow.Record) { r.TCPFlags = 0x10 },
		"UDP that goes on":   func(r *flow.Record) { r.Transport, r.TCPFlags = flow.UDP, 0 },
		"the peer's own end": func(r *flow.Record) { r.Direction = flow.Ingress },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			n := newTestNamer(false)
			askFor(t, n.watcher, dns.Asker{CgroupID: cartCgroup}, "www.example.com", now, c)
			r := toPeer(flow.Egress, now.Add(time.Second))
			change(&r)
			n.name(&r, c)
			assert.Empty(t, r.Source.Name)
			assert.Empty(t, r.Destination.Name)
			assert.Zero(t, n.names.Len())
		})
	}
}

func TestUDPFlowsAreNamed(t *testing.T) {
	n, c, now := newTestNamer(false), kernelclock.Read(), time.Now()
	askFor(t, n.watcher, dns.Asker{CgroupID: cartCgroup}, "www.example.com", now, c)
	r := toPeer(flow.Egress, now)
	r.Transport, r.TCPFlags, r.Connections = flow.UDP, 0, 1
	n.name(&r, c)
	assert.Equal(t, "www.example.com", r.Destination.Name)
}

// At interfaces two containers may share an address, and one may be known by its address alone.
func TestAskersAtInterfaces(t *testing.T) {
	n, c, now := newTestNamer(true), kernelclock.Read(), time.Now()
	addr := netip.MustParseAddr("10.0.0.1")
	askFor(t, n.watcher, dns.Asker{CgroupID: cartCgroup, Addr: addr}, "www.example.com", now, c)
	for name, tt := range map[string]struct {
		change func(*flow.Record)
		want   string
	}{
		"the asker":              {func(*flow.Record) {}, "www.example.com"},
		"another on its address": {func(r *flow.Record) { r.Source.Identity.CgroupID = shopCgroup }, ""},
		"who knows":              {func(r *flow.Record) { r.Source.Identity.CgroupID = 0 }, ""},
		"from another address":   {func(r *flow.Record) { r.Source.Addr = netip.MustParseAddrPort("10.0.0.2:40000") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := toPeer(flow.Egress, now)
			tt.change(&r)
			n.name(&r, c)
			assert.Equal(t, tt.want, r.Destination.Name)
		})
	}
}

func TestNamedFlowsAreBounded(t *testing.T) {
	n, c, now := newTestNamer(false), kernelclock.Read(), time.Now()
	askFor(t, n.watcher, dns.Asker{CgroupID: cartCgroup}, "www.example.com", now, c)
	for port := range 200 {
		r := toPeer(flow.Egress, now)
		r.Source.Addr = netip.AddrPortFrom(r.Source.Addr.Addr(), uint16(1000+port))
		n.name(&r, c)
	}
	assert.Equal(t, 100, n.names.Len())
}

func BenchmarkNamer(b *testing.B) {
	n, c, now := newTestNamer(false), kernelclock.Read(), time.Now()
	askFor(b, n.watcher, dns.Asker{CgroupID: cartCgroup}, "www.example.com", now, c)
	named, unnamed := toPeer(flow.Egress, now), toPeer(flow.Egress, now)
	n.name(&named, c)
	named.TCPFlags, unnamed.TCPFlags, unnamed.Source.Addr = 0, 0, netip.MustParseAddrPort("10.0.0.9:1")
	for name, r := range map[string]flow.Record{"named": named, "unnamed": unnamed} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n.name(&r, c)
			}
		})
	}
}
