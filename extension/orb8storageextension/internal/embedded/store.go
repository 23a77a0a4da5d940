// Package embedded is the store that lives in the collector's memory.
package embedded

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
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

// Store keeps flow records and lookups in memory. The oldest go when they arrived longer than the retention ago, or when
// all together take more than MaxBytes.
type Store struct {
	settings Settings
	turns    chan struct{}

	mu      sync.RWMutex
	flows   history[*chunk]
	lookups history[*lookupChunk]
	nodes   map[string]*node
}

// New returns an empty store.
func New(settings Settings) *Store {
	now := settings.Now().UnixNano()
	return &Store{
		settings: settings,
		turns:    make(chan struct{}, maxQueries),
		flows:    newHistory(newChunk, now),
		lookups:  newHistory(newLookupChunk, now),
		nodes:    map[string]*node{},
	}
}

// WriteFlows appends records.
func (s *Store) WriteFlows(records []flow.Record) {
	now := s.settings.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range records {
		head := s.flows.head()
		before := head.size()
		head.append(&records[i], now.UnixNano())
		s.flows.wrote(head.size() - before)
	}
	s.expire(now)
	s.evict()
}

// expire drops what is older than the retention.
func (s *Store) expire(now time.Time) {
	before := s.horizon(now)
	s.flows.expire(before)
	s.lookups.expire(before)
}

// evict keeps the memory bound. Lookups have a share of it, and flows what the lookups leave.
func (s *Store) evict() {
	s.lookups.evict(s.settings.MaxBytes / lookupShare)
	s.flows.evict(s.settings.MaxBytes - min(s.lookups.bytes, s.settings.MaxBytes))
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
	now := s.settings.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	n, known := s.nodes[status.Node]
	if !known {
		n = &node{}
		s.nodes[status.Node] = n
	}
	n.update(status, now)
	n.losses.expire(s.horizon(now))
	maps.DeleteFunc(s.nodes, func(_ string, n *node) bool { return s.forgotten(n, now) })
	s.expire(now)
}

// forgotten tells whether a node has been away for longer than the retention.
func (s *Store) forgotten(n *node, now time.Time) bool {
	return n.seen.UnixNano() < s.horizon(now)
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
			Records:        s.flows.records + s.lookups.records,
			Bytes:          s.flows.bytes + s.lookups.bytes,
			MaxBytes:       s.settings.MaxBytes,
			Oldest:         s.oldest(now, s.flows.covered),
			EvictedRecords: s.flows.evicted + s.lookups.evicted,
		},
	}
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		n := s.nodes[name]
		if s.forgotten(n, now) {
			continue
		}
		status.Nodes = append(status.Nodes, storage.NodeStatus{
			NetworkStatus: n.status,
			LastSeen:      n.seen,
			Missing:       n.missing(now),
		})
	}
	return status
}
