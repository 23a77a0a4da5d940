// Package embedded is the store that lives in the collector's memory.
package embedded

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// MinBytes is the least memory that a store can be bounded to: room for a few chunks.
const MinBytes = 4 << 20

// maxQueries is how many queries run at once. The others wait their turn: a query over many flows takes several times
// the memory of the records that it reads.
const maxQueries = 2

// Settings bound a store.
type Settings struct {
	// Retention is how long a record is kept, at least 1 s.
	Retention time.Duration
	// MaxBytes is the memory that records may take, at least MinBytes.
	MaxBytes uint64
	// Now is the clock.
	Now func() time.Time
}

// Store keeps flow records, lookups, counts of system calls and anomalies in memory. The oldest go when they arrived longer than the retention ago, or when
// all together take more than MaxBytes.
type Store struct {
	settings Settings
	turns    chan struct{}

	mu        sync.RWMutex
	flows     history[*chunk]
	lookups   history[*lookupChunk]
	counts    history[*countsChunk]
	anomalies history[*anomalyChunk]
	nodes     map[string]*node
}

// New returns an empty store.
func New(settings Settings) *Store {
	now := settings.Now().UnixNano()
	return &Store{
		settings:  settings,
		turns:     make(chan struct{}, maxQueries),
		flows:     newHistory(newChunk, now),
		lookups:   newHistory(newLookupChunk, now),
		counts:    newHistory(newCountsChunk, now),
		anomalies: newHistory(newAnomalyChunk, now),
		nodes:     map[string]*node{},
	}
}

// WriteFlows appends records.
func (s *Store) WriteFlows(records []flow.Record) { write(s, &s.flows, records) }

// write appends rows to a history.
func write[T any, S interface {
	segment
	append(row *T, now int64)
}](s *Store, to *history[S], rows []T) {
	now := s.settings.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range rows {
		head := to.head()
		before := head.size()
		head.append(&rows[i], now.UnixNano())
		to.wrote(head.size() - before)
	}
	s.expire(now)
	s.evict()
}

// expire drops what is older than the retention.
func (s *Store) expire(now time.Time) {
	before := s.horizon(now)
	s.flows.expire(before)
	s.lookups.expire(before)
	s.counts.expire(before)
	s.anomalies.expire(before)
}

// evict keeps the memory bound. Each of the others has a share of it, and flows what they leave.
func (s *Store) evict() {
	s.lookups.evict(s.settings.MaxBytes / lookupShare)
	s.counts.evict(s.settings.MaxBytes / countsShare)
	s.anomalies.evict(s.settings.MaxBytes / anomalyShare)
	s.flows.evict(s.settings.MaxBytes - min(s.lookups.bytes+s.counts.bytes+s.anomalies.bytes, s.settings.MaxBytes))
}

// horizon returns the instant before which everything has expired.
func (s *Store) horizon(now time.Time) int64 {
	return now.Add(-s.settings.Retention).UnixNano()
}

// oldest returns the oldest instant that is covered by what has been evicted until covered.
func (s *Store) oldest(now time.Time, covered int64) time.Time {
	return time.Unix(0, max(s.horizon(now), covered)).UTC()
}

// WriteStatus notes a node's status and what the node lost since the one before.
func (s *Store) WriteStatus(status flow.NetworkStatus) {
	s.report(status.Node, func(n *node, now time.Time) *reports {
		if n.flows.update(report{
			time: status.Time, started: status.Started, interval: status.Interval,
			loss: storage.Loss{Packets: status.LostPackets, Bytes: status.LostBytes, Events: status.LostEvents},
		}, now) {
			n.network = status
		}
		return &n.flows
	})
}

// WriteSyscallStatus is WriteStatus of the system calls.
func (s *Store) WriteSyscallStatus(status syscalls.Status) {
	s.report(status.Node, func(n *node, now time.Time) *reports {
		if n.calls.update(report{
			time: status.Time, started: status.Started, interval: status.Interval,
			loss: storage.Loss{Calls: status.LostCalls, Events: status.LostEvents},
		}, now) {
			n.syscalls = status
		}
		return &n.calls
	})
}

// report lets update note a report of a node, and forgets what is older than the retention.
func (s *Store) report(name string, update func(n *node, now time.Time) *reports) {
	now := s.settings.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	n, known := s.nodes[name]
	if !known {
		n = &node{}
		s.nodes[name] = n
	}
	update(n, now).losses.expire(s.horizon(now))
	maps.DeleteFunc(s.nodes, func(_ string, n *node) bool { return s.forgotten(n.latest(), now) })
	s.expire(now)
}

// forgotten tells whether there has been no report for longer than the retention.
func (s *Store) forgotten(r *reports, now time.Time) bool {
	return now.Sub(r.seen) > s.settings.Retention
}

// Status returns the state of the nodes, by name, and of the store. The subscribers are not the store's to count.
func (s *Store) Status() storage.Status {
	now := s.settings.Now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	status := storage.Status{
		Nodes: make([]storage.NodeStatus, 0, len(s.nodes)),
		Store: storage.StoreStatus{
			Backend:        "embedded",
			Records:        s.flows.records + s.lookups.records + s.counts.records + s.anomalies.records,
			Bytes:          s.flows.bytes + s.lookups.bytes + s.counts.bytes + s.anomalies.bytes,
			MaxBytes:       s.settings.MaxBytes,
			Oldest:         s.oldest(now, s.flows.covered),
			EvictedRecords: s.flows.evicted + s.lookups.evicted + s.counts.evicted + s.anomalies.evicted,
		},
	}
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		if n := s.nodes[name]; !s.forgotten(n.latest(), now) {
			status.Nodes = append(status.Nodes, s.nodeStatus(name, n, now))
		}
	}
	return status
}

func (s *Store) nodeStatus(name string, n *node, now time.Time) storage.NodeStatus {
	latest := n.latest()
	status := storage.NodeStatus{
		Node: name, Version: n.network.Version, Kernel: n.network.Kernel, Started: latest.last.started,
		LastSeen: latest.seen, Missing: latest.missing(now),
	}
	if latest == &n.calls {
		status.Version, status.Kernel = n.syscalls.Version, n.syscalls.Kernel
	}
	if !s.forgotten(&n.flows, now) {
		network := n.network
		status.Network = &network
	}
	if !s.forgotten(&n.calls, now) {
		calls := n.syscalls
		status.Syscalls = &calls
	}
	return status
}
