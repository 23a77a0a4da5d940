package orb8queryextension

import (
	"context"
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
	"github.com/orb8/orb8/internal/syscalls"
)

var (
	openat  = syscalls.Call{ABI: syscalls.X86_64, Number: 257}
	unknown = syscalls.Call{ABI: syscalls.X86_64, Number: 4242}
)

// counts returns what web-0 called in the last ten seconds.
func counts(calls ...syscalls.Count) syscalls.Counts {
	now := time.Now().UTC().Truncate(0)
	return syscalls.Counts{
		Start: now.Add(-10 * time.Second), End: now, Node: "node-a", Calls: calls,
		Identity: flow.Identity{CgroupID: 7, Cgroup: "/pod/c1", Pod: "web-0", Namespace: "shop", Container: "web"},
	}
}

func TestQuerySyscalls(t *testing.T) {
	store, component := newStore(t)
	server := serve(t, component, nil)
	require.NoError(t, store.WriteSyscalls(t.Context(), []syscalls.Counts{
		counts(syscalls.Count{Call: openat, Calls: 5}, syscalls.Count{Call: unknown, Calls: 7}),
		counts(syscalls.Count{Call: openat, Calls: 4}, syscalls.Count{Call: syscalls.Call{ABI: syscalls.X86_64}, Calls: 1}),
	}))
	resp, err := server.client(t).QuerySyscalls(t.Context(), connect.NewRequest(&orb8v1.QuerySyscallsRequest{
		Limit: 1, Allow: []*orb8v1.SyscallFilter{{Cgroups: []string{"/pod/"}, Syscalls: []string{"openat", "4242"}}},
	}))
	require.NoError(t, err)
	require.Len(t, resp.Msg.GetSyscalls(), 1)
	assert.Equal(t, "openat", resp.Msg.GetSyscalls()[0].GetName())
	assert.EqualValues(t, 9, resp.Msg.GetSyscalls()[0].GetCalls())
	assert.EqualValues(t, 2, resp.Msg.GetMatched())
	assert.True(t, resp.Msg.GetTruncated())
	assert.NotNil(t, resp.Msg.GetOldest())

	code, body := post(t, server, orb8v1connect.OrbitServiceQuerySyscallsProcedure, `{"deny": [{"syscalls": ["opneat"]}]}`)
	assert.Equal(t, 400, code)
	assert.Equal(t, `deny[0]: syscalls[0]: "opneat" is no system call; use a name such as openat, or the number of one that has none`, body["message"])
}

func TestQueryAnomalies(t *testing.T) {
	store, component := newStore(t)
	server := serve(t, component, nil)
	now := time.Now().UTC().Truncate(0)
	grave := syscalls.Anomaly{Time: now, Rule: "mounting", Severity: syscalls.SeverityCritical, Call: openat}
	note := syscalls.Anomaly{Time: now, Rule: "never_seen_call", Severity: syscalls.SeverityInfo, Call: openat}
	require.NoError(t, store.WriteAnomalies(t.Context(), []syscalls.Anomaly{note, grave, note}))
	resp, err := server.client(t).QueryAnomalies(t.Context(), connect.NewRequest(&orb8v1.QueryAnomaliesRequest{
		Allow: []*orb8v1.AnomalyFilter{{MinSeverity: orb8v1.Severity_SEVERITY_WARNING}}, Deny: []*orb8v1.AnomalyFilter{{Rules: []string{"x"}}},
	}))
	require.NoError(t, err)
	require.Len(t, resp.Msg.GetAnomalies(), 1)
	assert.Equal(t, "mounting", resp.Msg.GetAnomalies()[0].GetRule())
	assert.EqualValues(t, 1, resp.Msg.GetMatched())
	assert.False(t, resp.Msg.GetTruncated())

	code, body := post(t, server, orb8v1connect.OrbitServiceQueryAnomaliesProcedure, `{"allow": [{"minSeverity": 9}]}`)
	assert.Equal(t, 400, code)
	assert.Equal(t, `allow[0]: min_severity: use SEVERITY_INFO, SEVERITY_WARNING or SEVERITY_CRITICAL`, body["message"])
}

func TestSyscallQueriesTimeOut(t *testing.T) {
	s := &service{store: &stub{query: untilDone}, limits: limits{rows: 1}, queryTimeout: time.Millisecond}
	_, err := s.QuerySyscalls(context.Background(), connect.NewRequest(&orb8v1.QuerySyscallsRequest{}))
	assert.Equal(t, connect.CodeDeadlineExceeded, connect.CodeOf(err))
	_, err = s.QueryAnomalies(context.Background(), connect.NewRequest(&orb8v1.QueryAnomaliesRequest{}))
	assert.Equal(t, connect.CodeDeadlineExceeded, connect.CodeOf(err))
}

func TestStreamSyscalls(t *testing.T) {
	store, component := newStore(t)
	s := open(t, serve(t, component, nil).client(t), &orb8v1.StreamEventsRequest{
		Kinds:     []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_SYSCALL, orb8v1.EventKind_EVENT_KIND_ANOMALY},
		Allow:     []*orb8v1.FlowFilter{{Ports: []uint32{1}}},
		Syscalls:  []*orb8v1.SyscallFilter{{Syscalls: []string{"openat"}}},
		Anomalies: []*orb8v1.AnomalyFilter{{Rules: []string{"mounting"}}},
	})
	now := time.Now().UTC()
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(1)}))
	require.NoError(t, store.WriteSyscallEvents(t.Context(), []syscalls.Event{{Time: now, Call: unknown}, {Time: now, Call: openat, TID: 7}}))
	require.NoError(t, store.WriteAnomalies(t.Context(), []syscalls.Anomaly{{Time: now, Rule: "x", Call: openat}, {Time: now, Rule: "mounting", Call: openat}}))
	got := receive(t, s)
	assert.Equal(t, orb8v1.EventKind_EVENT_KIND_SYSCALL, got.GetKind())
	assert.EqualValues(t, 7, got.GetSyscall().GetTid())
	assert.Nil(t, got.GetFlow())
	got = receive(t, s)
	assert.Equal(t, orb8v1.EventKind_EVENT_KIND_ANOMALY, got.GetKind())
	assert.Equal(t, "mounting", got.GetAnomaly().GetRule())
}

func TestParseSyscallQuery(t *testing.T) {
	got, err := parseSyscallQuery(&orb8v1.QuerySyscallsRequest{
		Since: timestamppb.New(time.Unix(1, 0)), Until: timestamppb.New(time.Unix(2, 0)), Limit: 50,
		Allow: []*orb8v1.SyscallFilter{{
			Pods: []string{"shop/web-0"}, Namespaces: []string{"shop"}, Containers: []string{"c0ffee"}, Cgroups: []string{"/a/b/", "/"},
			Syscalls: []string{"openat", "0042"}, Nodes: []string{"node-a"},
		}, {}},
		Deny: []*orb8v1.SyscallFilter{{Syscalls: []string{"_llseek"}}},
	}, limits{rows: 10})
	require.NoError(t, err)
	assert.Equal(t, storage.SyscallQuery{
		Since: time.Unix(1, 0).UTC(), Until: time.Unix(2, 0).UTC(), Limit: 10,
		Selection: storage.SyscallSelection{
			Allow: []storage.SyscallFilter{{
				Pods: []string{"shop/web-0"}, Namespaces: []string{"shop"}, Containers: []string{"c0ffee"}, Cgroups: []string{"/a/b", "/"},
				Syscalls: []string{"openat", "42"}, Nodes: []string{"node-a"},
			}, {}},
			Deny: []storage.SyscallFilter{{Syscalls: []string{"_llseek"}}},
		},
	}, got)
}

func TestParseSyscallQueriesRefuse(t *testing.T) {
	calls := func(f ...*orb8v1.SyscallFilter) error {
		_, err := parseSyscallQuery(&orb8v1.QuerySyscallsRequest{Allow: f}, limits{rows: 10})
		return err
	}
	anomalies := func(f ...*orb8v1.AnomalyFilter) error {
		_, err := parseAnomalyQuery(&orb8v1.QueryAnomaliesRequest{Deny: f}, limits{rows: 10})
		return err
	}
	_, badRange := parseAnomalyQuery(&orb8v1.QueryAnomaliesRequest{
		Since: timestamppb.New(time.Unix(2, 0)), Until: timestamppb.New(time.Unix(1, 0)),
	}, limits{rows: 10})
	for want, err := range map[string]error{
		"allow[1]: pods[0]: must not be empty":                                   calls(&orb8v1.SyscallFilter{}, &orb8v1.SyscallFilter{Pods: []string{""}}),
		"allow[0]: nodes[0]: must not be empty":                                  calls(&orb8v1.SyscallFilter{Nodes: []string{""}}),
		`allow[0]: cgroups[0]: "a" is not the path of a cgroup`:                  calls(&orb8v1.SyscallFilter{Cgroups: []string{"a"}}),
		`allow[0]: syscalls[0]: "" is no system call`:                            calls(&orb8v1.SyscallFilter{Syscalls: []string{""}}),
		"allow and deny: 1025 filters and values are too many; use at most 1024": calls(&orb8v1.SyscallFilter{Syscalls: make([]string, maxFilterValues)}),
		"deny: 1026 filters and values are too many; use at most 1024":           anomalies(&orb8v1.AnomalyFilter{Rules: make([]string, maxFilterValues)}, &orb8v1.AnomalyFilter{}),
		"deny[0]: syscall: namespaces[0]: must not be empty":                     anomalies(&orb8v1.AnomalyFilter{Syscall: &orb8v1.SyscallFilter{Namespaces: []string{""}}}),
		"deny[0]: rules[0]: must not be empty":                                   anomalies(&orb8v1.AnomalyFilter{Rules: []string{""}}),
		"since: 1970-01-01T00:00:02Z is not before until, 1970-01-01T00:00:01Z":  badRange,
	} {
		assert.ErrorContains(t, err, want)
	}
}

func TestSyscallMessages(t *testing.T) {
	who := flow.Identity{
		CgroupID: 7, Cgroup: "/pod/c1", ContainerID: "c0ffee", PodUID: "uid", Pod: "web-0", Namespace: "shop", Container: "web", Unit: "u.service",
	}
	container := `{"name": "web", "id": "c0ffee", "podUid": "uid", "pod": "web-0", "namespace": "shop", "cgroup": "/pod/c1", "unit": "u.service"}`
	at := func(second int64) time.Time { return time.Unix(second, 0) }

	row := storage.Syscall{
		Start: at(1), End: at(2), Node: "node-a", Identity: who, Lost: 3,
		Count: syscalls.Count{Call: openat, Calls: 1 << 60},
	}
	rowJSON := `"start": "1970-01-01T00:00:01Z", "end": "1970-01-01T00:00:02Z", "node": "node-a", "container": ` + container + `,
		"name": "openat", "number": 257, "abi": "x86_64", "calls": "1152921504606846976", "lost": "3"`
	assert.JSONEq(t, `{`+rowJSON+`}`, protojson.Format(syscallMessage(&row)), "nothing is said of what was not measured")
	row.Latency = &syscalls.Latency{Sum: time.Second}
	row.Latency.Buckets[1] = 5
	assert.JSONEq(t, `{`+rowJSON+`, "errors": "0", "latency": {"sum": "1s", "buckets": ["0", "5"`+
		`,"0","0","0","0","0","0","0","0","0","0","0","0","0","0","0","0","0","0","0","0","0","0","0","0","0","0"]}}`,
		protojson.Format(syscallMessage(&row)), "no error is one fact more than not measured")
	row.Errors = map[string]uint64{"ENOENT": 2, "EACCES": 3}
	assert.Contains(t, protojson.Format(syscallMessage(&row)), "ENOENT")
	assert.EqualValues(t, 5, syscallMessage(&row).GetErrors())

	event := syscalls.Event{
		Time: at(1), Node: "node-a", Call: openat, TID: 12, Sampling: 100, Identity: who,
		Arguments: []syscalls.Argument{{Name: "pathname", Value: "/etc/passwd"}},
	}
	event.Identity.Process, event.Identity.PID = "sh", 11
	eventJSON := `{"time": "1970-01-01T00:00:01Z", "node": "node-a", "container": ` + container + `, "process": "sh", "pid": 11, "tid": 12,
		"name": "openat", "number": 257, "abi": "x86_64", "arguments": [{"name": "pathname", "value": "/etc/passwd"}], "sampling": 100}`
	assert.JSONEq(t, `{"kind": "EVENT_KIND_SYSCALL", "time": "1970-01-01T00:00:01Z", "dropped": "3", "syscall": `+eventJSON+`}`,
		protojson.Format(eventResponse(storage.Event{Syscall: &event}, 3)))

	evidence := event
	evidence.Identity = flow.Identity{Process: "sh", PID: 11}
	anomaly := syscalls.Anomaly{
		Time: at(2), Node: "node-a", Identity: who, Workload: "web", Rule: "mounting", Severity: syscalls.SeverityWarning, Call: openat,
		Message: "it opened", Evidence: &evidence, Calls: 4, Rate: 0.5, Baseline: 0.25,
	}
	assert.JSONEq(t, `{"kind": "EVENT_KIND_ANOMALY", "time": "1970-01-01T00:00:02Z", "anomaly": {
		"time": "1970-01-01T00:00:02Z", "node": "node-a", "container": `+container+`, "workload": "web", "rule": "mounting",
		"severity": "SEVERITY_WARNING", "name": "openat", "number": 257, "abi": "x86_64", "message": "it opened", "calls": "4", "rate": 0.5,
		"baseline": 0.25, "evidence": `+eventJSON+`}}`, protojson.Format(eventResponse(storage.Event{Anomaly: &anomaly}, 0)),
		"the evidence says whose it is, as events do")

	loss := storage.Loss{Calls: 1, Events: 2, EvictedRecords: 3}
	said := `"matched": "5", "truncated": true, "oldest": "1970-01-01T00:00:00Z", "missingNodes": ["node-b"],
		"lost": {"calls": "1", "events": "2", "evictedRecords": "3"}`
	coverage := storage.Coverage{Matched: 5, Lost: loss, Oldest: at(0), MissingNodes: []string{"node-b"}, Next: "x"}
	assert.JSONEq(t, `{`+said+`}`, protojson.Format(syscallsResponse(&storage.SyscallResult{Coverage: coverage})))
	assert.JSONEq(t, `{`+said+`}`, protojson.Format(anomaliesResponse(&storage.AnomalyResult{Coverage: coverage})))
}

func TestSyscallStatusMessage(t *testing.T) {
	got := nodeMessage(&storage.NodeStatus{Node: "node-a", Syscalls: &syscalls.Status{
		Calls: 1, LostCalls: 2, LostEvents: 3, Cgroups: 4, RingBufferBytes: 5, RingBufferUtilization: 0.5, Thinning: 6, Latency: true,
		Interval: time.Second, Unavailable: map[string]string{"latency": "too old"}, CallsPerSecond: 2.5,
		Probes: []flow.ProbeCost{{Program: "sys_enter", Runs: 3, RunTime: 7}},
	}})
	assert.Nil(t, got.GetNetwork(), "a receiver that does not run has no status")
	assert.JSONEq(t, `{"calls": "1", "lost": {"calls": "2", "events": "3"}, "cgroups": "4", "ringBufferBytes": "5", "ringBufferUtilization": 0.5,
		"interval": "1s", "thinning": 6, "latency": true, "unavailable": {"latency": "too old"}, "callsPerSecond": 2.5,
		"probes": [{"program": "sys_enter", "runs": "3", "runTime": "0.000000007s"}]}`, protojson.Format(got.GetSyscalls()))
}
