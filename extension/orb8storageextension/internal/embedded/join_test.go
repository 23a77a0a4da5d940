package embedded

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

var (
	client = flow.Identity{CgroupID: 1, Pod: "web-0", Namespace: "shop"}
	server = flow.Identity{CgroupID: 2, Pod: "cart-0", Namespace: "shop"}
)

// translated returns the four views of a connection through a virtual IP and a source NAT, by end and direction: the client's
// node saw it go to 10.96.0.10:80, the server's saw it come from 192.168.0.1.
func translated(isn uint32) map[string]flow.Record {
	view := func(node string, d flow.Direction, initiator flow.Initiator, from, to string, sender, receiver flow.Identity) flow.Record {
		return with(record(1, 2), func(r *flow.Record) {
			r.Node, r.Direction, r.Initiator = node, d, initiator
			r.Source = flow.Endpoint{Addr: netip.MustParseAddrPort(from), Identity: sender}
			r.Destination = flow.Endpoint{Addr: netip.MustParseAddrPort(to), Identity: receiver}
			r.ClientISN, r.ServerISN, r.HasISNs = isn, 2, true
		})
	}
	nobody := flow.Identity{}
	return map[string]flow.Record{
		"client out": view("node-a", flow.Egress, flow.InitiatorSource, "10.0.0.1:40000", "10.96.0.10:80", client, nobody),
		"client in":  view("node-a", flow.Ingress, flow.InitiatorDestination, "10.96.0.10:80", "10.0.0.1:40000", nobody, client),
		"server in":  view("node-b", flow.Ingress, flow.InitiatorSource, "192.168.0.1:50000", "10.0.0.2:8080", nobody, server),
		"server out": view("node-b", flow.Egress, flow.InitiatorDestination, "10.0.0.2:8080", "192.168.0.1:50000", server, nobody),
	}
}

func storeOf(records ...flow.Record) *Store {
	s, clock := newTestStore(MinBytes)
	clock.set(10)
	s.WriteFlows(context.Background(), records)
	return s
}

func values(m map[string]flow.Record) []flow.Record {
	var all []flow.Record
	for _, r := range m {
		all = append(all, r)
	}
	return all
}

// name returns the key of a view.
func name(r *flow.Record) string {
	end := map[string]string{"node-a": "client", "node-b": "server"}[r.Node]
	return end + map[flow.Direction]string{flow.Egress: " out", flow.Ingress: " in"}[r.Direction]
}

func pairs(flows []storage.Flow) map[string]string {
	got := map[string]string{}
	for i := range flows {
		other := ""
		if flows[i].Other != nil {
			other = name(flows[i].Other)
		}
		got[name(&flows[i].Record)] = other
	}
	return got
}

func TestJoinAcrossTranslation(t *testing.T) {
	views := translated(1)
	s := storeOf(values(views)...)
	separate := query(t, s, storage.FlowQuery{SeparateEnds: true})
	assert.Equal(t, map[string]string{
		"client out": "server in", "server in": "client out", "client in": "server out", "server out": "client in",
	}, pairs(separate.Flows))
	assert.Equal(t, 4, separate.Matched)

	joined := query(t, s, storage.FlowQuery{})
	assert.Equal(t, map[string]string{"client out": "server in", "client in": "server out"}, pairs(joined.Flows), "the client's view")
	assert.Equal(t, 2, joined.Matched)
	for _, f := range joined.Flows {
		assert.Equal(t, views[name(&f.Record)], f.Record)
		assert.Equal(t, views[name(f.Other)], *f.Other)
	}
}

func TestOneEndAloneIsARow(t *testing.T) {
	for key, view := range translated(1) {
		t.Run(key, func(t *testing.T) {
			for _, separate := range []bool{false, true} {
				got := query(t, storeOf(view), storage.FlowQuery{SeparateEnds: separate})
				assert.Equal(t, []storage.Flow{{Record: view}}, got.Flows)
			}
		})
	}
}

func TestWhatIsNotJoined(t *testing.T) {
	tests := map[string]func(*flow.Record){
		"other client's number": func(r *flow.Record) { r.ClientISN++ },
		"other server's number": func(r *flow.Record) { r.ServerISN++ },
		"swapped numbers":       func(r *flow.Record) { r.ClientISN, r.ServerISN = r.ServerISN, r.ClientISN },
		"no numbers":            func(r *flow.Record) { r.TCPHealth = flow.TCPHealth{} },
		"the other direction":   func(r *flow.Record) { r.Initiator = flow.InitiatorDestination },
		"no initiator":          func(r *flow.Record) { r.Initiator = flow.InitiatorUnknown },
		"the same end":          func(r *flow.Record) { r.Direction = flow.Egress },
	}
	for what, change := range tests {
		t.Run(what, func(t *testing.T) {
			views := translated(1)
			got := query(t, storeOf(views["client out"], with(views["server in"], change)), storage.FlowQuery{SeparateEnds: true}).Flows
			require.Len(t, got, 2)
			assert.Nil(t, got[0].Other)
			assert.Nil(t, got[1].Other)
		})
	}
}

// plain returns a datagram flow at its two ends, on one node.
func plain() (sent, received flow.Record) {
	sent = with(record(1, 2), func(r *flow.Record) {
		r.Transport, r.Source.Identity = flow.UDP, client
	})
	received = with(sent, func(r *flow.Record) {
		r.Direction, r.Source.Identity, r.Destination.Identity = flow.Ingress, flow.Identity{}, server
	})
	return sent, received
}

func TestJoinByAddress(t *testing.T) {
	sent, received := plain()
	third := with(received, func(r *flow.Record) { r.Destination.Identity.CgroupID = 9 })
	tests := map[string]struct {
		records []flow.Record
		joined  int
		pairs   int
	}{
		"both ends":                  {[]flow.Record{sent, received}, 1, 1},
		"received first":             {[]flow.Record{received, sent}, 1, 1},
		"two that may have received": {[]flow.Record{sent, received, third}, 3, 0},
		"two that may have sent": {[]flow.Record{
			sent, received, with(sent, func(r *flow.Record) { r.Source.Identity.CgroupID = 9 }),
		}, 3, 0},
		"another node":      {[]flow.Record{sent, with(received, func(r *flow.Record) { r.Node = "node-b" })}, 2, 0},
		"another transport": {[]flow.Record{sent, with(received, func(r *flow.Record) { r.Transport = flow.TCP })}, 2, 0},
		"another port": {[]flow.Record{sent, with(received, func(r *flow.Record) {
			r.Destination.Addr = netip.MustParseAddrPort("10.0.0.2:444")
		})}, 2, 0},
		"the way back": {[]flow.Record{sent, with(received, func(r *flow.Record) {
			r.Source.Addr, r.Destination.Addr = r.Destination.Addr, r.Source.Addr
		})}, 2, 0},
		"TCP whose handshake was not seen": {[]flow.Record{
			with(sent, func(r *flow.Record) { r.Transport = flow.TCP }), with(received, func(r *flow.Record) { r.Transport = flow.TCP }),
		}, 1, 1},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			s := storeOf(tt.records...)
			joined := query(t, s, storage.FlowQuery{}).Flows
			assert.Len(t, joined, tt.joined)
			got := 0
			for _, f := range joined {
				if f.Other != nil {
					got++
					assert.Equal(t, flow.Egress, f.Direction, "the sender's view, where no client is known")
				}
			}
			assert.Equal(t, tt.pairs, got)
			assert.Len(t, query(t, s, storage.FlowQuery{SeparateEnds: true}).Flows, len(tt.records))
		})
	}
}

// A node that routes the connection, or that has it in two of its tables, is no third end.
func TestTheBestWitnessIsTheRow(t *testing.T) {
	views := translated(1)
	out := views["client out"]
	tests := map[string]struct{ nearer, farther flow.Record }{
		"who knows the socket": {
			with(out, func(r *flow.Record) { r.Start = at(2) }),
			with(out, func(r *flow.Record) {
				r.Source.Addr, r.Source.Identity = netip.MustParseAddrPort("192.168.0.1:1"), flow.Identity{}
			}),
		},
		"who saw it first": {
			out,
			with(out, func(r *flow.Record) { r.Source.Addr, r.Start = netip.MustParseAddrPort("192.168.0.1:1"), at(2) }),
		},
	}
	for what, tt := range tests {
		for _, order := range [][]flow.Record{{tt.nearer, tt.farther}, {tt.farther, tt.nearer}} {
			t.Run(what, func(t *testing.T) {
				s := storeOf(append(order, views["server in"])...)
				got := query(t, s, storage.FlowQuery{}).Flows
				require.Len(t, got, 1)
				assert.Equal(t, tt.nearer, got[0].Record)
				separate := query(t, s, storage.FlowQuery{SeparateEnds: true}).Flows
				assert.Len(t, separate, 3)
				for _, f := range separate {
					assert.NotNil(t, f.Other)
				}
			})
		}
	}
}

func TestConnectionsOfTheSameAddressesAreRowsOfTheirOwn(t *testing.T) {
	first, second := translated(1)["client out"], translated(7)["client out"]
	syn := with(second, func(r *flow.Record) { r.TCPHealth = flow.TCPHealth{} })
	handshake := with(first, func(r *flow.Record) { r.TCPHealth = flow.TCPHealth{} })
	// The handshake of the first ends an interval after its SYN; the second follows at once.
	s := storeOf(handshake, first, with(second, func(r *flow.Record) { r.End = at(3) }), syn)
	got := query(t, s, storage.FlowQuery{}).Flows
	require.Len(t, got, 2)
	assert.EqualValues(t, 7, got[0].ClientISN)
	assert.EqualValues(t, 1, got[1].ClientISN)
	for _, f := range got {
		assert.EqualValues(t, 2000, f.Bytes, "two records each")
	}
}

func TestSelectionOfJoinedRows(t *testing.T) {
	filter := func(change func(*storage.Filter)) storage.Selection {
		var f storage.Filter
		change(&f)
		return storage.Selection{Allow: []storage.Filter{f}}
	}
	tests := map[string]struct {
		selection        storage.Selection
		joined, separate int
	}{
		"client's pod":      {filter(func(f *storage.Filter) { f.Pods = []string{"web-0"} }), 2, 4},
		"server's pod":      {filter(func(f *storage.Filter) { f.Pods = []string{"shop/cart-0"} }), 2, 4},
		"service's address": {filter(func(f *storage.Filter) { f.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")} }), 2, 4},
		"port of the backend, pod of the client": {filter(func(f *storage.Filter) {
			f.Ports, f.Pods = []uint16{8080}, []string{"web-0"}
		}), 2, 4},
		"ingress":         {filter(func(f *storage.Filter) { f.Directions = []flow.Direction{flow.Ingress} }), 2, 2},
		"outcome":         {filter(func(f *storage.Filter) { f.Outcomes = []flow.Outcome{flow.OutcomeReset} }), 1, 2},
		"another outcome": {filter(func(f *storage.Filter) { f.Outcomes = []flow.Outcome{flow.OutcomeRefused} }), 0, 0},
		"another pod":     {filter(func(f *storage.Filter) { f.Pods = []string{"db-0"} }), 0, 0},
		"denied":          {storage.Selection{Deny: []storage.Filter{{Pods: []string{"cart-0"}}}}, 0, 0},
	}
	views := translated(1)
	// Only the server saw how the one direction ended.
	views["server in"] = with(views["server in"], func(r *flow.Record) { r.Outcome = flow.OutcomeReset })
	s := storeOf(values(views)...)
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			joined := query(t, s, storage.FlowQuery{Selection: tt.selection})
			assert.Len(t, joined.Flows, tt.joined)
			assert.Equal(t, tt.joined, joined.Matched)
			assert.Len(t, query(t, s, storage.FlowQuery{Selection: tt.selection, SeparateEnds: true}).Flows, tt.separate)
		})
	}
}

func TestLimitCountsJoinedRows(t *testing.T) {
	var records []flow.Record
	for isn := range uint32(5) {
		for _, r := range translated(isn + 1) {
			port := 40000 + uint16(isn)
			r.Local().Addr = netip.AddrPortFrom(r.Local().Addr.Addr(), port)
			records = append(records, r)
		}
	}
	result := query(t, storeOf(records...), storage.FlowQuery{Limit: 3})
	assert.Len(t, result.Flows, 3)
	assert.Equal(t, 10, result.Matched)
}

func BenchmarkQuery50kConnectionsAtBothEnds(b *testing.B) {
	const connections = 50_000
	s := New(Settings{Retention: time.Hour, MaxBytes: 256 << 20, Now: func() time.Time { return at(10) }})
	for isn := range uint32(connections) {
		for _, r := range translated(isn + 1) {
			ip := netip.AddrFrom4([4]byte{10, 1, byte(isn >> 8), byte(isn)})
			r.Local().Addr = netip.AddrPortFrom(ip, uint16(isn>>16))
			s.WriteFlows(context.Background(), []flow.Record{r})
		}
	}
	for name, query := range map[string]storage.FlowQuery{
		"joined":           {Limit: 100},
		"separate":         {Limit: 100, SeparateEnds: true},
		"joined, filtered": {Limit: 100, Selection: storage.Selection{Allow: []storage.Filter{{Pods: []string{"web-0"}}}}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				result, err := s.QueryFlows(b.Context(), query)
				if err != nil || len(result.Flows) != 100 || result.Flows[0].Other == nil {
					b.Fatal(len(result.Flows), err)
				}
			}
		})
	}
}

// TestResentIsWhatTheSenderKnows: of what a server sends, the client's view is the one that counts, but only the server's socket
// knows what it sent again.
func TestResentIsWhatTheSenderKnows(t *testing.T) {
	views := translated(1)
	for name, retransmits := range map[string]uint64{"client out": 3, "server out": 50} {
		r := views[name]
		r.Retransmits = retransmits
		views[name] = r
	}
	for name, bucket := range map[string]time.Duration{"whole": 0, "in buckets": time.Minute} {
		t.Run(name, func(t *testing.T) {
			got, err := storeOf(values(views)...).Aggregate(t.Context(), storage.AggregateQuery{
				By: []string{"source.pod", "destination.pod"}, Measures: []string{"retransmits", "packets"}, Bucket: bucket,
			})
			require.NoError(t, err)
			sums := map[string]uint64{}
			for _, g := range got.Groups {
				sums[g.By[0]+" "+g.By[1]] = g.Values[0]
				assert.Equal(t, views["client out"].Packets, g.Values[1], "once")
				for _, b := range g.Buckets {
					assert.Equal(t, g.Values, b.Values, "all in one bucket")
				}
			}
			assert.Equal(t, map[string]uint64{"shop/web-0 shop/cart-0": 3, "shop/cart-0 shop/web-0": 50}, sums)
		})
	}
}
