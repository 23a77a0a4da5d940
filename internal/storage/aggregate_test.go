package storage

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

func groupsOf(t *testing.T, q AggregateQuery) *Groups {
	t.Helper()
	g, err := NewGroups(&q)
	require.NoError(t, err)
	return g
}

// The client saw the Service, the server its own pod: each end is named by who was there.
func TestFlowDimensionsTakeEachEndFromWhoWasThere(t *testing.T) {
	sent := &flow.Record{
		Node: "a", Direction: flow.Egress, Transport: flow.TCP,
		Source: flow.Endpoint{
			Addr:     netip.MustParseAddrPort("10.0.0.1:40000"),
			Identity: flow.Identity{Namespace: "shop", Pod: "web-0", Container: "web"},
		},
		Destination: flow.Endpoint{
			Addr: netip.MustParseAddrPort("10.96.0.9:5432"), Name: "db.example",
			Identity: flow.Identity{Namespace: "data", Service: "db"},
		},
	}
	received := &flow.Record{
		Node: "b", Direction: flow.Ingress, Transport: flow.TCP, Outcome: flow.OutcomeReset,
		Source: flow.Endpoint{Addr: netip.MustParseAddrPort("192.168.0.1:61000"), Identity: flow.Identity{KubernetesNode: "elsewhere"}},
		Destination: flow.Endpoint{
			Addr:     netip.MustParseAddrPort("10.1.0.9:5432"),
			Identity: flow.Identity{Namespace: "data", Pod: "db-0", Container: "postgres"},
		},
	}
	want := map[string]string{
		"source.pod": "shop/web-0", "source.container": "web", "source.node": "a", "source.address": "10.0.0.1", "source.port": "40000",
		"destination.pod": "data/db-0", "destination.service": "data/db", "destination.container": "postgres", "destination.node": "b",
		"destination.address": "10.96.0.9", "destination.port": "5432", "destination.name": "db.example", "destination.namespace": "data",
		"node": "a", "direction": "egress", "transport": "tcp", "outcome": "reset",
	}
	for name, value := range want {
		assert.Equal(t, value, FlowDimension(name)(FlowRow{Own: sent, Far: received}), name)
	}
	alone := FlowRow{Own: received}
	assert.Equal(t, "elsewhere", FlowDimension("source.node")(alone))
	assert.Empty(t, FlowDimension("source.pod")(alone))
	assert.Equal(t, "b", FlowDimension("destination.node")(alone))
}

func TestGroupsAreTheLargestFirst(t *testing.T) {
	g := groupsOf(t, AggregateQuery{
		By: []string{"transport", "destination.port"}, Measures: []string{"bytes", "packets"}, Top: 2, Bucket: time.Minute,
	})
	add := func(seconds int64, transport flow.Transport, port uint16, bytes, packets uint64) {
		g.AddFlow(FlowRow{Own: &flow.Record{
			Start: time.Unix(seconds, 0), Transport: transport, Destination: flow.Endpoint{Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port)},
			Bytes: bytes, Packets: packets,
		}})
	}
	add(59, flow.TCP, 80, 10, 1)
	add(60, flow.TCP, 80, 5, 1)
	add(-1, flow.UDP, 53, 100, 7)
	add(119, flow.TCP, 443, 15, 1)
	add(0, flow.ICMP, 0, 1, 1)
	got := g.Result(Coverage{Oldest: time.Unix(7, 0)})
	bucket := func(seconds int64, values ...uint64) Bucket {
		return Bucket{Start: time.Unix(seconds, 0).UTC(), Values: values}
	}
	assert.Equal(t, []Group{
		{By: []string{"udp", "53"}, Values: []uint64{100, 7}, Buckets: []Bucket{bucket(-60, 100, 7)}},
		{By: []string{"tcp", "80"}, Values: []uint64{15, 2}, Buckets: []Bucket{bucket(0, 10, 1), bucket(60, 5, 1)}},
	}, got.Groups)
	assert.Equal(t, Group{
		Values: []uint64{131, 11}, Buckets: []Bucket{bucket(-60, 100, 7), bucket(0, 11, 2), bucket(60, 20, 2)},
	}, got.Total, "of those too that are cut")
	assert.Equal(t, 4, got.Matched)
	assert.Equal(t, time.Unix(7, 0), got.Oldest)
}

// A connection that failed is one error, though both its directions say so.
func TestErrorsOfAConnectionCountOnce(t *testing.T) {
	g := groupsOf(t, AggregateQuery{Measures: []string{"errors"}})
	for outcome, initiators := range map[flow.Outcome][]flow.Initiator{
		flow.OutcomeRefused: {flow.InitiatorSource, flow.InitiatorDestination},
		flow.OutcomeClosed:  {flow.InitiatorSource, flow.InitiatorDestination},
		flow.OutcomeReset:   {flow.InitiatorUnknown},
	} {
		for _, initiator := range initiators {
			g.AddFlow(FlowRow{Own: &flow.Record{Outcome: outcome, Initiator: initiator}})
		}
	}
	assert.Equal(t, []uint64{2}, g.Result(Coverage{}).Total.Values)
}

func TestGroupsOfTheOtherSignals(t *testing.T) {
	lookups := groupsOf(t, AggregateQuery{Signal: SignalLookups, By: []string{"name"}, Measures: []string{"errors", "latency", "lookups", "queries"}})
	for _, rcode := range []string{"NOERROR", "NXDOMAIN", "SERVFAIL", flow.RCodeTimeout} {
		lookups.AddLookup(&flow.Lookup{Name: "db.example", RCode: rcode, Latency: 2, Queries: 3})
	}
	assert.Equal(t, []Group{{By: []string{"db.example"}, Values: []uint64{2, 8, 4, 12}}}, lookups.Result(Coverage{}).Groups)

	calls := groupsOf(t, AggregateQuery{
		Signal: SignalSyscalls, By: []string{"pod", "syscall"}, Measures: []string{"calls", "errors", "latency"},
		Syscalls: SyscallSelection{Deny: []SyscallFilter{{Syscalls: []string{"write"}}}},
	})
	calls.AddCounts(&syscalls.Counts{Identity: flow.Identity{Pod: "web-0", Namespace: "shop"}, Calls: []syscalls.Count{
		{Call: syscalls.Call{ABI: syscalls.X86_64, Number: 0}, Calls: 5, Errors: map[string]uint64{"EAGAIN": 2, "EIO": 1}, Latency: &syscalls.Latency{Sum: 9}},
		{Call: syscalls.Call{ABI: syscalls.X86_64, Number: 1}, Calls: 50},
	}})
	assert.Equal(t, []Group{{By: []string{"shop/web-0", "read"}, Values: []uint64{5, 3, 9}}}, calls.Result(Coverage{}).Groups)

	anomalies := groupsOf(t, AggregateQuery{Signal: SignalAnomalies, By: []string{"severity", "rule"}, Measures: []string{"anomalies"}})
	anomalies.AddAnomaly(&syscalls.Anomaly{Rule: "escape", Severity: syscalls.SeverityCritical})
	assert.Equal(t, []Group{{By: []string{syscalls.SeverityCritical.String(), "escape"}, Values: []uint64{1}}}, anomalies.Result(Coverage{}).Groups)
}

func TestUnknownDimensionsAndMeasures(t *testing.T) {
	for name, tt := range map[string]struct {
		query AggregateQuery
		want  string
	}{
		"dimension":      {AggregateQuery{By: []string{"node", "colour"}}, `by[1]: "colour" is no dimension; use some of destination.address, `},
		"of another":     {AggregateQuery{Signal: SignalSyscalls, By: []string{"transport"}}, `by[0]: "transport" is no dimension; use some of cgroup, `},
		"twice":          {AggregateQuery{By: []string{"node", "node"}}, `by[1]: "node" is there twice`},
		"measure":        {AggregateQuery{Measures: []string{"calls"}}, `measures[0]: "calls" is no measure; use some of bytes, packets, `},
		"measures twice": {AggregateQuery{Measures: []string{"bytes", "bytes"}}, `measures[1]: "bytes" is there twice`},
		"no measure":     {AggregateQuery{}, "measures: must not be empty; use some of bytes, "},
	} {
		_, err := NewGroups(&tt.query)
		assert.ErrorContains(t, err, tt.want, name)
	}
}

func TestGroupsAreBounded(t *testing.T) {
	g := groupsOf(t, AggregateQuery{By: []string{"node"}, Measures: []string{"bytes"}, Bucket: time.Second, MaxGroups: 4})
	add := func(node string, second int64) error {
		g.Add([]string{node}, []uint64{1}, time.Unix(second, 0))
		return g.Err()
	}
	require.NoError(t, add("a", 1))
	require.NoError(t, add("a", 1))
	require.NoError(t, add("b", 1))
	require.ErrorIs(t, add("b", 2), ErrTooManyGroups, "two groups, and of these three buckets")
	require.ErrorIs(t, add("a", 1), ErrTooManyGroups)
	assert.Equal(t, []uint64{4}, g.Result(Coverage{}).Total.Values, "what comes after is not added")
}

func TestTheLargestOfManyGroups(t *testing.T) {
	for _, top := range []int{1, 2, 7, 50, 99, 100, 1000} {
		all := groupsOf(t, AggregateQuery{By: []string{"node"}, Measures: []string{"bytes"}})
		some := groupsOf(t, AggregateQuery{By: []string{"node"}, Measures: []string{"bytes"}, Top: top})
		for i := range 100 {
			for _, g := range []*Groups{all, some} {
				g.Add([]string{strconv.Itoa(i * 7 % 100)}, []uint64{uint64(i * 37 % 50)}, time.Time{})
			}
		}
		assert.Equal(t, all.Result(Coverage{}).Groups[:min(top, 100)], some.Result(Coverage{}).Groups)
	}
}
