package orb8queryextension

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

func (s *service) QuerySyscalls(ctx context.Context, req *connect.Request[orb8v1.QuerySyscallsRequest]) (*connect.Response[orb8v1.QuerySyscallsResponse], error) {
	asked := time.Now()
	return answer(ctx, s, req, parseSyscallQuery, s.store.QuerySyscalls, func(query *storage.SyscallQuery, result *storage.SyscallResult) *orb8v1.QuerySyscallsResponse {
		m := syscallsResponse(result)
		m.NextPageToken = nextPage(req.Msg, asked, query.Until, result.Next)
		return m
	})
}

// parseSyscallQuery checks a request. Errors name the field and its value.
func parseSyscallQuery(req *orb8v1.QuerySyscallsRequest, max limits) (storage.SyscallQuery, error) {
	since, until, err := parseRange(req.GetSince(), req.GetUntil())
	if err != nil {
		return storage.SyscallQuery{}, err
	}
	selection, err := parseSyscallSelection("allow", "deny", req.GetAllow(), req.GetDeny())
	if err != nil {
		return storage.SyscallQuery{}, err
	}
	after, until, err := parsePage(req, until)
	if err != nil {
		return storage.SyscallQuery{}, err
	}
	return storage.SyscallQuery{Since: since, Until: until, After: after, Selection: selection, Limit: parseLimit(req.GetLimit(), max.rows)}, nil
}

func parseSyscallSelection(allowField, denyField string, allow, deny []*orb8v1.SyscallFilter) (s storage.SyscallSelection, err error) {
	s.Allow, s.Deny, err = parseLists(allowField, denyField, allow, deny, syscallFilterValues, parseSyscallFilter)
	return s, err
}

func syscallFilterValues(f *orb8v1.SyscallFilter) int {
	return len(f.GetPods()) + len(f.GetNamespaces()) + len(f.GetContainers()) + len(f.GetCgroups()) + len(f.GetSyscalls()) + len(f.GetNodes()) +
		len(f.GetWorkloads()) + labelValues(f.GetLabels())
}

func parseSyscallFilter(f *orb8v1.SyscallFilter) (storage.SyscallFilter, error) {
	var out storage.SyscallFilter
	var errs [8]error
	out.Pods, errs[0] = parseAll("pods", f.GetPods(), parseQualified("pod"))
	out.Namespaces, errs[1] = parseAll("namespaces", f.GetNamespaces(), parseName)
	out.Containers, errs[2] = parseAll("containers", f.GetContainers(), parseName)
	out.Cgroups, errs[3] = parseAll("cgroups", f.GetCgroups(), parseCgroup)
	out.Syscalls, errs[4] = parseAll("syscalls", f.GetSyscalls(), parseSyscall)
	out.Nodes, errs[5] = parseAll("nodes", f.GetNodes(), parseName)
	out.Workloads, errs[6] = parseAll("workloads", f.GetWorkloads(), parseQualified("workload"))
	out.Labels, errs[7] = parseAll("labels", f.GetLabels(), storage.ParseLabelSelector)
	return out, cmp.Or(errs[:]...)
}

// parseCgroup takes a path with a slash at its end as well.
func parseCgroup(s string) (string, error) {
	if !strings.HasPrefix(s, "/") {
		return "", fmt.Errorf("%q is not the path of a cgroup; use for example /system.slice/nginx.service", s)
	}
	return path.Clean(s), nil
}

// parseSyscall refuses what would never match anything.
func parseSyscall(s string) (string, error) {
	if syscalls.Known(s) {
		return s, nil
	}
	call, err := syscalls.ParseCall(syscalls.X86_64, s)
	if err != nil {
		return "", fmt.Errorf("%q is no system call; use a name such as openat, or the number of one that has none", s)
	}
	// Numbers are compared as text.
	return fmt.Sprint(call.Number), nil
}

func syscallsResponse(result *storage.SyscallResult) *orb8v1.QuerySyscallsResponse {
	rows := make([]*orb8v1.Syscall, len(result.Syscalls))
	for i := range rows {
		rows[i] = syscallMessage(&result.Syscalls[i])
	}
	return &orb8v1.QuerySyscallsResponse{
		Syscalls:     rows,
		Lost:         lossMessage(result.Lost),
		Truncated:    result.Next != "",
		Matched:      uint64(result.Matched),
		Oldest:       timestamppb.New(result.Oldest),
		MissingNodes: result.MissingNodes,
	}
}

func syscallMessage(s *storage.Syscall) *orb8v1.Syscall {
	m := &orb8v1.Syscall{
		Start:     timestamppb.New(s.Start),
		End:       timestamppb.New(s.End),
		Node:      s.Node,
		Container: containerMessage(&s.Identity),
		Name:      s.Call.Name(),
		Number:    s.Call.Number,
		Abi:       s.Call.ABI.String(),
		Calls:     s.Calls,
		Lost:      s.Lost,
	}
	if s.Latency != nil {
		m.Errors, m.ErrorsByName = new(s.ErrorCount()), s.Errors
		m.Latency = &orb8v1.SyscallLatency{Sum: durationpb.New(s.Latency.Sum), Buckets: s.Latency.Buckets[:]}
	}
	return m
}

func containerMessage(who *flow.Identity) *orb8v1.Container {
	return &orb8v1.Container{
		Name: who.Container, Id: who.ContainerID, PodUid: who.PodUID, Pod: who.Pod, Namespace: who.Namespace, Cgroup: who.Cgroup, Unit: who.Unit,
		Workload: who.Workload, WorkloadKind: who.WorkloadKind, Labels: flow.ParseLabels(who.Labels),
	}
}

func syscallEventMessage(e *syscalls.Event) *orb8v1.SyscallEvent {
	arguments := make([]*orb8v1.SyscallArgument, len(e.Arguments))
	for i, a := range e.Arguments {
		arguments[i] = &orb8v1.SyscallArgument{Name: a.Name, Value: a.Value}
	}
	return &orb8v1.SyscallEvent{
		Time:      timestamppb.New(e.Time),
		Node:      e.Node,
		Container: containerMessage(&e.Identity),
		Process:   e.Identity.Process,
		Pid:       e.Identity.PID,
		Tid:       e.TID,
		Name:      e.Call.Name(),
		Number:    e.Call.Number,
		Abi:       e.Call.ABI.String(),
		Arguments: arguments,
		Sampling:  e.Sampling,
	}
}

func (s *service) QueryAnomalies(ctx context.Context, req *connect.Request[orb8v1.QueryAnomaliesRequest]) (*connect.Response[orb8v1.QueryAnomaliesResponse], error) {
	asked := time.Now()
	return answer(ctx, s, req, parseAnomalyQuery, s.store.QueryAnomalies, func(query *storage.AnomalyQuery, result *storage.AnomalyResult) *orb8v1.QueryAnomaliesResponse {
		m := anomaliesResponse(result)
		m.NextPageToken = nextPage(req.Msg, asked, query.Until, result.Next)
		return m
	})
}

// parseAnomalyQuery checks a request. Errors name the field and its value.
func parseAnomalyQuery(req *orb8v1.QueryAnomaliesRequest, max limits) (storage.AnomalyQuery, error) {
	since, until, err := parseRange(req.GetSince(), req.GetUntil())
	if err != nil {
		return storage.AnomalyQuery{}, err
	}
	selection, err := parseAnomalySelection("allow", "deny", req.GetAllow(), req.GetDeny())
	if err != nil {
		return storage.AnomalyQuery{}, err
	}
	after, until, err := parsePage(req, until)
	if err != nil {
		return storage.AnomalyQuery{}, err
	}
	return storage.AnomalyQuery{Since: since, Until: until, After: after, Selection: selection, Limit: parseLimit(req.GetLimit(), max.rows)}, nil
}

func parseAnomalySelection(allowField, denyField string, allow, deny []*orb8v1.AnomalyFilter) (s storage.AnomalySelection, err error) {
	s.Allow, s.Deny, err = parseLists(allowField, denyField, allow, deny, func(f *orb8v1.AnomalyFilter) int {
		return len(f.GetRules()) + syscallFilterValues(f.GetSyscall())
	}, parseAnomalyFilter)
	return s, err
}

func parseAnomalyFilter(f *orb8v1.AnomalyFilter) (storage.AnomalyFilter, error) {
	call, err := parseSyscallFilter(f.GetSyscall())
	if err != nil {
		return storage.AnomalyFilter{}, fmt.Errorf("syscall: %w", err)
	}
	out := storage.AnomalyFilter{Call: call}
	if out.Rules, err = parseAll("rules", f.GetRules(), parseName); err != nil {
		return storage.AnomalyFilter{}, err
	}
	if severity := f.GetMinSeverity(); severity != orb8v1.Severity_SEVERITY_UNSPECIFIED {
		if out.MinSeverity, err = parseSeverity(severity); err != nil {
			return storage.AnomalyFilter{}, fmt.Errorf("min_severity: %w", err)
		}
	}
	return out, nil
}

// parseSeverity relies on the numbers of the enumeration being the model's; a test holds them together.
func parseSeverity(s orb8v1.Severity) (syscalls.Severity, error) {
	if _, known := orb8v1.Severity_name[int32(s)]; !known {
		return 0, errors.New("use SEVERITY_INFO, SEVERITY_WARNING or SEVERITY_CRITICAL")
	}
	return syscalls.Severity(s), nil
}

func anomaliesResponse(result *storage.AnomalyResult) *orb8v1.QueryAnomaliesResponse {
	rows := make([]*orb8v1.Anomaly, len(result.Anomalies))
	for i := range rows {
		rows[i] = anomalyMessage(&result.Anomalies[i])
	}
	return &orb8v1.QueryAnomaliesResponse{
		Anomalies:    rows,
		Lost:         lossMessage(result.Lost),
		Truncated:    result.Next != "",
		Matched:      uint64(result.Matched),
		Oldest:       timestamppb.New(result.Oldest),
		MissingNodes: result.MissingNodes,
	}
}

func anomalyMessage(n *syscalls.Anomaly) *orb8v1.Anomaly {
	m := &orb8v1.Anomaly{
		Time:      timestamppb.New(n.Time),
		Node:      n.Node,
		Container: containerMessage(&n.Identity),
		Workload:  n.Workload,
		Rule:      n.Rule,
		Severity:  orb8v1.Severity(n.Severity),
		Name:      n.Call.Name(),
		Number:    n.Call.Number,
		Abi:       n.Call.ABI.String(),
		Message:   n.Message,
		Calls:     n.Calls,
		Rate:      n.Rate,
		Baseline:  n.Baseline,
	}
	if n.Evidence != nil {
		m.Evidence = syscallEventMessage(n.Evidence)
		// The call is the anomaly's, and so is who made it.
		m.Evidence.Container = m.Container
	}
	return m
}

func syscallStatusMessage(s *syscalls.Status) *orb8v1.SyscallStatus {
	if s == nil {
		return nil
	}
	return &orb8v1.SyscallStatus{
		Calls:                 s.Calls,
		Lost:                  lossMessage(storage.Loss{Calls: s.LostCalls, Events: s.LostEvents}),
		Cgroups:               s.Cgroups,
		RingBufferBytes:       s.RingBufferBytes,
		RingBufferUtilization: s.RingBufferUtilization,
		Interval:              durationpb.New(s.Interval),
		Thinning:              s.Thinning,
		Latency:               s.Latency,
		Unavailable:           s.Unavailable,
		CallsPerSecond:        s.CallsPerSecond,
		Probes:                probeMessages(s.Probes),
	}
}
