//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/cluster"
	"github.com/orb8/orb8/testbed/internal/collector"
)

// What differs from the shipped configurations: faster reports, credentials from a file, and where records go.
const (
	agentOverlay = `
receivers:
  ebpf_network: {interval: 1s}
  ebpf_syscall: {interval: 1s}
processors:
  pod_enrichment: {kubernetes: {auth_type: kubeConfig}}
  k8s_attributes: {auth_type: kubeConfig}
`
	gatewayOverlay = `
processors:
  pod_enrichment: {gateway: true, kubernetes: {auth_type: kubeConfig, scope: cluster}}
exporters:
  otlp_grpc: {endpoint: %s, compression: none, tls: {insecure: true}}
service:
  pipelines:
    logs: {processors: [memory_limiter, pod_enrichment], exporters: [orb8_store, flow_metrics, otlp_grpc]}
`
)

// orb8 is an agent and a gateway on the node, as processes, with the shipped configurations.
type orb8 struct {
	c              *cluster.Cluster
	sink           *sink
	query          string // address of the gateway's query API
	agent, gateway *process
}

// startOrb8 returns when the agent counts.
func startOrb8(t *testing.T, c *cluster.Cluster) *orb8 {
	t.Helper()
	ports := testutil.FreeAddresses(t, c.Listen, 5)
	o := &orb8{c: c, sink: newSink(t, c), query: ports[2]}
	o.gateway = startCollector(t, c, "gateway", fmt.Sprintf(gatewayOverlay, o.sink.address),
		"ORB8_OTLP_GRPC_ENDPOINT="+ports[0], "ORB8_OTLP_HTTP_ENDPOINT="+ports[1],
		"ORB8_QUERY_ENDPOINT="+o.query, "ORB8_PROMETHEUS_ENDPOINT="+ports[3], "ORB8_HEALTH_ENDPOINT="+ports[4], "ORB8_TELEMETRY_PORT=19092", "ORB8_STATE_DIR="+t.TempDir())
	o.agent = startCollector(t, c, "agent", agentOverlay, "ORB8_GATEWAY_ENDPOINT="+ports[0], "NODE_NAME="+cluster.NodeName, "ORB8_STATE_DIR="+t.TempDir())
	// The agent's own connection to the API server is among the first flows, so that something arrives in any case.
	o.sink.await(t, 0, time.Minute, "a first record", func(all []record) bool { return len(all) > 0 })
	return o
}

// rows asks the gateway who talked to whom, both ends of a connection in one row.
func (o *orb8) rows(t *testing.T) (rows []collector.Flow) {
	t.Helper()
	cmd, err := o.c.Command(t.Context(), collector.Binary(t, "orb8"), "flows", "--agent", o.query, "--output=json", "--ends=false", "--limit=0", "--since=1h")
	require.NoError(t, err)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "%s", &stderr)
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &rows))
	return rows
}

// process is an orb8-collector on the node.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan error // nil once it was stopped

	mu  sync.Mutex
	log bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

// Log returns what it wrote so far.
func (p *process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// startCollector starts a collector with a shipped configuration. The test's end stops it, and fails if it ends otherwise.
func startCollector(t *testing.T, c *cluster.Cluster, config, overlay string, env ...string) *process {
	t.Helper()
	path := filepath.Join(t.TempDir(), "overlay.yaml")
	require.NoError(t, os.WriteFile(path, []byte(overlay), 0o600))
	shipped := filepath.Join(collector.Root(), "distribution", "config", config+".yaml")
	cmd, err := c.Command(context.Background(), collector.Binary(t, "orb8-collector"), "--config", shipped, "--config", path)
	require.NoError(t, err)
	cmd.Env = append(append(cmd.Env, "KUBECONFIG="+c.Kubeconfig()), env...)
	p := &process{name: config, cmd: cmd, exited: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = p, p
	require.NoError(t, cmd.Start())
	go func(exited chan<- error) { exited <- cmd.Wait() }(p.exited)
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("log of the %s:\n%s", config, tail(p.Log()))
		}
	})
	return p
}

// stop ends the process, if it runs, and fails the test if it does not end in order.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if p.exited == nil {
		return
	}
	err := stop(p.cmd, p.exited)
	p.exited = nil
	if err != nil {
		t.Errorf("%s: %v\n%s", p.name, err, tail(p.Log()))
	}
}

func stop(cmd *exec.Cmd, exited <-chan error) error {
	const grace = 30 * time.Second
	_ = cmd.Process.Signal(unix.SIGTERM) // if it has ended, Wait says how
	select {
	case err := <-exited:
		return err
	case <-time.After(grace):
		_ = cmd.Process.Kill()
		<-exited
		return fmt.Errorf("still runs %s after SIGTERM", grace)
	}
}

// tail returns the last lines of a log.
func tail(log string) string {
	const lines = 40
	all := strings.Split(log, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
