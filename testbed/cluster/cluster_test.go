//go:build linux

package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// web are two pods behind a Service, and a client of it.
const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: server, image: ` + WorkloadImage + `, args: [serve, "8080"]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, clusterIP: 10.96.100.100, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: client}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: client, image: ` + WorkloadImage + `, args: [call, -every=100ms, -for=5s, "10.96.100.100:80"]}]
`

func TestCluster(t *testing.T) {
	before := machine(t)
	var name string
	t.Run("up", func(t *testing.T) {
		c := Start(t)
		name = c.name
		require.NoError(t, c.Apply(t.Context(), web))
		kubectl(t, c, "wait", "job/client", "--for=condition=Complete", "--timeout=60s")
		calls := strings.Fields(kubectl(t, c, "logs", "job/client"))
		require.NotEmpty(t, calls)
		assert.Equal(t, "10.96.100.100:80", calls[len(calls)-1], "what the client connected to is translated on the way")

		client, err := c.Client()
		require.NoError(t, err)
		pods, err := client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		require.NoError(t, err)
		require.Len(t, pods.Items, 2)
		for _, pod := range pods.Items {
			_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "containerd://")
			path := fmt.Sprintf("kubepods/besteffort/pod%s/%s", pod.UID, id)
			// The machine sees it below the cluster's own cgroup, the node at the root.
			procs, err := os.ReadFile(filepath.Join(c.node.cgroups.v2(), path, "cgroup.procs"))
			require.NoError(t, err)
			cgroup := onNode(t, c, "cat", "/proc/"+strings.TrimSpace(string(procs))+"/cgroup")
			assert.Contains(t, cgroup, "0::/"+path+"\n")
			assert.Contains(t, onNode(t, c, "ls", "/var/log/pods"), string(pod.UID))
		}
		mounts := onNode(t, c, "cat", "/proc/self/mounts")
		assert.Equal(t, strings.Count(mounts, "\nnsfs "), strings.Count(mounts, "\nnsfs /run/netns/cni-"), "those of pods alone:\n%s", mounts)
		assert.Equal(t, 1, strings.Count(mounts, "\ncgroup2 "), mounts)
		for _, d := range c.Daemons() {
			assert.NotZero(t, d.PID, d.Name)
		}
	})
	require.NotEmpty(t, name)
	assertGone(t, name)
	assert.Equal(t, before, machine(t), "the machine's mounts, interfaces and settings")
}

func TestKilledOwner(t *testing.T) {
	c, err := openCache()
	require.NoError(t, err)
	if c.missing(programs()...) != nil || os.Geteuid() != 0 {
		Start(t) // says what is missing
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ownerVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	require.True(t, lines.Scan(), "the owner ended before its cluster was up")
	name := lines.Text()
	left, err := open(name)
	require.NoError(t, err)
	require.NotEmpty(t, left.Daemons(), name)

	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	require.Eventually(t, func() bool {
		events, err := os.ReadFile(filepath.Join(left.node.cgroups.v2(), "cgroup.events"))
		return err == nil && strings.Contains(string(events), "populated 0")
	}, readyTimeout, 10*time.Millisecond, "the cluster's processes outlive its owner")

	require.NoError(t, Down("another-one"))
	assertGone(t, name)
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", "..", "a/b", "A", strings.Repeat("a", 41)} {
		_, err := open(name)
		require.ErrorContains(t, err, "cluster name", "%q", name)
	}
	require.NoError(t, Down("was-never-up"))
	_, err := Find("was-never-up")
	require.EqualError(t, err, "cluster was-never-up is not up")
}

// machine returns what a cluster must leave as it is.
func machine(t *testing.T) (state []string) {
	t.Helper()
	links, err := netlink.LinkList()
	require.NoError(t, err)
	for _, l := range links {
		if l.Attrs().Name == "lo" || strings.HasPrefix(l.Attrs().Name, "node0") || strings.HasPrefix(l.Attrs().Name, "cni0") {
			state = append(state, l.Attrs().Name)
		}
	}
	for _, path := range []string{
		"/proc/self/mounts", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
		"/proc/sys/net/netfilter/nf_conntrack_max",
	} {
		text, err := os.ReadFile(path)
		if !errors.Is(err, fs.ErrNotExist) {
			require.NoError(t, err)
		}
		state = append(state, string(text))
	}
	for _, path := range []string{"/opt/containerd", "/opt/cni", "/var/lib/containerd", "/var/lib/kubelet", "/usr/libexec/kubernetes"} {
		if _, err := os.Stat(path); err == nil {
			state = append(state, path)
		}
	}
	return state
}

func assertGone(t *testing.T, name string) {
	t.Helper()
	c, err := open(name)
	require.NoError(t, err)
	for _, dir := range append(c.node.cgroups.dirs(), c.dir) {
		assert.NoDirExists(t, dir)
	}
}

func kubectl(t *testing.T, c *Cluster, args ...string) string {
	t.Helper()
	cmd, err := c.Kubectl(t.Context(), args...)
	return run(t, cmd, err)
}

func onNode(t *testing.T, c *Cluster, args ...string) string {
	t.Helper()
	cmd, err := c.Command(context.Background(), args[0], args[1:]...)
	return run(t, cmd, err)
}

func run(t *testing.T, cmd *exec.Cmd, err error) string {
	t.Helper()
	require.NoError(t, err)
	text, err := output(cmd)
	require.NoError(t, err)
	return string(text)
}
