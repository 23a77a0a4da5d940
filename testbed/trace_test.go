//go:build linux

package testbed

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
)

// Without a collector and without Kubernetes, `orb8 trace --node` starts a collector that ends with it, however that comes.
func TestTraceOnThisHost(t *testing.T) {
	l := lab.New(t, lab.Options{})
	name, err := os.Hostname()
	require.NoError(t, err)
	for _, end := range []struct {
		by   syscall.Signal
		code int
	}{{syscall.SIGTERM, 0}, {syscall.SIGHUP, 0}, {syscall.SIGKILL, -1}} {
		t.Run(end.by.String(), func(t *testing.T) {
			cli := exec.Command(collector.Binary(t, "orb8"), "trace", "network", "--node", name, "--port", "9", "--kind", "syn", "-o", "jsonl")
			cli.Env = append(os.Environ(), "KUBECONFIG=", "HOME="+t.TempDir())
			var stdout, stderr lockedBuffer
			cli.Stdout, cli.Stderr = &stdout, &stderr
			// Where nobody listens at the usual port.
			require.NoError(t, l.Agent.Start(cli))
			t.Cleanup(func() { _ = cli.Process.Kill() }) // if it has not ended
			collector.Await(t, "an attempt to connect", func() bool {
				assert.NoError(t, l.Client.Do(func() error {
					_, err := net.Dial("tcp4", l.Server.IPv4.String()+":9")
					assert.ErrorContains(t, err, "refused")
					return nil
				}))
				return strings.Contains(stdout.String(), fmt.Sprintf(`"destination":{"address":"%s","port":9`, l.Server.IPv4))
			}, func() any { return stdout.String() + stderr.String() })
			assert.Equal(t, "orb8: starting a collector on this host, which has none\n", stderr.String())
			children := childrenOf(t, cli.Process.Pid)
			require.Len(t, children, 1)

			require.NoError(t, cli.Process.Signal(end.by))
			_ = cli.Wait() // the exit code stays in ProcessState
			assert.Equal(t, end.code, cli.ProcessState.ExitCode(), "%s", &stderr)
			collector.Await(t, "the collector's end", func() bool { return !runs(children[0]) }, func() any { return children })
		})
	}
}

// childrenOf returns the processes that a process has started.
func childrenOf(t *testing.T, pid int) (children []string) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	require.NoError(t, err)
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		require.NoError(t, err)
		children = append(children, strings.Fields(string(text))...)
	}
	return children
}

// runs is true of a process that is there and no zombie: who reaps it is not the test's.
func runs(pid string) bool {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// lockedBuffer is a buffer that a child writes to while a test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
