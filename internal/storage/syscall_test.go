package storage

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

func TestSyscallFilter(t *testing.T) {
	who := flow.Identity{
		Cgroup: "/kubepods.slice/pod1/c1", Namespace: "shop", Pod: "cart-0", Container: "cart", ContainerID: "c0ffee",
		Workload: "cart", Labels: "app=cart",
	}
	openat := syscalls.Call{ABI: syscalls.X86_64, Number: 257}
	unknown := syscalls.Call{ABI: syscalls.X86_64, Number: 4242}
	one := func(f SyscallFilter) SyscallSelection { return SyscallSelection{Allow: []SyscallFilter{f}} }
	tests := map[string]struct {
		selection SyscallSelection
		call      syscalls.Call
		want      bool
	}{
		"nothing is asked":      {SyscallSelection{}, openat, true},
		"an empty filter":       {one(SyscallFilter{}), openat, true},
		"name":                  {one(SyscallFilter{Syscalls: []string{"read", "openat"}}), openat, true},
		"other name":            {one(SyscallFilter{Syscalls: []string{"read"}}), openat, false},
		"number":                {one(SyscallFilter{Syscalls: []string{"4242"}}), unknown, true},
		"pod":                   {one(SyscallFilter{Pods: []string{"shop/cart-0"}}), openat, true},
		"pod elsewhere":         {one(SyscallFilter{Pods: []string{"test/cart-0"}}), openat, false},
		"workload":              {one(SyscallFilter{Workloads: []string{"shop/cart"}}), openat, true},
		"workload elsewhere":    {one(SyscallFilter{Workloads: []string{"test/cart"}}), openat, false},
		"label":                 {one(SyscallFilter{Labels: []LabelSelector{selector("app in (web,cart)")}}), openat, true},
		"other label":           {one(SyscallFilter{Labels: []LabelSelector{selector("app=web")}}), openat, false},
		"namespace":             {one(SyscallFilter{Namespaces: []string{"shop"}}), openat, true},
		"container":             {one(SyscallFilter{Containers: []string{"cart"}}), openat, true},
		"container id":          {one(SyscallFilter{Containers: []string{"c0ff"}}), openat, true},
		"short id":              {one(SyscallFilter{Containers: []string{"c0f"}}), openat, false},
		"cgroup":                {one(SyscallFilter{Cgroups: []string{"/kubepods.slice/pod1/c1"}}), openat, true},
		"cgroup above":          {one(SyscallFilter{Cgroups: []string{"/kubepods.slice/"}}), openat, true},
		"root":                  {one(SyscallFilter{Cgroups: []string{"/"}}), openat, true},
		"cgroup of like name":   {one(SyscallFilter{Cgroups: []string{"/kubepods.slice/pod"}}), openat, false},
		"cgroup below":          {one(SyscallFilter{Cgroups: []string{"/kubepods.slice/pod1/c1/x"}}), openat, false},
		"node":                  {one(SyscallFilter{Nodes: []string{"node-b", "node-a"}}), openat, true},
		"other node":            {one(SyscallFilter{Nodes: []string{"node-b"}}), openat, false},
		"of two fields both":    {one(SyscallFilter{Nodes: []string{"node-a"}, Syscalls: []string{"read"}}), openat, false},
		"denied":                {SyscallSelection{Deny: []SyscallFilter{{Syscalls: []string{"openat"}}}}, openat, false},
		"others are not denied": {SyscallSelection{Deny: []SyscallFilter{{Syscalls: []string{"openat"}}}}, unknown, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tt.want, tt.selection.Match("node-a", &who, tt.call))
		})
	}
	assert.False(t, isBelow("/", ""), "a cgroup whose path is not known is below none")
}

func TestAnomalyFilter(t *testing.T) {
	n := &syscalls.Anomaly{
		Node: "node-a", Rule: "new_syscall", Severity: syscalls.SeverityWarning, Identity: flow.Identity{Pod: "cart-0"},
		Call: syscalls.Call{ABI: syscalls.X86_64, Number: 101},
	}
	for name, tt := range map[string]struct {
		filter AnomalyFilter
		want   bool
	}{
		"nothing is asked": {AnomalyFilter{}, true},
		"this severity":    {AnomalyFilter{MinSeverity: syscalls.SeverityWarning}, true},
		"graver":           {AnomalyFilter{MinSeverity: syscalls.SeverityCritical}, false},
		"less grave":       {AnomalyFilter{MinSeverity: syscalls.SeverityInfo}, true},
		"rule":             {AnomalyFilter{Rules: []string{"x", "new_syscall"}}, true},
		"other rule":       {AnomalyFilter{Rules: []string{"x"}}, false},
		"whose":            {AnomalyFilter{Call: SyscallFilter{Pods: []string{"cart-0"}, Syscalls: []string{"ptrace"}}}, true},
		"somebody else's":  {AnomalyFilter{Call: SyscallFilter{Pods: []string{"cart-1"}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tt.want, (&AnomalySelection{Allow: []AnomalyFilter{tt.filter}}).Match(n))
			assert.Equal(t, !tt.want, (&AnomalySelection{Deny: []AnomalyFilter{tt.filter}}).Match(n))
		})
	}
	assert.True(t, (&AnomalySelection{}).Match(n))
}
