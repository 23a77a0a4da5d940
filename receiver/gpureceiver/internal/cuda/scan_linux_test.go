package cuda

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/cuda/cudatest"
)

// TestNewLibraries holds that a library is found after it was mapped, and let go of some time after nobody maps it.
func TestNewLibraries(t *testing.T) {
	program, library, g := cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Pushes), cudatest.NewGroup(t)
	e := newEngine(t, Options{keep: time.Nanosecond, quiet: true, Interval: 20 * time.Millisecond})
	c := g.Start(t, program, library)
	attached(t, e, library, 1)
	c.Call(t, "cuLaunchKernel", 1000, 1)
	assert.EqualValues(t, 1000, drained(t, e, g)[KernelLaunch].Calls)

	c.End(t)
	require.Eventually(t, func() bool { _, still := known(t, e, library); return !still }, patience, tick)
	other := cudatest.Library(t, "libcuda.so.580.65.06", cudatest.Pushes)
	d := g.Start(t, program, other)
	f := attached(t, e, other, 1)
	assert.Equal(t, "libcuda.so.580.65.06", f.Name)
	d.Call(t, "cuLaunchKernel", 10, 1)
	assert.EqualValues(t, 10, drained(t, e, g)[KernelLaunch].Calls)
}

// TestWordOfAMapping holds that where the kernel tells of new mappings nobody waits for the interval, which is an hour here.
func TestWordOfAMapping(t *testing.T) {
	program, library, g := cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Pushes), cudatest.NewGroup(t)
	e := newEngine(t, Options{})
	testutil.Require(t, "fentry", e.Quiet() == nil, "this kernel has no programs at its functions' entries (fentry)")
	c := g.Start(t, program, library)
	attached(t, e, library, 1)
	c.Call(t, "cuLaunchKernel", 3, 1)
	assert.EqualValues(t, 3, drained(t, e, g)[KernelLaunch].Calls)
}

// TestForksAndExecs holds that every process of a storm of short ones is counted once its library is known.
func TestForksAndExecs(t *testing.T) {
	g := cudatest.NewGroup(t)
	library := cudatest.Library(t, cudatest.Driver, cudatest.Pushes)
	c := g.Start(t, cudatest.Program(t), library)
	e := newEngine(t, Options{})
	const processes = 500
	c.Call(t, "fork", processes, 1)
	assert.EqualValues(t, processes, drained(t, e, g)[KernelLaunch].Calls)
	assert.NoError(t, found(t, e, library).Err)
	assert.NoError(t, e.Err())
}

// TestNothingLeaks holds that libraries that come and go, each another file, leave nothing behind in this process.
func TestNothingLeaks(t *testing.T) {
	program, library, g := cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Pushes), cudatest.NewGroup(t)
	text, err := os.ReadFile(library)
	require.NoError(t, err)
	e := newEngine(t, Options{quiet: true, Interval: tick, keep: time.Nanosecond})
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	before := descriptors()
	for range 30 {
		other := filepath.Join(t.TempDir(), cudatest.Driver)
		require.NoError(t, os.WriteFile(other, text, 0o700))
		c := g.Start(t, program, other)
		attached(t, e, other, 1)
		c.Call(t, "cuLaunchKernel", 1, 1)
		c.End(t)
		require.Eventually(t, func() bool { _, still := known(t, e, other); return !still }, patience, tick)
	}
	assert.EqualValues(t, 30, drained(t, e, g)[KernelLaunch].Calls)
	// The processes that were started may have left a pipe or two to the garbage collector.
	assert.InDelta(t, before, descriptors(), 5)
}

// overlay mounts a directory over another one's files, and returns where.
func overlay(t *testing.T, lower string) string {
	t.Helper()
	dir := t.TempDir()
	at := filepath.Join(dir, "merged")
	options := "lowerdir=" + lower
	for _, name := range []string{"upperdir", "workdir"} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.Mkdir(path, 0o755))
		options += "," + name + "=" + path
	}
	require.NoError(t, os.Mkdir(at, 0o755))
	require.NoError(t, unix.Mount("overlay", at, "overlay", 0, options))
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(at, 0)) })
	return at
}

// TestOverlays holds that a file that two containers see through mounts of their own is one, and counts once.
func TestOverlays(t *testing.T) {
	everyMode(t, func(t *testing.T, opts Options) {
		program, library := cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Pushes)
		a, b := cudatest.NewGroup(t), cudatest.NewGroup(t)
		var paths []string
		for range 2 {
			paths = append(paths, filepath.Join(overlay(t, filepath.Dir(library)), cudatest.Driver))
		}
		devices := map[uint64]bool{}
		for _, path := range paths {
			var st unix.Stat_t
			require.NoError(t, unix.Stat(path, &st))
			devices[st.Dev] = true
		}
		require.Len(t, devices, 2, "to stat they are two")
		c, d := a.Start(t, program, paths[0]), b.Start(t, program, paths[1])
		e := newEngine(t, opts)
		attached(t, e, library, 2)
		c.Call(t, "cuLaunchKernel", 100, 1)
		d.Call(t, "cuLaunchKernel", 10, 1)
		d.Call(t, "cuStreamSynchronize", 1, 1)
		counted := counts{}
		require.Zero(t, counted.drain(t, e))
		assert.EqualValues(t, 100, counted[a.ID][KernelLaunch].Calls)
		assert.EqualValues(t, 10, counted[b.ID][KernelLaunch].Calls)
		assert.EqualValues(t, 1, counted[b.ID][StreamSynchronize].Calls)
		require.NoError(t, e.Close(), "the mounts are let go of")
		c.End(t)
		d.End(t)
	})
}

// TestDeletedLibrary holds that a library that has been deleted, and another one put in its place, is still found; without the right
// to follow map_files that is said.
func TestDeletedLibrary(t *testing.T) {
	program, library, g := cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Pushes), cudatest.NewGroup(t)
	c := g.Start(t, program, library)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(library, &st))
	require.NoError(t, os.Remove(library))
	require.NoError(t, os.WriteFile(library, []byte("something else"), 0o600))
	e := newEngine(t, Options{})
	f, _ := knownInode(e, st.Ino)
	require.NoError(t, f.Err)
	assert.Positive(t, f.Functions)
	c.Call(t, "cuLaunchKernel", 7, 1)
	assert.EqualValues(t, 7, drained(t, e, g)[KernelLaunch].Calls)
	require.NoError(t, e.Close())

	e = newEngine(t, Options{byRoot: true})
	f, _ = knownInode(e, st.Ino)
	assert.ErrorContains(t, f.Err, "cannot open")
	assert.Zero(t, f.Functions)
}

// TestReplacedLibrary holds that what a container puts in the place of a mapped file is not taken for it.
func TestReplacedLibrary(t *testing.T) {
	program, library, g := cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Pushes), cudatest.NewGroup(t)
	g.Start(t, program, library)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(library, &st))
	require.NoError(t, os.Remove(library))
	gone := library + " (deleted)" // as maps then has it
	for _, fake := range []func() error{
		func() error { return os.WriteFile(gone, []byte("not it"), 0o600) },
		func() error { return unix.Mkfifo(gone, 0o600) },
		func() error { return os.Symlink("/etc/passwd", gone) },
	} {
		require.NoError(t, fake())
		e := newEngine(t, Options{byRoot: true})
		f, ok := knownInode(e, st.Ino)
		assert.True(t, ok)
		assert.Error(t, f.Err)
		require.NoError(t, e.Close())
		require.NoError(t, os.Remove(gone))
	}
}

// TestNotALibrary holds that a file that only has the name is told of, and nothing else comes of it.
func TestNotALibrary(t *testing.T) {
	program, library, g := cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Runtime), cudatest.NewGroup(t)
	g.Start(t, program, library)
	e := newEngine(t, Options{})
	f := found(t, e, library)
	assert.ErrorContains(t, f.Err, "exports none of the functions that are counted")
	assert.Zero(t, f.Functions)
}

func TestSteppedFunctions(t *testing.T) {
	program, library := cudatest.Program(t), cudatest.Library(t, cudatest.Driver, cudatest.Steps)
	t.Run("skip", func(t *testing.T) {
		g := cudatest.NewGroup(t)
		c := g.Start(t, program, library)
		e := newEngine(t, Options{})
		f := found(t, e, library)
		assert.Zero(t, f.Functions)
		assert.Contains(t, f.Stepped, "cuLaunchKernel")
		c.Call(t, "cuLaunchKernel", 10, 1)
		assert.Empty(t, drained(t, e, g))
	})
	t.Run("count", func(t *testing.T) {
		g := cudatest.NewGroup(t)
		c := g.Start(t, program, library)
		e := newEngine(t, Options{Stepped: CountStepped})
		assert.Empty(t, found(t, e, library).Stepped)
		c.Call(t, "cuLaunchKernel", 1000, 2)
		c.Call(t, "cuStreamSynchronize", 10, 1)
		got := drained(t, e, g)
		assert.EqualValues(t, 2000, got[KernelLaunch].Calls)
		assert.EqualValues(t, 10, got[StreamSynchronize].Calls)
	})
	t.Run("sample", func(t *testing.T) {
		g := cudatest.NewGroup(t)
		c := g.Start(t, program, library)
		e := newEngine(t, Options{Stepped: SampleStepped, window: 10 * time.Millisecond})
		assert.True(t, found(t, e, library).Sampled)
		sampled := counts{}
		var called uint64
		require.Eventually(t, func() bool {
			c.Call(t, "cuLaunchKernel", 1000, 1)
			called += 1000
			sampled.drain(t, e)
			return sampled[g.ID][KernelLaunch].Calls > 0
		}, patience, tick)
		n := sampled[g.ID][KernelLaunch].Calls
		assert.Zero(t, n%SampleFactor)
		assert.Less(t, n/SampleFactor, called, "most of the time it is not looked at")
		require.Eventually(t, func() bool {
			before := e.sampling()
			c.Call(t, "cuLaunchKernel", 1, 1)
			return !before
		}, patience, tick, "a window closes")
	})
}

// TestRuntime holds that libcudart is looked at for what libcuda does not show, in the processes of that libcuda alone.
func TestRuntime(t *testing.T) {
	program := cudatest.Program(t)
	seen, unseen := cudatest.Library(t, cudatest.Driver, cudatest.Pushes), cudatest.Library(t, cudatest.Driver, cudatest.Steps)
	runtime := cudatest.Library(t, "libcudart.so.12", cudatest.Pushes, cudatest.Runtime)
	a, b := cudatest.NewGroup(t), cudatest.NewGroup(t)
	good, bad := a.Start(t, program, seen, runtime), b.Start(t, program, unseen, runtime)
	e := newEngine(t, Options{})
	testutil.Require(t, "uprobe-multi", !e.opts.single, "libcudart is looked at one process at a time, which needs Linux 6.6")
	for _, library := range []string{seen, unseen, runtime} {
		require.NoError(t, found(t, e, library).Err)
	}
	for _, c := range []*cudatest.Caller{good, bad} {
		// As libcudart does: it calls libcuda.
		for _, name := range []string{"cudaLaunchKernel", "cuLaunchKernel"} {
			c.Call(t, name, 50, 1)
		}
		c.Call(t, "cudaMemcpy", 2, 1, 0, 0, 100, 1)
	}
	counted := counts{}
	require.Zero(t, counted.drain(t, e))
	assert.Equal(t, map[Kind]Count{KernelLaunch: {Calls: 50}}, counted[a.ID], "libcuda has them")
	assert.Equal(t, map[Kind]Count{KernelLaunch: {Calls: 50}, CopyHostToDevice: {Calls: 2, Bytes: 200}}, counted[b.ID])
}

// sampling tells whether a window of samples is open.
func (e *Engine) sampling() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.files {
		if len(f.sampling) > 0 {
			return true
		}
	}
	return false
}
