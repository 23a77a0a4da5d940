package ebpfmap

import (
	"encoding/binary"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/testutil"
)

func newMap(t *testing.T, spec *ebpf.MapSpec) *ebpf.Map {
	t.Helper()
	testutil.Require(t, "bpf", os.Geteuid() == 0, "creating BPF maps needs root")
	m, err := ebpf.NewMap(spec)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, m.Close()) })
	return m
}

func TestDrainer(t *testing.T) {
	const entries = 3 * drainBatch
	m := newMap(t, &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: entries, Flags: unix.BPF_F_NO_PREALLOC})
	var d Drainer[uint32, uint64]
	for round := range 2 {
		for k := range uint32(entries) {
			require.NoError(t, m.Put(k, uint64(k)*3))
		}
		seen := map[uint32]bool{}
		n, err := d.Drain(m, func(k *uint32, v *uint64) {
			assert.Equal(t, uint64(*k)*3, *v)
			seen[*k] = true
		})
		require.NoError(t, err)
		assert.Equal(t, entries, n, "round %d", round)
		assert.Len(t, seen, entries)
		n, err = d.Drain(m, func(*uint32, *uint64) {})
		require.NoError(t, err)
		assert.Zero(t, n, "what was drained is gone")
	}
}

func TestWindow(t *testing.T) {
	type entry struct{ A, B uint64 }
	perPage := uint32(os.Getpagesize() / 16)
	m := newMap(t, &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 2 * perPage, Flags: unix.BPF_F_MMAPABLE})
	require.NoError(t, m.Put(perPage+2, entry{7, 8}))
	require.NoError(t, Window(m, perPage, 3, func(entries []entry) {
		assert.Equal(t, []entry{{}, {}, {7, 8}}, entries)
		entries[1] = entry{5, 6}
	}))
	var raw [16]byte
	require.NoError(t, m.Lookup(perPage+1, &raw))
	assert.EqualValues(t, 6, binary.NativeEndian.Uint64(raw[8:]), "the map itself was changed")
	require.NoError(t, Window(m, 0, 0, func(entries []entry) { assert.Empty(t, entries) }))
	assert.ErrorContains(t, Window(m, 2*perPage, perPage, func([]entry) {}), "cannot map entries")
}

func TestGracePeriod(t *testing.T) {
	testutil.Require(t, "bpf", os.Geteuid() == 0, "creating BPF maps needs root")
	g, err := NewGracePeriod()
	require.NoError(t, err)
	start := time.Now()
	require.NoError(t, g.Wait())
	assert.Less(t, time.Since(start), 10*time.Second)
	require.NoError(t, g.Close())
	assert.Error(t, g.Wait())
}
