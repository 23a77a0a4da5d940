package embedded

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// lookup returns curl's question for the address of www.example.com at an instant, and its answer.
func lookup(second int) flow.Lookup {
	return flow.Lookup{
		Time: at(second), Node: "node-a", Direction: flow.Egress, Transport: flow.UDP,
		Client: flow.Endpoint{
			Addr:     netip.MustParseAddrPort("10.0.0.1:40000"),
			Identity: flow.Identity{CgroupID: 7, Cgroup: "/kubepods/pod1/c1", Pod: "web-0", Process: "curl", PID: 100},
		},
		Server: flow.Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::53]:53")},
		Name:   "www.example.com", Type: "A", RCode: "NOERROR", Latency: 3 * time.Millisecond, Queries: 2,
		Answers: []flow.Answer{
			{Name: "www.example.com", Type: "CNAME", TTL: time.Minute, Data: "web.example.com"},
			{Name: "web.example.com", Type: "TXT", TTL: 0, Data: `"two  words" ""`},
		},
		Truncated: true, Incomplete: true, Interface: "veth1",
	}
}

// lookups returns n lookups of different names, of one instant.
func lookups(n, second int) []flow.Lookup {
	all := make([]flow.Lookup, n)
	for i := range all {
		all[i] = lookup(second)
		all[i].Name = fmt.Sprintf("n%d.example.com", i)
	}
	return all
}

func queryLookups(t *testing.T, s *Store, q storage.LookupQuery) storage.LookupResult {
	t.Helper()
	result, err := s.QueryLookups(t.Context(), q)
	require.NoError(t, err)
	return result
}

func TestLookupsComeBackAsTheyWere(t *testing.T) {
	s, c := newTestStore(MinBytes)
	c.set(100)
	bare := flow.Lookup{
		Time: at(11), Direction: flow.Ingress, Transport: flow.TCP, Client: flow.Endpoint{Addr: netip.MustParseAddrPort("192.0.2.1:1")},
		Server: flow.Endpoint{Addr: netip.MustParseAddrPort("192.0.2.2:53")}, Name: ".", Type: "NS", RCode: flow.RCodeTimeout, Latency: 10 * time.Second,
	}
	s.WriteLookups(context.Background(), []flow.Lookup{lookup(10), bare})
	result := queryLookups(t, s, storage.LookupQuery{})
	assert.Equal(t, []flow.Lookup{bare, lookup(10)}, result.Lookups, "newest first")
	assert.Equal(t, 2, result.Matched)
	assert.EqualValues(t, 2, s.Status().Store.Records)
	assert.Empty(t, query(t, s, storage.FlowQuery{}).Flows, "lookups are no flows")
}

func TestLookupQueries(t *testing.T) {
	s, c := newTestStore(MinBytes)
	c.set(100)
	for second := range 50 {
		l := lookup(second)
		l.Name = fmt.Sprintf("n%d.example.com", second)
		s.WriteLookups(context.Background(), []flow.Lookup{l})
	}
	late := lookup(25)
	late.Name = "late.example.com"
	s.WriteLookups(context.Background(), []flow.Lookup{late})

	names := func(q storage.LookupQuery) (names []string, matched int) {
		result := queryLookups(t, s, q)
		for _, l := range result.Lookups {
			names = append(names, l.Name)
		}
		return names, result.Matched
	}
	got, matched := names(storage.LookupQuery{Since: at(24), Until: at(26)})
	assert.Equal(t, []string{"late.example.com", "n25.example.com", "n24.example.com"}, got, "until is not in the range")
	assert.Equal(t, 3, matched)
	got, matched = names(storage.LookupQuery{Limit: 2})
	assert.Equal(t, []string{"n49.example.com", "n48.example.com"}, got)
	assert.Equal(t, 51, matched)
	got, matched = names(storage.LookupQuery{Limit: 2, Selection: storage.LookupSelection{Allow: []storage.LookupFilter{{Names: []string{"*7.example.com"}}}}})
	assert.Equal(t, []string{"n47.example.com", "n37.example.com"}, got)
	assert.Equal(t, 5, matched)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.QueryLookups(ended, storage.LookupQuery{})
	assert.ErrorIs(t, err, context.Canceled)
}

func TestLookupsHaveAShareOfTheMemory(t *testing.T) {
	s, c := newTestStore(MinBytes)
	written := 0
	for i := range 40 {
		c.set(i)
		s.WriteLookups(context.Background(), lookups(lookupChunkRows, i))
		written += lookupChunkRows
		s.WriteFlows(context.Background(), many(100, i))
		require.LessOrEqual(t, s.lookups.bytes, uint64(MinBytes/lookupShare), "after %d chunks", i+1)
		require.LessOrEqual(t, s.Status().Store.Bytes, uint64(MinBytes))
	}
	result := queryLookups(t, s, storage.LookupQuery{})
	require.NotZero(t, result.Lost.EvictedRecords)
	assert.EqualValues(t, written, uint64(result.Matched)+result.Lost.EvictedRecords, "every lookup is there or counted")
	assert.True(t, result.Oldest.After(at(0)))
	assert.Zero(t, query(t, s, storage.FlowQuery{}).Lost.EvictedRecords, "flows make no room for lookups")
	assert.Equal(t, at(0), query(t, s, storage.FlowQuery{}).Oldest)
	assert.EqualValues(t, result.Lost.EvictedRecords, s.Status().Store.EvictedRecords)
}

func TestLookupsExpire(t *testing.T) {
	const hour = 3600
	s, c := newTestStore(MinBytes)
	s.WriteLookups(context.Background(), lookups(lookupChunkRows, 0))
	c.set(hour / 2)
	s.WriteLookups(context.Background(), []flow.Lookup{lookup(hour / 2)})
	c.set(hour + 1)
	assert.Len(t, queryLookups(t, s, storage.LookupQuery{}).Lookups, 1, "what has expired is not shown though it is still there")
	s.WriteStatus(context.Background(), status("node-a", 0, hour, 0))
	assert.EqualValues(t, 1, s.Status().Store.Records)
}

func TestLookupsTellOfGaps(t *testing.T) {
	s, c := newTestStore(MinBytes)
	c.set(10)
	s.WriteStatus(context.Background(), status("node-a", 0, 10, 3))
	c.set(100)
	result := queryLookups(t, s, storage.LookupQuery{})
	assert.EqualValues(t, 6, result.Lost.Events)
	assert.Equal(t, []string{"node-a"}, result.MissingNodes)
	assert.Zero(t, queryLookups(t, s, storage.LookupQuery{Since: at(50)}).Lost)
}

func TestFlowsKeepTheirPeersName(t *testing.T) {
	s, c := newTestStore(MinBytes)
	c.set(10)
	out, in := record(1, 2), record(1, 3)
	out.Destination.Name = "www.example.com"
	in.Direction, in.Source.Name = flow.Ingress, "client.example.com"
	s.WriteFlows(context.Background(), []flow.Record{out, in})
	flows := query(t, s, storage.FlowQuery{SeparateEnds: true}).Flows
	require.Len(t, flows, 2)
	assert.Equal(t, in, flows[0].Record)
	assert.Equal(t, out, flows[1].Record)
}

func BenchmarkWriteLookups(b *testing.B) {
	s, _ := newTestStore(1 << 30)
	batch := lookups(100, 0)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		s.WriteLookups(context.Background(), batch)
		n += len(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/lookup")
	b.ReportMetric(float64(s.lookups.bytes)/float64(s.lookups.records), "bytes/lookup")
}
