package cgroup

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/orb8/orb8/internal/testutil"
)

// hierarchy makes a cgroup in which the test may make others, for the time of the test.
func hierarchy(t testing.TB) string {
	t.Helper()
	m, err := FindMount("")
	testutil.Require(t, "bpf", err == nil, "there is no cgroup v2 hierarchy")
	testutil.Require(t, "bpf", os.Geteuid() == 0, "only root can make cgroups")
	dir, err := os.MkdirTemp(m.Path, "orb8-test-")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.Remove(dir)) })
	return dir
}

// makeCgroup makes a cgroup, or a directory elsewhere, for the time of the test.
func makeCgroup(t testing.TB, parent string, names ...string) string {
	t.Helper()
	dir := parent
	for _, name := range names {
		dir = filepath.Join(dir, name)
		require.NoError(t, os.Mkdir(dir, 0o755))
		made := dir
		t.Cleanup(func() { _ = os.Remove(made) })
	}
	return dir
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t).Ino
}

func start(t testing.TB, root string) *Resolver {
	t.Helper()
	r, err := NewResolver(root, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, r.Close()) })
	return r
}

// known waits until the resolver has seen a cgroup without having been asked for it.
func known(t testing.TB, r *Resolver, id uint64) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, ok := r.index.get(id)
		return ok
	}, time.Minute, time.Millisecond)
}

func TestResolverKnowsRealCgroups(t *testing.T) {
	root := hierarchy(t)
	pod := makeCgroup(t, root, "kubepods", "burstable", "pod"+testUID)
	before := makeCgroup(t, pod, testID)
	r := start(t, root)

	identity, ok := r.Resolve(inode(t, before))
	require.True(t, ok)
	assert.Equal(t, &Identity{
		Path:        "/kubepods/burstable/pod" + testUID + "/" + testID,
		ContainerID: testID, PodUID: testUID, QOSClass: Burstable,
	}, identity)
	identity, ok = r.Resolve(inode(t, root))
	require.True(t, ok)
	assert.Equal(t, &Identity{Path: "/"}, identity)

	after := makeCgroup(t, pod, otherID)
	id := inode(t, after)
	known(t, r, id)
	require.NoError(t, os.Remove(after))
	require.Eventually(t, func() bool { return !r.exists("/kubepods/burstable/pod" + testUID + "/" + otherID) },
		time.Minute, time.Millisecond)
	identity, ok = r.Resolve(id)
	require.True(t, ok, "was never asked for while it existed")
	assert.Equal(t, otherID, identity.ContainerID)
}

func (r *Resolver) exists(path string) bool {
	r.index.mu.RLock()
	defer r.index.mu.RUnlock()
	return r.index.live[path] != nil
}

func TestResolverTellsCgroupsOfOneNameApart(t *testing.T) {
	root := hierarchy(t)
	r := start(t, root)
	seen := map[uint64]bool{}
	for range 20 {
		dir := makeCgroup(t, root, "again")
		id := inode(t, dir)
		assert.False(t, seen[id], "id %d was used before", id)
		seen[id] = true
		known(t, r, id)
		require.NoError(t, os.Remove(dir))
	}
	for id := range seen {
		identity, ok := r.Resolve(id)
		require.True(t, ok, "id %d", id)
		assert.Equal(t, "/again", identity.Path)
	}
}

func TestResolverDropsTheWatchesOfRemovedCgroups(t *testing.T) {
	root := hierarchy(t)
	r := start(t, root)
	watches := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		assert.Len(t, r.watcher.paths, len(r.watcher.ids))
		return len(r.watcher.ids)
	}
	dir := makeCgroup(t, root, "watches", "a", "b")
	known(t, r, inode(t, dir))
	before := watches()
	for d := dir; d != root; d = filepath.Dir(d) {
		require.NoError(t, os.Remove(d))
	}
	require.Eventually(t, func() bool { return watches() == before-3 }, time.Minute, time.Millisecond)
}

// Below, any directory serves as a hierarchy.

func TestResolverFollowsDirectoriesMadeAtOnce(t *testing.T) {
	root := t.TempDir()
	r := start(t, root)
	deep := filepath.Join(root, "a", "b", "c", "d", "e")
	require.NoError(t, os.MkdirAll(deep, 0o755))
	known(t, r, inode(t, deep))
	identity, ok := r.Resolve(inode(t, deep))
	require.True(t, ok)
	assert.Equal(t, "/a/b/c/d/e", identity.Path)
	assert.Equal(t, 6, r.Len())
}

func TestResolverReadsAnewWhenChangesWereLost(t *testing.T) {
	root := t.TempDir()
	stale := makeCgroup(t, root, "stale")
	r := start(t, root)
	r.mu.Lock()
	defer r.mu.Unlock()
	// The goroutine that follows changes waits for the lock: as if it had lost these two.
	require.NoError(t, os.Remove(stale))
	id := inode(t, makeCgroup(t, root, "new", "below"))
	r.apply(change{lost: true})
	identity, ok := r.index.get(id)
	require.True(t, ok)
	assert.Equal(t, "/new/below", identity.Path)
	assert.False(t, r.exists("/stale"))
}

func TestResolverWithoutInotify(t *testing.T) {
	root := t.TempDir()
	r := newResolver(root, zap.NewNop(), nil)
	id := inode(t, makeCgroup(t, root, "a", "b"))
	identity, ok := r.Resolve(id)
	require.True(t, ok, "found by reading the hierarchy")
	assert.Equal(t, "/a/b", identity.Path)
	assert.NoError(t, r.Close())
}

func TestResolverBeyondTheLimitOfWatches(t *testing.T) {
	root := t.TempDir()
	core, logs := observer.New(zap.WarnLevel)
	// An inotify that is closed refuses every watch, as one does that has reached its limit.
	w, err := newWatcher()
	require.NoError(t, err)
	require.NoError(t, w.close())
	r := newResolver(root, zap.New(core), w)
	<-r.done

	id := inode(t, makeCgroup(t, root, "a", "b"))
	identity, ok := r.Resolve(id)
	require.True(t, ok, "found by reading the hierarchy")
	assert.Equal(t, "/a/b", identity.Path)
	require.Len(t, logs.All(), 1, "once, though there are three directories")
	assert.Equal(t, "cgroups are not all watched: containers that live less than a reporting interval may stay unnamed", logs.All()[0].Message)
	assert.Contains(t, logs.All()[0].ContextMap()["error"], "raise fs.inotify.max_user_watches")
}

func TestResolverSearchesForAnUnknownIDOnce(t *testing.T) {
	r := start(t, t.TempDir())
	const never = 1 << 63
	scans := func(ask uint64, sinceLast time.Duration) bool {
		r.mu.Lock()
		r.scanned = r.scanned.Add(-sinceLast)
		last := r.scanned
		r.mu.Unlock()
		_, ok := r.Resolve(ask)
		assert.False(t, ok)
		return r.scanned.After(last)
	}
	assert.False(t, scans(never, 0), "the hierarchy was read a moment ago")
	assert.True(t, scans(never, scanInterval))
	assert.False(t, scans(never, 0), "was not found when the hierarchy was read after it was asked for")
	assert.False(t, scans(never+1, 0))
	assert.True(t, scans(never+2, scanInterval))
	assert.Len(t, r.unknown, 3)
	for id := uint64(never); id < never+2*maxUnknown; id++ {
		r.search(id)
	}
	assert.LessOrEqual(t, len(r.unknown), maxUnknown)
}

func TestResolverNeedsTheRoot(t *testing.T) {
	_, err := NewResolver(filepath.Join(t.TempDir(), "missing"), zap.NewNop())
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.ErrorContains(t, err, "cannot read the cgroups: ")
}

func TestResolverClosed(t *testing.T) {
	root := t.TempDir()
	r, err := NewResolver(root, zap.NewNop())
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	identity, ok := r.Resolve(inode(t, root))
	require.True(t, ok)
	assert.Equal(t, "/", identity.Path)
}

func TestResolverConcurrently(t *testing.T) {
	root := t.TempDir()
	r := start(t, root)
	ids := make(chan uint64)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for id := range ids {
				r.Resolve(id)
				r.Resolve(1<<62 + id)
			}
		})
	}
	for range 200 {
		dir := filepath.Join(root, "dir")
		require.NoError(t, os.Mkdir(dir, 0o755))
		ids <- inode(t, dir)
		require.NoError(t, os.Remove(dir))
	}
	close(ids)
	wg.Wait()
	require.Eventually(t, func() bool { return !r.exists("/dir") }, time.Minute, time.Millisecond)
}

func FuzzDecode(f *testing.F) {
	w, err := newWatcher()
	require.NoError(f, err)
	f.Cleanup(func() { _ = w.close() })
	w.paths[1] = "/parent"
	event := func(wd, mask, size byte, name string) []byte {
		return append([]byte{wd, 0, 0, 0, 0, mask, 0, 0x40, 0, 0, 0, 0, size, 0, 0, 0}, name...)
	}
	f.Add(event(1, 1, 4, "dir\x00"))
	f.Add(append(event(1, 2, 4, "dir\x00"), event(1, 1, 0, "")...))
	f.Add(event(1, 1, 200, "dir\x00"))
	f.Add(event(2, 1, 4, "dir\x00"))
	f.Fuzz(func(t *testing.T, events []byte) {
		w.decode(events, func(c change) {
			if !c.lost {
				assert.Regexp(t, `(?s)^/parent/`, c.path)
			}
		})
	})
}

// BenchmarkScan is what a search for an unknown id costs on a node with 200 pods of 3 containers.
func BenchmarkScan(b *testing.B) {
	root := hierarchy(b)
	for i := range 200 {
		pod := makeCgroup(b, root, "pod"+string(rune('A'+i)))
		for _, name := range []string{"x", "y", "z"} {
			makeCgroup(b, pod, name)
		}
	}
	r := start(b, root)
	b.ReportAllocs()
	for b.Loop() {
		r.mu.Lock()
		err := r.scanAll()
		r.mu.Unlock()
		require.NoError(b, err)
	}
	b.ReportMetric(float64(r.Len()), "cgroups")
}
