// Package storage is the contract between what writes flows and system calls (the orb8_store exporter), what keeps them (the
// orb8_storage extension and its backends) and what answers questions about them (the orb8_query extension).
package storage

import (
	"context"
	"slices"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/syscalls"
)

// Store keeps what agents report and answers questions about it. All methods may be called concurrently.
type Store interface {
	Writer
	Reader
}

// Writer takes what agents report. It copies what it keeps: the caller may reuse the slices.
type Writer interface {
	// WriteFlows stores flow records, in any order of time, and hands each to the subscribers as a FLOW event, or an
	// END event when the flow has ended. A record is visible to readers when WriteFlows returns. On error an unknown
	// part of the records was stored. A store that outlives its process stores what comes again once, if it comes in the same
	// batches; else a retry may count it twice.
	WriteFlows(ctx context.Context, records []flow.Record) error
	// WriteLookups stores DNS lookups and hands each to the subscribers as a DNS event, with the guarantees of WriteFlows.
	WriteLookups(ctx context.Context, lookups []flow.Lookup) error
	// WriteEvents hands events to the subscribers. Events are not stored.
	WriteEvents(ctx context.Context, events []flow.Event) error
	// WriteStatus stores the latest status of a node, and what the node lost since the status before it. A status
	// that is older than the one stored is ignored.
	WriteStatus(ctx context.Context, status flow.NetworkStatus) error
	// WriteSyscalls stores counts of system calls, with the guarantees of WriteFlows. No subscriber gets them.
	WriteSyscalls(ctx context.Context, counts []syscalls.Counts) error
	// WriteSyscallEvents hands system calls to the subscribers. They are not stored.
	WriteSyscallEvents(ctx context.Context, events []syscalls.Event) error
	// WriteAnomalies stores anomalies and hands each to the subscribers, with the guarantees of WriteFlows.
	WriteAnomalies(ctx context.Context, anomalies []syscalls.Anomaly) error
	// WriteGPU stores samples of GPUs, with the guarantees of WriteFlows. No subscriber gets them.
	WriteGPU(ctx context.Context, samples []gpu.Sample) error
	// WriteSyscallStatus is to a node's system calls what WriteStatus is to its flows.
	WriteSyscallStatus(ctx context.Context, status syscalls.Status) error
	// WriteGPUStatus is to a node's gpu receiver what WriteStatus is to its flows.
	WriteGPUStatus(ctx context.Context, status gpu.Status) error
}

// Reader answers questions. Readers never block the writer for longer than it takes to note what is there.
type Reader interface {
	// QueryFlows aggregates the interval records of a time range into one row a flow. It returns ctx.Err() when ctx
	// ends first, and never a part of the answer without saying so.
	QueryFlows(ctx context.Context, query FlowQuery) (FlowResult, error)
	// QueryLookups returns the lookups of a time range. It ends early as QueryFlows does.
	QueryLookups(ctx context.Context, query LookupQuery) (LookupResult, error)
	// QuerySyscalls sums the counts of a time range into one row a container and call. It ends early as QueryFlows does.
	QuerySyscalls(ctx context.Context, query SyscallQuery) (SyscallResult, error)
	// QueryAnomalies returns the anomalies of a time range. It ends early as QueryFlows does.
	QueryAnomalies(ctx context.Context, query AnomalyQuery) (AnomalyResult, error)
	// QueryGPU returns the samples of a time range as series. It ends early as QueryFlows does.
	QueryGPU(ctx context.Context, query GPUQuery) (GPUResult, error)
	// Aggregate sums the records of a time range by group. Of flows it sums those that QueryFlows with both ends joined has rows
	// for, so that what both ends of a connection saw counts once: its dimensions are of the whole range, and an interval's counts
	// are in the bucket of its start. It ends early as QueryFlows does, and fails as NewGroups does.
	Aggregate(ctx context.Context, query AggregateQuery) (AggregateResult, error)
	// Status returns the state of every node that reported within the retention, by name, and of the store itself.
	Status(ctx context.Context) (Status, error)
	// Subscribe starts a live feed of the events that match. The caller must Close it.
	Subscribe(selection EventSelection) Subscription
}

// FlowQuery selects flows. The zero value selects all that the store covers.
type FlowQuery struct {
	// Since and Until bound the range [Since, Until). A record is in it, with all its counts, when any instant from its
	// first to its last packet is. The zero Since means from the oldest record on, the zero Until means no bound.
	Since, Until time.Time
	Selection    Selection
	// SeparateEnds asks for a row for each end that saw a flow. Else what the two ends of a connection saw of one direction
	// is one row: the client's view, or the sender's where no client is known.
	SeparateEnds bool
	// Limit is the most rows to return; 0 means no limit.
	Limit int
	// After is the Next of an answer to the same query, which this one goes on from; empty is from the beginning. What is none is
	// an ErrCursor. Pages are of one answer where Until is set and nothing arrives late.
	After string
}

// FlowResult is the answer to a FlowQuery.
type FlowResult struct {
	// Flows holds one row a flow: the records of the range that share node, local endpoint (its cgroup, or its
	// identity where the cgroup is not known), direction, transport, addresses, ports, interface, ICMP type and code, and
	// TCP connection. Counts are summed, Start is the first and End the last packet, TCPFlags the union, MinRTT the least;
	// everything else is that of the newest record that has it, identities and Ended of the newest of all. Rows are ordered
	// newest End first, then newest Start, node, source and destination, and what else FlowKey has, so that equal stores give equal
	// answers.
	Flows []Flow
	Coverage
}

// Coverage is what an answer says of itself.
type Coverage struct {
	// Matched is how many rows matched. More than there are means that Limit cut the answer: the last in its order are missing.
	Matched int
	// Lost is everything that may be missing from the range, over all nodes: a loss whose time is known only to lie
	// between two reports counts when any instant between them is in the range. It is never understated.
	Lost Loss
	// Next is set when Limit cut the answer: a query with it as its After gets the rows that follow. It says where the last row
	// was, so that neither a row that has come since nor one that is gone moves what follows.
	Next string
	// Oldest is the oldest instant that the answer covers: the store's own, or a later one where a query may not read all of it.
	Oldest time.Time
	// MissingNodes are the nodes, by name, whose last status (of their flows, or of their system calls, where these were asked
	// for) is older than three of their intervals, at Until or now, whichever is first. A node that does not report for longer
	// than the retention is forgotten.
	MissingNodes []string
}

// Flow is a row: one direction of the traffic between two endpoints, as one of them saw it.
type Flow struct {
	flow.Record
	// Other is the same traffic as the other end saw it; nil where it was not seen there. It is told by the initial sequence
	// numbers of the connection, which survive address translation, or else by the very same addresses on the same node, if
	// only one endpoint sent and one received with them. Nothing is joined on less.
	Other *flow.Record
}

// Loss is what was seen and is in no row.
type Loss struct {
	// Packets, Bytes and Events are flow.NetworkStatus' LostPackets, LostBytes and LostEvents.
	// Calls and Events are syscalls.Status' LostCalls and LostEvents, where it is system calls that were asked for.
	Packets, Bytes, Events, Calls uint64
	// EvictedRecords are records of the kind that was asked for which were dropped before their retention had passed, to
	// bound the store, or because they could not be read any more.
	EvictedRecords uint64
}

// Add sums two losses.
func (l Loss) Add(o Loss) Loss {
	return Loss{
		Packets:        l.Packets + o.Packets,
		Bytes:          l.Bytes + o.Bytes,
		Events:         l.Events + o.Events,
		Calls:          l.Calls + o.Calls,
		EvictedRecords: l.EvictedRecords + o.EvictedRecords,
	}
}

// UnavailableError is why a query has no answer now, and may have one later: the log engine that has the records is away, or lets nobody in.
type UnavailableError struct{ Err error }

func (e *UnavailableError) Error() string { return e.Err.Error() }

func (e *UnavailableError) Unwrap() error { return e.Err }

// Status is the state of the nodes and of the store.
type Status struct {
	Nodes []NodeStatus
	Store StoreStatus
}

// NodeStatus is what a node last reported.
type NodeStatus struct {
	Node, Version, Kernel string
	// Started is when the agent did.
	Started time.Time
	// LastSeen is when the latest report arrived, by the store's clock, which unlike the node's is the same for all nodes.
	LastSeen time.Time
	// Missing is true when LastSeen is older than three of the node's intervals.
	Missing bool
	// Network, Syscalls and GPU are the latest reports of the receivers, of which a node may run only one; nil is none within
	// the retention.
	Network  *flow.NetworkStatus
	Syscalls *syscalls.Status
	GPU      *gpu.Status
}

// StoreStatus is the state of the store.
type StoreStatus struct {
	Backend string
	// Records are flow records, lookups, counts of a container's system calls in an interval, anomalies and samples of
	// GPUs.
	Records uint64
	// Bytes is what the records take, of memory or of a disk, MaxBytes its bound. They and Records are 0 where a log engine has them.
	Bytes, MaxBytes uint64
	// HeadBytes is what records take of memory that go to a file later; 0 where there are no files.
	HeadBytes uint64
	Oldest    time.Time
	// EvictedRecords is the sum of Loss.EvictedRecords of all kinds since the store started.
	EvictedRecords  uint64
	Subscribers     int
	SubscriberDrops uint64
}

// EventKind is what an event tells of: one of flow's kinds, or one of these.
type EventKind uint8

const (
	EventSyscall = EventKind(flow.EventPacket) + 1 + iota
	EventAnomaly
)

// Event is what a live feed hands on. One of its fields is set; subscribers share what it points to.
type Event struct {
	Flow    *flow.Event
	Syscall *syscalls.Event
	Anomaly *syscalls.Anomaly
}

// Kind returns the kind of the event.
func (e Event) Kind() EventKind {
	switch {
	case e.Syscall != nil:
		return EventSyscall
	case e.Anomaly != nil:
		return EventAnomaly
	}
	return EventKind(e.Flow.Kind)
}

// EventSelection selects events. The zero value selects all.
type EventSelection struct {
	// Kinds selects events of these kinds, all when empty.
	Kinds []EventKind
	// Flows selects by the flow of an event that has one.
	Flows Selection
	// Lookups selects, of the lookups that the above leave, those that match any, all when empty.
	Lookups LookupSelection
	// Syscalls and Anomalies select among the system calls and the anomalies alone.
	Syscalls  SyscallSelection
	Anomalies AnomalySelection
}

// Match tells whether the event is selected.
func (s *EventSelection) Match(e Event) bool {
	if len(s.Kinds) > 0 && !slices.Contains(s.Kinds, e.Kind()) {
		return false
	}
	switch {
	case e.Syscall != nil:
		return s.Syscalls.Match(e.Syscall.Node, &e.Syscall.Identity, e.Syscall.Call)
	case e.Anomaly != nil:
		return s.Anomalies.Match(e.Anomaly)
	}
	return s.Flows.Match(&e.Flow.Record) && (e.Flow.Lookup == nil || s.Lookups.Match(e.Flow.Lookup))
}

// Subscription is a live feed of events. A subscriber that reads too slowly loses events; it never slows the writer.
type Subscription interface {
	// Next waits for the next event. Dropped is how many events this subscriber lost since the previous call
	// returned. It returns ctx.Err() when ctx ends first.
	Next(ctx context.Context) (event Event, dropped uint64, err error)
	Close()
}
