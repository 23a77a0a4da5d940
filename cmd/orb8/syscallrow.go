package main

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/syscalls"
)

// containerRoom is what streams leave for the name of a container.
const containerRoom = 20

// syscallColumns fit 80 columns. Those that would hold the same in every row are not there.
func syscallColumns(rows []row) []column {
	has := func(is func(*orb8v1.Syscall) bool) bool {
		return slices.ContainsFunc(rows, func(r row) bool { return is(r.count) })
	}
	var columns []column
	if has(func(s *orb8v1.Syscall) bool { return s.GetNode() != rows[0].count.GetNode() }) {
		columns = append(columns, column{title: "NODE", text: func(r row) string { return r.count.GetNode() }, flexible: true})
	}
	if has(func(s *orb8v1.Syscall) bool { return s.GetContainer().GetNamespace() != "" }) {
		columns = append(columns, column{title: "NAMESPACE", text: func(r row) string { return r.count.GetContainer().GetNamespace() }, flexible: true})
	}
	columns = append(columns,
		column{title: "CONTAINER", text: func(r row) string { return containerName(r.count.GetContainer()) }, flexible: true},
		column{title: "SYSCALL", text: func(r row) string { return callName(r.count.GetAbi(), r.count.GetName()) }, flexible: true},
		callsColumn(),
	)
	if has(func(s *orb8v1.Syscall) bool { return s.Errors != nil }) {
		columns = append(columns, errorsColumn())
	}
	if has(func(s *orb8v1.Syscall) bool { return s.GetLost() > 0 }) {
		columns = append(columns, lostCallsColumn())
	}
	return columns
}

// wideSyscallColumns show all that is known of a row, however long the lines. What varies most in length comes last.
func wideSyscallColumns(zone *time.Location) []column {
	return []column{
		timeColumn("START", wideLayout, zone, func(r row) time.Time { return r.count.GetStart().AsTime() }),
		timeColumn("END", wideLayout, zone, row.when),
		{title: "NODE", text: func(r row) string { return r.count.GetNode() }},
		{title: "NAMESPACE", text: func(r row) string { return r.count.GetContainer().GetNamespace() }},
		{title: "POD", text: func(r row) string { return r.count.GetContainer().GetPod() }},
		{title: "CONTAINER", text: func(r row) string { return r.count.GetContainer().GetName() }},
		{title: "SYSCALL", text: func(r row) string { return r.count.GetName() }},
		{title: "ABI", text: func(r row) string { return r.count.GetAbi() }},
		{title: "NUMBER", text: func(r row) string { return strconv.Itoa(int(r.count.GetNumber())) }, right: true},
		callsColumn(),
		errorsColumn(),
		{title: "MEAN", text: func(r row) string { return latencyText(r, meanLatency) }, right: true},
		{title: "P50", text: func(r row) string { return latencyText(r, quantileText(0.5)) }, right: true},
		{title: "P99", text: func(r row) string { return latencyText(r, quantileText(0.99)) }, right: true},
		lostCallsColumn(),
		{title: "ERRORS-BY-NAME", text: errorNames},
		{title: "CONTAINER-ID", text: func(r row) string { return r.count.GetContainer().GetId() }},
		{title: "CGROUP", text: func(r row) string { return r.count.GetContainer().GetCgroup() }},
	}
}

func callsColumn() column {
	return column{title: "CALLS", text: func(r row) string { return humanCount(r.count.GetCalls()) }, right: true}
}

func errorsColumn() column {
	return column{title: "ERRORS", right: true, text: func(r row) string {
		if r.count.Errors == nil {
			return ""
		}
		return humanCount(r.count.GetErrors())
	}}
}

func lostCallsColumn() column {
	return column{
		title: "LOST", right: true,
		text: func(r row) string { return humanCount(r.count.GetLost()) },
		style: func(r row) string {
			if r.count.GetLost() > 0 {
				return styleRed
			}
			return ""
		},
	}
}

// errorNames is what failed how often, the most frequent first.
func errorNames(r row) string {
	byName := r.count.GetErrorsByName()
	names := slices.SortedFunc(maps.Keys(byName), func(a, b string) int {
		return cmp.Or(cmp.Compare(byName[b], byName[a]), cmp.Compare(a, b))
	})
	for i, name := range names {
		names[i] = name + ":" + humanCount(byName[name])
	}
	return strings.Join(names, ",")
}

// containerName is POD/CONTAINER, or the first that is known of pod, container, its id, the systemd unit, and the cgroup. That has
// its whole path: the last part of it may be the same in many.
func containerName(c *orb8v1.Container) string {
	id := c.GetId()
	if c.GetPod() != "" && c.GetName() != "" {
		return c.GetPod() + "/" + c.GetName()
	}
	return cmp.Or(c.GetPod(), c.GetName(), id[:min(len(id), 12)], c.GetUnit(), c.GetCgroup())
}

// callName is the name of a call, behind the ABI where that is not the node's own.
func callName(abi, name string) string {
	switch abi {
	case syscalls.X86_64.String(), syscalls.ARM64.String(), "":
		return name
	}
	return abi + "/" + name
}

// latencyText is nothing where no latency was measured.
func latencyText(r row, text func(*orb8v1.SyscallLatency) string) string {
	if measuredCalls(r.count.GetLatency()) == 0 {
		return ""
	}
	return text(r.count.GetLatency())
}

func measuredCalls(l *orb8v1.SyscallLatency) uint64 {
	var calls uint64
	for _, n := range l.GetBuckets() {
		calls += n
	}
	return calls
}

func meanLatency(l *orb8v1.SyscallLatency) string {
	return briefDuration(time.Duration(float64(l.GetSum().AsDuration()) / float64(measuredCalls(l))))
}

// quantile returns the bound that this share of the calls did not exceed. bounded is false where there is none: then they took
// longer than that.
func quantile(l *orb8v1.SyscallLatency, share float64) (bound time.Duration, bounded bool) {
	left := share * float64(measuredCalls(l))
	for i, n := range l.GetBuckets() {
		if left -= float64(n); left <= 0 {
			if i >= syscalls.LatencyBuckets-1 {
				break
			}
			return syscalls.Bound(i), true
		}
	}
	return syscalls.Bound(syscalls.LatencyBuckets - 2), false
}

func quantileText(share float64) func(*orb8v1.SyscallLatency) string {
	return func(l *orb8v1.SyscallLatency) string {
		bound, bounded := quantile(l, share)
		if !bounded {
			return ">" + briefDuration(bound)
		}
		return briefDuration(bound)
	}
}

// briefDuration is d in three digits or four.
func briefDuration(d time.Duration) string {
	for unit := time.Second; unit > time.Nanosecond; unit /= 1000 {
		if d >= unit {
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}

// jsonCaller is who made a call.
type jsonCaller struct {
	Node        string `json:"node"`
	Container   string `json:"container"`
	ContainerID string `json:"containerId,omitempty"`
	Cgroup      string `json:"cgroup"`
	Pod         string `json:"pod"`
	PodUID      string `json:"podUid,omitempty"`
	Namespace   string `json:"namespace"`
	Unit        string `json:"unit,omitempty"`
	// Owner, not workload: an anomaly's workload is what its profile belongs to.
	Owner     string            `json:"owner,omitempty"`
	OwnerKind string            `json:"ownerKind,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

func newJSONCaller(node string, c *orb8v1.Container) jsonCaller {
	return jsonCaller{
		Node: node, Container: c.GetName(), ContainerID: c.GetId(), Cgroup: c.GetCgroup(), Pod: c.GetPod(), PodUID: c.GetPodUid(),
		Namespace: c.GetNamespace(), Unit: c.GetUnit(), Owner: c.GetWorkload(), OwnerKind: c.GetWorkloadKind(), Labels: c.GetLabels(),
	}
}

// jsonCall is which call it is.
type jsonCall struct {
	Syscall string `json:"syscall"`
	ABI     string `json:"abi"`
	Number  int32  `json:"number"`
}

// jsonSyscall is a count as JSON.
type jsonSyscall struct {
	jsonCaller
	jsonCall
	Calls uint64 `json:"calls"`
	// Errors is null where they are not measured.
	Errors       *uint64           `json:"errors"`
	ErrorsByName map[string]uint64 `json:"errorsByName,omitempty"`
	Latency      *jsonLatency      `json:"latency,omitempty"`
	Lost         uint64            `json:"lost"`
	Start        string            `json:"start"`
	End          string            `json:"end"`
}

// jsonLatency is a distribution in seconds. A quantile without a bound is absent.
type jsonLatency struct {
	Calls   uint64       `json:"calls"`
	Sum     float64      `json:"sum"`
	P50     float64      `json:"p50,omitempty"`
	P99     float64      `json:"p99,omitempty"`
	Buckets []jsonBucket `json:"buckets"`
}

// jsonBucket are the calls that took at most LE, and longer than those of the bucket before. The last one has no bound.
type jsonBucket struct {
	LE    float64 `json:"le,omitempty"`
	Calls uint64  `json:"calls"`
}

func newJSONSyscall(s *orb8v1.Syscall) jsonSyscall {
	return jsonSyscall{
		jsonCaller:   newJSONCaller(s.GetNode(), s.GetContainer()),
		jsonCall:     jsonCall{Syscall: s.GetName(), ABI: s.GetAbi(), Number: s.GetNumber()},
		Calls:        s.GetCalls(),
		Errors:       s.Errors,
		ErrorsByName: s.GetErrorsByName(),
		Latency:      newJSONLatency(s.GetLatency()),
		Lost:         s.GetLost(),
		Start:        rfc3339(s.GetStart()),
		End:          rfc3339(s.GetEnd()),
	}
}

// newJSONLatency leaves out the buckets that no call was in.
func newJSONLatency(l *orb8v1.SyscallLatency) *jsonLatency {
	if l == nil {
		return nil
	}
	j := &jsonLatency{Calls: measuredCalls(l), Sum: l.GetSum().AsDuration().Seconds(), Buckets: []jsonBucket{}}
	for i, n := range l.GetBuckets() {
		if n == 0 {
			continue
		}
		bucket := jsonBucket{Calls: n}
		if i < syscalls.LatencyBuckets-1 {
			bucket.LE = syscalls.Bound(i).Seconds()
		}
		j.Buckets = append(j.Buckets, bucket)
	}
	if j.Calls > 0 {
		if bound, ok := quantile(l, 0.5); ok {
			j.P50 = bound.Seconds()
		}
		if bound, ok := quantile(l, 0.99); ok {
			j.P99 = bound.Seconds()
		}
	}
	return j
}
