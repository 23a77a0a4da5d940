//go:build unix

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// fakeCluster is a kubectl whose cluster has a node worker-1 without an agent. What a case of shell does comes before that.
func fakeCluster(t *testing.T, cases, collector string) (calls string) {
	t.Helper()
	return fakeKubectl(t, `case "$*" in `+cases+`
		*component=agent*|*get\ serviceaccount*) exit;;
		*create*) cat >$(dirname $0)/job; exit;;
		*delete*|*get\ events*) exit;;
		*items*status.phase*) echo Running; exit;;
		*get\ pods*) exit;;
		*logs*) exit;;
	esac; `+forwardTo(collector))
}

func TestTraceOnANodeWithoutAnAgent(t *testing.T) {
	tests := []struct {
		name, cases        string
		args               []string
		namespace, account string
	}{
		{name: "nothing installed", namespace: "default"},
		{name: "installed", cases: `*get\ serviceaccount*) echo serviceaccount/orb8-agent; exit;;`, namespace: "orb8-system", account: "orb8-agent"},
		{
			name: "said", args: []string{"--trace-namespace", "tools", "--trace-service-account", "reader", "--trace-image", "r.example/o:2", "--trace-lifetime", "5m"},
			namespace: "tools", account: "reader",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fake := &fakeCollector{stream: sending(orb8v1.EventKind_EVENT_KIND_SYN), status: cannedStatus()}
			calls := fakeCluster(t, tt.cases, fake.serve(t))
			got := orb8(t, "", append([]string{"trace", "network", "--node", "worker-1", "-o", "jsonl"}, tt.args...)...)
			assert.NotEmpty(t, got.stdout, got.stderr)
			assert.Contains(t, got.stderr, "orb8: starting pod "+tt.namespace+"/orb8-trace-")

			text, err := os.ReadFile(filepath.Join(filepath.Dir(calls), "job"))
			require.NoError(t, err)
			var job struct {
				Metadata struct{ Name string }
				Spec     struct {
					ActiveDeadlineSeconds, TTLSecondsAfterFinished int
					Template                                       struct {
						Spec struct {
							NodeName, ServiceAccountName string
							Containers                   []struct{ Image string }
						}
					}
				}
			}
			require.NoError(t, json.Unmarshal(text, &job))
			assert.Equal(t, "worker-1", job.Spec.Template.Spec.NodeName)
			assert.Equal(t, tt.account, job.Spec.Template.Spec.ServiceAccountName)
			assert.Equal(t, 10, job.Spec.TTLSecondsAfterFinished)
			image, deadline := traceImage(), 3600
			if tt.args != nil {
				image, deadline = "r.example/o:2", 300
			}
			assert.Equal(t, image, job.Spec.Template.Spec.Containers[0].Image)
			assert.Equal(t, deadline, job.Spec.ActiveDeadlineSeconds)

			called, err := os.ReadFile(calls)
			require.NoError(t, err)
			assert.Contains(t, string(called), "--namespace "+tt.namespace+" port-forward --address 127.0.0.1 job/"+job.Metadata.Name)
			lines := strings.Split(strings.TrimSpace(string(called)), "\n")
			assert.Equal(t, "--namespace "+tt.namespace+" delete job "+job.Metadata.Name+" --cascade=background --wait=false --ignore-not-found", lines[len(lines)-1])
			assert.False(t, isAlive(t, calls), "kubectl is ended")
		})
	}
}

func TestTraceOnANodeWithAnAgent(t *testing.T) {
	fake := &fakeCollector{stream: sending(orb8v1.EventKind_EVENT_KIND_SYN)}
	calls := fakeCluster(t, `*component=agent*) echo pod/orb8-agent-x7; exit;;`, fake.serve(t))
	got := orb8(t, "", "trace", "network", "--node", "worker-1", "-o", "jsonl")
	assert.NotEmpty(t, got.stdout, got.stderr)
	called, err := os.ReadFile(calls)
	require.NoError(t, err)
	assert.Contains(t, string(called), "port-forward --address 127.0.0.1 pod/orb8-agent-x7 :9090\n")
	assert.NotContains(t, string(called), "create")
}

// TestTraceOfAPodThatNeverRuns holds that the user is told what the cluster knows, and that the job is gone.
func TestTraceOfAPodThatNeverRuns(t *testing.T) {
	calls := fakeCluster(t, `*items*status.phase*) echo Failed; exit;; *containerStatuses*) echo 'Back-off pulling image "x"'; exit;;`, "127.0.0.1:1")
	got := orb8(t, "", "trace", "syscall", "--node", "worker-1")
	assert.Equal(t, exitFailed, got.code)
	assert.Contains(t, got.stderr, `on node worker-1 does not answer: it has ended; Back-off pulling image "x"`)
	called, err := os.ReadFile(calls)
	require.NoError(t, err)
	assert.Contains(t, string(called), "delete job orb8-trace-")

	fakeCluster(t, `*create*) echo 'Error from server (Forbidden): jobs.batch is forbidden' >&2; exit 1;;`, "127.0.0.1:1")
	got = orb8(t, "", "trace", "syscall", "--node", "worker-1")
	assert.Equal(t, exitFailed, got.code)
	assert.Contains(t, got.stderr, "orb8: cannot start a pod on node worker-1: Error from server (Forbidden): jobs.batch is forbidden\n")
}

func TestTraceOnANodeThatNobodyKnows(t *testing.T) {
	fakeKubectl(t, "exit 1")
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	got := orb8(t, "", "trace", "network", "--node", "worker-1")
	assert.Equal(t, exitFailed, got.code)
	assert.Equal(t, "orb8: node worker-1 is not this host, and there is no kubectl with a cluster to find it in\n", got.stderr)

	got = orb8(t, "", "trace", "network", "--node", "worker-1", "--trace-lifetime", "1s")
	assert.Equal(t, exitUsage, got.code)
}
