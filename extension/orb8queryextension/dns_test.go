package orb8queryextension

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

func lookup(name string) flow.Lookup {
	r := record(53)
	return flow.Lookup{
		Time: r.End, Node: r.Node, Direction: flow.Egress, Transport: flow.UDP, Client: r.Source, Server: r.Destination, Interface: "veth1",
		Name: name, Type: "A", RCode: "NOERROR", Latency: 1500 * time.Microsecond, Queries: 2, Truncated: true, Incomplete: true,
		Answers: []flow.Answer{{Name: name, Type: "A", TTL: time.Minute, Data: "192.0.2.1"}},
	}
}

func TestQueryDNS(t *testing.T) {
	store, component := newStore(t)
	server := serve(t, component, nil)
	require.NoError(t, store.WriteLookups(t.Context(), []flow.Lookup{lookup("a.example"), lookup("b.example"), lookup("b.test")}))

	resp, err := server.client(t).QueryDns(t.Context(), connect.NewRequest(&orb8v1.QueryDnsRequest{
		Limit: 1, Allow: []*orb8v1.DnsFilter{{Names: []string{"B.*."}}, {Names: []string{"*.test"}, Types: []string{"a"}}},
	}))
	require.NoError(t, err)
	require.Len(t, resp.Msg.GetLookups(), 1)
	assert.Equal(t, "b.test", resp.Msg.GetLookups()[0].GetName(), "the last to arrive")
	assert.EqualValues(t, 2, resp.Msg.GetMatched())
	assert.True(t, resp.Msg.GetTruncated())
	assert.NotNil(t, resp.Msg.GetOldest())

	code, body := post(t, server, orb8v1connect.OrbitServiceQueryDnsProcedure, `{"allow": [{"names": [""]}]}`)
	assert.Equal(t, 400, code)
	assert.Equal(t, "allow[0]: names[0]: must not be empty", body["message"])
}

func TestQueryDNSTimesOut(t *testing.T) {
	s := &service{store: &stub{query: untilDone}, limits: limits{rows: 1}, queryTimeout: time.Millisecond}
	_, err := s.QueryDns(context.Background(), connect.NewRequest(&orb8v1.QueryDnsRequest{}))
	assert.Equal(t, connect.CodeDeadlineExceeded, connect.CodeOf(err))
}

func TestStreamDNS(t *testing.T) {
	store, component := newStore(t)
	s := open(t, serve(t, component, nil).client(t), &orb8v1.StreamEventsRequest{
		Kinds: []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_DNS},
		Dns:   []*orb8v1.DnsFilter{{Rcodes: []string{"noerror"}, Flow: &orb8v1.FlowFilter{Ports: []uint32{53}}}},
	})
	failed, good := lookup("a.example"), lookup("b.example")
	failed.RCode = "SERVFAIL"
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(53)}))
	require.NoError(t, store.WriteLookups(t.Context(), []flow.Lookup{failed, good}))
	got := receive(t, s)
	assert.Equal(t, orb8v1.EventKind_EVENT_KIND_DNS, got.GetKind())
	assert.Equal(t, "b.example", got.GetDns().GetName())
	assert.Nil(t, got.GetFlow())
}

func TestParseLookupQuery(t *testing.T) {
	got, err := parseLookupQuery(&orb8v1.QueryDnsRequest{
		Since: timestamppb.New(time.Unix(1, 0)), Until: timestamppb.New(time.Unix(2, 0)), Limit: 5,
		Allow: []*orb8v1.DnsFilter{{
			Names: []string{"*.Example.com.", "."}, Types: []string{"A"}, Rcodes: []string{"timeout"},
			Flow: &orb8v1.FlowFilter{Ports: []uint32{53}},
		}, {}},
		Deny: []*orb8v1.DnsFilter{{Rcodes: []string{"NXDOMAIN"}}},
	}, limits{rows: 10})
	require.NoError(t, err)
	assert.Equal(t, storage.LookupQuery{
		Since: time.Unix(1, 0).UTC(), Until: time.Unix(2, 0).UTC(), Limit: 5,
		Selection: storage.LookupSelection{
			Allow: []storage.LookupFilter{{
				Flows: storage.Selection{Allow: []storage.Filter{{Ports: []uint16{53}}}},
				Names: []string{"*.example.com", "."}, Types: []string{"A"}, RCodes: []string{"timeout"},
			}, {}},
			Deny: []storage.LookupFilter{{RCodes: []string{"NXDOMAIN"}}},
		},
	}, got)
}

func TestParseLookupQueryRefuses(t *testing.T) {
	allow := func(f ...*orb8v1.DnsFilter) *orb8v1.QueryDnsRequest { return &orb8v1.QueryDnsRequest{Allow: f} }
	tests := map[string]struct {
		req  *orb8v1.QueryDnsRequest
		want string
	}{
		"empty name":  {allow(&orb8v1.DnsFilter{}, &orb8v1.DnsFilter{Names: []string{"a", ""}}), "allow[1]: names[1]: must not be empty"},
		"empty type":  {allow(&orb8v1.DnsFilter{Types: []string{""}}), "allow[0]: types[0]: must not be empty"},
		"empty rcode": {allow(&orb8v1.DnsFilter{Rcodes: []string{""}}), "allow[0]: rcodes[0]: must not be empty"},
		"flow":        {allow(&orb8v1.DnsFilter{Flow: &orb8v1.FlowFilter{Ips: []string{"x"}}}), "allow[0]: flow: ips[0]: \"x\" is neither an IP address"},
		"too many":    {allow(&orb8v1.DnsFilter{Names: make([]string, maxFilterValues)}), "allow and deny: 1025 filters and values are too many; use at most 1024"},
		"range": {
			&orb8v1.QueryDnsRequest{Since: timestamppb.New(time.Unix(2, 0)), Until: timestamppb.New(time.Unix(1, 0))},
			"since: 1970-01-01T00:00:02Z is not before until, 1970-01-01T00:00:01Z",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := parseLookupQuery(tt.req, limits{rows: 10})
			assert.ErrorContains(t, err, tt.want)
		})
	}
}

func TestLookupMessage(t *testing.T) {
	l := lookup("a.example")
	l.Time = time.Unix(1, 0)
	// Its formatter puts blanks in at random.
	got := strings.ReplaceAll(strings.Join(strings.Fields(protojson.Format(lookupMessage(&l, nil))), ""), " ", "")
	for _, want := range []string{
		`"time":"1970-01-01T00:00:01Z"`, `"direction":"DIRECTION_EGRESS"`, `"transport":"udp"`, `"interface":"veth1"`, `"name":"a.example"`,
		`"type":"A"`, `"rcode":"NOERROR"`, `"latency":"0.001500s"`, `"queries":"2"`, `"truncated":true`, `"incomplete":true`,
		`"answers":[{"name":"a.example","type":"A","ttlSeconds":60,"data":"192.0.2.1"}]`,
	} {
		assert.Contains(t, got, want)
	}
}

func TestAnEndpointTellsTheNameItWasLookedUpBy(t *testing.T) {
	r := record(443)
	r.Destination.Name = "www.example.com"
	assert.Equal(t, "www.example.com", flowMessage(&r, nil).GetDestination().GetName())
}
