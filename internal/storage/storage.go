// Package storage is the contract between what writes flows (the orb8_store exporter), what keeps them (the
// orb8_storage extension and its backends) and what answers questions about them (the orb8_query extension).
package storage

import (
	"context"
	"time"

	"github.com/orb8/orb8/internal/flow"
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
	// part of the records was stored: a retry may count them twice.
	WriteFlows(ctx context.Context, records []flow.Record) error
	// WriteLookups stores DNS lookups and hands each to the subscribers as a DNS event, with the guarantees of WriteFlows.
	WriteLookups(ctx context.Context, lookups []flow.Lookup) error
	// WriteEvents hands events to the subscribers. Events are not stored.
	WriteEvents(ctx context.Context, events []flow.Event) error
	// WriteStatus stores the latest status of a node, and what the node lost since the status before it. A status
	// that is older than the one stored is ignored.
	WriteStatus(ctx context.Context, status flow.NetworkStatus) error
}

// Reader answers questions. Readers never block the writer for longer than it takes to note what is there.
type Reader interface {
	// QueryFlows aggregates the interval records of a time range into one row a flow. It returns ctx.Err() when ctx
	// ends first, and never a part of the answer without saying so.
	QueryFlows(ctx context.Context, query FlowQuery) (FlowResult, error)
	// QueryLookups returns the lookups of a time range. It ends early as QueryFlows does.
	QueryLookups(ctx context.Context, query LookupQuery) (LookupResult, error)
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
}

// FlowResult is the answer to a FlowQuery.
type FlowResult struct {
	// Flows holds one row a flow: the records of the range that share node, local endpoint (its cgroup, or its
	// identity where the cgroup is not known), direction, transport, addresses, ports, interface, ICMP type and code, and
	// TCP connection. Counts are summed, Start is the first and End the last packet, TCPFlags the union, MinRTT the least;
	// everything else is that of the newest record that has it, identities and Ended of the newest of all. Rows are ordered
	// newest End first, then newest Start, node, source and destination, so that equal stores give equal answers.
	Flows []Flow
	// Matched is how many flows matched. More than len(Flows) means that Limit cut the answer: the oldest rows are
	// missing.
	Matched int
	// Lost is everything that may be missing from the range, over all nodes: a loss whose time is known only to lie
	// between two reports counts when any instant between them is in the range. It is never understated.
	Lost Loss
	// Oldest is the oldest instant that the store still covers.
	Oldest time.Time
	// MissingNodes are the nodes, by name, whose last status is older than three of their intervals, at Until or now,
	// whichever is first. A node that stays away for longer than the retention is forgotten.
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
	Packets, Bytes, Events uint64
	// EvictedRecords are records of the kind that was asked for which were dropped before their retention had passed, to
	// bound memory.
	EvictedRecords uint64
}

// Add sums two losses.
func (l Loss) Add(o Loss) Loss {
	return Loss{
		Packets:        l.Packets + o.Packets,
		Bytes:          l.Bytes + o.Bytes,
		Events:         l.Events + o.Events,
		EvictedRecords: l.EvictedRecords + o.EvictedRecords,
	}
}

// Status is the state of the nodes and of the store.
type Status struct {
	Nodes []NodeStatus
	Store StoreStatus
}

// NodeStatus is a node's latest report.
type NodeStatus struct {
	flow.NetworkStatus
	// LastSeen is when the report arrived, by the store's clock, which unlike the node's is the same for all nodes.
	LastSeen time.Time
	// Missing is true when LastSeen is older than three of the node's intervals.
	Missing bool
}

// StoreStatus is the state of the store.
type StoreStatus struct {
	Backend string
	// Records are flow records and lookups.
	Records uint64
	// Bytes is the memory that the records take, MaxBytes its bound.
	Bytes, MaxBytes uint64
	Oldest          time.Time
	// EvictedRecords is the sum of Loss.EvictedRecords of both kinds since the store started.
	EvictedRecords  uint64
	Subscribers     int
	SubscriberDrops uint64
}

// EventSelection selects events.
type EventSelection struct {
	Selection Selection
	// Kinds selects events of these kinds, all when empty.
	Kinds []flow.EventKind
	// Lookups selects, of the lookups that the above leave, those that match any, all when empty.
	Lookups LookupSelection
}

// Subscription is a live feed of events. A subscriber that reads too slowly loses events; it never slows the writer.
type Subscription interface {
	// Next waits for the next event. Dropped is how many events this subscriber lost since the previous call
	// returned. It returns ctx.Err() when ctx ends first.
	Next(ctx context.Context) (event flow.Event, dropped uint64, err error)
	Close()
}
