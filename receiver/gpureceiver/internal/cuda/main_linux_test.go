package cuda

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/cuda/cudatest"
)

// patience is for what takes milliseconds, looked for every tick.
const patience, tick = 10 * time.Second, 5 * time.Millisecond

func TestMain(m *testing.M) {
	if dir := os.Getenv(cudatest.EnvBuild); dir != "" {
		if err := cudatest.BuildAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func newEngine(t testing.TB, opts Options) *Engine {
	t.Helper()
	testutil.Require(t, "bpf", os.Geteuid() == 0, "loading BPF programs needs root")
	if opts.Interval == 0 {
		opts.Interval = time.Hour // what is found is found by the word of it
	}
	e, err := New(opts)
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		t.Fatalf("%+v", verifier)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	return e
}

// counts are what was counted, by cgroup and kind.
type counts map[uint64]map[Kind]Count

func (c counts) drain(t testing.TB, e *Engine) Loss {
	t.Helper()
	loss, err := e.Drain(func(id uint64, kind Kind, n *Count) {
		if c[id] == nil {
			c[id] = map[Kind]Count{}
		}
		sum := c[id][kind]
		sum.Add(n)
		c[id][kind] = sum
	})
	require.NoError(t, err)
	return loss
}

// drained returns what was counted in a cgroup since the last time. Nothing was lost.
func drained(t testing.TB, e *Engine, g cudatest.Group) map[Kind]Count {
	t.Helper()
	c := counts{}
	require.Zero(t, c.drain(t, e), "lost")
	return c[g.ID]
}

// known returns what is known of a library, by its inode: others on this host may have theirs.
func known(t testing.TB, e *Engine, library string) (File, bool) {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Stat(library, &st))
	return knownInode(e, st.Ino)
}

func knownInode(e *Engine, inode uint64) (File, bool) {
	for _, f := range e.Files() {
		if f.Inode == inode {
			return f, true
		}
	}
	return File{}, false
}

// found is known of a library that must be.
func found(t testing.TB, e *Engine, library string) File {
	t.Helper()
	f, ok := known(t, e, library)
	require.True(t, ok, "files: %v", e.Files())
	return f
}

// attached waits until a library is looked at by so many processes, and returns what is known of it.
func attached(t testing.TB, e *Engine, library string, processes int) File {
	t.Helper()
	var f File
	require.Eventually(t, func() bool {
		f, _ = known(t, e, library)
		return f.Processes == processes
	}, patience, tick, "files: %v", e.Files())
	return f
}
