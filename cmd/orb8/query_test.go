package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// pagedCollector has so many flows, and gives at most so many at once.
type pagedCollector struct {
	fakeCollector
	flows, most int
	limits      []uint32
	failAt      int
}

func (p *pagedCollector) QueryFlows(_ context.Context, req *connect.Request[orb8v1.QueryFlowsRequest]) (*connect.Response[orb8v1.QueryFlowsResponse], error) {
	p.limits = append(p.limits, req.Msg.GetLimit())
	begin := 0
	if token := req.Msg.GetPageToken(); token != "" {
		begin, _ = strconv.Atoi(token)
	}
	if p.failAt > 0 && len(p.limits) == p.failAt {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("it is being restarted"))
	}
	end := min(begin+p.most, p.flows)
	if limit := int(req.Msg.GetLimit()); limit > 0 {
		end = min(end, begin+limit)
	}
	reply := &orb8v1.QueryFlowsResponse{Matched: uint64(p.flows), Truncated: end < p.flows}
	for i := begin; i < end; i++ {
		f := cannedFlows()[0]
		f.ConnectionId = strconv.Itoa(i)
		reply.Flows = append(reply.Flows, f)
	}
	if end < p.flows {
		reply.NextPageToken = strconv.Itoa(end)
	}
	return connect.NewResponse(reply), nil
}

func TestPages(t *testing.T) {
	tests := []struct {
		args        string
		flows, want int
		limits      []uint32
		stderr      string
	}{
		{"--all", 25, 25, []uint32{0, 0, 0}, ""},
		{"--limit 0", 20, 20, []uint32{0, 0}, ""},
		{"--limit 0", 0, 0, []uint32{0}, "orb8: no flow matches\n"},
		{"", 7, 7, []uint32{100}, ""},
		{"--limit 5", 25, 5, []uint32{5}, "orb8: 5 of 25 flows shown; raise --limit\n"},
		{"--limit 15", 25, 15, []uint32{15, 5}, "orb8: 15 of 25 flows shown; raise --limit\n"},
		{"--limit 25", 25, 25, []uint32{25, 15, 5}, ""},
	}
	for _, tt := range tests {
		for _, output := range rowOutputs() {
			t.Run(tt.args+" -o "+output, func(t *testing.T) {
				collector := &pagedCollector{flows: tt.flows, most: 10}
				got := orb8(t, serveHandler(t, collector), append([]string{"flows", "-o", output}, strings.Fields(tt.args)...)...)
				assert.Zero(t, got.code)
				assert.Equal(t, tt.stderr, got.stderr)
				assert.Equal(t, tt.limits, collector.limits)
				assert.Equal(t, tt.want, countRows(t, output, got.stdout))
			})
		}
	}
}

// countRows also holds that the output is what its format says.
func countRows(t *testing.T, output, text string) int {
	t.Helper()
	switch output {
	case outputJSON:
		var rows []map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &rows))
		return len(rows)
	case outputCSV:
		records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
		require.NoError(t, err)
		return len(records) - 1
	case outputJSONL:
		return strings.Count(text, "\n")
	}
	return max(0, strings.Count(text, "\n")-1)
}

func TestAPageFails(t *testing.T) {
	collector := &pagedCollector{flows: 25, most: 10, failAt: 2}
	got := orb8(t, serveHandler(t, collector), "flows", "--all")
	assert.Equal(t, exitFailed, got.code)
	assert.Contains(t, got.stderr, "it is being restarted (unavailable)")
	assert.Empty(t, got.stdout)
}
