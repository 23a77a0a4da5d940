package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func cannedAnomalies() []*orb8v1.Anomaly {
	return []*orb8v1.Anomaly{
		{
			Time: ago(1234 * time.Millisecond), Node: "worker-1", Container: cart(), Workload: "shop/cart", Rule: "mount",
			Severity: orb8v1.Severity_SEVERITY_CRITICAL, Name: "openat", Number: 257, Abi: "x86_64",
			Message:  "shop/cart: java called openat(pathname=/etc/passwd, flags=O_RDONLY|O_CLOEXEC): it reads what it must not",
			Evidence: cannedCalls()[0],
		},
		{
			Time: ago(30 * time.Second), Node: "worker-1", Container: nginx(), Workload: "nginx.service", Rule: "unusual_rate",
			Severity: orb8v1.Severity_SEVERITY_WARNING, Name: "connect", Number: 42, Abi: "x86_64",
			Message: "nginx.service made connect 312.5 times a second, usual are 2: a burst", Calls: 1562, Rate: 312.5, Baseline: 2,
		},
		{
			Time: ago(40 * time.Second), Node: "worker-1", Container: build(), Workload: build().GetId(), Rule: "never_seen_call",
			Severity: orb8v1.Severity_SEVERITY_INFO, Name: "socketcall", Number: 102, Abi: "i386", Message: build().GetId() + " called socketcall", Calls: 3,
		},
	}
}

func sendingAnomalies(_ context.Context, stream *eventStream) error {
	for _, n := range cannedAnomalies() {
		if err := stream.Send(&orb8v1.StreamEventsResponse{Kind: orb8v1.EventKind_EVENT_KIND_ANOMALY, Time: n.Time, Anomaly: n}); err != nil {
			return err
		}
	}
	return nil
}

func TestGoldenAnomalies(t *testing.T) {
	agent := (&fakeCollector{
		anomalies: &orb8v1.QueryAnomaliesResponse{Anomalies: cannedAnomalies(), Matched: 3}, stream: sendingAnomalies,
	}).serve(t)
	for golden, tt := range map[string]struct {
		args []string
		code int
	}{
		"anomalies.txt":          {[]string{"anomalies"}, 0},
		"anomalies_wide.txt":     {[]string{"anomalies", "-o", "wide"}, 0},
		"anomalies.json":         {[]string{"anomalies", "-o", "json"}, 0},
		"trace_anomaly.txt":      {[]string{"trace", "anomaly"}, exitFailed},
		"trace_anomaly_wide.txt": {[]string{"trace", "anomaly", "-o", "wide"}, exitFailed},
		"trace_anomaly.jsonl":    {[]string{"trace", "anomaly", "-o", "jsonl"}, exitFailed},
	} {
		t.Run(golden, func(t *testing.T) {
			got := orb8(t, agent, tt.args...)
			assert.Equal(t, tt.code, got.code, got.stderr)
			assertGolden(t, golden, got.stdout)
		})
	}
}

func TestAnomaliesAsk(t *testing.T) {
	filter := &orb8v1.AnomalyFilter{
		MinSeverity: orb8v1.Severity_SEVERITY_WARNING, Rules: []string{"mount", "x"}, Syscall: &orb8v1.SyscallFilter{Pods: []string{"cart"}, Syscalls: []string{"mount"}},
	}
	const flags = "--severity WARNING --rule mount,x --pod cart --syscall mount"
	for args, want := range map[string]*orb8v1.QueryAnomaliesRequest{
		"":                   {Limit: 100},
		"--limit 7 " + flags: {Limit: 7, Allow: []*orb8v1.AnomalyFilter{filter}},
		"--rule a":           {Limit: 100, Allow: []*orb8v1.AnomalyFilter{{Rules: []string{"a"}}}},
		"--since 1d":         {Limit: 100, Since: ago(day)},
	} {
		t.Run(args, func(t *testing.T) {
			collector := &fakeCollector{anomalies: &orb8v1.QueryAnomaliesResponse{}}
			got := orb8(t, collector.serve(t), append([]string{"anomalies"}, strings.Fields(args)...)...)
			require.Zero(t, got.code, got.stderr)
			assert.True(t, proto.Equal(want, collector.askedAnomalies), "want %v, got %v", want, collector.askedAnomalies)
		})
	}
	collector := &fakeCollector{stream: sendingAnomalies}
	orb8(t, collector.serve(t), append([]string{"trace", "anomaly"}, strings.Fields(flags)...)...)
	want := &orb8v1.StreamEventsRequest{
		Kinds: []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_ANOMALY}, Anomalies: []*orb8v1.AnomalyFilter{filter},
	}
	assert.True(t, proto.Equal(want, collector.streamed), "want %v, got %v", want, collector.streamed)
}

func TestAnomaliesSayWhatTheRowsDoNot(t *testing.T) {
	for want, reply := range map[string]*orb8v1.QueryAnomaliesResponse{
		"orb8: no anomaly matches\n": {},
		"orb8: 3 of 7 anomalies shown; the collector gives no more at once, so narrow the filters or the time range\n" +
			"orb8: lost 1 call in this range: nobody knows whether one was an anomaly\n" +
			"orb8: lost 2 events in this range: the ring buffer was full; anomalies may be missing\n" +
			"orb8: no report from worker-2: their anomalies are missing\n": {
			Anomalies: cannedAnomalies(), Matched: 7, Truncated: true, MissingNodes: []string{"worker-2"}, Lost: &orb8v1.Loss{Calls: 1, Events: 2},
		},
	} {
		agent := (&fakeCollector{anomalies: reply}).serve(t)
		assert.Equal(t, want, orb8(t, agent, "anomalies").stderr)
	}
}
