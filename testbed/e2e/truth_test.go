//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/testbed/cluster"
)

// truth is what the container runtime was told by the kubelet of each container, and what the network plugin remembers of
// addresses: from their own files, with no way through the API server, and long after a container is gone.
type truth struct {
	bundles, addresses, cgroup string

	mu         sync.Mutex
	containers map[string]container // by id
	cgroups    map[uint64]string    // ids of containers
	leases     map[string][]lease   // by address
}

// container is one of a pod, or the sandbox that holds the pod's namespaces, whose container name is empty.
type container struct {
	podUID string
	// name has no workload, which the runtime knows nothing of.
	name
}

// lease is the time for which a pod had an address; the zero end is now.
type lease struct {
	sandbox  string
	from, to time.Time
}

// pollInterval is far below the life of any container of these tests.
const pollInterval = 50 * time.Millisecond

// newTruth follows the runtime until the test ends.
func newTruth(t *testing.T, c *cluster.Cluster) *truth {
	t.Helper()
	root, err := c.Root()
	require.NoError(t, err)
	r := &truth{
		bundles:   filepath.Join(root, "run/containerd/io.containerd.runtime.v2.task/k8s.io"),
		addresses: filepath.Join(root, "run/cni-ipam/pods"), cgroup: c.Cgroup(),
		containers: map[string]container{}, cgroups: map[uint64]string{}, leases: map[string][]lease{},
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(pollInterval); ; {
			r.poll()
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
	})
	return r
}

func (r *truth) poll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	bundles, _ := filepath.Glob(filepath.Join(r.bundles, "*", "config.json"))
	for _, path := range bundles {
		id := filepath.Base(filepath.Dir(path))
		if _, known := r.containers[id]; known {
			continue
		}
		// What is half written or gone already is read in the next round, or never.
		if c, cgroup, err := readBundle(path); err == nil {
			if info, err := os.Stat(filepath.Join(r.cgroup, cgroup)); err == nil {
				r.containers[id] = c
				r.cgroups[info.Sys().(*syscall.Stat_t).Ino] = id
			}
		}
	}
	now := time.Now()
	files, _ := filepath.Glob(filepath.Join(r.addresses, "[0-9]*"))
	held := map[string]bool{}
	for _, path := range files {
		address := filepath.Base(path)
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		held[address] = true
		sandbox, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\r\n")
		all := r.leases[address]
		if n := len(all); n == 0 || all[n-1].sandbox != sandbox || !all[n-1].to.IsZero() {
			r.leases[address] = append(all, lease{sandbox: sandbox, from: now})
		}
	}
	for address, all := range r.leases {
		if last := &all[len(all)-1]; !held[address] && last.to.IsZero() {
			last.to = now
		}
	}
}

// readBundle reads what containerd's CRI plugin writes into the annotations of an OCI bundle.
func readBundle(path string) (c container, cgroup string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return c, "", err
	}
	var spec struct {
		Annotations map[string]string
		Linux       struct{ CgroupsPath string }
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		return c, "", err
	}
	const prefix = "io.kubernetes.cri."
	c.namespace, c.pod = spec.Annotations[prefix+"sandbox-namespace"], spec.Annotations[prefix+"sandbox-name"]
	if spec.Annotations[prefix+"container-type"] == "container" {
		c.name.container = spec.Annotations[prefix+"container-name"]
	}
	_, uid, found := strings.Cut(filepath.Base(filepath.Dir(spec.Linux.CgroupsPath)), "pod")
	if !found || c.pod == "" {
		return c, "", fmt.Errorf("%s is not of a pod", path)
	}
	c.podUID = uid
	return c, spec.Linux.CgroupsPath, nil
}

// slack is how far the times of a record and of what the tests saw may be apart.
const slack = 2 * time.Second

// check returns what is wrong with a record, or missing in it: nothing for what has nothing to do with pods.
func (r *truth) check(rec record) []string {
	if rec.event == flow.EventNameFlow {
		return append(r.checkEnd(rec, "source", rec.source), r.checkEnd(rec, "destination", rec.destination)...)
	}
	return r.checkEnd(rec, "resource", rec.local)
}

func (r *truth) checkEnd(rec record, which string, e end) (wrong []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fail := func(format string, args ...any) {
		wrong = append(wrong, which+": "+fmt.Sprintf(format, args...)+" in "+rec.String())
	}
	id := e.containerID
	if e.cgroup != 0 {
		if of, known := r.cgroups[e.cgroup]; known && of != id {
			fail("cgroup %d is of container %s, not %q", e.cgroup, of, id)
			id = of
		}
	}
	if c, known := r.containers[id]; known {
		if e.podUID != c.podUID || e.namespace != c.namespace || e.pod != c.pod || e.name.container != c.name.container {
			fail("container %s is of %s, uid %s", id[:12], c.name, c.podUID)
		}
		return wrong
	} else if id != "" {
		fail("container %s was never there", id)
		return wrong
	}
	// No container: what is left is the address.
	leases := r.leases[e.address.Addr().String()]
	if len(leases) == 0 {
		if e.pod != "" {
			fail("%s is no address of a pod", e.address.Addr())
		}
		return wrong
	}
	for _, l := range leases {
		if l.from.After(rec.end.Add(slack)) || !l.to.IsZero() && l.to.Before(rec.start.Add(-slack)) {
			continue
		}
		if c := r.containers[l.sandbox]; c.pod == e.pod && c.namespace == e.namespace && c.podUID == e.podUID {
			return wrong
		}
	}
	fail("%s was not of this pod then, but %+v", e.address.Addr(), leases)
	return wrong
}

// checkAll returns what is wrong with any of the records, and how many of them were about containers.
func (r *truth) checkAll(records []record) (wrong []string, checked int) {
	for _, rec := range records {
		wrong = append(wrong, r.check(rec)...)
		if rec.source.containerID != "" || rec.destination.containerID != "" || rec.local.containerID != "" {
			checked++
		}
	}
	return wrong, checked
}

// reused returns how many addresses were given to a pod again.
func (r *truth) reused() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, all := range r.leases {
		n += len(all) - 1
	}
	return n
}
