package cuda

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/receiver/gpureceiver/internal/cuda/cudatest"
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
		program, library := cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Pushes)
		g, other := cudatest.NewGroup(t), cudatest.NewGroup(t)
		c := g.Start(t, program, library) // before the engine
		e := newEngine(t, opts)
		f := found(t, e, library) // what is mapped already is found at once
		assert.Empty(t, f.Stepped)
		require.NoError(t, f.Err)
		d := other.Start(t, program, library)

		c.Call(t, "cuLaunchKernel", 25_000, 4)
		d.Call(t, "cuLaunchKernel", 10, 1)
		c.Call(t, "cuLaunchKernelEx_ptsz", 5, 1)
		c.Call(t, "cuGraphLaunch", 7, 1)
		c.Call(t, "cuMemAlloc_v2", 3, 1, 0, 1<<30)
		c.Call(t, "cuMemAllocPitch_v2", 1, 1, 0, 0, 100, 10)
		c.Call(t, "cuMemcpyHtoD_v2", 11, 1, 0, 0, 4096)
		c.Call(t, "cuMemcpyDtoHAsync_v2", 13, 1, 0, 0, 1000)
		c.Call(t, "cuMemcpyPeer", 2, 1, 0, 0, 0, 0, 17)
		c.Call(t, "cuMemcpy", 1, 1, 0, 0, 5)
		c.Call(t, "copy2d", 2, 1, 64, 32)
		c.Call(t, "copy3d", 1, 1, 8, 4, 2)
		got := drained(t, e, g)
		assert.Equal(t, map[Kind]Count{
			KernelLaunch:       {Calls: 100_005},
			GraphLaunch:        {Calls: 7},
			Allocation:         {Calls: 4, Bytes: 3<<30 + 1000},
			CopyHostToDevice:   {Calls: 11 + 2 + 1, Bytes: 11*4096 + 2*64*32 + 64},
			CopyDeviceToHost:   {Calls: 13, Bytes: 13_000},
			CopyDeviceToDevice: {Calls: 2, Bytes: 34},
			CopyDefault:        {Calls: 1, Bytes: 5},
		}, got)
		assert.Empty(t, drained(t, e, g), "what was drained is gone")
		d.Call(t, "cuLaunchKernel", 1, 1)
		assert.Equal(t, map[Kind]Count{KernelLaunch: {Calls: 1}}, drained(t, e, other), "what others called was drained with the rest")
	})
}

func TestWaits(t *testing.T) {
	everyMode(t, func(t *testing.T, opts Options) {
		g := cudatest.NewGroup(t)
		library := cudatest.Library(t, cudatest.Driver, cudatest.Endbr)
		c := g.Start(t, cudatest.Program(t), library)
		e := newEngine(t, opts)
		require.Empty(t, found(t, e, library).Stepped)
		const us = 3000
		outside := c.Call(t, "cuStreamSynchronize", 20, 1, us)
		c.Call(t, "cuCtxSynchronize", 5, 2)
		c.Call(t, "cuEventSynchronize", 1, 1, us)
		got := drained(t, e, g)
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
	program, library := cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Pushes)
	g := cudatest.NewGroup(t)
	c := g.Start(t, program, library)
	e := newEngine(t, Options{entries: 1})
	c.Call(t, "cuLaunchKernel", 10, 1)
	c.Call(t, "cuGraphLaunch", 5, 1)
	c.Call(t, "cuStreamSynchronize", 3, 1)
	c.Call(t, "cuEventSynchronize", 2, 1)
	counted := counts{}
	loss := counted.drain(t, e)
	assert.Equal(t, Loss{Calls: 10, Unmeasured: 2}, loss)
	assert.EqualValues(t, 10, counted[g.ID][KernelLaunch].Calls)
	var waited uint64
	for _, n := range counted[g.ID][StreamSynchronize].Buckets {
		waited += n
	}
	assert.EqualValues(t, 3, waited)
}

// TestUnreadableCopies holds that a copy of which nothing can be read is a copy.
func TestUnreadableCopies(t *testing.T) {
	g := cudatest.NewGroup(t)
	c := g.Start(t, cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Pushes))
	e := newEngine(t, Options{})
	c.Call(t, "cuMemcpy2D_v2", 3, 1, 1)
	counted := counts{}
	assert.Equal(t, Loss{Unreadable: 3}, counted.drain(t, e))
	assert.Equal(t, map[Kind]Count{CopyDefault: {Calls: 3}}, counted[g.ID])
}
