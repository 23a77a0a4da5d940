//go:build linux

package lab

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestProcessesStartInTheirNamespaceAndCgroup(t *testing.T) {
	l := New(t, Options{})
	namespaces, cgroups := map[string]string{}, map[string]string{}
	for _, n := range []*Node{l.Client, l.Server, l.Host, l.Agent} {
		var out strings.Builder
		cmd := exec.Command("sh", "-c", "readlink /proc/self/ns/net; grep ^0:: /proc/self/cgroup")
		cmd.Stdout = &out
		require.NoError(t, n.Start(cmd))
		require.NoError(t, cmd.Wait())
		ns, cgroup, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
		namespaces[n.Name], cgroups[n.Name] = ns, cgroup
		assert.Equal(t, "0::"+n.Cgroup(), cgroup)
	}
	assert.NotEqual(t, namespaces["client"], namespaces["server"])
	assert.NotEqual(t, namespaces["client"], namespaces["host"])
	assert.NotEqual(t, cgroups["host"], cgroups["agent"])
	assert.Equal(t, namespaces["host"], namespaces["agent"])
	own, err := os.Readlink("/proc/thread-self/ns/net")
	require.NoError(t, err)
	for name, ns := range namespaces {
		assert.NotEqual(t, own, ns, name)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	root, err := cgroupRoot()
	require.NoError(t, err)
	var dirs []string
	t.Run("lab", func(t *testing.T) {
		l := New(t, Options{})
		for _, n := range []*Node{l.Client, l.Server, l.Host, l.Agent} {
			dirs = append(dirs, root+n.Cgroup())
			assert.DirExists(t, root+n.Cgroup())
		}
	})
	for _, dir := range dirs {
		assert.NoDirExists(t, dir)
	}
}
