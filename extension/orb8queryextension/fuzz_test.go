package orb8queryextension

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// FuzzRequests hands to the parsers whatever a request may be made of. What they refuse they name; what they take can be asked, and is
// within its limits.
func FuzzRequests(f *testing.F) {
	for _, seed := range []proto.Message{
		&orb8v1.QueryFlowsRequest{
			Allow: []*orb8v1.FlowFilter{
				{Source: &orb8v1.EndpointFilter{Pods: []string{"shop/web-0"}, Labels: []string{"app=web,!x", "n>3"}}, Services: []string{"a/b"}},
				{Destination: &orb8v1.EndpointFilter{Names: []string{"*.a**.b."}, Ips: []string{"::ffff:10.0.0.0/100"}}, Nodes: []string{"n"}},
			},
			Deny: []*orb8v1.FlowFilter{{Workloads: []string{"web"}, Ports: []uint32{53}, Protocols: []string{"icmp"}}, nil}, PageToken: "x.y",
		},
		&orb8v1.QueryDnsRequest{Deny: []*orb8v1.DnsFilter{{Flow: &orb8v1.FlowFilter{Outcomes: []string{"reset"}}, Types: []string{"A"}}}},
		&orb8v1.QuerySyscallsRequest{Allow: []*orb8v1.SyscallFilter{{Syscalls: []string{"openat", "4242"}, Cgroups: []string{"/a/../b/"}}}},
		&orb8v1.AggregateRequest{By: []string{"source.pod", "destination.port"}, Measures: []string{"bytes"}, Top: 3},
	} {
		data, err := proto.Marshal(seed)
		require.NoError(f, err)
		f.Add(data)
	}
	record := flow.Record{
		Direction: flow.Egress, Transport: flow.TCP, Node: "n",
		Source: flow.Endpoint{
			Addr:     netip.MustParseAddrPort("10.0.0.1:40000"),
			Identity: flow.Identity{Pod: "web-0", Namespace: "shop", Workload: "web", Labels: "app=web,tier=front"},
		},
		Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::1]:443"), Name: "www.Example.com", Identity: flow.Identity{Service: "api"}},
	}
	lookup := flow.Lookup{Client: record.Source, Server: record.Destination, Name: "www.example.com", Type: "A", RCode: "NOERROR"}
	anomaly := syscalls.Anomaly{Identity: record.Source.Identity, Rule: "r"}
	max := limits{rows: 100, groups: 100}
	named := func(t *testing.T, err error) bool {
		if err != nil {
			field, _, found := strings.Cut(err.Error(), ":")
			require.True(t, found, "an error names its field: %v", err)
			require.Regexp(t, `^[a-z_]+( and [a-z_]+)?(\[\d+\])?$`, field)
		}
		return err == nil
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		parse(data, func(req *orb8v1.QueryFlowsRequest) {
			if q, err := parseQuery(req, max); named(t, err) {
				require.LessOrEqual(t, q.Limit, max.rows)
				require.True(t, q.Since.IsZero() || q.Until.IsZero() || req.GetPageToken() != "" || q.Since.Before(q.Until))
				one, both := q.Selection.Match(&record), q.Selection.MatchEnds(&record, &record)
				require.Equal(t, one, both, "the same twice is the same")
				none := storage.Selection{Allow: q.Selection.Deny}
				require.False(t, one && len(none.Allow) > 0 && none.Match(&record), "what is denied is not there")
			}
		})
		parse(data, func(req *orb8v1.QueryDnsRequest) {
			if q, err := parseLookupQuery(req, max); named(t, err) {
				q.Selection.Match(&lookup)
			}
		})
		parse(data, func(req *orb8v1.QuerySyscallsRequest) {
			if q, err := parseSyscallQuery(req, max); named(t, err) {
				q.Selection.Match("n", &record.Source.Identity, syscalls.Call{ABI: syscalls.X86_64, Number: 1})
			}
		})
		parse(data, func(req *orb8v1.QueryAnomaliesRequest) {
			if q, err := parseAnomalyQuery(req, max); named(t, err) {
				q.Selection.Match(&anomaly)
			}
		})
		parse(data, func(req *orb8v1.QueryGpuRequest) {
			_, err := parseGPUQuery(req, max)
			named(t, err)
		})
		parse(data, func(req *orb8v1.StreamEventsRequest) {
			if s, err := parseEventSelection(req); named(t, err) {
				s.Match(storage.Event{Flow: &flow.Event{Kind: flow.EventFlow, Record: record}})
			}
		})
		parse(data, func(req *orb8v1.AggregateRequest) {
			if q, err := parseAggregateQuery(req, max); named(t, err) {
				g, err := storage.NewGroups(&q)
				require.NoError(t, err)
				if q.Signal == storage.SignalFlows {
					record.Start = time.Unix(1, 0)
					g.AddFlow(storage.FlowRow{Own: &record})
					require.Equal(t, 1, g.Len())
				}
			}
		})
	})
}

// parse reads data as a request in either form that clients send.
func parse[R any, M interface {
	*R
	proto.Message
}](data []byte, use func(M)) {
	for _, unmarshal := range []func([]byte, proto.Message) error{proto.Unmarshal, protojson.Unmarshal} {
		var req R
		if err := unmarshal(data, M(&req)); err == nil {
			use(&req)
		}
	}
}
