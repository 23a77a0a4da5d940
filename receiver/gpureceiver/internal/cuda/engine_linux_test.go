package cuda

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// everyMode runs a test with links of several probes and with one link each, and with each way to get at a file.
func everyMode(t *testing.T, test func(t *testing.T, opts Options)) {
	for name, opts := range map[string]Options{"multi": {}, "single": {single: true}, "by root": {byRoot: true}} {
		t.Run(name, func(t *testing.T) { test(t, opts) })
	}
}

// TestEveryCallCounts holds that counts are exact, with several threads that call at once.
func TestEveryCallCounts(t *testing.T) {
	everyMode(t, func(t *testing.T, opts Options) {
		program := compile(t, "caller.c", "caller")
		g, other := newGroup(t), newGroup(t)
		c := g.start(t, program, stub(t, driverFile, pushes)) // before the engine
		e := newEngine(t, opts)
		require.Len(t, e.Files(), 1, "what is mapped already is found at once")
		assert.Empty(t, e.Files()[0].Stepped)
		require.NoError(t, e.Files()[0].Err)
		d := other.start(t, program, c.cmd.Args[1])

		c.call(t, "cuLaunchKernel", 25_000, 4)
		d.call(t, "cuLaunchKernel", 10, 1)
		c.call(t, "cuLaunchKernelEx_ptsz", 5, 1)
		c.call(t, "cuGraphLaunch", 7, 1)
		c.call(t, "cuMemAlloc_v2", 3, 1, 0, 1<<30)
		c.call(t, "cuMemAllocPitch_v2", 1, 1, 0, 0, 100, 10)
		c.call(t, "cuMemcpyHtoD_v2", 11, 1, 0, 0, 4096)
		c.call(t, "cuMemcpyDtoHAsync_v2", 13, 1, 0, 0, 1000)
		c.call(t, "cuMemcpyPeer", 2, 1, 0, 0, 0, 0, 17)
		c.call(t, "cuMemcpy", 1, 1, 0, 0, 5)
		c.call(t, "copy2d", 2, 1, 64, 32)
		c.call(t, "copy3d", 1, 1, 8, 4, 2)
		got := g.drained(t, e)
		assert.Equal(t, map[Kind]Count{
			KernelLaunch:       {Calls: 100_005},
			GraphLaunch:        {Calls: 7},
			Allocation:         {Calls: 4, Bytes: 3<<30 + 1000},
			CopyHostToDevice:   {Calls: 11 + 2 + 1, Bytes: 11*4096 + 2*64*32 + 64},
			CopyDeviceToHost:   {Calls: 13, Bytes: 13_000},
			CopyDeviceToDevice: {Calls: 2, Bytes: 34},
			CopyDefault:        {Calls: 1, Bytes: 5},
		}, got)
		assert.Empty(t, g.drained(t, e), "what was drained is gone")
		d.call(t, "cuLaunchKernel", 1, 1)
		assert.Equal(t, map[Kind]Count{KernelLaunch: {Calls: 1}}, other.drained(t, e), "what others called was drained with the rest")
	})
}

func TestWaits(t *testing.T) {
	everyMode(t, func(t *testing.T, opts Options) {
		g := newGroup(t)
		c := g.start(t, compile(t, "caller.c", "caller"), stub(t, driverFile, endbr))
		e := newEngine(t, opts)
		require.Empty(t, e.Files()[0].Stepped)
		const us = 3000
		outside := c.call(t, "cuStreamSynchronize", 20, 1, us)
		c.call(t, "cuCtxSynchronize", 5, 2)
		c.call(t, "cuEventSynchronize", 1, 1, us)
		got := g.drained(t, e)
		stream := got[StreamSynchronize]
		assert.EqualValues(t, 20, stream.Calls)
		assert.GreaterOrEqual(t, stream.Wait, 20*us*time.Microsecond)
		assert.LessOrEqual(t, stream.Wait, outside)
		var inBuckets uint64
		for i, n := range stream.Buckets {
			inBuckets += n
			if Bound(i) < us*time.Microsecond {
				assert.Zero(t, n, "bucket %v", Bound(i))
			}
		}
		assert.EqualValues(t, 20, inBuckets)
		assert.EqualValues(t, 10, got[ContextSynchronize].Calls)
		assert.EqualValues(t, 1, got[EventSynchronize].Calls)
	})
}

// TestFullTables holds that what finds no room is counted as lost.
func TestFullTables(t *testing.T) {
	program, library := compile(t, "caller.c", "caller"), stub(t, driverFile, pushes)
	g := newGroup(t)
	c := g.start(t, program, library)
	e := newEngine(t, Options{entries: 1})
	c.call(t, "cuLaunchKernel", 10, 1)
	c.call(t, "cuGraphLaunch", 5, 1)
	c.call(t, "cuStreamSynchronize", 3, 1)
	c.call(t, "cuEventSynchronize", 2, 1)
	counted := counts{}
	loss := counted.drain(t, e)
	assert.Equal(t, Loss{Calls: 10, Unmeasured: 2}, loss)
	assert.EqualValues(t, 10, counted[g.id][KernelLaunch].Calls)
	var waited uint64
	for _, n := range counted[g.id][StreamSynchronize].Buckets {
		waited += n
	}
	assert.EqualValues(t, 3, waited)
}

// TestUnreadableCopies holds that a copy of which nothing can be read is a copy.
func TestUnreadableCopies(t *testing.T) {
	g := newGroup(t)
	c := g.start(t, compile(t, "caller.c", "caller"), stub(t, driverFile, pushes))
	e := newEngine(t, Options{})
	c.call(t, "cuMemcpy2D_v2", 3, 1, 1)
	counted := counts{}
	assert.Equal(t, Loss{Unreadable: 3}, counted.drain(t, e))
	assert.Equal(t, map[Kind]Count{CopyDefault: {Calls: 3}}, counted[g.id])
}
