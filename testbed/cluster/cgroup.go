//go:build linux

package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// hierarchy is a mounted cgroup hierarchy of this machine: the one of cgroup v2, or one of several of cgroup v1.
type hierarchy struct {
	mount string
	v2    bool
	// options are what it is mounted with besides what any file system has: the controllers of cgroup v1.
	options string
}

// hierarchies reads the mounted hierarchies, cgroup v2 last.
func hierarchies() (all []hierarchy, err error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// Device, mount point, file system, options.
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[2] != "cgroup" && fields[2] != "cgroup2" {
			continue
		}
		all = append(all, hierarchy{mount: fields[1], v2: fields[2] == "cgroup2", options: controllers(fields[3])})
	}
	slices.SortStableFunc(all, func(a, b hierarchy) int {
		if a.v2 == b.v2 {
			return 0
		} else if a.v2 {
			return 1
		}
		return -1
	})
	if len(all) == 0 || !all[len(all)-1].v2 {
		return nil, errors.New("no cgroup v2 hierarchy is mounted")
	}
	return all, nil
}

// controllers returns those of the mount options that choose a hierarchy.
func controllers(options string) string {
	common := []string{"rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime", "xattr", "clone_children",
		"nsdelegate", "memory_recursiveprot", "favordynmods"}
	all := slices.DeleteFunc(strings.Split(options, ","), func(o string) bool {
		return slices.Contains(common, o) || strings.HasPrefix(o, "release_agent=")
	})
	return strings.Join(all, ",")
}

// cgroups are those that a cluster lives in: one of the same name in each hierarchy. To the cluster it is the root.
type cgroups struct {
	name string
	all  []hierarchy
}

// systemCgroup is where the node's daemons are, below the cluster's own cgroup of cgroup v2: one with controllers for its
// children may not have processes itself.
const systemCgroup = "system"

func newCgroups(name string) (c cgroups, err error) {
	c.name = "orb8-cluster-" + name
	c.all, err = hierarchies()
	return c, err
}

// dirs returns the cgroup's directories, the one of cgroup v2 last.
func (c cgroups) dirs() (dirs []string) {
	for _, h := range c.all {
		dirs = append(dirs, filepath.Join(h.mount, c.name))
	}
	return dirs
}

// v2 returns the directory of cgroup v2.
func (c cgroups) v2() string { return filepath.Join(c.all[len(c.all)-1].mount, c.name) }

// joined returns the directories that a process of the node joins, as cgroup.procs files.
func (c cgroups) joined() []string {
	dirs := c.dirs()
	dirs[len(dirs)-1] = filepath.Join(c.v2(), systemCgroup)
	return dirs
}

func (c cgroups) make() error {
	for _, h := range c.all {
		dir := filepath.Join(h.mount, c.name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("cannot make a cgroup: %w", err)
		}
		// A new cpuset has neither CPUs nor memory, and takes no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			text, err := os.ReadFile(filepath.Join(h.mount, file))
			if h.v2 || errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, file), text, 0)
			}
			if err != nil {
				return fmt.Errorf("cannot set %s of a cgroup: %w", file, err)
			}
		}
	}
	return os.Mkdir(filepath.Join(c.v2(), systemCgroup), 0o755)
}

// killFile is where writing 1 kills everything in the cgroup and below. Linux has it since 5.14.
func (c cgroups) killFile() string { return filepath.Join(c.v2(), "cgroup.kill") }

// remove kills everything in the cgroups and removes them. It is no error if they are not there.
func (c cgroups) remove() error {
	if err := os.WriteFile(c.killFile(), []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot kill the cluster's processes: %w", err)
	}
	var errs []error
	for _, dir := range c.dirs() {
		// A cgroup stays busy for a moment after its last process has been killed.
		err := removeTree(dir)
		for deadline := time.Now().Add(grace); err != nil && time.Now().Before(deadline); err = removeTree(dir) {
			time.Sleep(10 * time.Millisecond)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// removeTree removes a cgroup and all below it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return err
	}
	// Rmdir alone: the files of a cgroup are not removed one by one, as os.RemoveAll would try.
	if err := os.Remove(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
