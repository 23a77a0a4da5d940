package syscalls

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
)

func TestTablesAreTheKernels(t *testing.T) {
	// From the kernel's tables: arch/x86/entry/syscalls, include/uapi/asm-generic/unistd.h, arch/arm/tools/syscall.tbl.
	for name, call := range map[string]Call{
		"read": {X86_64, 0}, "getppid": {X86_64, 110}, "execveat": {X86_64, 322}, "clone3": {I386, 435}, "restart_syscall": {ARM, 0},
		"_llseek": {I386, 140}, "newfstatat": {ARM64, 79}, "io_setup": {ARM64, 0}, "openat": {ARM, 322}, "epoll_wait": {X32, 232},
		"5000": {X86_64, 5000}, "-1": {ARM64, -1}, "400": {X86_64, 400}, "7": {0, 7},
	} {
		assert.Equal(t, name, call.Name(), "%+v", call)
		back, err := ParseCall(call.ABI, name)
		require.NoError(t, err)
		assert.Equal(t, call, back)
	}
	_, err := ParseCall(X86_64, "frobnicate")
	assert.EqualError(t, err, `system call "frobnicate": x86_64 has none of that name; use a name such as openat, or a number`)
	assert.True(t, Known("_llseek"))
	assert.False(t, Known(""))
}

func resource() pcommon.Resource {
	res := pcommon.NewResource()
	res.Attributes().PutStr(flow.AttrNodeName, "node-1")
	res.Attributes().PutStr(flow.AttrContainer, "cart")
	res.Attributes().PutStr(flow.AttrPod, "cart-0")
	res.Attributes().PutInt(flow.AttrCgroupID, 4242)
	return res
}

func identity() flow.Identity {
	return flow.Identity{CgroupID: 4242, Container: "cart", Pod: "cart-0"}
}

func at(s int64) time.Time { return time.Unix(1_800_000_000+s, 7).UTC() }

func TestCountsTravel(t *testing.T) {
	latency := Latency{Sum: 3 * time.Millisecond}
	latency.Buckets[0], latency.Buckets[LatencyBuckets-1] = 5, 1
	want := Counts{
		Start: at(0), End: at(5), Node: "node-1", Identity: identity(), LostCalls: 3,
		Calls: []Count{
			{Call: Call{X86_64, 257}, Calls: 10, Errors: map[string]uint64{"ENOENT": 2, "EACCES": 1}, Latency: &latency},
			{Call: Call{I386, 5}, Calls: 1}, {Call: Call{X86_64, 999}, Calls: 2}, {Call: Call{X32, 1}, Calls: 1 << 40},
		},
	}
	lr := plog.NewLogRecord()
	want.PutTo(lr, X86_64)
	got, err := CountsFrom(resource(), lr)
	require.NoError(t, err)
	assert.Equal(t, want, got)
	assert.EqualValues(t, 3, got.Calls[0].ErrorCount())
	assert.EqualValues(t, 6, got.Calls[0].Latency.Calls())
	assert.Equal(t, map[string]any{"openat": int64(10), "i386/open": int64(1), "999": int64(2), "x32/write": int64(1 << 40)},
		lr.Attributes().AsRaw()[AttrCalls], "what a person reads elsewhere")
}

func TestEventsTravel(t *testing.T) {
	want := Event{
		Time: at(1), Node: "node-1", Identity: identity(), TID: 12, Call: Call{X86_64, 59}, Sampling: 100,
		Arguments: []Argument{{"pathname", "/bin/sh"}, {"argv", "0x7ffd0"}},
	}
	want.Identity.Process, want.Identity.PID = "init", 11
	lr := plog.NewLogRecord()
	want.PutTo(lr)
	got, err := EventFrom(resource(), lr)
	require.NoError(t, err)
	assert.Equal(t, want, got)
	assert.Equal(t, "execve", lr.Attributes().AsRaw()[AttrName])
}

func TestAnomaliesTravel(t *testing.T) {
	for name, want := range map[string]Anomaly{
		"an event": {
			Rule: "sensitive", Severity: SeverityCritical, Call: Call{X86_64, 101}, Message: "cart called ptrace",
			Evidence: &Event{
				Time: at(1), Node: "node-1", TID: 3, Call: Call{X86_64, 101}, Sampling: 1,
				Identity: flow.Identity{Process: "gdb", PID: 2}, Arguments: []Argument{{"request", "PTRACE_ATTACH"}},
			},
		},
		"a rate": {Rule: "rate", Severity: SeverityWarning, Call: Call{ARM64, 63}, Message: "much", Calls: 5000, Rate: 1000, Baseline: 2.5},
	} {
		t.Run(name, func(t *testing.T) {
			want.Time, want.Node, want.Identity, want.Workload = at(2), "node-1", identity(), "shop/cart"
			if want.Evidence != nil {
				want.Identity.Process, want.Identity.PID = "gdb", 2
			}
			lr := plog.NewLogRecord()
			want.PutTo(lr)
			got, err := AnomalyFrom(resource(), lr)
			require.NoError(t, err)
			assert.Equal(t, want, got)
			assert.Equal(t, want.Message, lr.Body().Str())
		})
	}
}

func TestStatusTravels(t *testing.T) {
	want := Status{
		Node: "node-1", Version: "1.2.3", Kernel: "6.1", Time: at(9), Started: at(1), Interval: 5 * time.Second, Calls: 1, LostCalls: 2,
		LostEvents: 3, Cgroups: 4, RingBufferBytes: 5, RingBufferUtilization: 0.5, Thinning: 8, Latency: true,
		Unavailable: map[string]string{"latency": "needs Linux 5.11"}, CallsPerSecond: 0.25,
		Probes: []flow.ProbeCost{{Program: "sys_enter", Runs: 7, RunTime: time.Second}},
	}
	lr := plog.NewLogRecord()
	want.PutTo(lr)
	assert.Equal(t, want, StatusFrom(resource(), lr))
}

func TestMalformedRecordsAreNamed(t *testing.T) {
	counts := func() plog.LogRecord {
		lr := plog.NewLogRecord()
		(&Counts{Calls: []Count{{Call: Call{X86_64, 0}, Calls: 1, Latency: &Latency{}}}}).PutTo(lr, X86_64)
		return lr
	}
	for message, spoil := range map[string]func(pcommon.Map){
		`attribute orb8.syscall.abi: ABI "vax": use x86_64, i386, x32, arm64 or arm`: func(a pcommon.Map) { a.PutStr(AttrABI, "vax") },
		`attribute orb8.syscall.calls: system call "vax/read": ABI "vax"`: func(a pcommon.Map) {
			a.PutEmptyMap(AttrCalls).PutInt("vax/read", 1)
		},
		`attribute orb8.syscall.latencies: read: `: func(a pcommon.Map) {
			a.PutEmptyMap(AttrLatencies).PutEmptySlice("read").AppendEmpty().SetInt(1)
		},
	} {
		lr := counts()
		spoil(lr.Attributes())
		_, err := CountsFrom(resource(), lr)
		assert.ErrorContains(t, err, message)
	}
	lr := plog.NewLogRecord()
	_, err := EventFrom(resource(), lr)
	assert.ErrorContains(t, err, "attribute orb8.syscall.abi")
	_, err = AnomalyFrom(resource(), lr)
	assert.ErrorContains(t, err, `attribute orb8.anomaly.severity: severity ""`)
}
