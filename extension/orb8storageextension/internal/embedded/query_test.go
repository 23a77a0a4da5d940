package embedded

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

func TestRecordSurvivesTheRoundTrip(t *testing.T) {
	full := flow.Identity{
		CgroupID: 1 << 40, Cgroup: "/a", ContainerID: "c0ffee", Runtime: "containerd", PodUID: "uid", QOSClass: "burstable",
		Pod: "web-0", Namespace: "shop", Container: "nginx", Unit: "nginx.service", Process: "nginx", PID: 4194304,
	}
	tests := map[string]flow.Record{
		"TCP over IPv4": with(record(1, 2), func(r *flow.Record) {
			r.Source.Identity, r.Interfaces, r.TCPFlags, r.Ended = full, []string{"veth0", "br0"}, 0xff, true
			r.Bytes, r.Packets, r.Connections, r.LostPackets = 1<<63, 1<<62, 1<<61, 1<<60
		}),
		"ICMPv6": {
			Start: at(1), End: at(1), Node: "node-b", Direction: flow.Ingress, Transport: flow.ICMPv6,
			Source:      flow.Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::1]:0")},
			Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::2]:0"), Identity: full},
			ICMPType:    128, ICMPCode: 1, Bytes: 64, Packets: 1,
		},
		"nobody known": {
			Start: at(1), End: at(1), Direction: flow.Egress, Transport: 200,
			Source:      flow.Endpoint{Addr: netip.MustParseAddrPort("0.0.0.0:0")},
			Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("255.255.255.255:65535")},
		},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			s, clock := newTestStore(MinBytes)
			clock.set(10)
			s.WriteFlows(context.Background(), []flow.Record{want})
			assert.Equal(t, []flow.Record{want}, rows(query(t, s, storage.FlowQuery{})))
		})
	}
}

func TestAggregation(t *testing.T) {
	s, clock := newTestStore(MinBytes)
	clock.set(100)
	s.WriteFlows(context.Background(), []flow.Record{
		with(record(10, 19), func(r *flow.Record) { r.TCPFlags, r.Connections, r.LostPackets = 0x02, 1, 3 }),
		// The newest record, which arrives before an older one: identities and the end are its.
		with(record(31, 38), func(r *flow.Record) {
			r.TCPFlags, r.Ended, r.Source.Identity.Pod = 0x11, true, "web-0"
		}),
		with(record(20, 29), func(r *flow.Record) { r.TCPFlags, r.LostPackets, r.Connections = 0x18, 4, 2 }),
	})
	want := with(record(10, 38), func(r *flow.Record) {
		r.Bytes, r.Packets, r.Connections, r.LostPackets = 3000, 30, 3, 7
		r.TCPFlags, r.Ended, r.Source.Identity.Pod = 0x1b, true, "web-0"
	})
	result := query(t, s, storage.FlowQuery{})
	assert.Equal(t, []flow.Record{want}, rows(result))
	assert.Equal(t, 1, result.Matched)
}

func TestAggregationAcrossChunks(t *testing.T) {
	s, clock := newTestStore(64 << 20)
	clock.set(100)
	for range 3 {
		// Another order in each chunk, so that no dictionary of a chunk is like another's.
		records := append(many(chunkRows-1, 50), with(record(50, 50), func(r *flow.Record) { r.Node = "node-b" }))
		slices.Reverse(records)
		s.WriteFlows(context.Background(), records)
		s.WriteFlows(context.Background(), []flow.Record{record(50, 51)})
	}
	result := query(t, s, storage.FlowQuery{})
	require.Equal(t, chunkRows+1, result.Matched)
	for _, f := range result.Flows {
		require.EqualValues(t, 3000, f.Bytes, "%s of %s", f.Source.Addr, f.Node)
	}
	assert.Equal(t, "node-a", result.Flows[0].Node, "the flow with the newest end comes first")
}

func TestWhatTellsFlowsApart(t *testing.T) {
	base := record(1, 2)
	tests := []struct {
		name   string
		change func(*flow.Record)
		rows   int
	}{
		{"nothing", func(*flow.Record) {}, 1},
		{"node", func(r *flow.Record) { r.Node = "node-b" }, 2},
		{"direction", func(r *flow.Record) { r.Direction = flow.Ingress }, 2},
		{"transport", func(r *flow.Record) { r.Transport = flow.UDP }, 2},
		{"source address", func(r *flow.Record) { r.Source.Addr = netip.MustParseAddrPort("10.0.0.9:40000") }, 2},
		{"source port", func(r *flow.Record) { r.Source.Addr = netip.MustParseAddrPort("10.0.0.1:40001") }, 2},
		{"destination address", func(r *flow.Record) { r.Destination.Addr = netip.MustParseAddrPort("10.0.0.9:443") }, 2},
		{"destination port", func(r *flow.Record) { r.Destination.Addr = netip.MustParseAddrPort("10.0.0.2:80") }, 2},
		{"interfaces", func(r *flow.Record) { r.Interfaces = []string{"eth0"} }, 1},
		{"ICMP type", func(r *flow.Record) { r.ICMPType = 8 }, 2},
		{"ICMP code", func(r *flow.Record) { r.ICMPCode = 1 }, 2},
		{"local cgroup", func(r *flow.Record) { r.Source.Identity.CgroupID = 8 }, 2},
		{"local process in the same cgroup", func(r *flow.Record) { r.Source.Identity.PID = 101 }, 1},
		{"identity of the peer", func(r *flow.Record) { r.Destination.Identity = flow.Identity{CgroupID: 9, Pod: "db-0"} }, 1},
		{"counts", func(r *flow.Record) { r.Bytes, r.TCPFlags, r.Ended, r.LostPackets = 7, 2, true, 1 }, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, clock := newTestStore(MinBytes)
			clock.set(10)
			s.WriteFlows(context.Background(), []flow.Record{base, with(base, tt.change)})
			assert.Len(t, query(t, s, storage.FlowQuery{SeparateEnds: true}).Flows, tt.rows)
		})
	}

	t.Run("local identity, without a cgroup", func(t *testing.T) {
		s, clock := newTestStore(MinBytes)
		clock.set(10)
		ingress := func(pod, peer string) flow.Record {
			return with(base, func(r *flow.Record) {
				r.Direction = flow.Ingress
				r.Source.Identity, r.Destination.Identity = flow.Identity{Pod: peer}, flow.Identity{Pod: pod}
			})
		}
		s.WriteFlows(context.Background(), []flow.Record{ingress("web-0", "x"), ingress("web-1", "x"), ingress("web-0", "y")})
		assert.Len(t, query(t, s, storage.FlowQuery{}).Flows, 2)
	})
}

func TestRange(t *testing.T) {
	tests := []struct {
		name         string
		since, until int
		match        bool
	}{
		{"around", 0, 100, true},
		{"inside", 14, 15, true},
		{"ends at the first packet", 0, 10, false},
		{"ends just behind the first packet", 0, 11, true},
		{"starts at the last packet", 20, 100, true},
		{"starts behind the last packet", 21, 100, false},
	}
	s, clock := newTestStore(MinBytes)
	clock.set(100)
	s.WriteFlows(context.Background(), []flow.Record{record(10, 20)})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := 0
			if tt.match {
				want = 1
			}
			assert.Len(t, query(t, s, storage.FlowQuery{Since: at(tt.since), Until: at(tt.until)}).Flows, want)
		})
	}
	yearOne, yearEnd := time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	assert.Len(t, query(t, s, storage.FlowQuery{Since: yearOne, Until: yearEnd}).Flows, 1, "as wide as a timestamp allows")
	assert.Empty(t, query(t, s, storage.FlowQuery{Since: yearEnd}).Flows, "far in the future")
	assert.Empty(t, query(t, s, storage.FlowQuery{Until: yearOne}).Flows, "far in the past")
	assert.Len(t, query(t, s, storage.FlowQuery{Since: at(15)}).Flows, 1, "no end")
	assert.Len(t, query(t, s, storage.FlowQuery{Until: at(15)}).Flows, 1, "no start")
}

// A chunk is skipped by its bounds: they must cover records that arrive out of order.
func TestRangeOfLateRecord(t *testing.T) {
	s, clock := newTestStore(MinBytes)
	clock.set(100)
	s.WriteFlows(context.Background(), []flow.Record{record(90, 91)})
	s.WriteFlows(context.Background(), []flow.Record{with(record(10, 11), func(r *flow.Record) { r.Transport = flow.UDP })})
	s.WriteFlows(context.Background(), []flow.Record{with(record(50, 51), func(r *flow.Record) { r.Transport = flow.SCTP })})
	result := query(t, s, storage.FlowQuery{Since: at(5), Until: at(12)})
	require.Len(t, result.Flows, 1)
	assert.Equal(t, flow.UDP, result.Flows[0].Transport)
}

// A route may change while a flow lives, and the last record of a flow names no interface.
func TestInterfacesOfAllRecordsAreListed(t *testing.T) {
	s, clock := newTestStore(MinBytes)
	clock.set(10)
	for i, path := range [][]string{{"veth0", "br0", "eth0"}, {"veth0", "br0", "eth1"}, {"veth0", "br0", "eth0"}, nil} {
		s.WriteFlows(context.Background(), []flow.Record{with(record(i, i+1), func(r *flow.Record) { r.Interfaces = path })})
	}
	flows := query(t, s, storage.FlowQuery{}).Flows
	require.Len(t, flows, 1)
	assert.Equal(t, []string{"veth0", "br0", "eth0", "eth1"}, flows[0].Interfaces)
}

// What a node only routes is in the row of those at the ends, if they were seen, and else a row of its own.
func TestTransitIsNoEnd(t *testing.T) {
	seenAt := func(node string, d flow.Direction) flow.Record {
		return with(record(1, 2), func(r *flow.Record) {
			r.Node, r.Direction, r.Initiator = node, d, flow.InitiatorSource
			r.ClientISN, r.ServerISN, r.HasISNs = 1, 2, true
		})
	}
	router := seenAt("router", flow.Transit)
	for name, ends := range map[string][]flow.Record{
		"nobody":        nil,
		"both ends":     {seenAt("node-a", flow.Egress), seenAt("node-b", flow.Ingress)},
		"the sender":    {seenAt("node-a", flow.Egress)},
		"the recipient": {seenAt("node-b", flow.Ingress)},
	} {
		t.Run(name, func(t *testing.T) {
			s, clock := newTestStore(MinBytes)
			clock.set(10)
			s.WriteFlows(context.Background(), append([]flow.Record{router}, ends...))
			want := "router"
			if len(ends) > 0 {
				want = ends[0].Node
			}
			joined := query(t, s, storage.FlowQuery{}).Flows
			require.Len(t, joined, 1)
			assert.Equal(t, want, joined[0].Node)
			assert.Equal(t, len(ends) == 2, joined[0].Other != nil)
			assert.Len(t, query(t, s, storage.FlowQuery{SeparateEnds: true}).Flows, 1+len(ends))
		})
	}
}

func TestOrderAndLimit(t *testing.T) {
	named := func(name, node, source, destination string, start, end int) flow.Record {
		return with(record(start, end), func(r *flow.Record) {
			r.Node = node
			r.Source.Identity = flow.Identity{CgroupID: uint64(len(name)), Pod: name}
			r.Source.Addr, r.Destination.Addr = netip.MustParseAddrPort(source), netip.MustParseAddrPort(destination)
		})
	}
	ordered := []flow.Record{
		named("newest end", "z", "10.0.0.9:9", "10.0.0.9:9", 1, 30),
		named("newest start", "z", "10.0.0.9:9", "10.0.0.9:9", 5, 20),
		named("first node", "a", "10.0.0.9:9", "10.0.0.9:9", 4, 20),
		named("first source", "b", "10.0.0.1:9", "10.0.0.9:9", 4, 20),
		named("first source port", "b", "10.0.0.2:8", "10.0.0.9:9", 4, 20),
		named("first destination", "b", "10.0.0.2:9", "10.0.0.3:9", 4, 20),
		named("first destination port", "b", "10.0.0.2:9", "10.0.0.4:8", 4, 20),
		named("last", "b", "10.0.0.2:9", "10.0.0.4:9", 4, 20),
	}
	names := func(records []flow.Record) []string {
		var s []string
		for _, r := range records {
			s = append(s, r.Source.Identity.Pod)
		}
		return s
	}
	for _, shuffled := range [][]int{{7, 6, 5, 4, 3, 2, 1, 0}, {3, 0, 6, 1, 7, 4, 2, 5}} {
		s, clock := newTestStore(MinBytes)
		clock.set(100)
		for _, i := range shuffled {
			s.WriteFlows(context.Background(), []flow.Record{ordered[i]})
		}
		for _, limit := range []int{0, 1, 3, 8, 9} {
			want := ordered
			if limit > 0 {
				want = ordered[:min(limit, len(ordered))]
			}
			result := query(t, s, storage.FlowQuery{Limit: limit})
			assert.Equal(t, names(want), names(rows(result)), "limit %d", limit)
			assert.Equal(t, len(ordered), result.Matched, "limit %d", limit)
		}
	}
}

func TestQuerySelects(t *testing.T) {
	s, clock := newTestStore(MinBytes)
	clock.set(100)
	web := flow.Identity{CgroupID: 1, Pod: "web-0", Namespace: "shop"}
	v4 := with(record(1, 2), func(r *flow.Record) { r.Source.Identity = web })
	v6 := with(record(1, 2), func(r *flow.Record) {
		r.Source.Addr, r.Destination.Addr = netip.MustParseAddrPort("[2001:db8::1]:40000"), netip.MustParseAddrPort("[2001:db8::2]:443")
	})
	s.WriteFlows(context.Background(), []flow.Record{v4, v6})

	prefix := func(p string) storage.Filter {
		return storage.Filter{Prefixes: []netip.Prefix{netip.MustParsePrefix(p)}}
	}
	tests := []struct {
		name      string
		selection storage.Selection
		want      []flow.Record
	}{
		{"pod", storage.Selection{Allow: []storage.Filter{{Pods: []string{"shop/web-0"}}}}, []flow.Record{v4}},
		{"IPv4 prefix", storage.Selection{Allow: []storage.Filter{prefix("10.0.0.0/8")}}, []flow.Record{v4}},
		{"IPv6 prefix", storage.Selection{Allow: []storage.Filter{prefix("2001:db8::2/128")}}, []flow.Record{v6}},
		{"deny", storage.Selection{Deny: []storage.Filter{prefix("2001:db8::/32")}}, []flow.Record{v4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			result := query(t, s, storage.FlowQuery{Selection: tt.selection})
			assert.Equal(t, tt.want, rows(result))
			assert.Equal(t, len(tt.want), result.Matched)
		})
	}
}

func TestQueryEndsWithItsContext(t *testing.T) {
	s, clock := newTestStore(MinBytes)
	clock.set(10)
	s.WriteFlows(context.Background(), []flow.Record{record(1, 2)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	result, err := s.QueryFlows(ctx, storage.FlowQuery{})
	require.ErrorIs(t, err, context.Canceled)
	assert.Empty(t, result.Flows)
}

func TestQueriesTakeTurns(t *testing.T) {
	s, _ := newTestStore(MinBytes)
	for range maxQueries {
		s.turns <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan error)
	go func() {
		_, err := s.QueryFlows(ctx, storage.FlowQuery{})
		answered <- err
	}()
	cancel()
	require.ErrorIs(t, <-answered, context.Canceled, "a query that waits ends with its context")

	go func() {
		_, err := s.QueryFlows(t.Context(), storage.FlowQuery{})
		answered <- err
	}()
	<-s.turns
	require.NoError(t, <-answered, "a query that ends makes room for one that waits")
}
