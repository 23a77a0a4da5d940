package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/syscalls"
)

func TestASleepTakesItsTime(t *testing.T) {
	const ms = 10
	e := newEngine(t, Options{Latency: true})
	g := newGroup(t)
	g.run(t, fmt.Sprintf("sleep:%d", ms))
	n := drained(t, e).of(g, unix.SYS_NANOSLEEP)
	require.NotNil(t, n.Latency)
	// The runtime of the process sleeps too, for microseconds.
	assert.Equal(t, n.Calls, n.Latency.Calls())
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

// Two processes take turns on one CPU, one of them in the middle of its call.
func TestCallsThatOverlapOnOneCPU(t *testing.T) {
	const calls, ms = 200_000, 200
	e := newEngine(t, Options{Latency: true})
	sleeper, worker := newGroup(t), newGroup(t)
	asleep := sleeper.start(t, fmt.Sprintf("cpu:0,sleep:%d", ms))
	worker.run(t, fmt.Sprintf("cpu:0,%d:%d", unused, calls))
	require.NoError(t, asleep.Wait())
	c := drained(t, e)
	assert.GreaterOrEqual(t, c.of(sleeper, unix.SYS_NANOSLEEP).Latency.Sum, ms*time.Millisecond)
	n := c.of(worker, unused)
	assert.EqualValues(t, calls, n.Calls)
	assert.EqualValues(t, calls, n.Latency.Calls())
	assert.Greater(t, n.Latency.Buckets[0]+n.Latency.Buckets[1]+n.Latency.Buckets[2], uint64(calls/2), "%+v", n.Latency)
}

func TestErrorsAreCountedByName(t *testing.T) {
	for name, opts := range map[string]Options{"cells": {}, "no cells": {cells: 1}, "no rows": {rows: 1}} {
		t.Run(name, func(t *testing.T) {
			opts.Latency = true
			e := newEngine(t, opts)
			g := newGroup(t)
			g.run(t, "missing:1000,badfd:300,missing:7")
			n := drained(t, e).of(g, unix.SYS_OPENAT)
			assert.EqualValues(t, 1007, n.Errors["ENOENT"], "%v", n.Errors)
			assert.EqualValues(t, 300, n.Errors["EBADF"], "%v", n.Errors)
			assert.Equal(t, n.Calls, n.Latency.Calls())
			assert.Less(t, n.ErrorCount(), n.Calls, "the process has opened other files too")
		})
	}
}

// A call that was under way when the programs were attached is in no distribution; one that does not return is neither.
func TestCallsThatWereNotSeenWhole(t *testing.T) {
	g := newGroup(t)
	before := g.start(t, "sleep:500")
	require.Eventually(t, func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", before.Process.Pid))
		for _, path := range threads {
			in, _ := os.ReadFile(path)
			// A runtime that has nothing to do sleeps elsewhere.
			if strings.HasPrefix(string(in), fmt.Sprintf("%d ", unix.SYS_NANOSLEEP)) && strings.Contains(path, fmt.Sprintf("task/%d/", before.Process.Pid)) {
				return true
			}
		}
		return false
	}, patience, tick)
	e := newEngine(t, Options{Latency: true})
	require.NoError(t, before.Wait())
	c := drained(t, e)
	if n := c.of(g, unix.SYS_NANOSLEEP); n.Latency != nil {
		assert.Less(t, n.Latency.Sum, 500*time.Millisecond)
		assert.Equal(t, n.Calls, n.Latency.Calls())
	}
	end := c.of(g, unix.SYS_EXIT_GROUP)
	assert.EqualValues(t, 1, end.Calls)
	assert.Zero(t, end.Latency.Calls())
}

// A call is measured in the interval in which it returns, in the cgroup that made it.
func TestACallThatOutlivesItsInterval(t *testing.T) {
	e := newEngine(t, Options{Latency: true})
	from, to := newGroup(t), newGroup(t)
	from.enter(t)
	first := drainedWhile(t, e, 300*time.Millisecond, func() { require.NoError(t, move(to.dir)) })
	assert.EqualValues(t, 1, first.of(from, unix.SYS_PPOLL).Calls)
	assert.Zero(t, first.of(from, unix.SYS_PPOLL).Latency.Calls())
	second := drained(t, e)
	n := second.of(from, unix.SYS_PPOLL)
	assert.Zero(t, n.Calls)
	require.NotNil(t, n.Latency)
	assert.EqualValues(t, 1, n.Latency.Calls())
	assert.GreaterOrEqual(t, n.Latency.Sum, 300*time.Millisecond)
	assert.Empty(t, second.of(to, unix.SYS_PPOLL))
}

// drainedWhile drains in the middle of a call of ppoll that takes so long, and after that does something else.
func drainedWhile(t *testing.T, e *Engine, long time.Duration, then func()) counts {
	t.Helper()
	tid, ended := make(chan int), make(chan error)
	go func() {
		tid <- unix.Gettid()
		ts := unix.NsecToTimespec(int64(long))
		_, err := unix.Ppoll(nil, &ts, nil)
		ended <- err
	}()
	in := fmt.Sprintf("/proc/self/task/%d/syscall", <-tid)
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(in)
		return strings.HasPrefix(string(text), fmt.Sprintf("%d ", unix.SYS_PPOLL))
	}, patience, tick)
	c := drained(t, e)
	then()
	require.NoError(t, <-ended)
	return c
}
