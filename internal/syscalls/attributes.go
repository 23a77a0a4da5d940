package syscalls

// Event names of the log records (OpenTelemetry EventName).
const (
	// EventNameEvent is an Event.
	EventNameEvent = "orb8.syscall"
	// EventNameCounts are Counts.
	EventNameCounts = "orb8.syscall.counts"
	// EventNameAnomaly is an Anomaly.
	EventNameAnomaly = "orb8.syscall.anomaly"
	// EventNameStatus is a Status.
	EventNameStatus = "orb8.syscall.status"
)

// Attributes of events and anomalies. Identities are the resource's; their names are flow's.
const (
	AttrName     = "orb8.syscall.name"
	AttrNumber   = "orb8.syscall.number"
	AttrABI      = "orb8.syscall.abi"
	AttrTID      = "thread.id"
	AttrSampling = "orb8.syscall.sampling"
	// AttrArguments is a map from the parameter's name to its value, in the order of the parameters.
	AttrArguments = "orb8.syscall.arguments"
)

// Attributes of counts. Calls is a map from the call to its count; a call of another ABI than AttrABI is ABI/NAME.
// Errors has for each call a map from the error's name, and Latencies a list: the sum in nanoseconds, then the buckets.
const (
	AttrStart     = "orb8.syscall.interval.start"
	AttrCalls     = "orb8.syscall.calls"
	AttrErrors    = "orb8.syscall.errors"
	AttrLatencies = "orb8.syscall.latencies"
	AttrLostCalls = "orb8.syscall.lost_calls"
)

// Attributes of anomalies, next to those of the event that is the evidence.
const (
	AttrRule     = "orb8.anomaly.rule"
	AttrSeverity = "orb8.anomaly.severity"
	AttrWorkload = "orb8.anomaly.workload"
	AttrMessage  = "orb8.anomaly.message"
	AttrObserved = "orb8.anomaly.calls"
	AttrRate     = "orb8.anomaly.rate"
	AttrBaseline = "orb8.anomaly.baseline"
	// AttrSeen is when the evidence was, in nanoseconds since 1970.
	AttrSeen = "orb8.anomaly.evidence.time"
)

// Attributes of status records, next to flow's for version, start and kernel.
const (
	AttrInterval              = "orb8.syscall.interval"
	AttrCountedCalls          = "orb8.syscall.calls.counted"
	AttrCallRate              = "orb8.syscall.calls_per_second"
	AttrTotalLostCalls        = "orb8.syscall.lost.calls"
	AttrTotalLostEvents       = "orb8.syscall.lost.events"
	AttrCgroups               = "orb8.syscall.cgroups"
	AttrRingBufferBytes       = "orb8.syscall.ring_buffer.size"
	AttrRingBufferUtilization = "orb8.syscall.ring_buffer.utilization"
	AttrThinning              = "orb8.syscall.thinning"
	AttrLatency               = "orb8.syscall.latency"
	AttrUnavailable           = "orb8.syscall.unavailable"
)
