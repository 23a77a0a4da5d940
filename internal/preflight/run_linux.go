package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"

	"github.com/orb8/orb8/internal/cgroup"
)

// Run checks the kernel, the capabilities of this process, BTF, the cgroup v2 mount, and that BPF can be used. It
// changes nothing: what it loads to try is unloaded at once. Checks that ctx leaves no time for have failed.
func Run(ctx context.Context, opts Options) []Check { return thisHost().run(ctx, opts) }

// RunSyscalls checks what counting system calls needs, as Run does for packets.
func RunSyscalls(ctx context.Context) []Check { return thisHost().runSyscalls(ctx) }

func thisHost() host {
	return host{
		root:           "/",
		findMount:      cgroup.FindMount,
		haveMap:        features.HaveMapType,
		haveProg:       features.HaveProgramType,
		haveTracepoint: haveTracepoint,
	}
}

// host is what the checks look at.
type host struct {
	// root is where proc and sys are.
	root           string
	findMount      func(path string) (cgroup.Mount, error)
	haveMap        func(ebpf.MapType) error
	haveProg       func(ebpf.ProgramType) error
	haveTracepoint func(name string) error
}

func (h host) run(ctx context.Context, opts Options) []Check {
	kernel, v := h.kernel()
	caps := h.capabilities(opts.Mode, v)
	mount, program := h.cgroup(opts)
	checks := []Check{kernel, caps, h.btf(), mount}
	bpf, tried := h.try(ctx, "bpf", checks[:3])
	if tried {
		bpf = h.bpf(bpf.Name, program, "CONFIG_CGROUP_BPF and CONFIG_NET_CLS_BPF")
	}
	checks = append(checks, bpf)
	if !opts.Syscalls {
		return checks
	}
	calls, tried := h.try(ctx, "syscalls", checks[:3])
	if tried {
		calls = h.syscalls(calls.Name)
	}
	if calls.Status == Fail {
		calls.Status, calls.Fix = Warn, calls.Fix+"; until then system calls are not counted"
	}
	return append(checks, calls)
}

func (h host) runSyscalls(ctx context.Context) []Check {
	kernel, v := h.kernel()
	checks := []Check{kernel, h.capabilities(modeSyscalls, v), h.btf()}
	calls, tried := h.try(ctx, "syscalls", checks)
	if tried {
		calls = h.syscalls(calls.Name)
	}
	return append(checks, calls)
}

// try tells whether it is worth to try something out: there is time, and what must be there before is. If not, the check says so.
func (h host) try(ctx context.Context, name string, before []Check) (Check, bool) {
	switch {
	case Err(before) != nil:
		return Check{Name: name, Status: Warn, Detail: "not tried", Fix: "see above"}, false
	case ctx.Err() != nil:
		return Check{Name: name, Status: Fail, Detail: "not tried: " + ctx.Err().Error(), Fix: "try again"}, false
	}
	return Check{Name: name}, true
}

func (h host) kernel() (Check, version) {
	c := Check{Name: "kernel"}
	release, err := h.read("proc/sys/kernel/osrelease")
	release = strings.TrimSpace(release)
	var v version
	if err == nil {
		v, err = parseVersion(release)
	}
	switch {
	case err != nil:
		c.Status, c.Detail, c.Fix = Fail, err.Error(), "mount proc at /proc"
	case v < oldest:
		c.Status, c.Detail, c.Fix = Fail, "Linux "+release+" is too old", "use Linux 5.10 or later"
	case v.missing() != "":
		c.Detail = "Linux " + release + "; later ones bring " + v.missing()
	default:
		c.Detail = "Linux " + release
	}
	return c, v
}

func (h host) btf() Check {
	const vmlinux = "sys/kernel/btf/vmlinux"
	if _, err := os.Stat(filepath.Join(h.root, vmlinux)); err != nil {
		return Check{
			Name:   "btf",
			Status: Fail,
			Detail: "the kernel does not describe its types in /" + vmlinux,
			Fix:    "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
		}
	}
	return Check{Name: "btf", Detail: "/" + vmlinux}
}

// cgroup also returns the type of program that mode and mount call for.
func (h host) cgroup(opts Options) (Check, ebpf.ProgramType) {
	c := Check{Name: "cgroup"}
	m, err := h.findMount(opts.CgroupPath)
	switch {
	case err != nil:
		c.Status, c.Detail = Fail, err.Error()
		c.Fix = "or set the mode tc, which watches interfaces"
		if opts.Mode != ModeCgroup {
			c.Status = Warn
			c.Fix = "until then interfaces are watched, and containers are not told apart"
		}
	case m.Partial:
		c.Status = Warn
		c.Detail = m.Path + " is not the root of the cgroup v2 hierarchy: what is not below it is not seen"
		c.Fix = "give the container the host's /sys/fs/cgroup"
	default:
		c.Detail = "cgroup v2 at " + m.Path
	}
	if opts.Mode == ModeTC || err != nil && opts.Mode != ModeCgroup {
		return c, ebpf.SchedCLS
	}
	return c, ebpf.CGroupSKB
}

// syscalls checks for the raw tracepoint at which calls are counted.
func (h host) syscalls(name string) Check {
	c := h.bpf(name, ebpf.RawTracepoint, "CONFIG_BPF_EVENTS")
	if c.Status != OK {
		return c
	}
	if err := h.haveTracepoint("sys_enter"); err != nil {
		c.Status, c.Detail, c.Fix = Fail, err.Error(), "use a kernel built with CONFIG_FTRACE_SYSCALLS=y"
	}
	return c
}

// haveTracepoint looks in the BTF, which has a type for the program of each tracepoint.
func haveTracepoint(name string) error {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("cannot read the kernel's types: %w", err)
	}
	var program *btf.Typedef
	if err := spec.TypeByName("btf_trace_"+name, &program); err != nil {
		return fmt.Errorf("this kernel has no tracepoint %s: %w", name, err)
	}
	return nil
}

// bpf tries out a ring buffer and a type of program, for which the kernel must have been built with config.
func (h host) bpf(name string, program ebpf.ProgramType, config string) Check {
	for _, try := range []struct {
		what string
		err  error
	}{
		{"a ring buffer map", h.haveMap(ebpf.RingBuf)},
		{"a " + program.String() + " program", h.haveProg(program)},
	} {
		c := Check{Name: name, Status: Fail}
		switch {
		case try.err == nil:
			continue
		case errors.Is(try.err, ebpf.ErrNotSupported):
			c.Detail = "this kernel does not support " + try.what
			c.Fix = "use a kernel built with CONFIG_BPF_SYSCALL, " + config
		case errors.Is(try.err, os.ErrPermission):
			c.Detail = "the capabilities are there, yet loading " + try.what + " is not permitted"
			c.Fix = "allow the bpf system call: seccomp profile, security module, lockdown or a user namespace forbid it"
		default:
			c.Detail = fmt.Sprintf("cannot load %s: %v", try.what, try.err)
			c.Fix = "see the kernel's log"
		}
		return c
	}
	return Check{Name: name, Detail: "a ring buffer map and a " + program.String() + " program were loaded"}
}

func (h host) read(path string) (string, error) {
	b, err := os.ReadFile(filepath.Join(h.root, path))
	return string(b), err
}
