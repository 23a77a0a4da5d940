//go:build linux

package testbed

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
)

// buildCUDA builds the libcuda that does nothing and the program that calls it, which the receiver's own tests have.
func buildCUDA(t *testing.T) (program, library string) {
	t.Helper()
	_, err := exec.LookPath("cc")
	testutil.Require(t, "cc", err == nil, "building a stub of libcuda needs a C compiler")
	sources, dir := filepath.Join(collector.Root(), "receiver/gpureceiver/internal/cuda/cudatest/testdata"), t.TempDir()
	program, library = filepath.Join(dir, "caller"), filepath.Join(dir, "libcuda.so.1")
	for _, args := range [][]string{
		{"-o", program, filepath.Join(sources, "caller.c"), "-pthread", "-ldl"},
		{"-o", library, filepath.Join(sources, "stub.c"), "-shared", "-fPIC", "-fvisibility=hidden"},
	} {
		text, err := exec.Command("cc", append([]string{"-O2"}, args...)...).CombinedOutput()
		require.NoError(t, err, "%s", text)
	}
	return program, library
}

// cudaLine is a line of `orb8 trace gpu`.
type cudaLine struct {
	Containers []struct{ ContainerID string }
	Launches   uint64
	Copied     map[string]uint64
	Waits      uint64
}

// TestCUDACallsOfAPod holds that a program's CUDA calls, which begin after the collector, get to the pod's name: each of them once, in
// the answer of the API and in `orb8 trace gpu`.
func TestCUDACallsOfAPod(t *testing.T) {
	const uid = "0f8fad5b-d9cb-469f-a165-70867728950e"
	id := strings.Repeat("c0ffee34", 8)
	program, library := buildCUDA(t)
	cgroup := lab.NewCgroup(t).Child(t, "kubepods.slice").Child(t, "kubepods-pod"+strings.ReplaceAll(uid, "-", "_")+".slice").
		Child(t, "cri-containerd-"+id+".scope")
	c := collector.Start(t, collector.Options{Set: map[string]string{
		"receivers.gpu.cuda.mode": "on", "receivers.gpu.collection_interval": "1s",
	}})

	trace := exec.Command(collector.Binary(t, "orb8"), "trace", "gpu", "--agent", c.Query, "--every", "200ms", "--container", id, "-o", "jsonl")
	var traced, said lockedBuffer
	trace.Stdout, trace.Stderr = &traced, &said
	require.NoError(t, trace.Start())
	t.Cleanup(func() { _ = trace.Process.Kill() }) // if it has not ended

	cmd := exec.Command(program, library)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cgroup.Start(cmd))
	answers := bufio.NewScanner(out)
	require.True(t, answers.Scan(), "ready")
	call := func(name string, calls, threads int, arguments ...int) {
		var a [5]int
		copy(a[:], arguments)
		_, err := fmt.Fprintln(in, name, calls, threads, a[0], a[1], a[2], a[3], a[4])
		require.NoError(t, err)
		require.True(t, answers.Scan())
	}
	query := func(metric string) (sum float64) {
		for _, s := range queryGPU(t, c, `{"allow": [{"metrics": ["`+metric+`"], "containers": ["`+id+`"]}]}`).Series {
			for _, p := range s.Points {
				sum += p.Value
			}
		}
		return sum
	}
	collector.Await(t, "the library is found", func() bool {
		call("cuMemAlloc_v2", 1, 1, 0, 1)
		return query("gpu.cuda.memory.allocations") > 0
	}, func() any { return c.Log() })

	// From now on each call is seen.
	call("cuLaunchKernel", 25_000, 4)
	call("cuMemcpyHtoD_v2", 10, 1, 0, 0, 1<<20)
	call("cuStreamSynchronize", 5, 1, 1000)
	in.Close()
	require.NoError(t, cmd.Wait())
	var launches, copied, waits uint64
	collector.Await(t, "what was traced", func() bool {
		launches, copied, waits = 0, 0, 0
		for text := range strings.Lines(traced.String()) {
			var line cudaLine
			if json.Unmarshal([]byte(text), &line) != nil || len(line.Containers) != 1 || line.Containers[0].ContainerID != id {
				return false
			}
			launches, copied, waits = launches+line.Launches, copied+line.Copied["host_to_device"], waits+line.Waits
		}
		return launches >= 100_000 && copied >= 10<<20 && waits >= 5
	}, func() any { return traced.String() + said.String() })
	assert.EqualValues(t, 100_000, launches)
	assert.EqualValues(t, 10<<20, copied)
	assert.EqualValues(t, 5, waits)
	assert.InDelta(t, 100_000, query("gpu.cuda.kernel.launch.calls"), 0)
	assert.InDelta(t, 5, query("gpu.cuda.synchronize.calls"), 0)
	assert.GreaterOrEqual(t, query("gpu.cuda.synchronize.duration"), 5*0.001)
	require.NoError(t, trace.Process.Signal(syscall.SIGTERM))
	require.NoError(t, trace.Wait(), "%s", &said)
	assert.Empty(t, said.String())
}

// TestCUDAPrivileges holds that the capabilities that agents have on nodes with GPUs are enough, and that one that is missing is said.
func TestCUDAPrivileges(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv")
	testutil.Require(t, "bpf", err == nil, "setpriv (Debian package util-linux) is not installed")
	program, library := buildCUDA(t)
	cmd := exec.Command(program, library)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, lab.NewCgroup(t).Start(cmd))
	require.True(t, bufio.NewScanner(out).Scan(), "ready")
	const missing = "cannot open the root directory of its process; add CAP_SYS_PTRACE"
	for name, tt := range map[string]struct{ capabilities, says string }{
		"as deployed":        {",+sys_ptrace", `GPUs are watched	`},
		"without SYS_PTRACE": {"", missing},
	} {
		t.Run(name, func(t *testing.T) {
			c := collector.Start(t, collector.Options{
				Wrapper: []string{setpriv, "--inh-caps=-all", "--bounding-set=-all,+bpf,+perfmon,+net_admin" + tt.capabilities},
				Set:     map[string]string{"receivers.gpu.cuda.mode": "on", "receivers.gpu.collection_interval": "1s"},
			})
			collector.Await(t, "what the receiver says", func() bool { return strings.Contains(c.Log(), tt.says) }, func() any { return c.Log() })
			assert.Equal(t, tt.says == missing, strings.Contains(c.Log(), missing))
		})
	}
	in.Close()
	require.NoError(t, cmd.Wait())
}
