package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// rootInode is the inode number of the directory at the root of the hierarchy, whatever it is mounted from: the first
// that kernfs gives out.
const rootInode = 1

var errNoMount = errors.New("no cgroup v2 hierarchy is mounted; run: mount --mkdir -t cgroup2 none /run/cgroup2, " +
	"or give a container the host's /sys/fs/cgroup")

// FindMount checks that path is in a cgroup v2 hierarchy. If path is empty it looks for a mount of one in
// /proc/self/mountinfo, and prefers the one that shows most of the hierarchy. It fails if there is none.
func FindMount(path string) (Mount, error) {
	if path != "" {
		return inspect(path)
	}
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Mount{}, fmt.Errorf("cannot list the mounts: %w", err)
	}
	return choose(cgroup2Mounts(string(mountinfo)), inspect)
}

func choose(paths []string, inspect func(string) (Mount, error)) (Mount, error) {
	var partial *Mount
	var errs []error
	for _, path := range paths {
		m, err := inspect(path)
		switch {
		case err != nil:
			// Something else may be mounted over it.
			errs = append(errs, err)
		case !m.Partial:
			return m, nil
		case partial == nil:
			partial = &m
		}
	}
	if partial != nil {
		return *partial, nil
	}
	return Mount{}, errors.Join(append([]error{errNoMount}, errs...)...)
}

func inspect(path string) (Mount, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Mount{}, fmt.Errorf("cannot read %s: %w", path, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return Mount{}, fmt.Errorf("%s is not in a cgroup v2 hierarchy; leave the path empty to have one found", path)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Mount{}, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return Mount{Path: path, Partial: st.Ino != rootInode}, nil
}

// cgroup2Mounts returns the mount points of type cgroup2 in a text of the format of /proc/PID/mountinfo, those first that show
// more of the hierarchy; see proc_pid_mountinfo(5).
func cgroup2Mounts(mountinfo string) []string {
	type shown struct {
		path  string
		depth int
	}
	var mounts []shown
	for line := range strings.Lines(mountinfo) {
		// A hyphen ends the optional fields, of which there are any number after the first six.
		mount, fs, ok := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		if !ok || len(fields) < 6 || !strings.HasPrefix(fs, "cgroup2 ") {
			continue
		}
		mounts = append(mounts, shown{unescape(fields[4]), depth(fields[3])})
	}
	slices.SortStableFunc(mounts, func(a, b shown) int { return a.depth - b.depth })
	var paths []string
	for _, m := range mounts {
		paths = append(paths, m.path)
	}
	return paths
}

// depth tells how far below the root of this process's cgroup namespace the root of a mount is. It is negative above: "/../.."
// is what the kernel writes of a mount that a container was given from outside.
func depth(root string) (n int) {
	for _, name := range strings.Split(root, "/") {
		switch name {
		case "":
		case "..":
			n--
		default:
			n++
		}
	}
	return n
}

// unescape undoes how the kernel writes space, tab, newline and backslash: as a backslash and three octal digits.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(s, `\`)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		s = after
		if len(after) >= 3 {
			if c, err := strconv.ParseUint(after[:3], 8, 8); err == nil {
				b.WriteByte(byte(c))
				s = after[3:]
				continue
			}
		}
		b.WriteByte('\\')
	}
}
