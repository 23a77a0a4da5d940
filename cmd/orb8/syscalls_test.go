package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/syscalls"
)

// The three ways to be somebody: a container of a pod, one without Kubernetes, and a unit of the host.
func cart() *orb8v1.Container {
	return &orb8v1.Container{
		Name: "cart", Id: strings.Repeat("4f1b0a", 10) + "beef", PodUid: "0b8f6f43-5d43-4cbb-8b5f-2f2f6d1d1c11",
		Pod: "cart-7d9c5b8f6d-x2k7p", Namespace: "shop", Cgroup: "/kubepods.slice/kubepods-burstable.slice/cri-containerd-4f1b.scope",
	}
}

func build() *orb8v1.Container {
	return &orb8v1.Container{Id: strings.Repeat("c0ffee", 10) + "1234", Cgroup: "/system.slice/docker-c0ffee.scope"}
}

func nginx() *orb8v1.Container {
	return &orb8v1.Container{Cgroup: "/system.slice/nginx.service", Unit: "nginx.service"}
}

// latency puts calls into buckets by their number.
func latency(sum time.Duration, calls map[int]uint64) *orb8v1.SyscallLatency {
	l := &orb8v1.SyscallLatency{Sum: durationpb.New(sum), Buckets: make([]uint64, syscalls.LatencyBuckets)}
	for bucket, n := range calls {
		l.Buckets[bucket] = n
	}
	return l
}

func cannedSyscalls() []*orb8v1.Syscall {
	return []*orb8v1.Syscall{
		{
			Start: ago(70 * time.Second), End: ago(5 * time.Second), Node: "worker-1", Container: cart(), Name: "getppid", Number: 110,
			Abi: "x86_64", Calls: 1_000_000, Errors: new(uint64(0)), Latency: latency(300*time.Millisecond, map[int]uint64{0: 999_000, 1: 1000}),
		},
		{
			Start: ago(70 * time.Second), End: ago(5 * time.Second), Node: "worker-1", Container: cart(), Name: "epoll_wait", Number: 232,
			Abi: "x86_64", Calls: 1200, Errors: new(uint64(35)), ErrorsByName: map[string]uint64{"EINTR": 30, "EBADF": 5}, Lost: 2,
			Latency: latency(time.Hour, map[int]uint64{12: 600, 20: 580, 27: 19}),
		},
		{
			Start: ago(70 * time.Second), End: ago(65 * time.Second), Node: "worker-1", Container: build(), Name: "open", Number: 5, Abi: "i386", Calls: 17,
			Errors: new(uint64(1)), ErrorsByName: map[string]uint64{"ENOENT": 1}, Latency: latency(0, nil),
		},
		{
			Start: ago(10 * time.Second), End: ago(5 * time.Second), Node: "worker-1", Container: nginx(), Name: "4242", Number: 4242, Abi: "x86_64", Calls: 3,
		},
	}
}

func cannedCalls() []*orb8v1.SyscallEvent {
	argument := func(name, value string) *orb8v1.SyscallArgument {
		return &orb8v1.SyscallArgument{Name: name, Value: value}
	}
	return []*orb8v1.SyscallEvent{
		{
			Time: ago(1234 * time.Millisecond), Node: "worker-1", Container: cart(), Process: "java", Pid: 4711, Tid: 4720, Name: "openat", Number: 257,
			Abi: "x86_64", Arguments: []*orb8v1.SyscallArgument{argument("pathname", "/etc/passwd"), argument("flags", "O_RDONLY|O_CLOEXEC")}, Sampling: 1,
		},
		{
			Time: ago(time.Second), Node: "worker-1", Container: nginx(), Process: "nginx", Pid: 99, Tid: 99, Name: "read", Abi: "x86_64", Sampling: 100,
		},
		{
			Time: ago(0), Node: "worker-1", Container: build(), Process: "\x1b[2J", Pid: 1, Tid: 1, Name: "socketcall", Number: 102, Abi: "i386", Sampling: 1,
		},
		{
			Time: ago(0), Node: "worker-1", Container: nginx(), Process: "nginx", Pid: 99, Tid: 99, Name: "newfstatat", Number: 262, Abi: "x86_64",
			Arguments: []*orb8v1.SyscallArgument{argument("dirfd", "3"), argument("pathname", ""), argument("flags", "AT_EMPTY_PATH")}, Sampling: 1,
		},
	}
}

func sendingCalls(_ context.Context, stream *eventStream) error {
	for _, e := range cannedCalls() {
		if err := stream.Send(&orb8v1.StreamEventsResponse{Kind: orb8v1.EventKind_EVENT_KIND_SYSCALL, Time: e.Time, Syscall: e}); err != nil {
			return err
		}
	}
	return nil
}

func TestGoldenSyscalls(t *testing.T) {
	several := cannedSyscalls()
	several[3].Node = "worker-2"
	bare := []*orb8v1.Syscall{cannedSyscalls()[3]}
	tests := map[string]struct {
		rows []*orb8v1.Syscall
		args []string
		code int
	}{
		"syscalls.txt":           {cannedSyscalls(), []string{"syscalls"}, 0},
		"syscalls_nodes.txt":     {several, []string{"syscalls"}, 0},
		"syscalls_bare.txt":      {bare, []string{"syscalls"}, 0},
		"syscalls_wide.txt":      {cannedSyscalls(), []string{"syscalls", "-o", "wide"}, 0},
		"syscalls.json":          {cannedSyscalls(), []string{"syscalls", "-o", "json"}, 0},
		"syscalls.jsonl":         {cannedSyscalls(), []string{"syscalls", "-o", "jsonl"}, 0},
		"trace_syscall.txt":      {nil, []string{"trace", "syscall"}, exitFailed},
		"trace_syscall_wide.txt": {nil, []string{"trace", "syscall", "-o", "wide"}, exitFailed},
		"trace_syscall.jsonl":    {nil, []string{"trace", "syscall", "-o", "json"}, exitFailed},
	}
	for golden, tt := range tests {
		t.Run(golden, func(t *testing.T) {
			agent := (&fakeCollector{
				syscalls: &orb8v1.QuerySyscallsResponse{Syscalls: tt.rows, Matched: uint64(len(tt.rows))}, stream: sendingCalls,
			}).serve(t)
			got := orb8(t, agent, tt.args...)
			assert.Equal(t, tt.code, got.code, got.stderr)
			assertGolden(t, golden, got.stdout)
		})
	}
}

// What the documentation promises of every row.
func TestSyscallKeys(t *testing.T) {
	agent := (&fakeCollector{syscalls: &orb8v1.QuerySyscallsResponse{Syscalls: cannedSyscalls(), Matched: 4}}).serve(t)
	var rows []map[string]any
	require.NoError(t, json.Unmarshal([]byte(orb8(t, agent, "syscalls", "-o", "json").stdout), &rows))
	for _, row := range rows {
		for _, key := range []string{"node", "container", "cgroup", "pod", "namespace", "syscall", "calls", "errors"} {
			assert.Contains(t, row, key)
		}
	}
	assert.EqualValues(t, 1_000_000, rows[0]["calls"])
	assert.Zero(t, rows[0]["errors"])
	assert.Nil(t, rows[3]["errors"], "not measured is not none")
}

func TestSyscallsAsk(t *testing.T) {
	tests := map[string]*orb8v1.QuerySyscallsRequest{
		"":                                {Limit: 100},
		"--limit 0 --since 5m --until 1m": {Since: ago(5 * time.Minute), Until: ago(time.Minute)},
		"--pod shop/cart --namespace shop --container c0ffee,cart --cgroup /system.slice --syscall openat,4242 --node a --node b": {
			Limit: 100, Allow: []*orb8v1.SyscallFilter{{
				Pods: []string{"shop/cart"}, Namespaces: []string{"shop"}, Containers: []string{"c0ffee", "cart"}, Cgroups: []string{"/system.slice"},
				Syscalls: []string{"openat", "4242"}, Nodes: []string{"a", "b"},
			}},
		},
	}
	for args, want := range tests {
		t.Run(args, func(t *testing.T) {
			collector := &fakeCollector{syscalls: &orb8v1.QuerySyscallsResponse{}}
			got := orb8(t, collector.serve(t), append([]string{"syscalls"}, strings.Fields(args)...)...)
			require.Zero(t, got.code, got.stderr)
			assert.True(t, proto.Equal(want, collector.askedSyscalls), "want %v, got %v", want, collector.askedSyscalls)
		})
	}
}

func TestTraceSyscallAsks(t *testing.T) {
	collector := &fakeCollector{stream: sendingCalls}
	orb8(t, collector.serve(t), "trace", "syscall", "--syscall", "mount", "--pod", "cart")
	want := &orb8v1.StreamEventsRequest{
		Kinds:    []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_SYSCALL},
		Syscalls: []*orb8v1.SyscallFilter{{Pods: []string{"cart"}, Syscalls: []string{"mount"}}},
	}
	assert.True(t, proto.Equal(want, collector.streamed), "want %v, got %v", want, collector.streamed)
}

func TestSyscallsRefuse(t *testing.T) {
	for args, says := range map[string]string{
		"syscalls --syscall opneat":             `invalid argument "opneat" for "--syscall" flag: "opneat" is unknown; use a name such as openat, or the number of a call that has none`,
		"syscalls --syscall ,":                  `"--syscall" flag: "" is unknown`,
		"syscalls --cgroup nginx.service":       `"nginx.service" is no path below the cgroup v2 root; use one such as /system.slice/nginx.service`,
		"syscalls --since 1m --until 5m":        "is not before --until",
		"syscalls openat":                       `"orb8 syscalls" takes no argument, not "openat"`,
		"trace syscall --since 5m":              "unknown flag: --since",
		"anomalies --severity grave":            `"grave" is unknown; use info, warning or critical`,
		"anomalies --severity unspecified":      `"unspecified" is unknown`,
		"anomalies --rule ,":                    "a name must not be empty",
		"anomalies --since 1m --until 5m":       "is not before --until",
		"trace anomaly --since 5m":              "unknown flag: --since",
		"seccomp":                               "whose profile? name a --pod, --workload, --label, --container or --cgroup",
		"seccomp --namespace shop":              "whose profile? name a --pod, --workload, --label, --container or --cgroup",
		"seccomp --pod x --default allow":       "use errno, kill or log",
		"seccomp --pod x --syscall openat":      "unknown flag: --syscall",
		"seccomp --pod x --since 1m --until 5m": "is not before --until",
	} {
		t.Run(args, func(t *testing.T) {
			got := orb8(t, "127.0.0.1:1", strings.Fields(args)...)
			assert.Equal(t, exitUsage, got.code)
			assert.Contains(t, got.stderr, says)
			assert.Equal(t, 1, strings.Count(got.stderr, "\n"), "one line: %s", got.stderr)
		})
	}
}

func TestSyscallsSayWhatTheRowsDoNot(t *testing.T) {
	for name, tt := range map[string]struct {
		reply *orb8v1.QuerySyscallsResponse
		want  string
	}{
		"nothing": {&orb8v1.QuerySyscallsResponse{}, "orb8: no row matches\n"},
		"all of it": {
			&orb8v1.QuerySyscallsResponse{
				Syscalls: cannedSyscalls(), Matched: 54321, Truncated: true, MissingNodes: []string{"worker-2"},
				Lost: &orb8v1.Loss{Calls: 7, Events: 2, EvictedRecords: 512},
			},
			"orb8: 4 of 54,321 rows shown; the collector gives no more at once, so narrow the filters or the time range\n" +
				"orb8: lost 7 calls in this range: they are in no row\n" +
				"orb8: the store was full and dropped 512 records of this range early\n" +
				"orb8: no report from worker-2: their system calls are missing\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			agent := (&fakeCollector{syscalls: tt.reply}).serve(t)
			assert.Equal(t, tt.want, orb8(t, agent, "syscalls").stderr)
		})
	}
}

// Names come from whoever runs there: whatever they hold, a line fits the terminal and does nothing to it.
func TestSyscallLinesFit(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	letters := []rune("abc.-_é世\x1b\t/")
	text := func(n int) string {
		s := make([]rune, rnd.IntN(n))
		for i := range s {
			s[i] = letters[rnd.IntN(len(letters))]
		}
		return string(s)
	}
	for range 300 {
		s := cannedSyscalls()
		s[0].Container = &orb8v1.Container{Pod: text(80), Name: text(80), Namespace: text(60)}
		s[1].Container = &orb8v1.Container{Cgroup: "/" + text(300)}
		s[1].Node, s[2].Calls, s[2].Errors, s[2].Lost = text(70), 1<<64-1, new(uint64(1<<64-1)), 1<<64-1
		var out strings.Builder
		rows := make([]row, len(s))
		for i := range s {
			rows[i] = row{count: s[i]}
		}
		require.NoError(t, writeTable(&out, rows, syscallColumns(rows)))
		for line := range strings.Lines(out.String()) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), defaultWidth, line)
			require.NotContains(t, line, "\x1b")
		}
	}
}

func TestQuantiles(t *testing.T) {
	l := latency(0, map[int]uint64{0: 98, 5: 1, 27: 1})
	assert.Equal(t, "256ns", quantileText(0.5)(l))
	assert.Equal(t, "8.19µs", quantileText(0.99)(l))
	assert.Equal(t, ">17.18s", quantileText(1)(l))
	assert.Equal(t, "134.22ms", briefDuration(134217728))
	assert.Equal(t, "1h0m0s", briefDuration(time.Hour))
	// Another version may have fewer buckets, or more.
	assert.Equal(t, "256ns", quantileText(0.5)(&orb8v1.SyscallLatency{Buckets: []uint64{1}}))
	assert.Equal(t, ">17.18s", quantileText(0.5)(&orb8v1.SyscallLatency{Buckets: append(make([]uint64, 40), 1)}))
}
