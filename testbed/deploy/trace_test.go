//go:build linux

package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/testbed/cluster"
	"github.com/orb8/orb8/testbed/internal/collector"
)

// goneAfter is how long a cluster may take to be rid of a pod whose user was killed: 15 s until it ends, 10 s until it is removed, and what
// a busy machine takes.
const goneAfter = 90 * time.Second

// testTrace traces a node on which nothing of orb8 runs, and looks at what is left behind.
func testTrace(t *testing.T, c *cluster.Cluster) {
	cli := startTrace(t, c, "network", "--port", "8080", "--kind", "syn")
	cli.await(t, `"port":8080`)
	assert.Contains(t, cli.stderr.String(), "starting pod default/orb8-trace-")
	require.NotEmpty(t, leftovers(t, c))
	require.NoError(t, cli.cmd.Process.Signal(syscall.SIGHUP))
	require.NoError(t, cli.cmd.Wait(), "%s", &cli.stderr)
	collector.Await(t, "nothing left of a trace that ended", func() bool { return leftovers(t, c) == "" }, func() any { return leftovers(t, c) })

	cli = startTrace(t, c, "syscall", "--syscall", "connect")
	cli.await(t, `"syscall":"connect"`)
	require.NoError(t, cli.cmd.Process.Kill())
	require.Error(t, cli.cmd.Wait())
	killed := time.Now()
	require.Eventually(t, func() bool { return leftovers(t, c) == "" }, goneAfter, time.Second, "left of a trace that was killed")
	t.Logf("nothing left %s after the command was killed", time.Since(killed).Round(time.Second))
}

func leftovers(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	return kubectl(t, c.ControlPlane, nil, "get", "jobs,pods", "--all-namespaces", "-l", "app.kubernetes.io/component=trace", "-o", "name")
}

// trace is a running `orb8 trace`.
type trace struct {
	cmd            *exec.Cmd
	stdout, stderr output
}

func startTrace(t *testing.T, c *cluster.Cluster, args ...string) *trace {
	t.Helper()
	tool, err := c.KubectlPath()
	require.NoError(t, err)
	cmd, err := c.Command(t.Context(), collector.Binary(t, "orb8"), append([]string{"trace"}, append(args, "--node", cluster.NodeName, "-o", "jsonl")...)...)
	require.NoError(t, err)
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(tool)+":"+os.Getenv("PATH"), "KUBECONFIG="+c.Kubeconfig())
	tr := &trace{cmd: cmd}
	cmd.Stdout, cmd.Stderr = &tr.stdout, &tr.stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // if it has not ended
	return tr
}

func (tr *trace) await(t *testing.T, what string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(tr.stdout.String(), what) }, 2*time.Minute, 100*time.Millisecond,
		"%s in\n%s%s", what, &tr.stdout, &tr.stderr)
}

// output is a buffer that a child writes to while a test reads it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
