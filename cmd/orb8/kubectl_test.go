//go:build unix

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeKubectl puts a kubectl into the PATH that does what a line of shell says, and a kubeconfig into place. It returns the file that
// has the arguments of each call.
func fakeKubectl(t *testing.T, does string) (calls string) {
	t.Helper()
	dir := t.TempDir()
	calls = filepath.Join(dir, "calls")
	script := "#!/bin/sh\necho \"$*\" >>" + calls + "\n" + does + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kubectl"), []byte(script), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("KUBECONFIG", filepath.Join(dir, "config"))
	return calls
}

// forwardTo is what `kubectl port-forward` does, for a collector of this host.
func forwardTo(address string) string {
	return "echo $$ >$(dirname $0)/pid; echo 'Forwarding from " + address + " -> 9090'; exec sleep 600"
}

func isAlive(t *testing.T, calls string) bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(calls), "pid"))
	require.NoError(t, err)
	var pid int
	_, err = fmt.Sscan(string(text), &pid)
	require.NoError(t, err)
	return syscall.Kill(pid, 0) == nil
}

func TestTheGatewayByKubectl(t *testing.T) {
	agent := (&fakeCollector{flows: cannedReply(), status: cannedStatus()}).serve(t)
	tests := []struct{ args, called string }{
		{"", "--namespace orb8-system port-forward --address 127.0.0.1 deploy/orb8-gateway :9090\n"},
		{
			"--context c --kubeconfig /k --orb8-namespace n",
			"--kubeconfig /k --context c --namespace n port-forward --address 127.0.0.1 deploy/orb8-gateway :9090\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			calls := fakeKubectl(t, forwardTo(agent))
			got := orb8(t, "", append([]string{"status"}, strings.Fields(tt.args)...)...)
			assert.Zero(t, got.code, got.stderr)
			assert.Empty(t, got.stderr)
			assert.Contains(t, got.stdout, "collector deploy/orb8-gateway by kubectl\n")
			called, err := os.ReadFile(calls)
			require.NoError(t, err)
			assert.Equal(t, tt.called, string(called))
			assert.False(t, isAlive(t, calls), "kubectl is ended")
		})
	}
}

func TestTheAgentOfANode(t *testing.T) {
	agent := (&fakeCollector{flows: cannedReply()}).serve(t)
	calls := fakeKubectl(t, `case "$*" in *get\ pods*) echo pod/orb8-agent-x7; exit;; esac; `+forwardTo(agent))
	got := orb8(t, "", "flows", "--agent", "node/worker-1")
	assert.Zero(t, got.code, got.stderr)
	called, err := os.ReadFile(calls)
	require.NoError(t, err)
	assert.Equal(t, "--namespace orb8-system get pods --output name --selector "+agentSelector+
		" --field-selector status.phase=Running,spec.nodeName=worker-1\n"+
		"--namespace orb8-system port-forward --address 127.0.0.1 pod/orb8-agent-x7 :9090\n", string(called))

	fakeKubectl(t, "exit 0")
	got = orb8(t, "", "flows", "--agent", "node/worker-9")
	assert.Equal(t, exitFailed, got.code)
	assert.Equal(t, "orb8: no agent runs on node worker-9\n", got.stderr)
}

// TestNoGatewayByKubectl holds that a host with a kubeconfig of some cluster still finds its own collector, and is told so; but not
// where the user named the cluster.
func TestNoGatewayByKubectl(t *testing.T) {
	const notFound = `echo 'Error from server (NotFound): deployments.apps "orb8-gateway" not found' >&2; exit 1`
	const says = `Error from server (NotFound): deployments.apps "orb8-gateway" not found`
	l, err := net.Listen("tcp", defaultAgent)
	if err == nil {
		l.Close()
	}
	fakeKubectl(t, notFound)
	got := orb8(t, "", "flows")
	assert.Contains(t, got.stderr, "orb8: no orb8 gateway by kubectl ("+says+"): asking the collector of this host; --server and --agent name one\n")
	if err == nil {
		assert.Contains(t, got.stderr, "cannot reach the collector at "+defaultAgent+": connection refused")
	}

	got = orb8(t, "", "flows", "--context", "c")
	assert.Equal(t, exitFailed, got.code)
	assert.Equal(t, "orb8: "+says+"\n", got.stderr)
}

// TestWithoutACluster holds that kubectl is not started where there is no kubeconfig.
func TestWithoutACluster(t *testing.T) {
	calls := fakeKubectl(t, "exit 1")
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	assert.False(t, (&kubeOptions{}).there())
	orb8(t, "", "version")
	assert.NoFileExists(t, calls)

	t.Setenv("PATH", t.TempDir())
	t.Setenv("KUBECONFIG", "/somewhere")
	assert.False(t, (&kubeOptions{}).there(), "without kubectl")
}
