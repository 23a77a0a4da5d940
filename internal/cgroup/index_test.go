package cgroup

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func path(t *testing.T, x *index, id uint64) string {
	t.Helper()
	identity, ok := x.get(id)
	if !ok {
		return ""
	}
	return identity.Path
}

func TestIndexKnowsWhatExists(t *testing.T) {
	x := newIndex(2)
	assert.Empty(t, path(t, x, 7))
	x.put(7, "/system.slice/sshd.service")
	identity, ok := x.get(7)
	require.True(t, ok)
	assert.Equal(t, &Identity{Path: "/system.slice/sshd.service", Unit: "sshd.service"}, identity)
	assert.Equal(t, 1, x.len())
}

func TestIndexRemembersTheLastRemoved(t *testing.T) {
	x := newIndex(3)
	x.put(1, "/stays")
	for id := uint64(10); id < 15; id++ {
		p := fmt.Sprint("/", id)
		x.put(id, p)
		x.remove(p)
	}
	for id, want := range map[uint64]string{1: "/stays", 10: "", 11: "", 12: "/12", 13: "/13", 14: "/14"} {
		assert.Equal(t, want, path(t, x, id), "id %d", id)
	}
	assert.Equal(t, 4, x.len())
}

func TestIndexTellsGenerationsOfAPathApart(t *testing.T) {
	x := newIndex(4)
	x.put(1, "/build")
	x.remove("/build")
	x.put(2, "/build")
	// The removal was not seen, only that another directory is in the place.
	x.put(3, "/build")
	for id := uint64(1); id <= 3; id++ {
		assert.Equal(t, "/build", path(t, x, id), "id %d", id)
	}
	x.remove("/build")
	assert.Empty(t, x.live)
}

func TestIndexPutAgainUndoesARemoval(t *testing.T) {
	x := newIndex(1)
	x.put(1, "/a")
	x.remove("/a")
	x.put(1, "/a")
	x.put(2, "/b")
	x.remove("/b")
	x.put(3, "/c")
	x.remove("/c")
	assert.Equal(t, "/a", path(t, x, 1), "exists, so what was removed since must not push it out")
	assert.Empty(t, path(t, x, 2))
	assert.Equal(t, "/c", path(t, x, 3))
}

func TestIndexRemoveOfUnknownPath(t *testing.T) {
	x := newIndex(1)
	x.put(1, "/a")
	x.remove("/b")
	assert.Equal(t, "/a", path(t, x, 1))
}

func TestIndexRoundFindsWhatWasNotSeen(t *testing.T) {
	x := newIndex(4)
	x.put(1, "/seen")
	x.put(2, "/stale")
	x.beginRound()
	x.put(1, "/seen")
	x.put(3, "/new")
	assert.Equal(t, []string{"/stale"}, x.endRound())
}

func BenchmarkIndexGet(b *testing.B) {
	x := newIndex(1)
	for id := range uint64(1000) {
		x.put(id, fmt.Sprint("/kubepods/pod", id))
	}
	b.ReportAllocs()
	var id uint64
	for b.Loop() {
		id = (id + 7) % 1000
		if _, ok := x.get(id); !ok {
			b.Fatal("unknown")
		}
	}
}
