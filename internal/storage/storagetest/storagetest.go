// Package storagetest is the contract of a storage.Store: every backend passes it.
package storagetest

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// Backend is a store that the suite has for itself.
type Backend struct {
	Store storage.Store
	// Reopen ends the store and opens it again, with what it holds; nil where that ends with it.
	Reopen func(t *testing.T) storage.Store
	// Slow tells that it takes a second until what was written is visible.
	Slow bool
}

// Run runs the suite. open returns an empty store whose clock is the machine's and whose retention is an hour or more.
func Run(t *testing.T, open func(t *testing.T) Backend) {
	for name, test := range map[string]func(*testing.T, *suite){
		"flows come back as they were":        testRoundTrip,
		"records of a flow are summed":        testSums,
		"both ends of a connection are a row": testJoin,
		"flows are selected":                  testSelection,
		"a range has what touches it":         testRange,
		"lookups":                             testLookups,
		"system calls are summed":             testSyscalls,
		"anomalies":                           testAnomalies,
		"samples of GPUs":                     testGPU,
		"flows are summed by group":           testAggregateFlows,
		"lookups are summed by group":         testAggregateLookups,
		"system calls are summed by group":    testAggregateSyscalls,
		"anomalies are summed by group":       testAggregateAnomalies,
		"too many groups are none":            testTooManyGroups,
		"pages":                               testPages,
		"status, losses and missing nodes":    testStatus,
		"subscribers":                         testSubscribers,
		"an ended context ends a query":       testContext,
		"a batch that comes again":            testResent,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			// Whole milliseconds: no backend keeps less than that.
			test(t, &suite{backend: b, Store: b.Store, now: time.Now().UTC().Truncate(time.Millisecond)})
		})
	}
}

// suite is one test's store.
type suite struct {
	storage.Store
	backend Backend
	now     time.Time
}

// everywhere runs a check on the store as it is, and once more when it was opened again.
func (s *suite) everywhere(t *testing.T, check func(t *testing.T)) {
	t.Run("written", check)
	if s.backend.Reopen != nil && !t.Failed() {
		s.Store = s.backend.Reopen(t)
		t.Run("reopened", check)
	}
}

// at returns an instant so many seconds from a minute ago on.
func (s *suite) at(seconds float64) time.Time {
	return s.now.Add(-time.Minute + time.Duration(seconds*float64(time.Second)))
}

func (s *suite) flows(t *testing.T, q storage.FlowQuery) storage.FlowResult {
	t.Helper()
	result, err := s.QueryFlows(t.Context(), q)
	require.NoError(t, err)
	return result
}

var (
	web = flow.Identity{
		CgroupID: 7, Cgroup: "/kubepods/burstable/pod1/c1", ContainerID: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		Runtime: "containerd", PodUID: "8f9f4fc8-0000-0000-0000-000000000001", QOSClass: "burstable", Pod: "web-0", Namespace: "shop",
		Container: "web", Process: "nginx", PID: 100, Workload: "web", WorkloadKind: "Deployment", Labels: "app=web,tier=front",
	}
	unit = flow.Identity{CgroupID: 9, Cgroup: "/system.slice/sshd.service", Unit: "sshd.service", Process: "sshd", PID: 9}
)

// record is what the web pod sent to a database from start to end.
func (s *suite) record(start, end float64) flow.Record {
	return flow.Record{
		Start: s.at(start), End: s.at(end), Node: "node-a", Direction: flow.Egress, Transport: flow.TCP,
		Source:      flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:40000"), Identity: web},
		Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.2:5432"), Name: "db.example"},
		Bytes:       1000, Packets: 10, Connections: 1, TCPFlags: 0x12, Initiator: flow.InitiatorSource,
		TCPHealth: flow.TCPHealth{
			HasISNs: true, ClientISN: 1, ServerISN: 1 << 31, SRTT: 3 * time.Millisecond, MinRTT: time.Millisecond,
			Handshake: 2 * time.Millisecond, Retransmits: 1, ZeroWindows: 2,
		},
	}
}

func with(r flow.Record, change func(*flow.Record)) flow.Record {
	change(&r)
	return r
}

func testRoundTrip(t *testing.T, s *suite) {
	ended := with(s.record(3, 4), func(r *flow.Record) {
		r.Source.Addr, r.Ended, r.Outcome, r.Interfaces = netip.MustParseAddrPort("10.0.0.1:40001"), true, flow.OutcomeReset, []string{"eth0", "br-0"}
		r.LostPackets, r.ClientISN = 1<<40, 2
	})
	ping := flow.Record{
		Start: s.at(1), End: s.at(2), Node: "node-b", Direction: flow.Ingress, Transport: flow.ICMPv6, ICMPType: 128, ICMPCode: 3,
		Source:      flow.Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::1]:0"), Name: "router.example"},
		Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::2]:0"), Identity: unit}, Bytes: 1 << 62, Packets: 2,
	}
	transit := flow.Record{
		Start: s.at(0), End: s.at(1), Node: "node-a", Direction: flow.Transit, Transport: flow.Transport(89), Bytes: 60, Packets: 1,
		Source: flow.Endpoint{Addr: netip.MustParseAddrPort("10.9.0.1:0")}, Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("224.0.0.5:0")},
	}
	want := []storage.Flow{{Record: s.record(5, 6)}, {Record: ended}, {Record: ping}, {Record: transit}}
	for _, f := range want {
		require.NoError(t, s.WriteFlows(t.Context(), []flow.Record{f.Record}))
	}
	s.everywhere(t, func(t *testing.T) {
		result := s.flows(t, storage.FlowQuery{})
		assert.Equal(t, want, result.Flows, "newest first")
		assert.Equal(t, len(want), result.Matched)
		assert.Zero(t, result.Lost)
		cut := s.flows(t, storage.FlowQuery{Limit: 2})
		assert.Equal(t, want[:2], cut.Flows)
		assert.Equal(t, len(want), cut.Matched)
	})
}

func testSums(t *testing.T, s *suite) {
	later := with(s.record(2, 3), func(r *flow.Record) {
		r.TCPFlags, r.SRTT, r.MinRTT, r.Handshake, r.Connections = 0x01, 0, 500*time.Microsecond, 0, 0
		r.Source.Identity.Process, r.Ended = "renamed", true
	})
	require.NoError(t, s.WriteFlows(t.Context(), []flow.Record{s.record(0, 1)}))
	require.NoError(t, s.WriteFlows(t.Context(), []flow.Record{later}))
	want := with(later, func(r *flow.Record) {
		r.Start, r.Bytes, r.Packets, r.Connections, r.TCPFlags, r.Retransmits, r.ZeroWindows = s.at(0), 2000, 20, 1, 0x13, 2, 4
		r.SRTT, r.Handshake = 3*time.Millisecond, 2*time.Millisecond
	})
	s.everywhere(t, func(t *testing.T) {
		assert.Equal(t, []storage.Flow{{Record: want}}, s.flows(t, storage.FlowQuery{}).Flows)
	})
}

// joined writes what both ends saw of a connection through a Service: two records on two nodes.
func (s *suite) joined(t *testing.T) (sent, received flow.Record) {
	t.Helper()
	sent = s.record(0, 1)
	received = with(s.record(0, 1), func(r *flow.Record) {
		r.Node, r.Direction = "node-b", flow.Ingress
		r.Source = flow.Endpoint{Addr: netip.MustParseAddrPort("192.168.0.1:61000")}
		r.Destination = flow.Endpoint{Addr: netip.MustParseAddrPort("10.1.0.9:5432"), Identity: flow.Identity{CgroupID: 8, Pod: "db-0", Namespace: "data"}}
	})
	require.NoError(t, s.WriteFlows(t.Context(), []flow.Record{sent}))
	require.NoError(t, s.WriteFlows(t.Context(), []flow.Record{received}))
	return sent, received
}

func testJoin(t *testing.T, s *suite) {
	sent, received := s.joined(t)
	s.everywhere(t, func(t *testing.T) {
		assert.Equal(t, []storage.Flow{{Record: sent, Other: &received}}, s.flows(t, storage.FlowQuery{}).Flows, "the client's view")
		assert.Equal(t, []storage.Flow{{Record: sent, Other: &received}, {Record: received, Other: &sent}},
			s.flows(t, storage.FlowQuery{SeparateEnds: true}).Flows)
	})
}

func testSelection(t *testing.T, s *suite) {
	s.joined(t)
	udp := with(s.record(4, 5), func(r *flow.Record) {
		r.Transport, r.TCPHealth, r.Initiator, r.Source.Identity = flow.UDP, flow.TCPHealth{}, flow.InitiatorUnknown, unit
		r.Destination.Addr = netip.MustParseAddrPort("198.51.100.7:53")
	})
	require.NoError(t, s.WriteFlows(t.Context(), []flow.Record{udp}))
	tests := map[string]struct {
		selection storage.Selection
		// want are the transports of the rows.
		want []flow.Transport
	}{
		"pod":                {allow(storage.Filter{Pods: []string{"web-0"}}), []flow.Transport{flow.TCP}},
		"pod of the far end": {allow(storage.Filter{Pods: []string{"data/db-0"}}), []flow.Transport{flow.TCP}},
		"pod of another":     {allow(storage.Filter{Pods: []string{"shop/db-0"}}), nil},
		"nobody":             {allow(storage.Filter{Pods: []string{"nobody"}}), nil},
		"namespaces":         {allow(storage.Filter{Namespaces: []string{"none", "shop"}}), []flow.Transport{flow.TCP}},
		"container id":       {allow(storage.Filter{Containers: []string{"01234567"}}), []flow.Transport{flow.TCP}},
		"prefix":             {allow(storage.Filter{Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}), []flow.Transport{flow.UDP}},
		"port":               {allow(storage.Filter{Ports: []uint16{53}}), []flow.Transport{flow.UDP}},
		"transport":          {allow(storage.Filter{Transports: []flow.Transport{flow.UDP}}), []flow.Transport{flow.UDP}},
		"any of two":         {allow(storage.Filter{Ports: []uint16{53}}, storage.Filter{Pods: []string{"web-0"}}), []flow.Transport{flow.UDP, flow.TCP}},
		"all of one":         {allow(storage.Filter{Ports: []uint16{53}, Pods: []string{"web-0"}}), nil},
		"from and to":        {allow(storage.Filter{Source: storage.EndFilter{Pods: []string{"web-0"}}, Destination: storage.EndFilter{Namespaces: []string{"data"}}}), []flow.Transport{flow.TCP}},
		"to and from":        {allow(storage.Filter{Source: storage.EndFilter{Namespaces: []string{"data"}}, Destination: storage.EndFilter{Pods: []string{"web-0"}}}), nil},
		"DNS name":           {allow(storage.Filter{Destination: storage.EndFilter{Names: []string{"db.*"}}, Ports: []uint16{5432}}), []flow.Transport{flow.TCP}},
		"node of either end": {allow(storage.Filter{Nodes: []string{"node-b"}}), []flow.Transport{flow.TCP}},
		"labels":             {allow(storage.Filter{Source: storage.EndFilter{Labels: []storage.LabelSelector{labels(t, "app=web,tier!=cache")}}}), []flow.Transport{flow.TCP}},
		"cgroup":             {allow(storage.Filter{Cgroups: []string{"/kubepods/burstable"}}), []flow.Transport{flow.TCP}},
		"workload":           {allow(storage.Filter{Workloads: []string{"shop/web"}}), []flow.Transport{flow.TCP}},
		"denied":             {storage.Selection{Deny: []storage.Filter{{Ports: []uint16{53}}}}, []flow.Transport{flow.TCP}},
	}
	s.everywhere(t, func(t *testing.T) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				result := s.flows(t, storage.FlowQuery{Selection: tt.selection})
				var got []flow.Transport
				for _, f := range result.Flows {
					got = append(got, f.Transport)
				}
				assert.Equal(t, tt.want, got)
				assert.Equal(t, len(tt.want), result.Matched)
			})
		}
	})
}

func labels(t require.TestingT, s string) storage.LabelSelector {
	selector, err := storage.ParseLabelSelector(s)
	require.NoError(t, err)
	return selector
}

func allow(filters ...storage.Filter) storage.Selection { return storage.Selection{Allow: filters} }

func testRange(t *testing.T, s *suite) {
	for i := range 10 {
		require.NoError(t, s.WriteFlows(t.Context(), []flow.Record{s.record(float64(10*i), float64(10*i+5))}))
	}
	s.everywhere(t, func(t *testing.T) {
		for _, tt := range []struct {
			since, until float64
			records      uint64
		}{
			{0, 1, 1}, {5, 10, 1}, {5, 10.001, 2}, {5.001, 10, 0}, {6, 9, 0}, {0, 1000, 10}, {12, 33, 3},
		} {
			var records uint64
			for _, f := range s.flows(t, storage.FlowQuery{Since: s.at(tt.since), Until: s.at(tt.until)}).Flows {
				records += f.Packets / 10
			}
			assert.Equal(t, tt.records, records, "from %v to %v", tt.since, tt.until)
		}
	})
}

func testLookups(t *testing.T, s *suite) {
	lookup := func(second float64, name string) flow.Lookup {
		return flow.Lookup{
			Time: s.at(second), Node: "node-a", Direction: flow.Egress, Transport: flow.UDP, Interface: "eth0", Name: name, Type: "A", RCode: "NOERROR",
			Client:  flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:53000"), Identity: web},
			Server:  flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.53:53")},
			Latency: 5 * time.Millisecond, Queries: 2, Truncated: true, Incomplete: true,
			Answers: []flow.Answer{{Name: name, TTL: time.Minute, Type: "A", Data: "192.0.2.1"}, {Name: name, TTL: time.Second, Type: "TXT", Data: `"a b"`}},
		}
	}
	all := []flow.Lookup{lookup(3, "c.example"), lookup(2, "b.example"), lookup(1, "a.example")}
	for _, l := range slices.Backward(all) {
		require.NoError(t, s.WriteLookups(t.Context(), []flow.Lookup{l}))
	}
	s.everywhere(t, func(t *testing.T) {
		for _, tt := range []struct {
			query storage.LookupQuery
			want  []flow.Lookup
			of    int
		}{
			{storage.LookupQuery{}, all, 3},
			{storage.LookupQuery{Limit: 1}, all[:1], 3},
			{storage.LookupQuery{Since: s.at(2), Until: s.at(3)}, all[1:2], 1},
			{storage.LookupQuery{Selection: storage.LookupSelection{Allow: []storage.LookupFilter{{Names: []string{"a.*"}}}}}, all[2:], 1},
			{storage.LookupQuery{Selection: storage.LookupSelection{Deny: []storage.LookupFilter{{Names: []string{"a.*"}}}}}, all[:2], 2},
		} {
			result, err := s.QueryLookups(t.Context(), tt.query)
			require.NoError(t, err)
			assert.Equal(t, tt.want, result.Lookups)
			assert.Equal(t, tt.of, result.Matched)
		}
	})
}

func testSyscalls(t *testing.T, s *suite) {
	read, openat := syscalls.Call{ABI: syscalls.X86_64, Number: 0}, syscalls.Call{ABI: syscalls.ARM64, Number: 56}
	for i := range 3 {
		require.NoError(t, s.WriteSyscalls(t.Context(), []syscalls.Counts{{
			Start: s.at(float64(10 * i)), End: s.at(float64(10*i + 10)), Node: "node-a", Identity: web, LostCalls: 1,
			Calls: []syscalls.Count{
				{Call: read, Calls: 1 << 40},
				{Call: openat, Calls: 5, Errors: map[string]uint64{"ENOENT": 2, "EACCES": 1},
					Latency: &syscalls.Latency{Sum: time.Second, Buckets: [syscalls.LatencyBuckets]uint64{0: 1, 27: 4}}},
			},
		}}))
	}
	want := []storage.Syscall{
		{Start: s.at(0), End: s.at(30), Node: "node-a", Identity: web, Lost: 3, Count: syscalls.Count{Call: read, Calls: 3 << 40}},
		{Start: s.at(0), End: s.at(30), Node: "node-a", Identity: web, Lost: 3, Count: syscalls.Count{
			Call: openat, Calls: 15, Errors: map[string]uint64{"ENOENT": 6, "EACCES": 3},
			Latency: &syscalls.Latency{Sum: 3 * time.Second, Buckets: [syscalls.LatencyBuckets]uint64{0: 3, 27: 12}},
		}},
	}
	s.everywhere(t, func(t *testing.T) {
		result, err := s.QuerySyscalls(t.Context(), storage.SyscallQuery{})
		require.NoError(t, err)
		assert.Equal(t, want, result.Syscalls, "most calls first")
		one, err := s.QuerySyscalls(t.Context(), storage.SyscallQuery{
			Since: s.at(10), Until: s.at(20), Selection: storage.SyscallSelection{Allow: []storage.SyscallFilter{{Syscalls: []string{"openat"}}}},
		})
		require.NoError(t, err)
		require.Len(t, one.Syscalls, 1)
		assert.EqualValues(t, 5, one.Syscalls[0].Calls)
	})
}

func testAnomalies(t *testing.T, s *suite) {
	call := syscalls.Call{ABI: syscalls.X86_64, Number: 59}
	who := web
	seen := syscalls.Anomaly{
		Time: s.at(2), Node: "node-a", Identity: who, Workload: "shop/web", Rule: "new-call", Severity: syscalls.SeverityCritical, Call: call,
		Message: "web calls execve, which it never did",
		Evidence: &syscalls.Event{
			Time: s.at(1), Node: "node-a", Call: call, TID: 101, Sampling: 1, Identity: flow.Identity{Process: "nginx", PID: 100},
			Arguments: []syscalls.Argument{{Name: "pathname", Value: "/bin/sh"}, {Name: "argv", Value: ""}},
		},
	}
	rate := syscalls.Anomaly{
		Time: s.at(1), Node: "node-a", Identity: who, Workload: "shop/web", Rule: "rate", Severity: syscalls.SeverityInfo, Call: call,
		Message: "often", Calls: 100, Rate: 20.5, Baseline: .125,
	}
	require.NoError(t, s.WriteAnomalies(t.Context(), []syscalls.Anomaly{rate}))
	require.NoError(t, s.WriteAnomalies(t.Context(), []syscalls.Anomaly{seen}))
	s.everywhere(t, func(t *testing.T) {
		for _, tt := range []struct {
			query storage.AnomalyQuery
			want  []syscalls.Anomaly
		}{
			{storage.AnomalyQuery{}, []syscalls.Anomaly{seen, rate}},
			{storage.AnomalyQuery{Until: s.at(2)}, []syscalls.Anomaly{rate}},
			{storage.AnomalyQuery{Selection: storage.AnomalySelection{Allow: []storage.AnomalyFilter{{MinSeverity: syscalls.SeverityWarning}}}}, []syscalls.Anomaly{seen}},
		} {
			result, err := s.QueryAnomalies(t.Context(), tt.query)
			require.NoError(t, err)
			assert.Equal(t, tt.want, result.Anomalies)
		}
	})
}

func testStatus(t *testing.T, s *suite) {
	first := flow.NetworkStatus{
		Node: "node-a", Version: "v1", Kernel: "6.18", Started: s.at(0), Time: s.at(10), Interval: time.Hour, AttachMode: "cgroup",
		LostPackets: 2, LostBytes: 200, LostEvents: 1, Drops: map[string]uint64{"no_socket": 3}, Unavailable: map[string]string{"drops": "why"},
	}
	second := first
	second.Time, second.LostPackets, second.LostBytes = s.at(20), 5, 500
	calls := syscalls.Status{Node: "node-b", Version: "v1", Started: s.at(0), Time: s.at(10), Interval: time.Nanosecond, LostCalls: 7, Latency: true}
	require.NoError(t, s.WriteStatus(t.Context(), first))
	require.NoError(t, s.WriteStatus(t.Context(), second))
	require.NoError(t, s.WriteStatus(t.Context(), first), "a late one is ignored")
	require.NoError(t, s.WriteSyscallStatus(t.Context(), calls))
	gpus := gpu.Status{
		Node: "node-c", Version: "v2", Kernel: "6.1", Started: s.at(0), Time: s.at(10), Interval: time.Hour, Models: map[string]uint32{"Tesla T4": 2},
		Sources:   []gpu.SourceStatus{{Name: "nvml", State: gpu.SourceUp, ScrapeTime: time.Millisecond}, {Name: "dcgm", State: gpu.SourceOff, Reason: "why"}},
		Conflicts: []gpu.Conflict{{Device: "GPU-0", Kind: "owner", About: "container", First: "a", Other: "b", Since: s.at(5)}}, Scrapes: 3,
	}
	require.NoError(t, s.WriteGPUStatus(t.Context(), gpus))
	s.everywhere(t, func(t *testing.T) {
		status, err := s.Status(t.Context())
		require.NoError(t, err)
		require.Len(t, status.Nodes, 3)
		assert.Equal(t, &second, status.Nodes[0].Network)
		assert.False(t, status.Nodes[0].Missing)
		assert.Equal(t, &calls, status.Nodes[1].Syscalls)
		assert.True(t, status.Nodes[1].Missing)
		assert.Equal(t, &gpus, status.Nodes[2].GPU)
		assert.Equal(t, []string{"v2", "6.1"}, []string{status.Nodes[2].Version, status.Nodes[2].Kernel})
		assert.False(t, status.Nodes[2].Missing)
		assert.Equal(t, storage.Loss{Packets: 5, Bytes: 500, Events: 1}, s.flows(t, storage.FlowQuery{}).Lost)
		assert.Equal(t, storage.Loss{Packets: 3, Bytes: 300}, s.flows(t, storage.FlowQuery{Since: s.at(15)}).Lost)
		result, err := s.QuerySyscalls(t.Context(), storage.SyscallQuery{})
		require.NoError(t, err)
		assert.Equal(t, storage.Loss{Calls: 7}, result.Lost)
		assert.Equal(t, []string{"node-b"}, result.MissingNodes)
	})
}

func testSubscribers(t *testing.T, s *suite) {
	subscription := s.Subscribe(storage.EventSelection{})
	defer subscription.Close()
	r := s.record(0, 1)
	require.NoError(t, s.WriteFlows(t.Context(), []flow.Record{r}))
	require.NoError(t, s.WriteEvents(t.Context(), []flow.Event{{Kind: flow.EventSYN, Record: r}}))
	for _, kind := range []flow.EventKind{flow.EventFlow, flow.EventSYN} {
		event, dropped, err := subscription.Next(t.Context())
		require.NoError(t, err)
		assert.Equal(t, storage.Event{Flow: &flow.Event{Kind: kind, Record: r}}, event)
		assert.Zero(t, dropped)
	}
	assert.Len(t, s.flows(t, storage.FlowQuery{}).Flows, 1, "events are not stored")
}

func testContext(t *testing.T, s *suite) {
	require.NoError(t, s.WriteFlows(t.Context(), []flow.Record{s.record(0, 1)}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.QueryFlows(ctx, storage.FlowQuery{})
	assert.ErrorIs(t, err, context.Canceled)
}

// testResent is for stores that outlive their process: their senders cannot know what was stored.
func testResent(t *testing.T, s *suite) {
	if s.backend.Reopen == nil {
		t.Skip("the store ends with its process")
	}
	batch := []flow.Record{s.record(0, 1), with(s.record(0, 1), func(r *flow.Record) { r.Node = "node-b" })}
	require.NoError(t, s.WriteFlows(t.Context(), batch))
	s.everywhere(t, func(t *testing.T) {
		require.NoError(t, s.WriteFlows(t.Context(), batch))
		var packets uint64
		for _, f := range s.flows(t, storage.FlowQuery{SeparateEnds: true}).Flows {
			packets += f.Packets
		}
		assert.EqualValues(t, 20, packets)
	})
}
