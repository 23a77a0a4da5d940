package engine

import (
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/testutil"
)

func TestReasonsAreNamed(t *testing.T) {
	kernel, err := btf.LoadKernelSpec()
	require.NoError(t, err)
	names, err := readReasons(kernel)
	testutil.Require(t, "drops", err == nil, "this kernel has no drop reasons")
	assert.Contains(t, names, uint32(3), "the kernel's numbers begin low")
	var found []string
	for value := range names {
		found = append(found, names.name(value))
	}
	assert.Subset(t, found, []string{"not_specified", "no_socket", "netfilter_drop", "socket_rcvbuff"})
	assert.Equal(t, "65539", names.name(1<<16|3), "the reason of a module")
}

func TestTracepointArguments(t *testing.T) {
	kernel, err := btf.LoadKernelSpec()
	require.NoError(t, err)
	_, err = tracepointArguments(kernel, "no_such_thing")
	require.ErrorIs(t, err, btf.ErrNotFound)
	assert.ErrorContains(t, err, "no tracepoint no_such_thing")
	n, err := tracepointArguments(kernel, "sched_process_exit")
	require.NoError(t, err)
	assert.NotZero(t, n)
}
