package storage

import (
	"strings"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

// SyscallQuery selects system calls. The zero value selects all that the store covers.
type SyscallQuery struct {
	// Since and Until bound the range [Since, Until). Counts are in it, all of them, when any instant of their interval is.
	// Zero values are no bounds.
	Since, Until time.Time
	Selection    SyscallSelection
	// Limit is the most rows to return; 0 means no limit.
	Limit int
	// After is as in FlowQuery.
	After string
}

// SyscallResult is the answer to a SyscallQuery.
type SyscallResult struct {
	// Syscalls are ordered most calls first, then by node, container, name, and what else SyscallKey has, so that equal stores give
	// equal answers.
	Syscalls []Syscall
	Coverage
}

// Syscall is a row: how often the processes of one container, or of one cgroup that is none, made one call.
type Syscall struct {
	// Start and End bound the intervals in which the call was made.
	Start, End time.Time
	Node       string
	// Identity is that of the newest counts.
	Identity flow.Identity
	// Count has the sums. Errors and Latency are of the intervals in which they were measured; Latency is nil where they were
	// not.
	syscalls.Count
	// Lost is how many calls the node could count to no container in the container's intervals of the range.
	Lost uint64
}

// AnomalyQuery selects anomalies. The zero value selects all that the store covers.
type AnomalyQuery struct {
	// Since and Until bound the range [Since, Until) of Anomaly.Time. Zero values are no bounds.
	Since, Until time.Time
	Selection    AnomalySelection
	// Limit is the most anomalies to return; 0 means no limit.
	Limit int
	// After is as in FlowQuery.
	After string
}

// AnomalyResult is the answer to an AnomalyQuery.
type AnomalyResult struct {
	// Anomalies are ordered newest first, of the same instant by node, container, rule, and what else AnomalyKey has.
	Anomalies []syscalls.Anomaly
	// Any lost call or event may have been an anomaly.
	Coverage
}

// SyscallSelection matches a call that matches any filter of Allow (any call, when Allow is empty) and none of Deny.
type SyscallSelection struct {
	Allow, Deny []SyscallFilter
}

// Match tells whether a call by who has that identity on that node is selected.
func (s *SyscallSelection) Match(node string, who *flow.Identity, call syscalls.Call) bool {
	return matchLists(s.Allow, s.Deny, func(f *SyscallFilter) bool { return f.match(node, who, call) })
}

func matchLists[F any](allow, deny []F, match func(*F) bool) bool {
	for i := range deny {
		if match(&deny[i]) {
			return false
		}
	}
	for i := range allow {
		if match(&allow[i]) {
			return true
		}
	}
	return len(allow) == 0
}

// SyscallFilter matches a call when each field that is set matches. Within a field any value may match.
type SyscallFilter struct {
	// As in EndFilter.
	Pods, Namespaces, Containers, Workloads []string
	Labels                                  []LabelSelector
	// Cgroups are paths: each stands for that cgroup and all below it.
	Cgroups []string
	// Syscalls are names, or numbers of calls that have none.
	Syscalls []string
	Nodes    []string
}

func (f *SyscallFilter) match(node string, who *flow.Identity, call syscalls.Call) bool {
	return matchValue(f.Nodes, node) &&
		matchValue(f.Namespaces, who.Namespace) &&
		matchAny(f.Pods, func(pod string) bool { return isNamed(pod, who.Namespace, who.Pod) }) &&
		matchAny(f.Workloads, func(w string) bool { return isNamed(w, who.Namespace, who.Workload) }) &&
		matchAny(f.Labels, func(s LabelSelector) bool { return s.Match(who) }) &&
		matchAny(f.Containers, func(container string) bool { return isContainer(container, who) }) &&
		matchAny(f.Cgroups, func(cgroup string) bool { return isBelow(cgroup, who.Cgroup) }) &&
		(len(f.Syscalls) == 0 || matchValue(f.Syscalls, call.Name()))
}

func matchAny[T any](values []T, is func(T) bool) bool {
	for _, v := range values {
		if is(v) {
			return true
		}
	}
	return len(values) == 0
}

// isBelow tells whether path is the cgroup or below it. The root has all below it that has a path.
func isBelow(cgroup, path string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(cgroup, "/"))
	return ok && path != "" && (rest == "" || rest[0] == '/')
}

// AnomalySelection matches an anomaly that matches any filter of Allow (any, when Allow is empty) and none of Deny.
type AnomalySelection struct {
	Allow, Deny []AnomalyFilter
}

// Match tells whether the anomaly is selected.
func (s *AnomalySelection) Match(n *syscalls.Anomaly) bool {
	return matchLists(s.Allow, s.Deny, func(f *AnomalyFilter) bool { return f.match(n) })
}

// AnomalyFilter matches an anomaly when each field that is set matches.
type AnomalyFilter struct {
	// Call says whose call, and which.
	Call SyscallFilter
	// Rules are names of rules, any of which may match.
	Rules []string
	// MinSeverity matches this one or a graver one.
	MinSeverity syscalls.Severity
}

func (f *AnomalyFilter) match(n *syscalls.Anomaly) bool {
	return n.Severity >= f.MinSeverity && matchValue(f.Rules, n.Rule) && f.Call.match(n.Node, &n.Identity, n.Call)
}
