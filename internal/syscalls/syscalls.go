// Package syscalls is the model of what processes ask of the kernel: exact counts, sampled events, anomalies and a node's
// status, and how each travels as an OpenTelemetry log record.
package syscalls

import (
	"fmt"
	"strings"
	"time"

	"github.com/orb8/orb8/internal/flow"
)

// ABI is the convention by which a process calls the kernel. The number of a call means nothing without it.
type ABI uint8

// The zero value is none of them. Each is named as the kernel's audit and seccomp name it.
const (
	X86_64 ABI = iota + 1
	I386
	X32
	ARM64
	ARM
)

var abiNames = [...]string{X86_64: "x86_64", I386: "i386", X32: "x32", ARM64: "arm64", ARM: "arm"}

// String returns x86_64, i386, x32, arm64 or arm.
func (a ABI) String() string {
	if int(a) < len(abiNames) && abiNames[a] != "" {
		return abiNames[a]
	}
	return "unknown"
}

// ParseABI is the inverse of String.
func ParseABI(s string) (ABI, error) {
	for a, name := range abiNames {
		if name != "" && name == s {
			return ABI(a), nil
		}
	}
	return 0, fmt.Errorf("ABI %q: use x86_64, i386, x32, arm64 or arm", s)
}

// Call is a system call.
type Call struct {
	ABI ABI
	// Number is that of the ABI's table. Any number can be called, also one that no kernel knows.
	Number int32
}

// Counts are the calls of one cgroup's processes in one interval. They are exact.
type Counts struct {
	// Start and End bound the interval.
	Start, End time.Time
	Node       string
	Identity   flow.Identity
	// Calls has one entry a Call, in no order.
	Calls []Count
	// LostCalls is how many calls the node could count to no cgroup in this interval: an upper bound of the error.
	LostCalls uint64
}

// Count is how often one call was made.
type Count struct {
	Call  Call
	Calls uint64
	// Errors are those of Calls that returned an error in this interval, by its name, as ENOENT. Nil where
	// the receiver does not measure latency.
	Errors map[string]uint64
	// Latency is nil where the receiver does not measure it.
	Latency *Latency
}

// ErrorCount is the sum of Errors.
func (c *Count) ErrorCount() uint64 {
	var n uint64
	for _, calls := range c.Errors {
		n += calls
	}
	return n
}

// LatencyBuckets is how many buckets a Latency has.
const LatencyBuckets = 28

// Latency is the distribution of the time from a call's entry to its return. A call that has not returned is in none; it is in
// that of the interval in which it returns.
type Latency struct {
	Sum time.Duration
	// Buckets[0] counts what took at most 256 ns, Buckets[i] at most 256 << i ns and more than the bucket before; the last
	// one everything longer, too.
	Buckets [LatencyBuckets]uint64
}

// Bound returns the upper bound of a bucket. That of the last is not one.
func Bound(bucket int) time.Duration { return 256 << bucket }

// Calls is the sum of the buckets.
func (l *Latency) Calls() uint64 {
	var n uint64
	for _, calls := range l.Buckets {
		n += calls
	}
	return n
}

// Add adds what was measured elsewhere, or later.
func (l *Latency) Add(o *Latency) {
	l.Sum += o.Sum
	for i, calls := range o.Buckets {
		l.Buckets[i] += calls
	}
}

// Event is one system call as it was entered: what it returned is not known.
type Event struct {
	Time time.Time
	Node string
	// Identity's Process is the comm and PID the process id, in the first pid namespace, of the caller.
	Identity flow.Identity
	TID      uint32
	Call     Call
	// Arguments are those that matter for the call, decoded, in the order of the call's parameters.
	Arguments []Argument
	// Sampling says that this event stands for so many calls; 1: every such call is told.
	Sampling uint32
}

// Argument is one parameter of a call.
type Argument struct {
	// Name is that of the parameter in the manual page, as pathname or flags.
	Name string
	// Value is text as strace shows it: "/etc/passwd" without its quotes, CLONE_NEWUSER|CLONE_NEWNS, 4242.
	Value string
}

// Severity of an anomaly. The graver ones are the larger.
type Severity uint8

const (
	// SeverityInfo is worth a note: a call that is new for a workload.
	SeverityInfo Severity = iota + 1
	// SeverityWarning is worth a look.
	SeverityWarning
	// SeverityCritical is worth waking somebody.
	SeverityCritical
)

var severityNames = [...]string{SeverityInfo: "info", SeverityWarning: "warning", SeverityCritical: "critical"}

// String returns info, warning or critical.
func (s Severity) String() string {
	if int(s) < len(severityNames) && severityNames[s] != "" {
		return severityNames[s]
	}
	return "unknown"
}

// ParseSeverity is the inverse of String.
func ParseSeverity(s string) (Severity, error) {
	for severity, name := range severityNames {
		if name != "" && name == strings.ToLower(s) {
			return Severity(severity), nil
		}
	}
	return 0, fmt.Errorf("severity %q: use info, warning or critical", s)
}

// Anomaly is a call that a workload never made before, that is dangerous by itself, or that it makes far more often than it did.
type Anomaly struct {
	Time time.Time
	Node string
	// Identity is that of the container; its Process and PID are those of the evidence, where there is one.
	Identity flow.Identity
	// Workload is what the profile belongs to: an image, an owner or a systemd unit, not a pod.
	Workload string
	// Rule is the name of the rule that was met.
	Rule     string
	Severity Severity
	Call     Call
	// Message is one sentence for a person.
	Message string
	// Evidence is the call itself; nil where no event of it was to be had. It has no identity of its own.
	Evidence *Event
	// Calls is how often the call was made in the interval that met the rule; 0 where one event did.
	Calls uint64
	// Rate and Baseline are calls a second: now, and what the profile has learned. Both are 0 where no rate is meant.
	Rate, Baseline float64
}

// Status is the state of a node's system call engine. Counts are since Started.
type Status struct {
	Node    string
	Version string
	Kernel  string
	Time    time.Time
	Started time.Time
	// Interval is the time between two reports.
	Interval time.Duration
	// Calls were counted; LostCalls were made but could be counted to no cgroup; LostEvents found the ring buffer full.
	Calls, LostCalls, LostEvents uint64
	// CallsPerSecond is the mean of the last interval.
	CallsPerSecond float64
	// Cgroups made calls in the last interval.
	Cgroups         uint64
	RingBufferBytes uint64
	// RingBufferUtilization is the used share when it was last read, 0 to 1.
	RingBufferUtilization float64
	// Thinning is by how much events are sampled more sparsely than configured, because the ring buffer was nearly full: 1 is
	// not at all.
	Thinning uint32
	// Latency tells whether latency and errors are measured.
	Latency bool
	// Unavailable are the features that the host does not allow, each with the reason why not.
	Unavailable map[string]string
	// Probes are what the BPF programs cost, by name; none where the kernel does not measure them.
	Probes []flow.ProbeCost
}
