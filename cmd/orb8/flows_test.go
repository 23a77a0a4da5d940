package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func TestFlowsAsks(t *testing.T) {
	tests := []struct {
		args string
		want *orb8v1.QueryFlowsRequest
	}{
		{"", &orb8v1.QueryFlowsRequest{Limit: 100}},
		{"--limit 0", &orb8v1.QueryFlowsRequest{}},
		{"--limit 7 --since 5m", &orb8v1.QueryFlowsRequest{Limit: 7, Since: ago(5 * time.Minute)}},
		{"--since 2d --until 1d", &orb8v1.QueryFlowsRequest{Limit: 100, Since: ago(2 * day), Until: ago(day)}},
		{
			"--port 53 --protocol udp,tcp",
			&orb8v1.QueryFlowsRequest{Limit: 100, Allow: []*orb8v1.FlowFilter{{Ports: []uint32{53}, Protocols: []string{"udp", "tcp"}}}},
		},
		{
			"--not --port 53 --pod web --limit 5 --not --namespace kube-system,monitoring",
			&orb8v1.QueryFlowsRequest{
				Limit: 5, Allow: []*orb8v1.FlowFilter{{Pods: []string{"web"}}},
				Deny: []*orb8v1.FlowFilter{{Ports: []uint32{53}}, {Namespaces: []string{"kube-system", "monitoring"}}},
			},
		},
		{
			"--not --from web,10.0.0.7",
			&orb8v1.QueryFlowsRequest{Limit: 100, Deny: []*orb8v1.FlowFilter{
				{Source: &orb8v1.EndpointFilter{Pods: []string{"web"}}}, {Source: &orb8v1.EndpointFilter{Ips: []string{"10.0.0.7"}}},
			}},
		},
		{"--all", &orb8v1.QueryFlowsRequest{}},
		{
			"--outcome Refused,timeout",
			&orb8v1.QueryFlowsRequest{Limit: 100, Allow: []*orb8v1.FlowFilter{{Outcomes: []string{"refused", "timeout"}}}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			collector := &fakeCollector{flows: cannedReply()}
			got := orb8(t, collector.serve(t), append([]string{"flows"}, strings.Fields(tt.args)...)...)
			require.Zero(t, got.code, got.stderr)
			assert.True(t, proto.Equal(tt.want, collector.asked), "want %v, got %v", tt.want, collector.asked)
		})
	}
}

func TestFlowsRefuses(t *testing.T) {
	tests := []struct {
		args string
		says string
	}{
		{"--since 5x", `invalid argument "5x" for "--since" flag: use a duration back from now, such as 30s, 5m, 2h or 1d, or an RFC 3339 time`},
		{"--until tomorrow", `invalid argument "tomorrow" for "--until" flag: use a duration back from now`},
		{"--limit -1", `invalid argument "-1" for "--limit" flag: use a number from 1 to 4294967295, or 0 for all`},
		{"--limit 4294967296", `"--limit" flag: use a number from 1 to 4294967295, or 0 for all`},
		{"-o yaml", `invalid argument "yaml" for "-o, --output" flag: use table, wide, json, jsonl or csv`},
		{"--port http", `invalid argument "http" for "--port" flag: "http" is no port; use a number from 1 to 65535`},
		{"--since 1m --until 5m", "--since (2026-03-04T15:05:07.000000000Z) is not before --until (2026-03-04T15:01:07.000000000Z)"},
		{"--since 5m --until 5m", "is not before --until"},
		{"--follow --since 5m", "--follow shows what is still to come and takes no --since"},
		{"-f --until 5m", "takes no --until"},
		{"-f --limit 5", "takes no --limit"},
		{"-f --ends", "takes no --ends"},
		{"-f --all", "takes no --all"},
		{"--port 53 --not", "--not denies the filter that follows it, and none does"},
		{"--not=false --port 53", `invalid argument "false" for "--not" flag: it takes no value`},
		{"--from a/b/c", `invalid argument "a/b/c" for "--from" flag: "a/b/c" is no name; use NAME or NAMESPACE/NAME`},
		{"--outcome lost", `"--outcome" flag: "lost" is unknown; use closed, reset, refused or timeout`},
		{"--nonsense", "unknown flag: --nonsense"},
		{"tcp", `"orb8 flows" takes no argument, not "tcp"`},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			// No collector runs there: what is wrong with the command line is found before it is asked.
			got := orb8(t, "127.0.0.1:1", append([]string{"flows"}, strings.Fields(tt.args)...)...)
			assert.Equal(t, exitUsage, got.code)
			assert.Empty(t, got.stdout)
			assert.Contains(t, got.stderr, tt.says)
			assert.Equal(t, 1, strings.Count(got.stderr, "\n"), "one line: %s", got.stderr)
		})
	}
}

func TestFlowsSaysWhatTheRowsDoNot(t *testing.T) {
	flows := cannedFlows()
	tests := []struct {
		name  string
		args  []string
		reply *orb8v1.QueryFlowsResponse
		want  string
	}{
		{"all is well", nil, &orb8v1.QueryFlowsResponse{Flows: flows, Matched: 6, Lost: &orb8v1.Loss{}, Oldest: ago(time.Hour)}, ""},
		{"nothing", nil, &orb8v1.QueryFlowsResponse{}, "orb8: no flow matches\n"},
		{
			"the user's limit", []string{"--limit", "6"},
			&orb8v1.QueryFlowsResponse{Flows: flows, Truncated: true, Matched: 54321},
			"orb8: 6 of 54,321 flows shown; raise --limit\n",
		},
		{
			"the collector's limit", []string{"--limit", "0"},
			&orb8v1.QueryFlowsResponse{Flows: flows, Truncated: true, Matched: 7},
			"orb8: 6 of 7 flows shown; the collector gives no more at once, so narrow the filters or the time range\n",
		},
		{
			"the collector's limit is below the user's", []string{"--limit", "1000"},
			&orb8v1.QueryFlowsResponse{Flows: flows, Truncated: true, Matched: 7},
			"orb8: 6 of 7 flows shown; the collector gives no more at once, so narrow the filters or the time range\n",
		},
		{
			"losses", nil,
			&orb8v1.QueryFlowsResponse{Flows: flows, Lost: &orb8v1.Loss{Packets: 1234, Bytes: 2048, Events: 1, EvictedRecords: 5}},
			"orb8: lost 1,234 packets (2 KiB) in this range: they are in no flow\n" +
				"orb8: lost 1 event in this range: the ring buffer was full; the flows' counts are not affected\n" +
				"orb8: the store was full and dropped 5 records of this range early\n",
		},
		{
			"missing nodes", nil,
			&orb8v1.QueryFlowsResponse{Flows: flows, MissingNodes: []string{"worker-2", "worker-3\x1b"}},
			"orb8: no report from worker-2, worker-3?: their flows are missing\n",
		},
		{
			"older than the store", []string{"--since", "2h"},
			&orb8v1.QueryFlowsResponse{Flows: flows, Oldest: ago(time.Hour)},
			"orb8: the store begins at 2026-03-04T14:06:07Z: what was before is not shown\n",
		},
		{"as old as the store", []string{"--since", "1h"}, &orb8v1.QueryFlowsResponse{Flows: flows, Oldest: ago(time.Hour)}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			agent := (&fakeCollector{flows: tt.reply}).serve(t)
			table := orb8(t, agent, append([]string{"flows"}, tt.args...)...)
			assert.Zero(t, table.code)
			assert.Equal(t, tt.want, table.stderr)
			// Whatever is to be said, stdout is data and nothing else.
			data := orb8(t, agent, append([]string{"flows", "-o", "json"}, tt.args...)...)
			assert.Zero(t, data.code)
			assert.Equal(t, tt.want, data.stderr)
			var rows []map[string]any
			require.NoError(t, json.Unmarshal([]byte(data.stdout), &rows))
			assert.Len(t, rows, len(tt.reply.Flows))
		})
	}
}

func TestJSONKeepsEveryDigit(t *testing.T) {
	reply := cannedReply()
	reply.Flows = reply.Flows[:1]
	reply.Flows[0].Bytes = 1<<64 - 1
	got := orb8(t, (&fakeCollector{flows: reply}).serve(t), "flows", "-o", "jsonl")
	assert.Contains(t, got.stdout, `"bytes":18446744073709551615,`)
}

func TestFlowsOfFullSize(t *testing.T) {
	const n = 100_000
	one := cannedFlows()[0]
	reply := &orb8v1.QueryFlowsResponse{Matched: n, Flows: make([]*orb8v1.Flow, n)}
	for i := range reply.Flows {
		reply.Flows[i] = one
	}
	require.Greater(t, proto.Size(reply), 16<<20, "far more than the 4 MiB that gRPC clients take by default")
	got := orb8(t, (&fakeCollector{flows: reply}).serve(t), "flows", "--limit", "0", "-o", "jsonl")
	require.Zero(t, got.code, got.stderr)
	assert.Equal(t, n, strings.Count(got.stdout, "\n"))
	assert.Empty(t, got.stderr)
}

func TestFlowsShowsTheCollectorsRefusal(t *testing.T) {
	collector := &fakeCollector{err: connect.NewError(connect.CodeInvalidArgument, errShort)}
	agent := collector.serve(t)
	got := orb8(t, agent, "flows", "--container", "ab")
	assert.Equal(t, exitFailed, got.code)
	assert.Empty(t, got.stdout)
	assert.Equal(t, "orb8: the collector at "+agent+" answers: "+errShort.Error()+" (invalid_argument)\n", got.stderr)
}
