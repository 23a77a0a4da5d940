package orb8queryextension

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

func TestParseQuery(t *testing.T) {
	since, until := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), time.Date(2026, 1, 2, 3, 4, 5, 7, time.UTC)
	got, err := parseQuery(&orb8v1.QueryFlowsRequest{
		Since: timestamppb.New(since),
		Until: timestamppb.New(until),
		Allow: []*orb8v1.FlowFilter{{
			Pods:       []string{"web-0", "shop/web-1"},
			Namespaces: []string{"shop"},
			Containers: []string{"db", "c0ffee"},
			Ips:        []string{"10.0.0.1", "10.9.8.7/8", "2001:db8::1", "2001:db8::1/32", "::ffff:10.0.0.2", "::ffff:10.1.2.3/112", "fe80::1%eth0"},
			Ports:      []uint32{0, 443, 65535},
			Protocols:  []string{"tcp", "UDP", "47"},
			Directions: []orb8v1.Direction{orb8v1.Direction_DIRECTION_INGRESS, orb8v1.Direction_DIRECTION_EGRESS},
			Workloads:  []string{"shop/cart"},
			Services:   []string{"api"},
			Names:      []string{"*.Example.com.", "***"},
			Labels:     []string{"app=web"},
			Nodes:      []string{"node-a"},
			Cgroups:    []string{"/system.slice/"},
			Source: &orb8v1.EndpointFilter{
				Pods: []string{"a/b"}, Namespaces: []string{"c"}, Containers: []string{"d"}, Ips: []string{"10.0.0.9"}, Ports: []uint32{1},
			},
			Destination: &orb8v1.EndpointFilter{
				Workloads: []string{"e"}, Services: []string{"f/g"}, Names: []string{"h"}, Labels: []string{"i,!j"}, Cgroups: []string{"/k"},
			},
		}},
		Deny:  []*orb8v1.FlowFilter{{Protocols: []string{"icmp"}}, {}},
		Limit: 7,
	}, limits{rows: 10})
	require.NoError(t, err)
	prefix := netip.MustParsePrefix
	assert.Equal(t, storage.FlowQuery{
		Since: since,
		Until: until,
		Selection: storage.Selection{
			Allow: []storage.Filter{{
				Pods:       []string{"web-0", "shop/web-1"},
				Namespaces: []string{"shop"},
				Containers: []string{"db", "c0ffee"},
				Prefixes: []netip.Prefix{
					prefix("10.0.0.1/32"), prefix("10.0.0.0/8"), prefix("2001:db8::1/128"), prefix("2001:db8::/32"),
					prefix("10.0.0.2/32"), prefix("10.1.0.0/16"), prefix("fe80::1/128"),
				},
				Ports:      []uint16{0, 443, 65535},
				Transports: []flow.Transport{flow.TCP, flow.UDP, 47},
				Directions: []flow.Direction{flow.Ingress, flow.Egress},
				Workloads:  []string{"shop/cart"},
				Services:   []string{"api"},
				Names:      []string{"*.example.com", "*"},
				Labels:     []storage.LabelSelector{labels(t, "app=web")},
				Nodes:      []string{"node-a"},
				Cgroups:    []string{"/system.slice"},
				Source: storage.EndFilter{
					Pods: []string{"a/b"}, Namespaces: []string{"c"}, Containers: []string{"d"},
					Prefixes: []netip.Prefix{prefix("10.0.0.9/32")}, Ports: []uint16{1},
				},
				Destination: storage.EndFilter{
					Workloads: []string{"e"}, Services: []string{"f/g"}, Names: []string{"h"},
					Labels: []storage.LabelSelector{labels(t, "i,!j")}, Cgroups: []string{"/k"},
				},
			}},
			Deny: []storage.Filter{{Transports: []flow.Transport{flow.ICMP, flow.ICMPv6}}, {}},
		},
		Limit: 7,
	}, got)
}

func labels(t *testing.T, s string) storage.LabelSelector {
	t.Helper()
	selector, err := storage.ParseLabelSelector(s)
	require.NoError(t, err)
	return selector
}

func TestLimit(t *testing.T) {
	for asked, want := range map[uint32]int{0: 10, 1: 1, 10: 10, 11: 10, 1<<32 - 1: 10} {
		got, err := parseQuery(&orb8v1.QueryFlowsRequest{Limit: asked}, limits{rows: 10})
		require.NoError(t, err)
		assert.Equal(t, want, got.Limit, "asked for %d", asked)
	}
}

func TestEmptyQuery(t *testing.T) {
	got, err := parseQuery(&orb8v1.QueryFlowsRequest{}, limits{rows: 10})
	require.NoError(t, err)
	assert.Equal(t, storage.FlowQuery{Limit: 10}, got)
}

func TestInvalidQuery(t *testing.T) {
	second := func(s int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: s} }
	allow := func(f *orb8v1.FlowFilter) *orb8v1.QueryFlowsRequest {
		return &orb8v1.QueryFlowsRequest{Allow: []*orb8v1.FlowFilter{{}, f}}
	}
	tests := []struct {
		name string
		req  *orb8v1.QueryFlowsRequest
		want string
	}{
		{"until before since", &orb8v1.QueryFlowsRequest{Since: second(2), Until: second(1)}, "since: 1970-01-01T00:00:02Z is not before until, 1970-01-01T00:00:01Z"},
		{"empty range", &orb8v1.QueryFlowsRequest{Since: second(1), Until: second(1)}, "since: 1970-01-01T00:00:01Z is not before until, 1970-01-01T00:00:01Z"},
		{"timestamp out of range", &orb8v1.QueryFlowsRequest{Since: second(1 << 40)}, "since: "},
		{"nanoseconds out of range", &orb8v1.QueryFlowsRequest{Until: &timestamppb.Timestamp{Nanos: -1}}, "until: "},
		{"address", allow(&orb8v1.FlowFilter{Ips: []string{"10.0.0.1", "10.0.0.256"}}), `allow[1]: ips[1]: "10.0.0.256" is neither an IP address nor a prefix; use for example 10.0.0.1 or 2001:db8::/32`},
		{"prefix", allow(&orb8v1.FlowFilter{Ips: []string{"10.0.0.0/33"}}), `allow[1]: ips[0]: "10.0.0.0/33" is neither`},
		{"protocol", allow(&orb8v1.FlowFilter{Protocols: []string{"quic"}}), `allow[1]: protocols[0]: protocol "quic": use tcp, udp, icmp`},
		{"protocol number", allow(&orb8v1.FlowFilter{Protocols: []string{"256"}}), `allow[1]: protocols[0]: protocol "256": use`},
		{"port", allow(&orb8v1.FlowFilter{Ports: []uint32{80, 65536}}), "allow[1]: ports[1]: 65536 is not a port; use 0 to 65535"},
		{"pod", allow(&orb8v1.FlowFilter{Pods: []string{""}}), "allow[1]: pods[0]: must not be empty"},
		{"pod of nothing", allow(&orb8v1.FlowFilter{Pods: []string{"shop/"}}), `allow[1]: pods[0]: "shop/" is not a pod; use NAME or NAMESPACE/NAME`},
		{"pod of too much", allow(&orb8v1.FlowFilter{Pods: []string{"a/b/c"}}), `allow[1]: pods[0]: "a/b/c" is not a pod`},
		{"namespace", allow(&orb8v1.FlowFilter{Namespaces: []string{""}}), "allow[1]: namespaces[0]: must not be empty"},
		{"container", allow(&orb8v1.FlowFilter{Containers: []string{"x", ""}}), "allow[1]: containers[1]: must not be empty"},
		{"no direction", allow(&orb8v1.FlowFilter{Directions: []orb8v1.Direction{0}}), `allow[1]: directions[0]: direction "UNSPECIFIED": use ingress, egress or transit`},
		{"direction of the future", allow(&orb8v1.FlowFilter{Directions: []orb8v1.Direction{9}}), `allow[1]: directions[0]: direction "9": use ingress, egress or transit`},
		{"workload", allow(&orb8v1.FlowFilter{Workloads: []string{"/"}}), `allow[1]: workloads[0]: "/" is not a workload; use NAME or NAMESPACE/NAME`},
		{"service", allow(&orb8v1.FlowFilter{Services: []string{"a/"}}), `allow[1]: services[0]: "a/" is not a Service`},
		{"name", allow(&orb8v1.FlowFilter{Names: []string{""}}), "allow[1]: names[0]: must not be empty"},
		{"long name", allow(&orb8v1.FlowFilter{Names: []string{strings.Repeat("*a", 300)}}), "allow[1]: names[0]: a pattern of 600 letters is longer than any name"},
		{"cgroups", allow(&orb8v1.FlowFilter{Cgroups: []string{"nginx"}}), `allow[1]: cgroups[0]: "nginx" is not the path of a cgroup; `},
		{"labels", allow(&orb8v1.FlowFilter{Labels: []string{"a b"}}), `allow[1]: labels[0]: "a b" is no label selector: `},
		{"node", allow(&orb8v1.FlowFilter{Nodes: []string{""}}), "allow[1]: nodes[0]: must not be empty"},
		{"source", allow(&orb8v1.FlowFilter{Source: &orb8v1.EndpointFilter{Ports: []uint32{1 << 16}}}), "allow[1]: source: ports[0]: 65536 is not a port"},
		{"destination", allow(&orb8v1.FlowFilter{Destination: &orb8v1.EndpointFilter{Ips: []string{"x"}}}), `allow[1]: destination: ips[0]: "x" is neither`},
		{"too many values of an end", allow(&orb8v1.FlowFilter{Source: &orb8v1.EndpointFilter{Pods: make([]string, maxFilterValues)}}), "allow and deny: 1026 filters"},
		{"too many labels", allow(&orb8v1.FlowFilter{Labels: []string{"a in (" + strings.Repeat("b,", maxFilterValues) + "c)"}}), "allow and deny: 1027 filters"},
		{"deny", &orb8v1.QueryFlowsRequest{Deny: []*orb8v1.FlowFilter{{Ports: []uint32{1 << 31}}}}, "deny[0]: ports[0]: 2147483648 is not a port"},
		{"too many values", allow(&orb8v1.FlowFilter{Ports: make([]uint32, maxFilterValues)}), "allow and deny: 1026 filters and values are too many; use at most 1024"},
		{"too many filters", &orb8v1.QueryFlowsRequest{Deny: make([]*orb8v1.FlowFilter, maxFilterValues+1)}, "allow and deny: 1025 filters and values are too many"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseQuery(tt.req, limits{rows: 10})
			require.ErrorContains(t, err, tt.want)
			assert.True(t, strings.HasPrefix(err.Error(), tt.want), err)
		})
	}
}

func TestParseEventSelection(t *testing.T) {
	got, err := parseEventSelection(&orb8v1.StreamEventsRequest{
		Allow: []*orb8v1.FlowFilter{{Ports: []uint32{53}}},
		Kinds: []orb8v1.EventKind{
			orb8v1.EventKind_EVENT_KIND_END, orb8v1.EventKind_EVENT_KIND_ANOMALY, orb8v1.EventKind_EVENT_KIND_SYN,
			orb8v1.EventKind_EVENT_KIND_SYSCALL, orb8v1.EventKind_EVENT_KIND_END,
		},
		Syscalls:  []*orb8v1.SyscallFilter{{Syscalls: []string{"mount"}}},
		Anomalies: []*orb8v1.AnomalyFilter{{Rules: []string{"a"}}},

		DenyDns:       []*orb8v1.DnsFilter{{Types: []string{"PTR"}}},
		DenySyscalls:  []*orb8v1.SyscallFilter{{Workloads: []string{"w"}, Labels: []string{"l"}}},
		DenyAnomalies: []*orb8v1.AnomalyFilter{{Rules: []string{"b"}}},
	})
	require.NoError(t, err)
	assert.Equal(t, storage.EventSelection{
		Flows:   storage.Selection{Allow: []storage.Filter{{Ports: []uint16{53}}}},
		Kinds:   []storage.EventKind{storage.EventKind(flow.EventSYN), storage.EventKind(flow.EventEnd), storage.EventSyscall, storage.EventAnomaly},
		Lookups: storage.LookupSelection{Deny: []storage.LookupFilter{{Types: []string{"PTR"}}}},
		Syscalls: storage.SyscallSelection{
			Allow: []storage.SyscallFilter{{Syscalls: []string{"mount"}}},
			Deny:  []storage.SyscallFilter{{Workloads: []string{"w"}, Labels: []storage.LabelSelector{labels(t, "l")}}},
		},
		Anomalies: storage.AnomalySelection{Allow: []storage.AnomalyFilter{{Rules: []string{"a"}}}, Deny: []storage.AnomalyFilter{{Rules: []string{"b"}}}},
	}, got)

	_, err = parseEventSelection(&orb8v1.StreamEventsRequest{Kinds: []orb8v1.EventKind{0}})
	assert.EqualError(t, err, `kinds[0]: event kind "UNSPECIFIED": use new, syn, fin, rst, flow, end, dns or packet`)
	_, err = parseEventSelection(&orb8v1.StreamEventsRequest{Deny: []*orb8v1.FlowFilter{{Pods: []string{""}}}})
	assert.EqualError(t, err, "deny[0]: pods[0]: must not be empty")
	_, err = parseEventSelection(&orb8v1.StreamEventsRequest{Syscalls: []*orb8v1.SyscallFilter{{Pods: []string{""}}}})
	assert.EqualError(t, err, "syscalls[0]: pods[0]: must not be empty")
	_, err = parseEventSelection(&orb8v1.StreamEventsRequest{Anomalies: []*orb8v1.AnomalyFilter{{Rules: []string{""}}}})
	assert.EqualError(t, err, "anomalies[0]: rules[0]: must not be empty")
}

func FuzzParseQuery(f *testing.F) {
	f.Add("web-0", "shop", "c0ffee", "10.0.0.0/8", "tcp", uint32(443), int32(1), int64(0), int64(1), uint32(0))
	f.Add("shop/web-0", "", "db", "2001:db8::1", "icmp", uint32(65536), int32(0), int64(5), int64(4), uint32(1))
	f.Add("a/b/c", "x", "", "::ffff:10.0.0.0/95", "255", uint32(0), int32(-1), int64(-1<<62), int64(1<<62), ^uint32(0))
	f.Add("/", "x", "", "fe80::1%eth0/64", "ICMP", uint32(0), int32(2), int64(-62135596800), int64(253402300799), uint32(7))
	record := flow.Record{
		Direction: flow.Egress,
		Transport: flow.TCP,
		Source:    flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:40000"), Identity: flow.Identity{Pod: "web-0", Namespace: "shop"}},
		Destination: flow.Endpoint{
			Addr: netip.MustParseAddrPort("[2001:db8::1]:443"), Identity: flow.Identity{Container: "db", ContainerID: "c0ffee"},
		},
	}
	f.Fuzz(func(t *testing.T, pod, namespace, container, ip, protocol string, port uint32, direction int32, since, until int64, limit uint32) {
		const maxRows = 100
		query, err := parseQuery(&orb8v1.QueryFlowsRequest{
			Since: &timestamppb.Timestamp{Seconds: since},
			Until: &timestamppb.Timestamp{Seconds: until},
			Allow: []*orb8v1.FlowFilter{
				{Pods: []string{pod}, Namespaces: []string{namespace}, Containers: []string{container}},
				{Ips: []string{ip}, Protocols: []string{protocol}},
			},
			Deny:  []*orb8v1.FlowFilter{{Ports: []uint32{port}, Directions: []orb8v1.Direction{orb8v1.Direction(direction)}}},
			Limit: limit,
		}, limits{rows: maxRows})
		if err != nil {
			field, _, found := strings.Cut(err.Error(), ":")
			require.True(t, found, "an error names its field: %v", err)
			require.Regexp(t, `^(since|until|(allow|deny)\[\d\])$`, field)
			require.Zero(t, query)
			return
		}
		require.LessOrEqual(t, query.Limit, maxRows)
		require.Positive(t, query.Limit)
		require.True(t, query.Since.IsZero() || query.Until.IsZero() || query.Since.Before(query.Until))
		prefix := query.Selection.Allow[1].Prefixes[0]
		require.True(t, prefix.IsValid())
		require.True(t, prefix.Contains(prefix.Addr()), "%s must match itself as the store knows it", prefix)
		query.Selection.Match(&record)
	})
}
