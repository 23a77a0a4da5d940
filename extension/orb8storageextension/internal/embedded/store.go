// Package embedded is the store that lives in the collector: in its memory, or in a directory of its own.
package embedded

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/journal"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
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
	// MaxBytes is what records may take, at least MinBytes: of memory, or of the disk where there is a directory.
	MaxBytes uint64
	// MaxQueryRecords is how many records of the disk a query reads, the newest; 0 is all. It bounds the memory of a query.
	MaxQueryRecords uint64
	// Disk is where they are kept; nil is memory alone.
	Disk *DiskSettings
	// Now is the clock.
	Now func() time.Time
}

// Store keeps flow records, lookups, counts of system calls, anomalies and samples of GPUs. The oldest go when they arrived longer than the
// retention ago, or when all together take more than MaxBytes.
type Store struct {
	settings Settings
	turns    chan struct{}
	// answered has something when a query has ended.
	answered chan struct{}

	mu        sync.RWMutex
	flows     history[*chunk]
	lookups   history[*lookupChunk]
	counts    history[*countsChunk]
	anomalies history[*anomalyChunk]
	gpu       history[*gpuChunk]
	nodes     map[string]*node

	// disk is nil where the store is in memory alone.
	disk    *disk
	lexicon lexicon
	sums    sumsKept
}

// New returns an empty store in memory.
func New(settings Settings) *Store {
	now := settings.Now().UnixNano()
	return &Store{
		settings:  settings,
		turns:     make(chan struct{}, maxQueries),
		answered:  make(chan struct{}, 1),
		flows:     newHistory(newChunk, now),
		lookups:   newHistory(newLookupChunk, now),
		counts:    newHistory(newCountsChunk, now),
		anomalies: newHistory(newAnomalyChunk, now),
		gpu:       newHistory(newGPUChunk, now),
		nodes:     map[string]*node{},
		lexicon:   lexicon{limit: lexiconBytes},
		sums:      sumsKept{limit: sumsBytes},
	}
}

// WriteFlows stores records. Fresh is false where they are there already: a batch that is sent again is stored once. A store in
// memory alone does not know.
func (s *Store) WriteFlows(ctx context.Context, records []flow.Record) (fresh bool, err error) {
	return s.write(ctx, &journal.Batch{Kind: journal.Flows, Flows: records})
}

// write stores a batch as a whole.
func (s *Store) write(ctx context.Context, b *journal.Batch) (fresh bool, err error) {
	b.Arrived = s.settings.Now()
	if s.disk != nil {
		return s.disk.write(ctx, b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(b)
	s.expire(b.Arrived)
	s.evict()
	return true, nil
}

// apply appends a batch to what is in memory.
func (s *Store) apply(b *journal.Batch) {
	now := b.Arrived.UnixNano()
	switch b.Kind {
	case journal.Flows:
		appendAll(&s.flows, b.Flows, (*chunk).append, now)
	case journal.Lookups:
		appendAll(&s.lookups, b.Lookups, (*lookupChunk).append, now)
	case journal.Counts:
		appendAll(&s.counts, b.Counts, (*countsChunk).append, now)
	case journal.Anomalies:
		appendAll(&s.anomalies, b.Anomalies, (*anomalyChunk).append, now)
	case journal.GPU:
		appendAll(&s.gpu, b.GPU, (*gpuChunk).append, now)
	case journal.NetworkStatus:
		s.noteStatus(b.NetworkStatus, b.Arrived)
	case journal.SyscallStatus:
		s.noteSyscallStatus(b.SyscallStatus, b.Arrived)
	case journal.GPUStatus:
		s.noteGPUStatus(b.GPUStatus, b.Arrived)
	}
}

func appendAll[S segment, R any](h *history[S], records []R, add func(S, *R, int64), now int64) {
	for i := range records {
		head := h.head()
		before := head.size()
		add(head, &records[i], now)
		h.wrote(head.size() - before)
	}
}

// expire drops what is older than the retention.
func (s *Store) expire(now time.Time) {
	before := s.horizon(now)
	s.flows.expire(before)
	s.lookups.expire(before)
	s.counts.expire(before)
	s.anomalies.expire(before)
	s.gpu.expire(before)
}

// evict keeps the memory bound. Each of the others has a share of it, and flows what they leave.
func (s *Store) evict() {
	s.lookups.evict(s.settings.MaxBytes / lookupShare)
	s.counts.evict(s.settings.MaxBytes / countsShare)
	s.anomalies.evict(s.settings.MaxBytes / anomalyShare)
	s.gpu.evict(s.settings.MaxBytes / gpuShare)
	s.flows.evict(s.settings.MaxBytes - min(s.memory()-s.flows.bytes, s.settings.MaxBytes))
}

// memory returns what is not in blocks takes.
func (s *Store) memory() uint64 {
	return s.flows.bytes + s.lookups.bytes + s.counts.bytes + s.anomalies.bytes + s.gpu.bytes
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
func (s *Store) WriteStatus(ctx context.Context, status flow.NetworkStatus) error {
	_, err := s.write(ctx, &journal.Batch{Kind: journal.NetworkStatus, NetworkStatus: status})
	return err
}

// WriteSyscallStatus is WriteStatus of the system calls.
func (s *Store) WriteSyscallStatus(ctx context.Context, status syscalls.Status) error {
	_, err := s.write(ctx, &journal.Batch{Kind: journal.SyscallStatus, SyscallStatus: status})
	return err
}

// WriteGPUStatus is WriteStatus of the GPUs. It tells of no loss that an answer would have.
func (s *Store) WriteGPUStatus(ctx context.Context, status gpu.Status) error {
	_, err := s.write(ctx, &journal.Batch{Kind: journal.GPUStatus, GPUStatus: status})
	return err
}

func (s *Store) noteStatus(status flow.NetworkStatus, now time.Time) {
	n := s.node(status.Node)
	if n.flows.update(report{
		time: status.Time, started: status.Started, interval: status.Interval,
		loss: storage.Loss{Packets: status.LostPackets, Bytes: status.LostBytes, Events: status.LostEvents},
	}, now) {
		n.network = status
	}
	s.forget(&n.flows, now)
}

func (s *Store) noteSyscallStatus(status syscalls.Status, now time.Time) {
	n := s.node(status.Node)
	if n.calls.update(report{
		time: status.Time, started: status.Started, interval: status.Interval,
		loss: storage.Loss{Calls: status.LostCalls, Events: status.LostEvents},
	}, now) {
		n.syscalls = status
	}
	s.forget(&n.calls, now)
}

func (s *Store) noteGPUStatus(status gpu.Status, now time.Time) {
	n := s.node(status.Node)
	if n.scrapes.update(report{time: status.Time, started: status.Started, interval: status.Interval}, now) {
		n.gpu = status
	}
	s.forget(&n.scrapes, now)
}

func (s *Store) node(name string) *node {
	n, known := s.nodes[name]
	if !known {
		n = &node{}
		s.nodes[name] = n
	}
	return n
}

// forget drops of the reports, and of all nodes, what is older than the retention.
func (s *Store) forget(r *reports, now time.Time) {
	r.losses.expire(s.horizon(now))
	maps.DeleteFunc(s.nodes, func(_ string, n *node) bool { return s.forgotten(n.latest(), now) })
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
		Store: storage.StoreStatus{Backend: "embedded", MaxBytes: s.settings.MaxBytes, Oldest: s.oldest(now, s.flows.covered)},
	}
	for _, h := range s.histories() {
		total := h.totals()
		status.Store.Records += total.records
		status.Store.EvictedRecords += total.evicted
		if s.disk != nil {
			status.Store.Bytes += total.stored
			status.Store.HeadBytes += total.memory
		} else {
			status.Store.Bytes += total.memory
		}
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
	switch latest {
	case &n.calls:
		status.Version, status.Kernel = n.syscalls.Version, n.syscalls.Kernel
	case &n.scrapes:
		status.Version, status.Kernel = n.gpu.Version, n.gpu.Kernel
	}
	if !s.forgotten(&n.flows, now) {
		network := n.network
		status.Network = &network
	}
	if !s.forgotten(&n.calls, now) {
		calls := n.syscalls
		status.Syscalls = &calls
	}
	if !s.forgotten(&n.scrapes, now) {
		gpus := n.gpu
		status.GPU = &gpus
	}
	return status
}
