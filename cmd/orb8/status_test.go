package main

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func statusText(t *testing.T, s *orb8v1.GetStatusResponse, colour bool) string {
	t.Helper()
	var out strings.Builder
	w := bufio.NewWriter(&out)
	statusPrinter{w: w, screen: screen{width: defaultWidth, colour: colour}, now: testNow()}.collector(defaultAgent, s)
	require.NoError(t, w.Flush())
	return out.String()
}

func TestStatusOfAFreshCollector(t *testing.T) {
	got := statusText(t, &orb8v1.GetStatusResponse{
		Version: "v0.1.0",
		Store:   &orb8v1.StoreStatus{Backend: "embedded", MaxBytes: 64 << 20},
	}, false)
	assert.Contains(t, got, "nodes        none has reported yet\n")
	assert.Contains(t, got, "size         0 B of 64 MiB (0 %)\n")
	assert.Contains(t, got, "oldest       never\n")
}

// Records that are in no file yet take no disk, and are not nothing.
func TestStatusOfAHead(t *testing.T) {
	got := statusText(t, &orb8v1.GetStatusResponse{
		Store: &orb8v1.StoreStatus{Backend: "embedded", Records: 7, MaxBytes: 8 << 30, HeadBytes: 1 << 20},
	}, false)
	assert.Contains(t, got, "size         0 B of 8 GiB (0 %) in files, 1 MiB in memory\n")
}

// Nobody counts what a log engine keeps, which is not the same as none.
func TestStatusOfALogEngine(t *testing.T) {
	s := &orb8v1.GetStatusResponse{
		Version: "v0.1.0",
		Store:   &orb8v1.StoreStatus{Backend: "victorialogs", Oldest: ago(day), Subscribers: 1},
	}
	got := statusText(t, s, false)
	assert.Contains(t, got, "store victorialogs\n  records      kept by victorialogs, which knows how many they are; queries look back 1d0h\n  streams      1 subscriber,")
	assert.NotContains(t, got, "size")
	assert.NotContains(t, got, "evicted")
	text, err := json.Marshal(newJSONStatus(s).Store)
	require.NoError(t, err)
	assert.JSONEq(t, `{"backend": "victorialogs", "oldest": "2026-03-03T15:06:07.000000000Z", "subscribers": 1, "subscriberDrops": 0}`, string(text))
}

func TestStatusOfANodeWithoutNetwork(t *testing.T) {
	got := statusText(t, &orb8v1.GetStatusResponse{Nodes: []*orb8v1.NodeStatus{{
		Node: "gateway\x1b[31m", Version: "v0.1.0", LastSeen: ago(0), Started: ago(0),
	}}}, false)
	assert.Contains(t, got, "node gateway?[31m\n")
	assert.NotContains(t, got, "counted")
	assert.NotContains(t, got, "store")
}

func TestStatusIsLoudAboutLoss(t *testing.T) {
	tests := []struct {
		name string
		lost *orb8v1.Loss
		want string
	}{
		{"not known", nil, "  lost         " + styleGreen + "nothing" + styleReset},
		{"nothing", &orb8v1.Loss{}, "  lost         " + styleGreen + "nothing" + styleReset},
		{"packets", &orb8v1.Loss{Packets: 1, Bytes: 60}, "  LOST         " + styleRed + "1 packet (60 B) since start" + styleReset},
		{"events", &orb8v1.Loss{Events: 2}, "  LOST         " + styleRed + "2 events since start" + styleReset},
		{
			"both", &orb8v1.Loss{Packets: 3, Bytes: 1 << 20, Events: 1},
			"  LOST         " + styleRed + "3 packets (1 MiB), 1 event since start" + styleReset,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := cannedStatus()
			s.Nodes = s.Nodes[:1]
			s.Nodes[0].Network.Lost = tt.lost
			assert.Contains(t, statusText(t, s, true), tt.want+"\n")
		})
	}
}

func TestStatusIsLoudAboutAMissingNode(t *testing.T) {
	assert.Contains(t, statusText(t, cannedStatus(), true), styleRed+"1m30s ago: MISSING"+styleReset)
}

func TestStatusJSONOfAFreshCollector(t *testing.T) {
	got := orb8(t, (&fakeCollector{status: &orb8v1.GetStatusResponse{}}).serve(t), "status", "-o", "json")
	assert.JSONEq(t, `{"version": "", "nodes": []}`, got.stdout)
}

func TestStatusRefuses(t *testing.T) {
	got := orb8(t, "127.0.0.1:1", "status", "-o", "yaml")
	assert.Equal(t, exitUsage, got.code)
	assert.Equal(t, "orb8: invalid argument \"yaml\" for \"-o, --output\" flag: use table, wide, json, jsonl or csv\n", got.stderr)
}
