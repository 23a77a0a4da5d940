package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// made is a call that a container made from from to to seconds after it was first seen, two minutes ago, in intervals of five.
func made(c *orb8v1.Container, name string, number int32, from, to int) *orb8v1.Syscall {
	at := func(second int) time.Duration { return 2*time.Minute - time.Duration(second)*time.Second }
	return &orb8v1.Syscall{
		Start: ago(at(from)), End: ago(at(to)), Node: "worker-1", Container: c, Name: name, Number: number, Abi: "x86_64", Calls: 1,
	}
}

// started is a container that was set up while it was observed, and has served since.
func started() []*orb8v1.Syscall {
	return []*orb8v1.Syscall{
		made(cart(), "mount", 165, 0, 5), made(cart(), "pivot_root", 155, 0, 5), made(cart(), "unshare", 272, 0, 5), made(cart(), "execve", 59, 0, 5),
		made(cart(), "brk", 12, 0, 5), made(cart(), "accept4", 288, 5, 120), made(cart(), "4242", 4242, 10, 15),
	}
}

func seccomp(t *testing.T, rows []*orb8v1.Syscall, args ...string) (names, architectures []string, action, stderr string) {
	t.Helper()
	agent := (&fakeCollector{syscalls: &orb8v1.QuerySyscallsResponse{Syscalls: rows, Matched: uint64(len(rows))}}).serve(t)
	got := orb8(t, agent, append([]string{"seccomp", "--pod", "cart"}, args...)...)
	require.Zero(t, got.code, got.stderr)
	var profile struct {
		DefaultAction string
		Architectures []string
		Syscalls      []struct {
			Names  []string
			Action string
		}
	}
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &profile))
	require.Len(t, profile.Syscalls, 1)
	assert.Equal(t, "SCMP_ACT_ALLOW", profile.Syscalls[0].Action)
	return profile.Syscalls[0].Names, profile.Architectures, profile.DefaultAction, got.stderr
}

func TestSeccompGolden(t *testing.T) {
	collector := &fakeCollector{syscalls: &orb8v1.QuerySyscallsResponse{Syscalls: started(), Matched: 7}}
	got := orb8(t, collector.serve(t), "seccomp", "--pod", "shop/cart", "--since", "10m", "--node", "worker-1")
	require.Zero(t, got.code, got.stderr)
	assertGolden(t, "seccomp.json", got.stdout)
	assert.Equal(t, "orb8: observed 1 container for 2m0s; lost 0\n"+
		"orb8: left out, as called only while the container was set up: mount, pivot_root, unshare; --keep-setup allows them\n"+
		"orb8: left out, as a profile has names only: 4242\n", got.stderr)
	want := &orb8v1.QuerySyscallsRequest{
		Since: ago(10 * time.Minute), Allow: []*orb8v1.SyscallFilter{{Pods: []string{"shop/cart"}, Nodes: []string{"worker-1"}}},
	}
	assert.True(t, proto.Equal(want, collector.askedSyscalls), "all that there are: %v", collector.askedSyscalls)
}

func TestSeccompActions(t *testing.T) {
	for flag, want := range map[string]string{"errno": "SCMP_ACT_ERRNO", "kill": "SCMP_ACT_KILL_PROCESS", "log": "SCMP_ACT_LOG"} {
		_, _, action, _ := seccomp(t, started(), "--default", flag)
		assert.Equal(t, want, action)
	}
}

func TestSeccompSetup(t *testing.T) {
	names, _, _, stderr := seccomp(t, started(), "--keep-setup")
	assert.Subset(t, names, []string{"mount", "pivot_root", "unshare", "accept4", "brk"})
	assert.NotContains(t, stderr, "set up")
	assert.NotContains(t, names, "4242")

	for name, rows := range map[string][]*orb8v1.Syscall{
		"the program mounts too":             append(started(), made(cart(), "mount", 165, 0, 60)),
		"another container's program mounts": append(started(), made(build(), "mount", 165, 0, 5)),
		"it was set up in two intervals":     {made(cart(), "brk", 12, 0, 5), made(cart(), "mount", 165, 0, 10), made(cart(), "pivot_root", 155, 5, 10), made(cart(), "mount", 165, 10, 15)},
		"it pivots in its third interval": {
			made(cart(), "brk", 12, 0, 5), made(cart(), "mount", 165, 0, 15), made(cart(), "read", 0, 5, 10), made(cart(), "pivot_root", 155, 10, 15),
		},
		"it pivots long after": {made(cart(), "brk", 12, 0, 60), made(cart(), "pivot_root", 155, 50, 55), made(cart(), "mount", 165, 50, 55)},
	} {
		t.Run(name, func(t *testing.T) {
			names, _, _, _ := seccomp(t, rows)
			assert.Contains(t, names, "mount")
		})
	}
	for _, firstEnd := range []int{3, 5, 7} {
		names, _, _, _ = seccomp(t, []*orb8v1.Syscall{
			made(cart(), "mount", 165, 0, 10), made(cart(), "brk", 12, 0, firstEnd), made(cart(), "pivot_root", 155, firstEnd, 10),
			made(cart(), "read", 0, 10, 60),
		})
		assert.NotContains(t, names, "mount", "set-up in two intervals is set-up, also where they are %d and %d s long", firstEnd, 10-firstEnd)
	}
}

func TestSeccompArchitectures(t *testing.T) {
	for abi, want := range map[string][]string{
		"x86_64": {"SCMP_ARCH_X86_64"},
		"i386":   {"SCMP_ARCH_X86_64", "SCMP_ARCH_X86"},
		"x32":    {"SCMP_ARCH_X86_64", "SCMP_ARCH_X32"},
		"arm64":  {"SCMP_ARCH_AARCH64"},
		"arm":    {"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"},
	} {
		call := made(cart(), "brk", 12, 0, 5)
		call.Abi = abi
		_, got, _, _ := seccomp(t, []*orb8v1.Syscall{call})
		assert.Equal(t, want, got, abi)
	}
}

func TestSeccompSaysWhatItDoesNotKnow(t *testing.T) {
	rows := append(started(), made(build(), "read", 0, 0, 5))
	rows[0].Lost = 5
	agent := (&fakeCollector{syscalls: &orb8v1.QuerySyscallsResponse{
		Syscalls: rows, Matched: 8, Lost: &orb8v1.Loss{Calls: 3}, Oldest: ago(5 * time.Minute), MissingNodes: []string{"worker-2"},
	}}).serve(t)
	got := orb8(t, agent, "seccomp", "--container", "c0ffee,cart", "--since", "10m")
	assert.Zero(t, got.code)
	assert.Equal(t, "orb8: observed 2 containers for 2m0s; lost 5\n"+
		"orb8: nobody knows which the lost calls were: the profile may lack some\n"+
		"orb8: the start of 1 container was not seen: what is called only then may be missing\n"+
		"orb8: left out, as called only while the container was set up: mount, pivot_root, unshare; --keep-setup allows them\n"+
		"orb8: left out, as a profile has names only: 4242\n"+
		"orb8: no report from worker-2: their system calls are missing\n"+
		"orb8: the store begins at 2026-03-04T15:01:07Z: what was before is not shown\n", got.stderr)
}

func TestSeccompOfNothing(t *testing.T) {
	for want, reply := range map[string]*orb8v1.QuerySyscallsResponse{
		"orb8: nothing of that selection was observed in this range: there is nothing to allow\n": {},
		"orb8: the collector gives 7 of 9 rows only, and a profile of those would lack calls; choose fewer containers, or raise max_rows\n": {
			Syscalls: started(), Matched: 9, Truncated: true,
		},
	} {
		agent := (&fakeCollector{syscalls: reply}).serve(t)
		got := orb8(t, agent, "seccomp", "--cgroup", "/a")
		assert.Equal(t, exitFailed, got.code)
		assert.Equal(t, want, got.stderr)
		assert.Empty(t, got.stdout)
	}
}
