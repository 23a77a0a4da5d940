package engine

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/internal/testutil"
)

func TestASleepTakesItsTime(t *testing.T) {
	const ms = 10
	e := newEngine(t, Options{Latency: true})
	g := newGroup(t)
	g.run(t, fmt.Sprintf("sleep:%d", ms))
	n := drained(t, e).of(g, unix.SYS_PPOLL)
	require.NotNil(t, n.Latency)
	assert.EqualValues(t, 1, n.Calls)
	assert.EqualValues(t, 1, n.Latency.Calls())
	var long uint64
	for i, calls := range n.Latency.Buckets {
		if syscalls.Bound(i) >= ms*time.Millisecond {
			long += calls
		}
	}
	assert.EqualValues(t, 1, long, "%+v", n.Latency)
	assert.GreaterOrEqual(t, n.Latency.Sum, ms*time.Millisecond)
	assert.Less(t, n.Latency.Sum, time.Second)
}

// Of a single call the sum is its time, and so says which bucket it belongs to.
func TestEachTimeHasItsBucket(t *testing.T) {
	e := newEngine(t, Options{Latency: true})
	g := newGroup(t)
	g.enter(t)
	times := []time.Duration{0, time.Microsecond, 200 * time.Microsecond, 600 * time.Microsecond, 2 * time.Millisecond, 5 * time.Millisecond,
		20 * time.Millisecond, 40 * time.Millisecond}
	for _, long := range times {
		require.NoError(t, sleep(long))
		n := drained(t, e).of(g, unix.SYS_PPOLL)
		require.EqualValues(t, 1, n.Latency.Calls())
		assert.GreaterOrEqual(t, n.Latency.Sum, long)
		for i, calls := range n.Latency.Buckets {
			in := n.Latency.Sum <= syscalls.Bound(i) && (i == 0 || n.Latency.Sum > syscalls.Bound(i-1))
			assert.Equal(t, in, calls == 1, "bucket %d for %v", i, n.Latency.Sum)
		}
	}
}

// places are how many threads have a place for their calls: enough for all, or one, so that others have theirs in storage.
var places = map[string]uint32{"places for all": 0, "one place": 1}

// Two processes take turns on one CPU, one of them in the middle of its call.
func TestCallsThatOverlapOnOneCPU(t *testing.T) {
	const calls, ms = 200_000, 200
	for name, starts := range places {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, Options{Latency: true, starts: starts})
			sleeper, worker := newGroup(t), newGroup(t)
			asleep := sleeper.start(t, fmt.Sprintf("cpu:0,sleep:%d", ms))
			worker.run(t, fmt.Sprintf("cpu:0,%d:%d", unused, calls))
			require.NoError(t, asleep.Wait())
			c := drained(t, e)
			assert.EqualValues(t, 1, c.of(sleeper, unix.SYS_PPOLL).Latency.Calls())
			assert.GreaterOrEqual(t, c.of(sleeper, unix.SYS_PPOLL).Latency.Sum, ms*time.Millisecond)
			n := c.of(worker, unused)
			assert.EqualValues(t, calls, n.Calls)
			assert.EqualValues(t, calls, n.Latency.Calls())
			assert.Greater(t, n.Latency.Buckets[0]+n.Latency.Buckets[1]+n.Latency.Buckets[2], uint64(calls/2), "%+v", n.Latency)
		})
	}
}

// A call that has its thread moved is entered on one CPU and returns on another.
func TestCallsThatMoveToAnotherCPU(t *testing.T) {
	testutil.Require(t, "cpus", runtime.NumCPU() > 1, "moving to another CPU takes two")
	const moves = 2000
	for name, starts := range places {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, Options{Latency: true, starts: starts})
			g := newGroup(t)
			g.run(t, strings.Repeat("cpu:0,cpu:1,", moves/2)+"cpu:0")
			n := drained(t, e).of(g, unix.SYS_SCHED_SETAFFINITY)
			assert.EqualValues(t, moves+1, n.Calls)
			assert.EqualValues(t, moves+1, n.Latency.Calls())
		})
	}
}

// A thread that is not the first becomes it when it runs another program, with the id of the first.
func TestExecveByAnotherThread(t *testing.T) {
	const times = 5
	for name, starts := range places {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, Options{Latency: true, starts: starts})
			g := newGroup(t)
			g.run(t, fmt.Sprintf("exec:%d", times))
			n := drained(t, e).of(g, unix.SYS_EXECVE)
			assert.EqualValues(t, times+1, n.Calls, "with the one that began the process")
			assert.EqualValues(t, times+1, n.Latency.Calls())
		})
	}
}

func TestErrorsAreCountedByName(t *testing.T) {
	for name, opts := range map[string]Options{"cells": {}, "no cells": {cells: 1}, "no rows": {rows: 1}} {
		t.Run(name, func(t *testing.T) {
			opts.Latency = true
			e := newEngine(t, opts)
			g := newGroup(t)
			g.run(t, "missing:0")
			others := drained(t, e).of(g, unix.SYS_OPENAT).Errors["ENOENT"] // by the runtime
			g.run(t, "missing:1000,badfd:300,missing:7")
			n := drained(t, e).of(g, unix.SYS_OPENAT)
			assert.Equal(t, 1007+others, n.Errors["ENOENT"], "%v", n.Errors)
			assert.EqualValues(t, 300, n.Errors["EBADF"], "%v", n.Errors)
			assert.Equal(t, n.Calls, n.Latency.Calls())
			assert.Less(t, n.ErrorCount(), n.Calls, "the process has opened other files too")
		})
	}
}

// A call that was under way when the programs were attached is in no distribution; one that does not return is neither.
func TestCallsThatWereNotSeenWhole(t *testing.T) {
	g := newGroup(t)
	before := g.command(t, "/proc/self/exe", envCalls+"=read:1")
	stdin, err := before.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, before.Start())
	waitFor(t, fmt.Sprintf("/proc/%d/syscall", before.Process.Pid), unix.SYS_READ)
	e := newEngine(t, Options{Latency: true})
	_, err = stdin.Write([]byte{1})
	require.NoError(t, err)
	require.NoError(t, before.Wait())
	c := drained(t, e)
	assert.Empty(t, c.of(g, unix.SYS_READ))
	end := c.of(g, unix.SYS_EXIT_GROUP)
	assert.EqualValues(t, 1, end.Calls)
	assert.Zero(t, end.Latency.Calls())
}

// waitFor waits until a thread, by its file in /proc, is in a call.
func waitFor(t *testing.T, file string, number int) {
	t.Helper()
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(file)
		return strings.HasPrefix(string(text), fmt.Sprintf("%d ", number))
	}, patience, tick)
}

// What seccomp refuses returns without ever having been entered, as the tracepoints have it.
func TestCallsThatSeccompRefuses(t *testing.T) {
	e := newEngine(t, Options{Latency: true})
	g := newGroup(t)
	g.enter(t)
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here, and the filter with it
		err := refuse(unused)
		call(unused2, 1)
		call(unused, 5)
		ended <- err
	}()
	require.NoError(t, <-ended)
	c := drained(t, e)
	assert.EqualValues(t, 1, c.of(g, unused2).Calls)
	assert.EqualValues(t, 1, c.of(g, unused2).Latency.Calls())
	assert.Empty(t, c.of(g, unused))
}

// refuse has the kernel refuse a call to this thread.
func refuse(number uint32) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: number, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}

// A call is measured in the interval in which it returns, in the cgroup that made it.
func TestACallThatOutlivesItsInterval(t *testing.T) {
	e := newEngine(t, Options{Latency: true})
	from, to := newGroup(t), newGroup(t)
	from.enter(t)
	const long = time.Second
	first := drainedWhile(t, e, long, func() { require.NoError(t, move(to.dir)) })
	assert.EqualValues(t, 1, first.of(from, unix.SYS_PPOLL).Calls)
	assert.Zero(t, first.of(from, unix.SYS_PPOLL).Latency.Calls())
	second := drained(t, e)
	n := second.of(from, unix.SYS_PPOLL)
	assert.Zero(t, n.Calls)
	require.NotNil(t, n.Latency)
	assert.EqualValues(t, 1, n.Latency.Calls())
	assert.GreaterOrEqual(t, n.Latency.Sum, long)
	assert.Empty(t, second.of(to, unix.SYS_PPOLL))
}

// drainedWhile drains in the middle of a call of ppoll that takes so long, and after that does something else.
func drainedWhile(t *testing.T, e *Engine, long time.Duration, then func()) counts {
	t.Helper()
	tid, ended := make(chan int), make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tid <- unix.Gettid()
		ended <- sleep(long)
	}()
	waitFor(t, fmt.Sprintf("/proc/self/task/%d/syscall", <-tid), unix.SYS_PPOLL)
	c := drained(t, e)
	then()
	require.NoError(t, <-ended)
	return c
}
