package storagetest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// aggregation is a query, and the groups and the total that it must give.
type aggregation struct {
	query storage.AggregateQuery
	want  []storage.Group
	total []uint64
	// matched is as many as there are in want where it is 0.
	matched int
}

func (s *suite) aggregate(t *testing.T, tests map[string]aggregation) {
	s.everywhere(t, func(t *testing.T) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				result, err := s.Aggregate(t.Context(), tt.query)
				require.NoError(t, err)
				assert.Equal(t, tt.want, result.Groups)
				assert.Equal(t, tt.total, result.Total.Values)
				assert.Equal(t, max(tt.matched, len(tt.want)), result.Matched)
				assert.Zero(t, result.Lost)
			})
		}
	})
}

// minute returns the beginning of a minute, so many after one that has begun before the test.
func (s *suite) minute(n int) time.Time {
	return s.now.Truncate(time.Minute).Add(time.Duration(n-3) * time.Minute)
}

// in moves a record to a minute. It begins in its last second, and ends in the next.
func (s *suite) in(r flow.Record, minute int) flow.Record {
	r.Start = s.minute(minute).Add(59 * time.Second)
	r.End = r.Start.Add(2 * time.Second)
	return r
}

func testAggregateFlows(t *testing.T, s *suite) {
	server := flow.Identity{CgroupID: 8, Pod: "db-0", Namespace: "data"}
	sent := s.record(0, 1)
	received := with(sent, func(r *flow.Record) {
		r.Node, r.Direction, r.Bytes = "node-b", flow.Ingress, 900
		r.Source = flow.Endpoint{Addr: netip.MustParseAddrPort("192.168.0.1:61000")}
		r.Destination = flow.Endpoint{Addr: netip.MustParseAddrPort("10.1.0.9:5432"), Identity: server}
	})
	outside := with(sent, func(r *flow.Record) {
		r.Destination, r.HasISNs, r.ClientISN, r.ServerISN = flow.Endpoint{Addr: netip.MustParseAddrPort("198.51.100.7:443")}, false, 0, 0
		r.Source.Addr = netip.MustParseAddrPort("10.0.0.1:40001")
	})
	refused := with(outside, func(r *flow.Record) {
		r.Ended, r.Outcome, r.Bytes, r.Connections = true, flow.OutcomeRefused, 5, 0
	})
	for _, r := range []flow.Record{s.in(sent, 0), s.in(received, 0), s.in(sent, 1), s.in(received, 1), s.in(outside, 0), s.in(refused, 2)} {
		require.NoError(t, s.WriteFlows(t.Context(), []flow.Record{r}))
	}
	bucket := func(minute int, values ...uint64) storage.Bucket {
		return storage.Bucket{Start: s.minute(minute), Values: values}
	}
	s.aggregate(t, map[string]aggregation{
		"both ends count once, as the client saw it": {
			storage.AggregateQuery{By: []string{"source.pod", "destination.pod"}, Measures: []string{"bytes", "packets", "errors"}},
			[]storage.Group{
				{By: []string{"shop/web-0", "data/db-0"}, Values: []uint64{2000, 20, 0}},
				{By: []string{"shop/web-0", ""}, Values: []uint64{1005, 20, 1}},
			},
			[]uint64{3005, 40, 1}, 0,
		},
		"in buckets": {
			storage.AggregateQuery{
				By: []string{"destination.namespace"}, Measures: []string{"bytes", "connections", "retransmits", "zero_windows", "errors"},
				Bucket: time.Minute,
			},
			[]storage.Group{
				{
					By: []string{"data"}, Values: []uint64{2000, 2, 2, 4, 0},
					Buckets: []storage.Bucket{bucket(0, 1000, 1, 1, 2, 0), bucket(1, 1000, 1, 1, 2, 0)},
				},
				{
					By: []string{""}, Values: []uint64{1005, 1, 2, 4, 1},
					Buckets: []storage.Bucket{bucket(0, 1000, 1, 1, 2, 0), bucket(2, 5, 0, 1, 2, 1)},
				},
			},
			[]uint64{3005, 3, 4, 8, 1}, 0,
		},
		"the largest": {
			storage.AggregateQuery{By: []string{"destination.port"}, Measures: []string{"bytes"}, Top: 1},
			[]storage.Group{{By: []string{"5432"}, Values: []uint64{2000}}}, []uint64{3005}, 2,
		},
		"of a selection, which the other end may match": {
			storage.AggregateQuery{
				Flows: allow(storage.Filter{Pods: []string{"data/db-0"}}), By: []string{"node", "destination.address"}, Measures: []string{"bytes"},
			},
			[]storage.Group{{By: []string{"node-a", "10.0.0.2"}, Values: []uint64{2000}}}, []uint64{2000}, 0,
		},
		"of a range": {
			storage.AggregateQuery{Since: s.minute(2), Until: s.minute(2).Add(30 * time.Second), Measures: []string{"bytes"}},
			[]storage.Group{{By: []string{}, Values: []uint64{1000}}}, []uint64{1000}, 0,
		},
		"nothing": {
			storage.AggregateQuery{Flows: allow(storage.Filter{Pods: []string{"nobody"}}), Measures: []string{"bytes"}},
			[]storage.Group{}, []uint64{0}, 0,
		},
	})
	_, err := s.Aggregate(t.Context(), storage.AggregateQuery{By: []string{"colour"}, Measures: []string{"bytes"}})
	assert.ErrorContains(t, err, `by[0]: "colour" is no dimension`)
}

func testAggregateLookups(t *testing.T, s *suite) {
	for i, name := range []string{"a.example", "b.example", "a.example"} {
		require.NoError(t, s.WriteLookups(t.Context(), []flow.Lookup{{
			Time: s.minute(i), Node: "node-a", Name: name, Type: "A", RCode: "SERVFAIL", Latency: time.Millisecond, Queries: 2,
			Direction: flow.Egress, Transport: flow.UDP,
			Client: flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:53000"), Identity: web},
			Server: flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.53:53")},
		}}))
	}
	s.aggregate(t, map[string]aggregation{
		"by name": {
			storage.AggregateQuery{
				Signal: storage.SignalLookups, By: []string{"name"}, Measures: []string{"lookups", "queries", "errors", "latency"}, Bucket: 2 * time.Minute,
			},
			func() []storage.Group {
				at := func(minute int, values ...uint64) storage.Bucket {
					return storage.Bucket{Start: s.minute(minute).Truncate(2 * time.Minute), Values: values}
				}
				a := storage.Group{By: []string{"a.example"}, Values: []uint64{2, 4, 2, 2_000_000}}
				a.Buckets = []storage.Bucket{at(0, 1, 2, 1, 1_000_000), at(2, 1, 2, 1, 1_000_000)}
				b := storage.Group{By: []string{"b.example"}, Values: []uint64{1, 2, 1, 1_000_000}}
				b.Buckets = []storage.Bucket{at(1, 1, 2, 1, 1_000_000)}
				return []storage.Group{a, b}
			}(),
			[]uint64{3, 6, 3, 3_000_000}, 0,
		},
		"of a selection and a range": {
			storage.AggregateQuery{
				Signal: storage.SignalLookups, Since: s.minute(1), By: []string{"client.pod"}, Measures: []string{"lookups"},
				Lookups: storage.LookupSelection{Allow: []storage.LookupFilter{{Names: []string{"a.*"}}}},
			},
			[]storage.Group{{By: []string{"shop/web-0"}, Values: []uint64{1}}}, []uint64{1}, 0,
		},
	})
}

func testAggregateSyscalls(t *testing.T, s *suite) {
	for i, who := range []flow.Identity{web, web, unit} {
		require.NoError(t, s.WriteSyscalls(t.Context(), []syscalls.Counts{{
			Start: s.minute(i), End: s.minute(i).Add(10 * time.Second), Node: "node-a", Identity: who, Calls: []syscalls.Count{
				{Call: syscalls.Call{ABI: syscalls.X86_64, Number: 0}, Calls: 100},
				{
					Call: syscalls.Call{ABI: syscalls.X86_64, Number: 257}, Calls: 5, Errors: map[string]uint64{"ENOENT": 2, "EACCES": 1},
					Latency: &syscalls.Latency{Sum: time.Second, Buckets: [syscalls.LatencyBuckets]uint64{27: 5}},
				},
			},
		}}))
	}
	bucket := func(minute int, values ...uint64) storage.Bucket {
		return storage.Bucket{Start: s.minute(minute), Values: values}
	}
	s.aggregate(t, map[string]aggregation{
		"by pod": {
			storage.AggregateQuery{
				Signal: storage.SignalSyscalls, By: []string{"pod"}, Measures: []string{"calls", "errors", "latency"}, Bucket: time.Minute,
			},
			[]storage.Group{
				{By: []string{"shop/web-0"}, Values: []uint64{210, 6, 2e9}, Buckets: []storage.Bucket{bucket(0, 105, 3, 1e9), bucket(1, 105, 3, 1e9)}},
				{By: []string{""}, Values: []uint64{105, 3, 1e9}, Buckets: []storage.Bucket{bucket(2, 105, 3, 1e9)}},
			},
			[]uint64{315, 9, 3e9}, 0,
		},
		"of a selection and a range": {
			storage.AggregateQuery{
				Signal: storage.SignalSyscalls, Since: s.minute(1), Until: s.minute(2), By: []string{"syscall"}, Measures: []string{"calls"},
				Syscalls: storage.SyscallSelection{Allow: []storage.SyscallFilter{{Syscalls: []string{"openat"}}}},
			},
			[]storage.Group{{By: []string{"openat"}, Values: []uint64{5}}}, []uint64{5}, 0,
		},
	})
}

func testAggregateAnomalies(t *testing.T, s *suite) {
	for i, severity := range []syscalls.Severity{syscalls.SeverityInfo, syscalls.SeverityCritical, syscalls.SeverityCritical} {
		require.NoError(t, s.WriteAnomalies(t.Context(), []syscalls.Anomaly{{
			Time: s.minute(i), Node: "node-a", Identity: web, Workload: "shop/web", Rule: "new-call", Severity: severity,
			Call: syscalls.Call{ABI: syscalls.X86_64, Number: 59}, Message: "web calls execve, which it never did",
		}}))
	}
	s.aggregate(t, map[string]aggregation{
		"by severity": {
			storage.AggregateQuery{Signal: storage.SignalAnomalies, By: []string{"severity", "syscall"}, Measures: []string{"anomalies"}},
			[]storage.Group{
				{By: []string{syscalls.SeverityCritical.String(), "execve"}, Values: []uint64{2}},
				{By: []string{syscalls.SeverityInfo.String(), "execve"}, Values: []uint64{1}},
			},
			[]uint64{3}, 0,
		},
		"of a selection and a range": {
			storage.AggregateQuery{
				Signal: storage.SignalAnomalies, Until: s.minute(2), By: []string{"workload"}, Measures: []string{"anomalies"},
				Anomalies: storage.AnomalySelection{Allow: []storage.AnomalyFilter{{MinSeverity: syscalls.SeverityCritical}}},
			},
			[]storage.Group{{By: []string{"shop/web"}, Values: []uint64{1}}}, []uint64{1}, 0,
		},
	})
}

// testTooManyGroups asks for one group more than there may be, and for one bucket more.
func testTooManyGroups(t *testing.T, s *suite) {
	for i, port := range []uint16{1, 2, 3} {
		require.NoError(t, s.WriteFlows(t.Context(), []flow.Record{with(s.record(float64(i), float64(i)), func(r *flow.Record) {
			r.Source.Addr = netip.AddrPortFrom(r.Source.Addr.Addr(), port)
			r.ClientISN = uint32(port)
		})}))
	}
	s.everywhere(t, func(t *testing.T) {
		query := storage.AggregateQuery{By: []string{"source.port"}, Measures: []string{"bytes"}, MaxGroups: 3}
		_, err := s.Aggregate(t.Context(), query)
		require.NoError(t, err)
		query.MaxGroups, query.Top = 2, 1
		_, err = s.Aggregate(t.Context(), query)
		assert.ErrorIs(t, err, storage.ErrTooManyGroups, "however few are returned")
		_, err = s.Aggregate(t.Context(), storage.AggregateQuery{Measures: []string{"bytes"}, Bucket: time.Second, MaxGroups: 3})
		assert.ErrorIs(t, err, storage.ErrTooManyGroups, "a group and three buckets")
	})
}
