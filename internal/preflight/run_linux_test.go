package preflight

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/testutil"
)

// testHost is a host of testdata where BPF works and a cgroup v2 hierarchy is mounted.
func testHost(name string) host {
	return host{
		root:      filepath.Join("testdata", name),
		findMount: func(string) (cgroup.Mount, error) { return cgroup.Mount{Path: "/sys/fs/cgroup"}, nil },
		haveMap:   func(ebpf.MapType) error { return nil },
		haveProg:  func(ebpf.ProgramType) error { return nil },

		haveTracepoint: func(string) error { return nil },
	}
}

func TestRun(t *testing.T) {
	var (
		modern = Check{Name: "kernel", Detail: "Linux 6.18.44"}
		rights = Check{Name: "capabilities", Detail: "this process has what it needs"}
		btf    = Check{Name: "btf", Detail: "/sys/kernel/btf/vmlinux"}
		noBTF  = Check{
			Name: "btf", Status: Fail,
			Detail: "the kernel does not describe its types in /sys/kernel/btf/vmlinux",
			Fix:    "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
		}
		mount     = Check{Name: "cgroup", Detail: "cgroup v2 at /sys/fs/cgroup"}
		cgroupSKB = Check{Name: "bpf", Detail: "a ring buffer map and a CGroupSKB program were loaded"}
		schedCLS  = Check{Name: "bpf", Detail: "a ring buffer map and a SchedCLS program were loaded"}
		notTried  = Check{Name: "bpf", Status: Warn, Detail: "not tried", Fix: "see above"}
	)
	none := func(string) (cgroup.Mount, error) {
		return cgroup.Mount{}, errors.New("no cgroup v2 hierarchy is mounted")
	}
	for _, tt := range []struct {
		name, host string
		opts       Options
		change     func(*host)
		want       []Check
	}{
		{name: "all is well", host: "root", want: []Check{modern, rights, btf, mount, cgroupSKB}},
		{name: "mode auto", host: "root", opts: Options{Mode: ModeAuto}, want: []Check{modern, rights, btf, mount, cgroupSKB}},
		{name: "mode tc", host: "root", opts: Options{Mode: ModeTC}, want: []Check{modern, rights, btf, mount, schedCLS}},
		{
			name: "the three capabilities are enough", host: "agent",
			want: []Check{
				{
					Name: "kernel",
					Detail: "Linux 5.15.0-91-generic; later ones bring drops (5.17), cheaper packets (6.2), tcx instead of clsact (6.6), " +
						"the receiver of a dropped packet (6.11)",
				},
				rights, btf, mount, cgroupSKB,
			},
		},
		{
			name: "not root", host: "user",
			want: []Check{
				{
					Name: "kernel",
					Detail: "Linux 6.1.0-13-amd64; later ones bring cheaper packets (6.2), tcx instead of clsact (6.6), " +
						"the receiver of a dropped packet (6.11)",
				},
				{
					Name: "capabilities", Status: Fail,
					Detail: "this process lacks CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN",
					Fix:    "run as root, or grant: CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN",
				},
				btf, mount, notTried,
			},
		},
		{
			name: "too old", host: "old",
			want: []Check{
				{Name: "kernel", Status: Fail, Detail: "Linux 5.4.0-216-generic is too old", Fix: "use Linux 5.10 or later"},
				rights, noBTF, mount, notTried,
			},
		},
		{
			name: "before BPF memory was charged to cgroups", host: "ancestor",
			want: []Check{
				{
					Name: "kernel",
					Detail: "Linux 5.10.0-28-amd64; later ones bring process names (5.11), cheaper system calls (5.12), " +
						"latency of system calls (5.13), drops (5.17), cheaper packets (6.2), tcx instead of clsact (6.6), the receiver of a dropped packet (6.11)",
				},
				{
					Name: "capabilities", Status: Fail,
					Detail: "this process lacks CAP_SYS_RESOURCE", Fix: "run as root, or grant: CAP_SYS_RESOURCE",
				},
				noBTF, mount, notTried,
			},
		},
		{
			name: "an odd /proc", host: "broken",
			want: []Check{
				{Name: "kernel", Status: Fail, Detail: `cannot read a version from the kernel release "six"`, Fix: "mount proc at /proc"},
				{
					Name: "capabilities", Status: Fail,
					Detail: `/proc/self/status: CapEff is no hexadecimal number: "none"`, Fix: "mount proc at /proc",
				},
				noBTF, mount, notTried,
			},
		},
		{
			name: "no /proc", host: "missing",
			want: []Check{
				{
					Name: "kernel", Status: Fail,
					Detail: "open testdata/missing/proc/sys/kernel/osrelease: no such file or directory", Fix: "mount proc at /proc",
				},
				{
					Name: "capabilities", Status: Fail,
					Detail: "open testdata/missing/proc/self/status: no such file or directory", Fix: "mount proc at /proc",
				},
				noBTF, mount, notTried,
			},
		},
		{
			name: "no cgroup v2, interfaces will do", host: "root",
			change: func(h *host) { h.findMount = none },
			want: []Check{modern, rights, btf, {
				Name: "cgroup", Status: Warn, Detail: "no cgroup v2 hierarchy is mounted",
				Fix: "until then interfaces are watched, and containers are not told apart",
			}, schedCLS},
		},
		{
			name: "no cgroup v2, but asked for", host: "root", opts: Options{Mode: ModeCgroup},
			change: func(h *host) { h.findMount = none },
			want: []Check{modern, rights, btf, {
				Name: "cgroup", Status: Fail, Detail: "no cgroup v2 hierarchy is mounted",
				Fix: "or set the mode tc, which watches interfaces",
			}, cgroupSKB},
		},
		{
			name: "a part of the hierarchy", host: "root",
			change: func(h *host) {
				h.findMount = func(string) (cgroup.Mount, error) { return cgroup.Mount{Path: "/mnt", Partial: true}, nil }
			},
			want: []Check{modern, rights, btf, {
				Name: "cgroup", Status: Warn,
				Detail: "/mnt is not the root of the cgroup v2 hierarchy: what is not below it is not seen",
				Fix:    "give the container the host's /sys/fs/cgroup",
			}, cgroupSKB},
		},
		{
			name: "no ring buffer in the kernel", host: "root",
			change: func(h *host) { h.haveMap = func(ebpf.MapType) error { return ebpf.ErrNotSupported } },
			want: []Check{modern, rights, btf, mount, {
				Name: "bpf", Status: Fail, Detail: "this kernel does not support a ring buffer map",
				Fix: "use a kernel built with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and CONFIG_NET_CLS_BPF",
			}},
		},
		{
			name: "forbidden in spite of the capabilities", host: "root",
			change: func(h *host) { h.haveProg = func(ebpf.ProgramType) error { return unix.EPERM } },
			want: []Check{modern, rights, btf, mount, {
				Name: "bpf", Status: Fail, Detail: "the capabilities are there, yet loading a CGroupSKB program is not permitted",
				Fix: "allow the bpf system call: seccomp profile, security module, lockdown or a user namespace forbid it",
			}},
		},
		{
			name: "another error", host: "root",
			change: func(h *host) { h.haveMap = func(ebpf.MapType) error { return unix.ENOMEM } },
			want: []Check{modern, rights, btf, mount, {
				Name: "bpf", Status: Fail, Detail: "cannot load a ring buffer map: cannot allocate memory",
				Fix: "see the kernel's log",
			}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := testHost(tt.host)
			if tt.change != nil {
				tt.change(&h)
			}
			assert.Equal(t, tt.want, h.run(t.Context(), tt.opts))
		})
	}
}

func TestRunSyscalls(t *testing.T) {
	well := Check{Name: "syscalls", Detail: "a ring buffer map and a RawTracepoint program were loaded"}
	for name, tt := range map[string]struct {
		host   string
		change func(*host)
		want   Check // the last one
		all    string
	}{
		"all is well": {host: "root", want: well},
		"the two capabilities are enough, and CAP_NET_ADMIN none of them": {host: "user", want: Check{
			Name: "syscalls", Status: Warn, Detail: "not tried", Fix: "see above",
		}, all: "orb8 cannot collect on this host: capabilities: this process lacks CAP_BPF, CAP_PERFMON; " +
			"run as root, or grant: CAP_BPF, CAP_PERFMON"},
		"cgroups do not matter": {host: "root", change: func(h *host) {
			h.findMount = func(string) (cgroup.Mount, error) { return cgroup.Mount{}, errors.New("none") }
		}, want: well},
		"no raw tracepoints": {
			host: "root", change: func(h *host) { h.haveProg = func(ebpf.ProgramType) error { return ebpf.ErrNotSupported } },
			want: Check{
				Name: "syscalls", Status: Fail, Detail: "this kernel does not support a RawTracepoint program",
				Fix: "use a kernel built with CONFIG_BPF_SYSCALL, CONFIG_BPF_EVENTS",
			},
			all: "orb8 cannot collect on this host: syscalls: this kernel does not support a RawTracepoint program; " +
				"use a kernel built with CONFIG_BPF_SYSCALL, CONFIG_BPF_EVENTS",
		},
		"no tracepoint of system calls": {
			host: "root", change: func(h *host) {
				h.haveTracepoint = func(name string) error { return errors.New("this kernel has no tracepoint " + name) }
			},
			want: Check{
				Name: "syscalls", Status: Fail, Detail: "this kernel has no tracepoint sys_enter",
				Fix: "use a kernel built with CONFIG_FTRACE_SYSCALLS=y",
			},
			all: "orb8 cannot collect on this host: syscalls: this kernel has no tracepoint sys_enter; " +
				"use a kernel built with CONFIG_FTRACE_SYSCALLS=y",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := testHost(tt.host)
			if tt.change != nil {
				tt.change(&h)
			}
			checks := h.runSyscalls(t.Context())
			require.Len(t, checks, 4)
			assert.Equal(t, tt.want, checks[3])
			if err := Err(checks); tt.all != "" {
				assert.EqualError(t, err, tt.all)
			} else {
				assert.NoError(t, err)
			}

			// Who watches packets too is warned.
			checks = h.run(t.Context(), Options{Syscalls: true})
			require.Len(t, checks, 6)
			if tt.want.Status == Fail {
				tt.want.Status, tt.want.Fix = Warn, tt.want.Fix+"; until then system calls are not counted"
			}
			assert.Equal(t, tt.want, checks[5])
		})
	}
}

func TestRunPassesThePathOn(t *testing.T) {
	h := testHost("root")
	var got string
	h.findMount = func(path string) (cgroup.Mount, error) {
		got = path
		return cgroup.Mount{Path: path}, nil
	}
	h.run(t.Context(), Options{CgroupPath: "/mnt/cgroup2"})
	assert.Equal(t, "/mnt/cgroup2", got)
}

func TestRunOutOfTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h := testHost("root")
	h.haveMap = func(ebpf.MapType) error {
		t.Error("tried although there is no time")
		return nil
	}
	assert.EqualError(t, Err(h.run(ctx, Options{})), "orb8 cannot collect on this host: bpf: not tried: context canceled; try again")
}

// TestRunHere is the one test of this host: everything is there, or the test that asks for it would not run either.
func TestRunHere(t *testing.T) {
	checks := Run(t.Context(), Options{})
	require.Len(t, checks, 5)
	testutil.Require(t, "bpf", os.Geteuid() == 0, "only root can load BPF programs")
	assert.NoError(t, Err(checks))
	assert.NoError(t, Err(RunSyscalls(t.Context())))
	assert.Error(t, haveTracepoint("no_such_tracepoint"))
}

func TestMissingCapabilities(t *testing.T) {
	const (
		bpf      = 1 << unix.CAP_BPF
		perfmon  = 1 << unix.CAP_PERFMON
		netAdmin = 1 << unix.CAP_NET_ADMIN
		sysAdmin = 1 << unix.CAP_SYS_ADMIN
		resource = 1 << unix.CAP_SYS_RESOURCE
	)
	for _, tt := range []struct {
		name   string
		have   uint64
		mode   string
		kernel version
		want   []string
	}{
		{name: "none", kernel: tcx, want: []string{"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"}},
		{name: "all three", have: bpf | perfmon | netAdmin, kernel: tcx},
		{name: "no CAP_BPF", have: perfmon | netAdmin, kernel: tcx, want: []string{"CAP_BPF"}},
		{name: "no CAP_PERFMON", have: bpf | netAdmin, kernel: tcx, want: []string{"CAP_PERFMON"}},
		{name: "no CAP_NET_ADMIN", have: bpf | perfmon, kernel: tcx, want: []string{"CAP_NET_ADMIN"}},
		{name: "CAP_SYS_ADMIN instead", have: sysAdmin, kernel: tcx},
		{name: "CAP_SYS_ADMIN makes no qdiscs", have: sysAdmin, mode: ModeTC, kernel: tcx, want: []string{"CAP_NET_ADMIN"}},
		{name: "system calls", have: bpf | perfmon, mode: modeSyscalls, kernel: tcx},
		{name: "5.11", have: sysAdmin, kernel: memoryCgroups},
		{name: "5.10", have: sysAdmin, kernel: memoryCgroups - 1, want: []string{"CAP_SYS_RESOURCE"}},
		{name: "5.10 with it", have: sysAdmin | resource, kernel: memoryCgroups - 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, missingCapabilities(tt.have, tt.mode, tt.kernel))
		})
	}
}

func TestEffective(t *testing.T) {
	set, err := effective("Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t000001ffffffffff\n")
	require.NoError(t, err)
	assert.Equal(t, uint64(0x1ffffffffff), set)
	_, err = effective("Name:\tx\n")
	assert.EqualError(t, err, "/proc/self/status has no CapEff line")
}

func TestParseVersion(t *testing.T) {
	for release, want := range map[string]version{
		"6.18.44":           6<<16 + 18,
		"6.1.0-13-amd64":    6<<16 + 1,
		"5.15.146+":         5<<16 + 15,
		"6.12-rc3":          6<<16 + 12,
		"5.14.0-427.el9":    5<<16 + 14,
		"10.0.0-cloud-9000": 10 << 16,
	} {
		got, err := parseVersion(release)
		assert.NoError(t, err, release)
		assert.Equal(t, want, got, release)
	}
	for _, release := range []string{"", "6", "6.", "six", "-6.1", "6.99999999999999999999"} {
		_, err := parseVersion(release)
		assert.Error(t, err, release)
	}
	assert.Less(t, version(5<<16+15), tcx)
	assert.Greater(t, version(10<<16), tcx)
}

func TestKernelRelease(t *testing.T) {
	want, err := os.ReadFile("/proc/sys/kernel/osrelease")
	require.NoError(t, err)
	assert.Equal(t, strings.TrimSpace(string(want)), KernelRelease())
}

func FuzzEffective(f *testing.F) {
	f.Add("CapEff:\t000001ffffffffff\n")
	f.Add("CapEff:")
	f.Add("CapEff:\t-1\nCapEff:\t1")
	f.Fuzz(func(t *testing.T, status string) {
		if set, err := effective(status); err != nil {
			assert.Zero(t, set)
		}
	})
}

func FuzzParseVersion(f *testing.F) {
	f.Add("6.18.44-fc")
	f.Add("6.")
	f.Fuzz(func(t *testing.T, release string) {
		if v, err := parseVersion(release); err != nil {
			assert.Zero(t, v)
		}
	})
}
