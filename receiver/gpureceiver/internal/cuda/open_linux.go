package cuda

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	bpf "github.com/orb8/orb8/bpf/cuda"
)

// errGone says that the process has ended meanwhile, or mapped something else.
var errGone = errors.New("the process is gone")

// open opens the file of a mapping, whatever has become of its name since. Without CAP_CHECKPOINT_RESTORE the kernel does not give it
// out, but by the name it has in the process's root directory; then it is held against what the mapping says.
func open(m *bpf.CudaMapping, byRoot bool) (*os.File, error) {
	proc := "/proc/" + strconv.FormatUint(uint64(m.Pid), 10)
	if !byRoot {
		if f, err := os.Open(fmt.Sprintf("%s/map_files/%x-%x", proc, m.Start, m.End)); err == nil {
			return f, nil
		}
	}
	l, err := mappedAt(proc+"/maps", m.Start)
	if err != nil {
		return nil, err
	}
	root, err := unix.Open(proc+"/root", unix.O_PATH|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, errGone
	case err != nil:
		return nil, fmt.Errorf("cannot open the root directory of its process; add CAP_SYS_PTRACE: %w", err)
	}
	defer unix.Close(root)
	// The container may have put anything in its place: no link leads out of it, and no FIFO makes this wait.
	fd, err := unix.Openat2(root, l.path, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", l.path, err)
	}
	f := os.NewFile(uintptr(fd), l.path)
	if err := l.check(fd); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot use %s: %w", l.path, err)
	}
	return f, nil
}

// check tells whether an open file is the one that is mapped. Of a file in an overlay older kernels write the layer's device into maps,
// and newer ones the overlay's, with the same inode number.
func (l *mapLine) check(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Ino != l.inode || st.Dev != l.device && fs.Type != unix.OVERLAYFS_SUPER_MAGIC {
		return errors.New("it is another file than the one that is mapped")
	}
	return nil
}

// mapLine is what /proc/PID/maps says of a mapping; its device and inode are those that stat tells.
type mapLine struct {
	device, inode uint64
	path          string
}

func mappedAt(path string, start uint64) (mapLine, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return mapLine{}, errGone
	case err != nil:
		return mapLine{}, fmt.Errorf("cannot read who maps what; add CAP_SYS_PTRACE: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if l, at, ok := parseMapLine(lines.Text()); ok && at == start {
			return l, nil
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, unix.ESRCH) {
		return mapLine{}, fmt.Errorf("cannot read who maps what: %w", err)
	}
	return mapLine{}, errGone
}

// parseMapLine reads a line of /proc/PID/maps that is of a file; see proc_pid_maps(5).
func parseMapLine(line string) (l mapLine, start uint64, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 {
		return l, 0, false
	}
	from, _, _ := strings.Cut(fields[0], "-")
	major, minor, _ := strings.Cut(fields[3], ":")
	numbers := make([]uint64, 4)
	for i, n := range []struct {
		text string
		base int
	}{{from, 16}, {major, 16}, {minor, 16}, {fields[4], 10}} {
		var err error
		if numbers[i], err = strconv.ParseUint(n.text, n.base, 64); err != nil {
			return l, 0, false
		}
	}
	at := strings.IndexByte(line, '/')
	if at < 0 {
		return l, 0, false
	}
	return mapLine{
		device: unix.Mkdev(uint32(numbers[1]), uint32(numbers[2])),
		inode:  numbers[3],
		path:   strings.ReplaceAll(line[at:], `\012`, "\n"),
	}, numbers[0], true
}
