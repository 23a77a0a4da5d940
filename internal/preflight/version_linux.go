package preflight

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// KernelRelease is what uname -r says, such as 6.1.0-13-amd64.
func KernelRelease() string {
	var u unix.Utsname
	// It cannot fail: u is valid.
	_ = unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}

// version is a kernel version as far as features depend on it: 65536 times the major number, plus the minor.
type version uint32

// The versions that make a difference to orb8. The oldest is the oldest that it is tested on; 5.8 brought ring buffers.
const (
	oldest        version = 5<<16 + 10
	memoryCgroups version = 5<<16 + 11
	atomics       version = 5<<16 + 12
	taskStorage   version = 5<<16 + 13
	dropReasons   version = 5<<16 + 17
	kernelTypes   version = 6<<16 + 2
	tcx           version = 6<<16 + 6
	dropReceivers version = 6<<16 + 11
)

// missing names what later versions bring that orb8 makes use of, each with the version; empty if there is nothing. A
// distribution may have brought it to an older one.
func (v version) missing() string {
	var features []string
	for _, f := range []struct {
		since version
		name  string
	}{
		{memoryCgroups, "process names"},
		{atomics, "cheaper system calls"},
		{taskStorage, "latency of system calls"},
		{dropReasons, "drops"},
		{kernelTypes, "cheaper packets"},
		{tcx, "tcx instead of clsact"},
		{dropReceivers, "the receiver of a dropped packet"},
	} {
		if v < f.since {
			features = append(features, fmt.Sprintf("%s (%d.%d)", f.name, f.since>>16, f.since&0xffff))
		}
	}
	return strings.Join(features, ", ")
}

// parseVersion reads the beginning of a release such as 6.1.0-13-amd64, 5.15.146+ or 6.12-rc3.
func parseVersion(release string) (version, error) {
	var major, minor uint16
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return 0, fmt.Errorf("cannot read a version from the kernel release %q", release)
	}
	return version(major)<<16 + version(minor), nil
}
