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
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

func TestAggregateOverTheWire(t *testing.T) {
	store, component := newStore(t)
	server := serve(t, component, nil)
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(443), record(443), record(53)}))

	code, body := post(t, server, orb8v1connect.OrbitServiceAggregateProcedure,
		`{"by": ["source.pod", "destination.port"], "measures": ["bytes", "packets"], "top": 1}`)
	require.Equal(t, 200, code, body)
	assert.Equal(t, []any{map[string]any{"by": []any{"shop/web-0", "443"}, "values": []any{"3000", "6"}}}, body["groups"])
	assert.Equal(t, map[string]any{"values": []any{"4500", "9"}}, body["total"])
	assert.Equal(t, true, body["truncated"])
	assert.Equal(t, "2", body["matched"])
	assert.NotEmpty(t, body["oldest"])

	code, body = post(t, server, orb8v1connect.OrbitServiceAggregateProcedure, `{"by": ["pod"]}`)
	assert.Equal(t, 400, code)
	assert.Contains(t, body["message"], `by[0]: "pod" is no dimension; use some of destination.address, `)
}

func TestAggregateIsBounded(t *testing.T) {
	store, component := newStore(t)
	client := serve(t, component, func(c *Config) { c.MaxGroups = 2 }).client(t)
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(1), record(2), record(3)}))
	_, err := client.Aggregate(t.Context(), connect.NewRequest(&orb8v1.AggregateRequest{By: []string{"destination.port"}, Top: 1}))
	assert.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err))
	assert.ErrorContains(t, err, "more than 2 groups and buckets of groups; group by less, ask for a shorter range or longer buckets, or raise max_groups")

	s := &service{store: &stub{query: untilDone}, queryTimeout: time.Millisecond}
	_, err = s.Aggregate(context.Background(), connect.NewRequest(&orb8v1.AggregateRequest{}))
	assert.Equal(t, connect.CodeDeadlineExceeded, connect.CodeOf(err))
}

func TestParseAggregateQuery(t *testing.T) {
	got, err := parseAggregateQuery(&orb8v1.AggregateRequest{
		Since: timestamppb.New(time.Unix(1, 0)), Until: timestamppb.New(time.Unix(2, 0)), Signal: orb8v1.Signal_SIGNAL_DNS,
		Dns: []*orb8v1.DnsFilter{{Types: []string{"A"}}}, DenyDns: []*orb8v1.DnsFilter{{Rcodes: []string{"NOERROR"}}},
		By: []string{"name"}, Measures: []string{"latency", "lookups"}, Top: 5, Bucket: durationpb.New(time.Minute),
	}, limits{rows: 10, groups: 20})
	require.NoError(t, err)
	assert.Equal(t, storage.AggregateQuery{
		Since: time.Unix(1, 0).UTC(), Until: time.Unix(2, 0).UTC(), Signal: storage.SignalLookups,
		Lookups: storage.LookupSelection{
			Allow: []storage.LookupFilter{{Types: []string{"A"}}}, Deny: []storage.LookupFilter{{RCodes: []string{"NOERROR"}}},
		},
		By: []string{"name"}, Measures: []string{"latency", "lookups"}, Top: 5, Bucket: time.Minute, MaxGroups: 20,
	}, got)
	for signal, want := range map[orb8v1.Signal]storage.AggregateQuery{
		orb8v1.Signal_SIGNAL_UNSPECIFIED: {Signal: storage.SignalFlows, Measures: []string{"bytes"}},
		orb8v1.Signal_SIGNAL_FLOWS:       {Signal: storage.SignalFlows, Measures: []string{"bytes"}},
		orb8v1.Signal_SIGNAL_DNS:         {Signal: storage.SignalLookups, Measures: []string{"lookups"}},
		orb8v1.Signal_SIGNAL_SYSCALLS:    {Signal: storage.SignalSyscalls, Measures: []string{"calls"}},
		orb8v1.Signal_SIGNAL_ANOMALIES:   {Signal: storage.SignalAnomalies, Measures: []string{"anomalies"}},
	} {
		got, err := parseAggregateQuery(&orb8v1.AggregateRequest{Signal: signal}, limits{rows: 10})
		require.NoError(t, err)
		want.Top = 10
		assert.Equal(t, want, got, signal)
	}
}

func TestParseAggregateQueryRefuses(t *testing.T) {
	for want, req := range map[string]*orb8v1.AggregateRequest{
		"since: 1970-01-01T00:00:02Z is not before until":                             {Since: &timestamppb.Timestamp{Seconds: 2}, Until: &timestamppb.Timestamp{Seconds: 1}},
		"signal: 9 is none; use SIGNAL_FLOWS, ":                                       {Signal: 9},
		`by[0]: "x" is no dimension; use some of cgroup, `:                            {Signal: orb8v1.Signal_SIGNAL_SYSCALLS, By: []string{"x"}},
		`by[1]: "node" is there twice`:                                                {By: []string{"node", "node"}},
		`measures[0]: "calls" is no measure; use some of bytes, packets`:              {Measures: []string{"calls"}},
		"bucket: 999ms is too short; use 1s or more":                                  {Bucket: durationpb.New(999 * time.Millisecond)},
		"bucket: -1s is too short":                                                    {Bucket: durationpb.New(-time.Second)},
		"bucket: ":                                                                    {Bucket: &durationpb.Duration{Seconds: 1 << 62}},
		"allow[0]: ports[0]: 65536 is not a port":                                     {Allow: []*orb8v1.FlowFilter{{Ports: []uint32{1 << 16}}}},
		"deny_dns[0]: types[0]: must not be empty":                                    {Signal: orb8v1.Signal_SIGNAL_DNS, DenyDns: []*orb8v1.DnsFilter{{Types: []string{""}}}},
		"dns: 1 filters of SIGNAL_DNS, where SIGNAL_FLOWS was asked for":              {Dns: []*orb8v1.DnsFilter{{}}},
		"deny_syscalls: 1 filters of SIGNAL_SYSCALLS, where SIGNAL_DNS was asked for": {Signal: orb8v1.Signal_SIGNAL_DNS, DenySyscalls: []*orb8v1.SyscallFilter{{}}},
		"allow: 2 filters of SIGNAL_FLOWS, where SIGNAL_ANOMALIES was asked for":      {Signal: orb8v1.Signal_SIGNAL_ANOMALIES, Allow: []*orb8v1.FlowFilter{{}, {}}},
	} {
		_, err := parseAggregateQuery(req, limits{rows: 10})
		require.ErrorContains(t, err, want)
		assert.True(t, strings.HasPrefix(err.Error(), want), err)
	}
}

func TestAggregateMessage(t *testing.T) {
	query := &storage.AggregateQuery{By: []string{"node"}, Measures: []string{"calls"}}
	assert.JSONEq(t, `{
		"by": ["node"], "measures": ["calls"],
		"groups": [{"by": ["a"], "values": ["5"], "buckets": [{"start": "1970-01-01T00:01:00Z", "values": ["3"]}]}],
		"total": {"values": ["7"]}, "lost": {"calls": "2"}, "truncated": true, "matched": "2",
		"oldest": "1970-01-01T00:00:07Z", "missingNodes": ["b"]
	}`, protojson.Format(aggregateResponse(query, &storage.AggregateResult{
		Groups:   []storage.Group{{By: []string{"a"}, Values: []uint64{5}, Buckets: []storage.Bucket{{Start: time.Unix(60, 0), Values: []uint64{3}}}}},
		Total:    storage.Group{Values: []uint64{7}},
		Coverage: storage.Coverage{Matched: 2, Lost: storage.Loss{Calls: 2}, Oldest: time.Unix(7, 0), MissingNodes: []string{"b"}},
	})))
}
