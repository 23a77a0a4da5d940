//go:build linux

// Package collector runs the real orb8-collector and the orb8 CLI, as `make build` leaves them in bin/.
package collector

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/lab"
)

// Options of a collector. The zero value runs the shipped standalone configuration in the test's own namespaces.
type Options struct {
	// Config is a configuration file; empty means Standalone.
	Config string
	// Set overrides single keys, as the collector's own --set flag: "receivers.ebpf_network.interval": "200ms".
	Set map[string]string
	// Overlay is YAML that is merged over the configuration.
	Overlay string
	// Env are further environment variables, NAME=value.
	Env []string
	// Wrapper is a command that runs the collector's command line: setpriv, ...
	Wrapper []string
	// Node is where the collector and the CLI run; nil is where the test runs.
	Node *lab.Node
}

// Collector is a running orb8-collector.
type Collector struct {
	t      testing.TB
	node   *lab.Node
	cmd    *exec.Cmd
	log    *logBuffer
	exited chan struct{}
	// Query, Prometheus and Telemetry are the addresses (host:port) of the query API, of the flow metrics and of the
	// collector's own metrics.
	Query, Prometheus, Telemetry string
}

// timeout is how long a collector may take to start, to stop or to show what a test waits for.
const timeout = 30 * time.Second

// Binary returns the path of a program in bin/, and ends the test if it is not there.
func Binary(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(Root(), "bin", name)
	_, err := os.Stat(path)
	require.NoError(t, err, "run `make build` first")
	return path
}

// Root returns the root folder of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// Standalone returns the path of the shipped standalone configuration.
func Standalone() string {
	return filepath.Join(Root(), "distribution", "config", "standalone.yaml")
}

// Gateway returns the path of the shipped configuration of a gateway.
func Gateway() string {
	return filepath.Join(filepath.Dir(Standalone()), "gateway.yaml")
}

// Start starts a collector and waits until its query API answers and its programs are attached: a node has reported. The
// test's end stops it, and fails if it does not stop cleanly.
func Start(t testing.TB, o Options) *Collector {
	t.Helper()
	c := Launch(t, o)
	t.Cleanup(func() {
		if !c.ended() {
			c.Stop()
		}
	})
	c.awaitAnswer()
	return c
}

// Launch starts a collector that may fail: it waits for nothing. The test's end kills it.
func Launch(t testing.TB, o Options) *Collector {
	t.Helper()
	c := &Collector{t: t, node: o.Node, log: &logBuffer{}, exited: make(chan struct{})}
	addresses := testutil.FreeAddresses(t, func(network, address string) (l net.Listener, err error) {
		err = in(o.Node, func() error {
			l, err = net.Listen(network, address)
			return err
		})
		return l, err
	}, 3)
	c.Query, c.Prometheus, c.Telemetry = addresses[0], addresses[1], addresses[2]
	if o.Config == "" {
		o.Config = Standalone()
	}
	args := slices.Concat(o.Wrapper, []string{Binary(t, "orb8-collector"), "--config", o.Config})
	if o.Overlay != "" {
		overlay := filepath.Join(t.TempDir(), "overlay.yaml")
		require.NoError(t, os.WriteFile(overlay, []byte(o.Overlay), 0o600))
		args = append(args, "--config", overlay)
	}
	for key, value := range o.Set {
		args = append(args, "--set", key+"="+value)
	}
	c.cmd = exec.Command(args[0], args[1:]...)
	c.cmd.Env = append(os.Environ(),
		"ORB8_QUERY_ENDPOINT="+c.Query, "ORB8_PROMETHEUS_ENDPOINT="+c.Prometheus, "ORB8_TELEMETRY_PORT="+addresses[2][strings.LastIndex(addresses[2], ":")+1:],
		"ORB8_STATE_DIR="+t.TempDir())
	c.cmd.Env = append(c.cmd.Env, o.Env...)
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	require.NoError(t, startIn(o.Node, c.cmd))
	go func() {
		_ = c.cmd.Wait() // the exit code stays in ProcessState
		close(c.exited)
	}()
	t.Cleanup(func() {
		if !c.ended() {
			_ = c.cmd.Process.Kill()
			<-c.exited
		}
		if t.Failed() {
			t.Logf("log of the collector:\n%s", c.Log())
		}
	})
	return c
}

// Stop ends the collector as an init system does, by SIGTERM, and fails the test unless it exits with 0.
func (c *Collector) Stop() {
	c.t.Helper()
	require.NoError(c.t, c.cmd.Process.Signal(syscall.SIGTERM))
	require.Zero(c.t, c.Wait(), "exit code after SIGTERM; log:\n%s", c.Log())
}

// Kill ends the collector by SIGKILL.
func (c *Collector) Kill() {
	c.t.Helper()
	require.NoError(c.t, c.cmd.Process.Kill())
	c.Wait()
}

// Wait waits for the collector's end and returns its exit code, -1 for a signal.
func (c *Collector) Wait() int {
	c.t.Helper()
	select {
	case <-c.exited:
	case <-time.After(timeout):
		require.Fail(c.t, "the collector still runs after "+timeout.String(), "log:\n%s", c.Log())
	}
	return c.cmd.ProcessState.ExitCode()
}

// Log returns what the collector has written to stdout and stderr so far.
func (c *Collector) Log() string { return c.log.String() }

// PID returns the collector's process id.
func (c *Collector) PID() int { return c.cmd.Process.Pid }

func (c *Collector) ended() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

func (c *Collector) awaitAnswer() {
	c.t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		stdout, stderr, code := c.CLI("status", "-o", "json")
		if code == 0 && strings.Contains(stdout, `"attachMode"`) {
			return
		}
		if c.ended() || time.Now().After(deadline) {
			require.Fail(c.t, "no node has reported", "%s%s\nlog:\n%s", stdout, stderr, c.Log())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func in(node *lab.Node, f func() error) error {
	if node == nil {
		return f()
	}
	return node.Do(f)
}

func startIn(node *lab.Node, cmd *exec.Cmd) error {
	if node == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd.Start()
	}
	return node.Start(cmd)
}

// logBuffer is a buffer that a child writes to while a test reads it.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
