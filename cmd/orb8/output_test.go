package main

import (
	"strings"
	"testing"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/stretchr/testify/assert"
)

func TestGoldenOutput(t *testing.T) {
	exact := cannedReply()
	for _, f := range exact.Flows {
		f.Lost = 0
	}
	past := cannedReply()
	past.Flows[5].End = ago(3 * day)

	tests := []struct {
		golden string
		flows  *orb8v1.QueryFlowsResponse
		args   []string
	}{
		{"flows.txt", exact, []string{"flows"}},
		{"flows_lost.txt", cannedReply(), []string{"flows"}},
		{"flows_dated.txt", past, []string{"flows", "-o", "table"}},
		{"flows_wide.txt", cannedReply(), []string{"flows", "-o", "wide"}},
		{"flows.json", cannedReply(), []string{"flows", "-o", "json"}},
		{"flows.csv", cannedReply(), []string{"flows", "-o", "csv"}},
		{"flows_empty.csv", &orb8v1.QueryFlowsResponse{}, []string{"flows", "-o", "csv"}},
		{"flows.jsonl", cannedReply(), []string{"flows", "-o", "jsonl"}},
		{"flows_empty.json", &orb8v1.QueryFlowsResponse{}, []string{"flows", "-o", "json"}},
		{"status.txt", nil, []string{"status"}},
		{"status_wide.txt", nil, []string{"status", "-o", "wide"}},
		{"status.jsonl", nil, []string{"status", "-o", "jsonl"}},
		{"status.csv", nil, []string{"status", "-o", "csv"}},
		{"status.json", nil, []string{"status", "-o", "json"}},
	}
	for _, tt := range tests {
		t.Run(tt.golden, func(t *testing.T) {
			collector := &fakeCollector{flows: tt.flows, status: cannedStatus()}
			agent := collector.serve(t)
			got := orb8(t, agent, tt.args...)
			assert.Zero(t, got.code, got.stderr)
			assertGolden(t, tt.golden, strings.ReplaceAll(got.stdout, agent, "127.0.0.1:9090"))
		})
	}
}
