package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// hostPIDNamespace is the inode number of the pid namespace that the kernel starts with.
const hostPIDNamespace = 0xEFFFFFFC

// Processes tells the cgroups of processes by their ids in the host's pid namespace.
type Processes struct {
	proc, root string
	// base is where in the hierarchy this process's cgroup namespace begins, which /proc counts paths from.
	base string
}

// NewProcesses checks that this process sees the host's: what it took for one of them could be another one else. root is where the
// hierarchy is mounted, the whole of it.
func NewProcesses(root string) (*Processes, error) {
	var ns syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/pid", &ns); err != nil {
		return nil, fmt.Errorf("cannot read the pid namespace: %w", err)
	}
	if ns.Ino != hostPIDNamespace {
		return nil, errors.New("processes have other ids in this container than on the host: it needs the host's pid namespace (hostPID: true)")
	}
	return newProcesses("/proc", root)
}

func newProcesses(proc, root string) (*Processes, error) {
	p := &Processes{proc: proc, root: root}
	seen, err := p.path("self")
	if err != nil {
		return nil, err
	}
	// In the namespace of the host, the path is where the cgroup is. Else the cgroup is searched for, by who is in it.
	if p.holds(seen, os.Getpid()) {
		return p, nil
	}
	at, err := p.search("/", os.Getpid())
	if err != nil {
		return nil, err
	}
	p.base = strings.TrimSuffix(at, strings.TrimSuffix(seen, "/"))
	return p, nil
}

// Find returns the cgroup that a process is in: its id, and its path below the root of the hierarchy. It fails with fs.ErrNotExist when
// the process is gone.
func (p *Processes) Find(pid uint32) (id uint64, path string, err error) {
	seen, err := p.path(strconv.FormatUint(uint64(pid), 10))
	if err != nil {
		return 0, "", err
	}
	var st syscall.Stat_t
	path = filepath.Join("/", p.base, seen)
	full := filepath.Join(p.root, path)
	if err := syscall.Stat(full, &st); err != nil {
		return 0, "", fmt.Errorf("cannot read %s: %w", full, err)
	}
	return st.Ino, path, nil
}

// path returns the path of a process's cgroup as this process sees it: with leading /.. where it is beside its own namespace.
func (p *Processes) path(pid string) (string, error) {
	text, err := os.ReadFile(filepath.Join(p.proc, pid, "cgroup"))
	if err != nil {
		return "", fmt.Errorf("cannot read the cgroup of process %s: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return strings.TrimSuffix(path, " (deleted)"), nil
		}
	}
	return "", fmt.Errorf("cannot read the cgroup of process %s: it is in no cgroup v2", pid)
}

// holds tells whether a process is in the cgroup at a path.
func (p *Processes) holds(path string, pid int) bool {
	procs, err := os.ReadFile(filepath.Join(p.root, filepath.Join("/", path), "cgroup.procs"))
	return err == nil && strings.Contains("\n"+string(procs), "\n"+strconv.Itoa(pid)+"\n")
}

// search returns the path of the cgroup that a process is in.
func (p *Processes) search(path string, pid int) (string, error) {
	if p.holds(path, pid) {
		return path, nil
	}
	entries, err := os.ReadDir(filepath.Join(p.root, path))
	if err != nil {
		return "", fmt.Errorf("cannot search the cgroups: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if at, err := p.search(filepath.Join(path, e.Name()), pid); err == nil {
			return at, nil
		}
	}
	return "", fmt.Errorf("process %d is in no cgroup below %s", pid, filepath.Join(p.root, path))
}
