package residency

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// DropFilePages takes the pages of this program's file out of the process. Those that are wanted again come back from the
// page cache, 16 at a time; those that only starting took do not, and with a client of Kubernetes in the program that is a
// third of what the process has in memory.
func DropFilePages() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("cannot learn the path of this program: %w", err)
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("cannot read what this process has mapped: %w", err)
	}
	defer smaps.Close()
	mappings, err := unchanged(smaps, exe)
	if err != nil {
		return err
	}
	for _, m := range mappings {
		// Not unix.Madvise, whose slice of bytes would have to be made of an address.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("cannot drop the pages from %x to %x of %s: %w", m.start, m.end, exe, errno)
		}
	}
	return nil
}

// unchanged returns the mappings of a file that hold what the file does. Those that may be written to are not among them,
// and neither are those with a page of their own, such as one into which a debugger or a uprobe wrote a breakpoint, or a
// dynamic linker an address: it would be lost.
func unchanged(smaps io.Reader, path string) ([]mapping, error) {
	var found []mapping
	var at mapping
	candidate := false
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		line := lines.Text()
		var m mapping
		var perms string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &m.start, &m.end, &perms); n == 3 {
			_, name, _ := strings.Cut(line, "/")
			at = m
			candidate = "/"+name == path && strings.HasPrefix(perms, "r-") && strings.HasSuffix(perms, "p")
		} else if size, ok := strings.CutPrefix(line, "Anonymous:"); ok && candidate {
			if fields := strings.Fields(size); len(fields) > 0 && fields[0] == "0" {
				found = append(found, at)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot read what this process has mapped: %w", err)
	}
	return found, nil
}
