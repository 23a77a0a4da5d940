package cgroup

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/testutil"
)

// processTree is a /proc and a hierarchy made of files: the cgroup that /proc tells of each process, and the one that it is in.
func processTree(t *testing.T, processes map[string]struct{ seen, in string }) (proc, root string) {
	proc, root = t.TempDir(), t.TempDir()
	for pid, p := range processes {
		dir := filepath.Join(root, p.in)
		require.NoError(t, os.MkdirAll(dir, 0o755))
		in := pid
		if pid == "self" {
			in = strconv.Itoa(os.Getpid())
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("1\n"+in+"\n"), 0o644))
		require.NoError(t, os.MkdirAll(filepath.Join(proc, pid), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(proc, pid, "cgroup"), []byte("1:cpu:/x\n0::"+p.seen+"\n"), 0o644))
	}
	return proc, root
}

func TestCgroupsOfProcesses(t *testing.T) {
	const slice = "/kubepods.slice/kubepods-besteffort.slice"
	for name, self := range map[string]struct{ seen, in string }{
		"in the host's namespace": {slice + "/agent", slice + "/agent"},
		"in one of its own":       {"/", slice + "/agent"},
		"below one of its own":    {"/below", slice + "/agent/below"},
	} {
		t.Run(name, func(t *testing.T) {
			seen := "/../gpu-user/main"
			if self.seen == self.in {
				seen = slice + "/gpu-user/main"
			}
			proc, root := processTree(t, map[string]struct{ seen, in string }{"self": self, "77": {seen, slice + "/gpu-user/main"}})
			p, err := newProcesses(proc, root)
			require.NoError(t, err)
			id, path, err := p.Find(77)
			require.NoError(t, err)
			assert.Equal(t, slice+"/gpu-user/main", path)
			assert.Equal(t, inode(t, filepath.Join(root, slice, "gpu-user/main")), id)
			_, _, err = p.Find(78)
			assert.ErrorIs(t, err, fs.ErrNotExist)
		})
	}
}

func TestCgroupsOfProcessesThatAreNotToBeTold(t *testing.T) {
	proc, root := processTree(t, map[string]struct{ seen, in string }{"7": {"/a", "/a"}})
	_, err := newProcesses(proc, root)
	assert.ErrorIs(t, err, fs.ErrNotExist, "no self")
	require.NoError(t, os.MkdirAll(filepath.Join(proc, "self"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(proc, "self", "cgroup"), []byte("1:cpu:/x\n"), 0o644))
	_, err = newProcesses(proc, root)
	assert.EqualError(t, err, "cannot read the cgroup of process self: it is in no cgroup v2")
	require.NoError(t, os.WriteFile(filepath.Join(proc, "self", "cgroup"), []byte("0::/b\n"), 0o644))
	_, err = newProcesses(proc, root)
	assert.EqualError(t, err, "process "+strconv.Itoa(os.Getpid())+" is in no cgroup below "+root)
}

func TestCgroupOfARealProcess(t *testing.T) {
	dir := makeCgroup(t, hierarchy(t), "container")
	m, err := FindMount("")
	require.NoError(t, err)
	p, err := NewProcesses(m.Path)
	testutil.Require(t, "bpf", err == nil, "this is not the host's pid namespace")

	cat := exec.Command("cat") // ends with its input
	input, err := cat.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cat.Start())
	pid := strconv.Itoa(cat.Process.Pid)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(pid), 0o644))
	id, path, err := p.Find(uint32(cat.Process.Pid))
	require.NoError(t, err)
	assert.Equal(t, dir, filepath.Join(m.Path, path))
	assert.Equal(t, inode(t, dir), id)
	require.NoError(t, input.Close())
	require.NoError(t, cat.Wait())
	_, _, err = p.Find(uint32(cat.Process.Pid))
	assert.ErrorIs(t, err, fs.ErrNotExist)
}
