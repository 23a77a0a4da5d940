//go:build linux

package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/orb8/orb8/internal/testutil"
)

const (
	// NodeName is the name of the cluster's node.
	NodeName = "node1"
	// NodeIP is the node's address. All clusters have the same, each in a network namespace of its own.
	NodeIP = "192.168.77.2"

	// PodRange is small, so that the addresses of pods are soon used again.
	PodRange     = "10.244.0.0/26"
	dnsServiceIP = "10.96.0.10"
)

// Cluster is a Kubernetes cluster of one node. Everything of it is in one directory, one mount and one network namespace,
// and cgroups of its own; the machine's network, file systems and settings stay as they are.
type Cluster struct {
	*ControlPlane
	name string
}

// nameSyntax is what fits into the names of directories and cgroups.
var nameSyntax = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

// open returns a cluster by its name, whether it is there or not.
func open(name string) (*Cluster, error) {
	if !nameSyntax.MatchString(name) {
		return nil, fmt.Errorf("cluster name %q: must be of a-z, 0-9 and -, at most 40", name)
	}
	c, err := openCache()
	if err != nil {
		return nil, err
	}
	groups, err := newCgroups(name)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.clusters(), name)
	d := daemons(filepath.Join(dir, "daemons"))
	n := &node{dir: dir, daemons: d, cgroups: groups}
	if root, err := c.debianRoot(); err == nil {
		n.env = debianEnv(root)
	}
	return &Cluster{name: name, ControlPlane: &ControlPlane{
		dir: dir, cache: c, pki: pki(filepath.Join(dir, "pki")), daemons: d, options: ControlPlaneOptions{Controllers: true},
		etcd: "127.0.0.1:2379", etcdPeer: "127.0.0.1:2380", server: NodeIP + ":6443", node: n,
	}}, nil
}

// clusters is the directory of the directories of clusters.
func (c cache) clusters() string { return filepath.Join(filepath.Dir(string(c)), "clusters") }

// Start starts a cluster, which ends with the test, or with the test's process if that is killed. What it needs must be
// built already.
func Start(t testing.TB) *Cluster {
	t.Helper()
	testutil.Require(t, "k8s", os.Geteuid() == 0, "a cluster needs root")
	cached, err := openCache()
	require.NoError(t, err)
	err = cached.missing(programs()...)
	testutil.Require(t, "k8s", err == nil, fmt.Sprint(err))
	require.NoError(t, sweep())
	c, err := open("test-" + strings.ToLower(rand.Text()[:8]))
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"kube-apiserver", "kubelet", "containerd"} {
				t.Log(c.daemons.logTail(name))
			}
		}
		require.NoError(t, c.down())
	})
	require.NoError(t, c.own())
	require.NoError(t, c.prepare())
	owner, err := c.node.watch()
	require.NoError(t, err)
	t.Cleanup(func() { _ = owner.Close() })
	require.NoError(t, c.up(t.Context()))
	return c
}

// programs are the names of all programs of Kubernetes.
func programs() (names []string) {
	for _, command := range kubernetesModule.commands {
		names = append(names, command.name)
	}
	return names
}

// Up starts a cluster that stays until Down.
func Up(ctx context.Context, name string) (*Cluster, error) {
	c, err := open(name)
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("cannot start a cluster: it needs root")
	}
	if c.daemons.running(holder) {
		return nil, fmt.Errorf("cluster %s is up already", name)
	}
	// What a cluster of the name left that did not end well.
	if err := c.down(); err != nil {
		return nil, err
	}
	err = c.prepare()
	if err == nil {
		err = c.up(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.down())
	}
	return c, nil
}

// Find returns a running cluster.
func Find(name string) (*Cluster, error) {
	c, err := open(name)
	if err != nil {
		return nil, err
	}
	if !c.daemons.running(holder) {
		return nil, fmt.Errorf("cluster %s is not up", name)
	}
	return c, nil
}

// Down ends a cluster and removes all that there is of it: also what one left whose end was not seen to. It also does so
// for clusters of tests that were killed.
func Down(name string) error {
	c, err := open(name)
	if err != nil {
		return err
	}
	return errors.Join(c.down(), sweep())
}

// ownerFile is there if the cluster ends with a process: number and start time of it.
const ownerFile = "owner"

// own says that the cluster ends with this process.
func (c *Cluster) own() error {
	started, err := startTime(os.Getpid())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.dir, ownerFile), fmt.Appendf(nil, "%d %d\n", os.Getpid(), started), 0o644)
}

// sweep removes the clusters of processes that are gone.
func sweep() error {
	cached, err := openCache()
	if err != nil {
		return err
	}
	owners, err := filepath.Glob(filepath.Join(cached.clusters(), "*", ownerFile))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range owners {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it was removed meanwhile
		}
		var pid int
		var started uint64
		if _, err := fmt.Sscan(string(text), &pid, &started); err == nil {
			if now, err := startTime(pid); err == nil && now == started {
				continue
			}
		}
		c, err := open(filepath.Base(filepath.Dir(path)))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, c.down())
	}
	return errors.Join(errs...)
}

// prepare makes the place where the cluster runs.
func (c *Cluster) prepare() error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	if err := c.node.writeMounts(); err != nil {
		return err
	}
	return c.node.make()
}

// up starts the daemons and returns when the node is ready.
func (c *Cluster) up(ctx context.Context) error {
	if err := c.startContainerd(ctx); err != nil {
		return err
	}
	if err := c.start(ctx); err != nil {
		return err
	}
	if err := c.startNode(ctx); err != nil {
		return err
	}
	return c.await(ctx, "kubelet", c.ready)
}

// ready returns nil once pods can be made.
func (c *Cluster) ready(ctx context.Context) error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	node, err := client.CoreV1().Nodes().Get(ctx, NodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
			return fmt.Errorf("node %s is not ready: %s", NodeName, condition.Message)
		}
	}
	if len(node.Status.Conditions) == 0 {
		return fmt.Errorf("node %s has no status yet", NodeName)
	}
	_, err = client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
	return err
}

// down kills what runs and removes what there is. It is no error if there is nothing.
func (c *Cluster) down() error {
	// Everything at once: nothing of it is worth an orderly end, and what runs would start again what was stopped.
	if err := c.node.cgroups.remove(); err != nil {
		return err
	}
	if err := c.daemons.stop(watcher); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("cannot remove cluster %s: %w", c.name, err)
	}
	// The parent, if this was the last.
	if err := os.Remove(filepath.Dir(c.dir)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

// Command returns a command line that runs on the node, in its namespaces and cgroups, to be run.
func (c *Cluster) Command(ctx context.Context, path string, args ...string) (*exec.Cmd, error) {
	return c.command(ctx, path, args...)
}

// Listen listens on the node, where pods reach it at NodeIP.
func (c *Cluster) Listen(network, address string) (l net.Listener, err error) {
	err = c.node.enter(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	}, unix.CLONE_NEWNET)
	return l, err
}

// Root returns a directory in which the machine sees the node's files.
func (c *Cluster) Root() (string, error) {
	pid, err := c.daemons.pid(holder)
	return fmt.Sprintf("/proc/%d/root", pid), err
}

// Cgroup returns the directory in which the machine sees what is the root of cgroup v2 to the node.
func (c *Cluster) Cgroup() string { return c.node.cgroups.v2() }

// Daemon is a process of a cluster.
type Daemon struct {
	Name string
	// PID is 0 if it does not run.
	PID int
	// Log is the file that it writes to.
	Log string
}

// Daemons returns the cluster's daemons, by name.
func (c *Cluster) Daemons() (all []Daemon) {
	files, _ := filepath.Glob(c.daemons.pidFile("*"))
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".pid")
		pid, _ := c.daemons.pid(name)
		all = append(all, Daemon{Name: name, PID: pid, Log: c.daemons.logFile(name)})
	}
	return all
}
