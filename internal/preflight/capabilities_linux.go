package preflight

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// capabilities checks the effective set of this process.
func (h host) capabilities(mode string, kernel version) Check {
	c := Check{Name: "capabilities"}
	status, err := h.read("proc/self/status")
	var have uint64
	if err == nil {
		have, err = effective(status)
	}
	if err != nil {
		c.Status, c.Detail, c.Fix = Fail, err.Error(), "mount proc at /proc"
		return c
	}
	missing := missingCapabilities(have, mode, kernel)
	if len(missing) > 0 {
		names := strings.Join(missing, ", ")
		c.Status = Fail
		c.Detail = "this process lacks " + names
		c.Fix = "run as root, or grant: " + names
		return c
	}
	c.Detail = "this process has what it needs"
	return c
}

func missingCapabilities(have uint64, mode string, kernel version) []string {
	admin := has(have, unix.CAP_SYS_ADMIN)
	var missing []string
	need := func(name string, bit int, instead bool) {
		if !has(have, bit) && !instead {
			missing = append(missing, name)
		}
	}
	need("CAP_BPF", unix.CAP_BPF, admin)
	need("CAP_PERFMON", unix.CAP_PERFMON, admin)
	// To the bpf system call CAP_SYS_ADMIN is as good, but not to netlink, which makes the qdiscs.
	need("CAP_NET_ADMIN", unix.CAP_NET_ADMIN, admin && mode != ModeTC || mode == modeSyscalls)
	// Until then BPF memory was charged to RLIMIT_MEMLOCK, which is too low for maps and must be raised.
	need("CAP_SYS_RESOURCE", unix.CAP_SYS_RESOURCE, kernel >= memoryCgroups)
	return missing
}

func has(set uint64, bit int) bool { return set&(1<<bit) != 0 }

// effective returns the CapEff line of /proc/PID/status; see proc_pid_status(5).
func effective(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/self/status: CapEff is no hexadecimal number: %q", strings.TrimSpace(hex))
			}
			return set, nil
		}
	}
	return 0, errors.New("/proc/self/status has no CapEff line")
}
