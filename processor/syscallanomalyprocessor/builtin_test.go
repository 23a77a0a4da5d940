package syscallanomalyprocessor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

// builtinTests has for each built-in rule of kind call what meets it and what does not: the events of a container, one after the other.
var builtinTests = map[string]struct{ met, not [][]string }{
	"ptrace_control": {
		met: [][]string{{"gdb ptrace request=PTRACE_ATTACH pid=1"}, {"x ptrace request=PTRACE_POKETEXT pid=1"}, {"x ptrace request=PTRACE_SETREGS"}, {"x i386/ptrace"}, {"x ptrace request=0x9000"}},
		not: [][]string{{"gdb ptrace request=PTRACE_CONT pid=1"}, {"x ptrace request=PTRACE_PEEKDATA"}, {"x ptrace request=PTRACE_TRACEME"}},
	},
	"ptrace_traceme": {
		met: [][]string{{"x ptrace request=PTRACE_TRACEME"}},
		not: [][]string{{"x ptrace request=PTRACE_ATTACH"}},
	},
	"process_memory": {
		met: [][]string{{"x process_vm_readv pid=7"}, {"x process_vm_writev pid=7"}},
		not: [][]string{{"x readv fd=3"}},
	},
	"process_memory_file": {
		met: [][]string{{"x openat pathname=/proc/12/mem flags=O_RDWR"}, {"x openat2 pathname=/proc/12/task/13/mem"}},
		not: [][]string{{"x openat pathname=/proc/12/mem flags=O_RDONLY"}, {"x openat pathname=/proc/meminfo flags=O_RDWR"}},
	},
	"descriptor_theft": {met: [][]string{{"x pidfd_getfd pidfd=3"}}, not: [][]string{{"x pidfd_open pid=3"}}},
	"mount": {
		met: [][]string{{"mount mount source=/dev/sda1 mountflags=0"}, {"x fsopen fsname=ext4"}, {"x move_mount from_path="}, {"x i386/mount"}},
		not: [][]string{{"runc:[2:INIT] mount source=proc"}, {"crun mount source=proc"}},
	},
	"unmount":     {met: [][]string{{"umount umount2 target=/proc"}}, not: [][]string{{"runc:[2:INIT] umount2 target=."}}},
	"root_change": {met: [][]string{{"x pivot_root new_root=."}, {"chroot chroot path=/host"}}, not: [][]string{{"runc:[2:INIT] pivot_root new_root=."}, {"x chdir path=/host"}}},
	"namespace_enter": {
		met: [][]string{{"nsenter setns fd=3 nstype=CLONE_NEWNS"}},
		not: [][]string{{"runc:[1:CHILD] setns fd=3 nstype=CLONE_NEWNS"}, {"orb8-collector setns fd=9 nstype=CLONE_NEWNET"}},
	},
	"namespace_new": {
		met: [][]string{{"x unshare flags=CLONE_NEWNS|CLONE_NEWPID"}, {"x i386/unshare"}},
		not: [][]string{{"x unshare flags=CLONE_FILES"}, {"x unshare flags=CLONE_NEWNS|CLONE_NEWUSER"}},
	},
	"user_namespace": {
		met: [][]string{{"x unshare flags=CLONE_NEWNS|CLONE_NEWUSER"}, {"x clone flags=CLONE_NEWUSER|SIGCHLD"}},
		not: [][]string{{"x unshare flags=CLONE_NEWNS"}, {"x clone flags=CLONE_VM|SIGCHLD"}},
	},
	"file_handle": {met: [][]string{{"shocker open_by_handle_at mount_fd=3"}}, not: [][]string{{"x name_to_handle_at pathname=/"}}},
	"kernel_hook_file": {
		met: [][]string{
			{"sh openat pathname=/tmp/cgrp/release_agent flags=O_WRONLY|O_CREAT"}, {"sh openat pathname=/proc/sys/kernel/core_pattern flags=O_RDWR"},
			{"sh creat pathname=release_agent"}, {"sh openat2 pathname=/host/proc/sysrq-trigger"},
		},
		not: [][]string{{"sh openat pathname=/proc/sys/kernel/core_pattern flags=O_RDONLY"}, {"sh openat pathname=/tmp/release_agent.txt flags=O_WRONLY"}},
	},
	"host_device": {
		met: [][]string{{"x openat pathname=/dev/sda1 flags=O_RDONLY"}, {"x openat pathname=/dev/mem flags=O_RDWR"}, {"x open pathname=/dev/nvme0n1"}},
		not: [][]string{{"x openat pathname=/dev/shm/a flags=O_RDWR"}, {"x openat pathname=/dev/memory_bandwidth"}},
	},
	"device_file": {
		met: [][]string{{"x mknod pathname=/tmp/d mode=060600 dev=0x800"}, {"x mknodat pathname=/tmp/d mode=020600"}},
		not: [][]string{{"x mknod pathname=/tmp/fifo mode=010600"}, {"runc:[2:INIT] mknodat mode=020666"}},
	},
	"runtime_socket": {
		met: [][]string{{"x connect sockfd=3 addr=/var/run/docker.sock"}, {"x connect sockfd=3 addr=/run/containerd/containerd.sock"}},
		not: [][]string{{"x connect sockfd=3 addr=/run/app.sock"}},
	},
	"debugfs_run":   {met: [][]string{{"sh execve pathname=/sbin/debugfs"}}, not: [][]string{{"sh execve pathname=/sbin/debug"}}},
	"bpf":           {met: [][]string{{"x bpf cmd=BPF_PROG_LOAD"}}, not: [][]string{{"orb8-collector bpf cmd=BPF_PROG_LOAD"}}},
	"kexec":         {met: [][]string{{"x kexec_load flags=0"}, {"x kexec_file_load kernel_fd=3"}}, not: [][]string{{"x reboot op=RESTART"}}},
	"module_load":   {met: [][]string{{"insmod init_module len=9"}, {"insmod finit_module fd=3"}}, not: [][]string{{"rmmod delete_module name=x"}}},
	"module_unload": {met: [][]string{{"rmmod delete_module name=x"}}, not: [][]string{{"x init_module len=9"}}},
	"userfaultfd":   {met: [][]string{{"x userfaultfd flags=O_CLOEXEC"}}, not: [][]string{{"x eventfd2"}}},
	"machine_control": {
		met: [][]string{{"x reboot op=LINUX_REBOOT_CMD_RESTART"}, {"x iopl level=3"}, {"x swapoff path=/swap"}},
		not: [][]string{{"x sync"}},
	},
	"io_uring": {met: [][]string{{"x io_uring_setup entries=8"}}, not: [][]string{{"x io_uring_enter"}}},
	"fileless_execution": {
		met: [][]string{
			{"x memfd_create name=a flags=MFD_CLOEXEC", "x execveat dirfd=3 pathname= flags=AT_EMPTY_PATH"},
			{"x memfd_create name=a", "x execve pathname=/proc/self/fd/3"}, {"x memfd_create name=a", "x execve pathname=/proc/11/fd/3"},
		},
		not: [][]string{{"x execve pathname=/proc/self/fd/3"}, {"x memfd_create name=a", "x execve pathname=/bin/ls"}, {"x memfd_create name=runc_cloned", "runc execve pathname=/proc/self/fd/3"}},
	},
	"dropped_execution": {
		met: [][]string{{"sh chmod pathname=/tmp/x mode=0755", "sh execve pathname=/tmp/x"}, {"sh fchmodat pathname=/tmp/x mode=04711", "sh execve pathname=/tmp/x"}},
		not: [][]string{{"sh chmod pathname=/tmp/x mode=0644", "sh execve pathname=/tmp/x"}, {"sh chmod pathname=/tmp/x mode=0755", "sh execve pathname=/tmp/y"}},
	},
	"shared_memory_execution": {met: [][]string{{"sh execve pathname=/dev/shm/x"}, {"sh execve pathname=/run/shm/x"}}, not: [][]string{{"sh execve pathname=/usr/bin/dev/shm/x"}}},
	"shell_run":               {met: [][]string{{"x execve pathname=/bin/sh"}, {"x execve pathname=bash"}}, not: [][]string{{"x execve pathname=/bin/push"}}},
	"network_tool_run":        {met: [][]string{{"sh execve pathname=/usr/bin/ncat"}, {"sh execve pathname=/bin/nc.openbsd"}}, not: [][]string{{"sh execve pathname=/usr/bin/rsync"}}},
	"data_destruction_run":    {met: [][]string{{"sh execve pathname=/usr/bin/shred"}, {"sh execve pathname=/sbin/mkfs.ext4"}}, not: [][]string{{"sh execve pathname=/bin/shredder"}}},
	"sensitive_file": {
		met: [][]string{{"cat openat pathname=/etc/shadow flags=O_RDONLY"}, {"cat openat pathname=/etc/sudoers.d/x flags=O_RDONLY"}, {"cat openat2 pathname=//etc/pam.conf"}},
		not: [][]string{{"cat openat pathname=/etc/passwd flags=O_RDONLY"}, {"cat openat pathname=/tmp/etc/shadow flags=O_RDONLY"}},
	},
	"credential_file": {
		met: [][]string{{"x openat pathname=/root/.ssh/id_ed25519"}, {"x openat pathname=/home/a/.aws/credentials"}, {"x openat pathname=/root/.kube/config"}},
		not: [][]string{{"x openat pathname=/root/.ssh/known_hosts"}, {"x openat pathname=/root/.ssh/id_rsa.pub"}},
	},
	"path_traversal": {
		met: [][]string{{"x openat pathname=/var/www/../../etc/passwd"}, {"x openat pathname=../../../home/a/.ssh/config"}},
		not: [][]string{{"x openat pathname=/var/www/../etc/passwd"}, {"x openat pathname=../../lib/a.so"}},
	},
	"sensitive_link": {
		met: [][]string{{"ln symlink target=/etc/shadow"}, {"ln symlinkat target=/"}, {"ln link oldpath=/etc/sudoers"}, {"ln symlinkat target=/root/"}},
		not: [][]string{{"ln symlink target=/etc/hosts"}, {"ln link oldpath=/etc"}},
	},
	"log_clearing": {
		met: [][]string{{"sh openat pathname=/var/log/auth.log flags=O_WRONLY|O_TRUNC"}, {"x creat pathname=/var/log/wtmp"}, {"x truncate path=/var/log/syslog length=0"}},
		not: [][]string{{"sh openat pathname=/var/log/auth.log flags=O_WRONLY|O_APPEND"}, {"sh openat pathname=/tmp/log flags=O_TRUNC"}, {"x truncate path=/tmp/a length=0"}},
	},
	"setuid_bit": {met: [][]string{{"x chmod pathname=/bin/sh mode=04755"}, {"x fchmod fd=3 mode=02755"}}, not: [][]string{{"x chmod pathname=/tmp mode=01777"}, {"x chmod pathname=/a mode=0755"}}},
	"packet_socket": {
		met: [][]string{{"x socket domain=AF_PACKET type=SOCK_RAW"}}, not: [][]string{{"x socket domain=AF_INET type=SOCK_STREAM"}},
	},
	"reverse_shell": {
		met: [][]string{{"x connect sockfd=3 addr=10.0.0.9:4444", "x dup2 oldfd=3 newfd=0"}, {"x connect sockfd=3 addr=[2001:db8::1]:443", "x dup3 oldfd=3 newfd=2 flags=0"}},
		not: [][]string{{"x connect sockfd=3 addr=10.0.0.9:4444", "x dup2 oldfd=4 newfd=0"}, {"x connect sockfd=3 addr=/run/a.sock", "x dup2 oldfd=3 newfd=0"}, {"x connect sockfd=3 addr=10.0.0.9:4444", "x dup2 oldfd=3 newfd=9"}},
	},
	"cloud_metadata":   {met: [][]string{{"curl connect sockfd=3 addr=169.254.169.254:80"}, {"curl connect sockfd=3 addr=[fd00:ec2::254]:80"}}, not: [][]string{{"curl connect sockfd=3 addr=10.169.254.169:80"}}},
	"ssh_unusual_port": {met: [][]string{{"ssh connect sockfd=3 addr=192.0.2.1:443"}}, not: [][]string{{"ssh connect sockfd=3 addr=192.0.2.1:22"}, {"curl connect sockfd=3 addr=192.0.2.1:443"}}},
}

// builtin makes a detector whose profile of the cart is complete and knows all calls, so that only rules of kind call are met.
func builtin(t *testing.T) *harness {
	t.Helper()
	h := newHarness(t, testConfig())
	h.learn(cart("a"), map[string]uint64{"read": 1})
	for _, p := range h.d.profiles.byKey {
		for _, calls := range h.d.rules.calls {
			for _, c := range calls {
				p.calls[c.Call] = &history{}
			}
		}
	}
	return h
}

func TestBuiltinRules(t *testing.T) {
	rules, err := (&RulesConfig{}).load()
	require.NoError(t, err)
	for _, r := range rules.rules {
		if r.Kind == kindNew || r.Kind == kindRate {
			continue
		}
		tt, ok := builtinTests[r.Name]
		require.True(t, ok && len(tt.met) > 0 && len(tt.not) > 0, "%s has no tests", r.Name)
		assert.NotEmpty(t, r.Tags, r.Name)
		t.Run(r.Name, func(t *testing.T) {
			for _, events := range tt.met {
				h := builtin(t)
				found := h.sequence(events)
				require.Contains(t, rulesOf(found), r.Name, "%v", events)
				for _, n := range found {
					if n.Rule == r.Name {
						assert.Equal(t, r.severity, n.Severity)
						assert.Equal(t, "shop/cart/app", n.Workload)
						assert.NotNil(t, n.Evidence)
						assert.Contains(t, n.Message, r.Description)
					}
				}
			}
			for _, events := range tt.not {
				h := builtin(t)
				assert.NotContains(t, rulesOf(h.sequence(events)), r.Name, "%v", events)
				assert.Zero(t, h.metric("condition_errors", "rule", r.Name))
			}
		})
	}
	assert.Len(t, builtinTests, len(rules.rules)-2, "tests of rules that are no more")
}

func (h *harness) sequence(events []string) []syscalls.Anomaly {
	h.t.Helper()
	var found []syscalls.Anomaly
	for _, text := range events {
		found = append(found, h.event(cart("a"), text)...)
		h.time = h.time.Add(time.Second)
	}
	return found
}

// TestHostsAreQuiet has what hosts do all day.
func TestHostsAreQuiet(t *testing.T) {
	for _, tt := range []struct{ unit, event string }{
		{"containerd.service", "containerd mount source=overlay"},
		{"containerd.service", "runc:[0:PARENT] unshare flags=CLONE_NEWUSER"},
		{"docker.service", "exe memfd_create name=runc_cloned"},
		{"docker.service", "exe execveat pathname= flags=AT_EMPTY_PATH"},
		{"kubelet.service", "kubelet mount source=tmpfs"},
		{"k3s.service", "k3s-server setns fd=3 nstype=CLONE_NEWNET"},
		{"nginx.service", "(nginx) mount source=/proc"},
		{"nginx.service", "(nginx) unshare flags=CLONE_NEWNS"},
		{"init.scope", "systemd bpf cmd=BPF_PROG_LOAD"},
		{"systemd-udevd.service", "(udev-worker) finit_module fd=3"},
		{"systemd-logind.service", "systemd-logind umount2 target=/run/user/0"},
		{"user@1000.service", "bwrap unshare flags=CLONE_NEWUSER"},
		{"ssh.service", "sshd openat pathname=/etc/shadow flags=O_RDONLY"},
		{"session-4.scope", "sudo openat pathname=/etc/sudoers flags=O_RDONLY"},
		{"session-4.scope", "ip setns fd=4 nstype=CLONE_NEWNET"},
		{"orb8.service", "orb8-collector bpf cmd=BPF_PROG_LOAD"},
	} {
		h := newHarness(t, testConfig())
		h.learn(unit(tt.unit), map[string]uint64{"read": 1})
		assert.Empty(t, h.event(unit(tt.unit), tt.event), "%+v", tt)
	}
	// The names alone excuse nobody in a container, but the few that set one up.
	h := builtin(t)
	assert.Equal(t, []string{"mount"}, rulesOf(h.event(cart("a"), "systemd mount source=x")))
	assert.Equal(t, []string{"module_load"}, rulesOf(h.event(cart("a"), "modprobe finit_module fd=3")))
	assert.Equal(t, []string{"ptrace_control"}, rulesOf(h.event(cart("a"), "runc:[2:INIT] ptrace request=PTRACE_ATTACH")))
}

func TestABreakoutIsTold(t *testing.T) {
	h := newHarness(t, testConfig())
	web := map[string]uint64{"read": 900, "write": 800, "epoll_wait": 500, "accept4": 100, "openat": 100, "close": 200}
	h.learn(cart("a"), web)
	for range 100 {
		assert.Empty(t, h.counts(cart("a"), web), "a web server at work")
		h.time = h.time.Add(testInterval)
	}
	// The learned workload's new pod, in which somebody works their way out.
	var found []syscalls.Anomaly
	for _, text := range []string{
		"sh unshare flags=CLONE_NEWUSER|CLONE_NEWNS", "sh mount source=cgroup mountflags=0", "sh openat pathname=/mnt/release_agent flags=O_WRONLY",
		"sh setns fd=3 nstype=0", "sh ptrace request=PTRACE_ATTACH pid=1",
	} {
		found = append(found, h.event(cart("b-new"), text)...)
	}
	assert.Equal(t, []string{"kernel_hook_file", "mount", "namespace_enter", "ptrace_control", "user_namespace"}, rulesOf(found))
	assert.Equal(t, "shop/cart/app: sh called unshare(flags=CLONE_NEWUSER|CLONE_NEWNS): it makes a user namespace, in which it has all capabilities; "+
		"this workload never made the call before", found[0].Message)
	assert.Equal(t, "c-b-new", found[0].Identity.ContainerID)
	assert.Equal(t, "sh", found[0].Evidence.Identity.Process)
	// Their counts come after and have nothing to add.
	h.time = h.time.Add(time.Second)
	assert.Empty(t, h.counts(cart("b-new"), map[string]uint64{"unshare": 1, "mount": 1, "setns": 1, "ptrace": 1, "openat": 1}))
	assert.EqualValues(t, 1, h.metric("anomalies", "rule", "mount", "severity", "warning"))
	assert.Empty(t, h.event(map[string]any{flow.AttrUnit: "x.service"}, "x read fd=1"), "a workload in its first minute")
}

// TestDocumentation: the guide lists every rule and exception, and its example works.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/anomalies.md")
	require.NoError(t, err)
	file, err := parseRuleFile(builtinRules)
	require.NoError(t, err)
	for _, r := range file.Rules {
		assert.Contains(t, string(text), "`"+r.Name+"`")
	}
	for _, e := range file.Exceptions {
		assert.Contains(t, string(text), "| `"+e.Name+"` |")
	}
	_, example, _ := strings.Cut(string(text), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	path := filepath.Join(t.TempDir(), "rules.yaml")
	require.NoError(t, os.WriteFile(path, []byte(example), 0o600))
	rules, err := (&RulesConfig{Files: []string{path}}).load()
	require.NoError(t, err)
	assert.Equal(t, "shell_after_upload", rules.rules[len(rules.rules)-1].Name)
}
