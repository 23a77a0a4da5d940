package main

import (
	"slices"
	"strconv"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/syscalls"
)

// runtimeCalls are what runc and bwrap call between the filter and the execve of the program, execve itself included, and what
// bwrap calls as the first process of a pid namespace. Seen with strace under runc 1.1.5 (create and start, with and without
// noNewPrivileges, as root and as another user) and bwrap 0.8.0; epoll_pwait, madvise, mmap, nanosleep, sched_yield and tgkill are
// what the Go runtime of runc does there now and then. exit, exit_group, restart_syscall and rt_sigreturn belong to every program.
func runtimeCalls() []string {
	return []string{
		"capget", "capset", "chdir", "close", "epoll_ctl", "epoll_pwait", "execve", "exit", "exit_group", "faccessat2", "fchown", "fcntl",
		"fstat", "fstatfs", "futex", "getcwd", "getdents64", "getpid", "getppid", "madvise", "mmap", "nanosleep", "newfstatat", "openat", "prctl",
		"read", "restart_syscall", "rt_sigreturn", "sched_yield", "setgid", "setgroups", "setuid", "tgkill", "wait4", "write",
	}
}

// setupCalls are what a runtime calls before the filter to make the container, in the container's own cgroup. Few programs need
// them, and every one is a way out of a container.
func setupCalls() []string {
	return []string{
		"bpf", "chroot", "fsconfig", "fsmount", "fsopen", "keyctl", "memfd_create", "mknod", "mknodat", "mount", "mount_setattr", "move_mount",
		"open_tree", "pivot_root", "seccomp", "setdomainname", "sethostname", "setns", "umount2", "unshare",
	}
}

// setupEnds is the last of setupCalls that every runtime makes: with it the container has its own root.
const setupEnds = "pivot_root"

// unevenIntervals is by how much an interval may be longer than the next.
const unevenIntervals = 3

// observed is what was seen of the chosen containers.
type observed struct {
	start, end time.Time
	calls      []*orb8v1.Syscall
	containers map[place]*observedContainer
}

// place is what tells containers apart.
type place struct{ node, container, cgroup string }

type observedContainer struct {
	// start is that of the first interval in which it made any call. firstEnd is that interval's end or, where every call of it was
	// made again, a later one's.
	start, firstEnd time.Time
	lost            uint64
	// setUp is the end of the interval in which the runtime had set it up; zero where that was not seen.
	setUp time.Time
}

func (c *observedContainer) isStarted() bool { return !c.setUp.IsZero() }

func placeOf(s *orb8v1.Syscall) place {
	return place{s.GetNode(), s.GetContainer().GetId(), s.GetContainer().GetCgroup()}
}

func observe(calls []*orb8v1.Syscall) *observed {
	o := &observed{calls: calls, containers: map[place]*observedContainer{}}
	for _, s := range calls {
		start, end := s.GetStart().AsTime(), s.GetEnd().AsTime()
		c := o.containers[placeOf(s)]
		if c == nil {
			c = &observedContainer{start: start, firstEnd: end, lost: s.GetLost()}
			o.containers[placeOf(s)] = c
		}
		if start.Before(c.start) {
			c.start, c.firstEnd = start, end
		} else if start.Equal(c.start) && end.Before(c.firstEnd) {
			c.firstEnd = end
		}
		if o.start.IsZero() || start.Before(o.start) {
			o.start = start
		}
		if end.After(o.end) {
			o.end = end
		}
	}
	for _, s := range calls {
		if s.GetName() != setupEnds {
			continue
		}
		// The set-up may lie in two intervals; what comes later is a call of the program's own. Intervals differ in length, on a
		// busy node by much.
		c, start, end := o.containers[placeOf(s)], s.GetStart().AsTime(), s.GetEnd().AsTime()
		if !start.After(c.firstEnd) && !start.After(c.start.Add(unevenIntervals*end.Sub(start))) {
			c.setUp = end
		}
	}
	return o
}

// isSetup tells whether the container made the call only while it was set up.
func (o *observed) isSetup(s *orb8v1.Syscall) bool {
	c := o.containers[placeOf(s)]
	return c.isStarted() && !s.GetEnd().AsTime().After(c.setUp) && slices.Contains(setupCalls(), s.GetName())
}

// isUnnamed tells whether the call has a number only.
func isUnnamed(s *orb8v1.Syscall) bool { return s.GetName() == strconv.Itoa(int(s.GetNumber())) }

// unnamed returns the calls that a profile cannot name.
func (o *observed) unnamed() []string {
	return o.names(isUnnamed)
}

// setupNames returns the calls that no container made but while it was set up.
func (o *observed) setupNames() []string {
	used := o.names(func(s *orb8v1.Syscall) bool { return !o.isSetup(s) })
	return slices.DeleteFunc(o.names(o.isSetup), func(name string) bool { return slices.Contains(used, name) })
}

// names returns the names of some calls, each once, in the order of the alphabet.
func (o *observed) names(of func(*orb8v1.Syscall) bool) []string {
	var names []string
	for _, s := range o.calls {
		if of(s) {
			names = append(names, s.GetName())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// seccompProfile is the LinuxSeccomp of the OCI runtime specification.
type seccompProfile struct {
	DefaultAction string        `json:"defaultAction"`
	Architectures []string      `json:"architectures"`
	Syscalls      []seccompRule `json:"syscalls"`
}

type seccompRule struct {
	Names  []string `json:"names"`
	Action string   `json:"action"`
}

const seccompAllow = "SCMP_ACT_ALLOW"

// seccompActionNames are what may become of a call that no rule allows. The first is the default: EPERM.
func seccompActionNames() []string { return []string{"errno", "kill", "log"} }

func seccompAction(name string) string {
	switch name {
	case "kill":
		return "SCMP_ACT_KILL_PROCESS"
	case "log":
		return "SCMP_ACT_LOG"
	}
	return "SCMP_ACT_ERRNO"
}

func (o *observed) profile(action string, keepSetup bool) seccompProfile {
	names := o.names(func(s *orb8v1.Syscall) bool { return !isUnnamed(s) && (keepSetup || !o.isSetup(s)) })
	names = append(names, runtimeCalls()...)
	slices.Sort(names)
	return seccompProfile{
		DefaultAction: seccompAction(action),
		Architectures: o.architectures(),
		Syscalls:      []seccompRule{{Names: slices.Compact(names), Action: seccompAllow}},
	}
}

// architectures returns the ABIs that were seen, each behind the one that its kernel's own programs have: the runtime is one. The
// filter kills what calls by another.
func (o *observed) architectures() []string {
	var all []string
	for _, arch := range []struct {
		name string
		abis []syscalls.ABI
	}{
		{"SCMP_ARCH_X86_64", []syscalls.ABI{syscalls.X86_64, syscalls.I386, syscalls.X32}},
		{"SCMP_ARCH_X86", []syscalls.ABI{syscalls.I386}},
		{"SCMP_ARCH_X32", []syscalls.ABI{syscalls.X32}},
		{"SCMP_ARCH_AARCH64", []syscalls.ABI{syscalls.ARM64, syscalls.ARM}},
		{"SCMP_ARCH_ARM", []syscalls.ABI{syscalls.ARM}},
	} {
		if slices.ContainsFunc(o.calls, func(s *orb8v1.Syscall) bool {
			return slices.ContainsFunc(arch.abis, func(abi syscalls.ABI) bool { return s.GetAbi() == abi.String() })
		}) {
			all = append(all, arch.name)
		}
	}
	return all
}
