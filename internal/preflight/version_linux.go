package preflight

import "fmt"

// version is a kernel version as far as features depend on it: 65536 times the major number, plus the minor.
type version uint32

// The versions that make a difference to orb8.
const (
	ringBuffer    version = 5<<16 + 8
	memoryCgroups version = 5<<16 + 11
	tcx           version = 6<<16 + 6
)

// parseVersion reads the beginning of a release such as 6.1.0-13-amd64, 5.15.146+ or 6.12-rc3.
func parseVersion(release string) (version, error) {
	var major, minor uint16
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return 0, fmt.Errorf("cannot read a version from the kernel release %q", release)
	}
	return version(major)<<16 + version(minor), nil
}
