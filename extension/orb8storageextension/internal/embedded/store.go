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

// Store keeps flow records in memory, in chunks in order of arrival. The oldest chunk goes when its last record
// arrived longer than the retention ago, or when all chunks together take more than MaxBytes.
type Store struct {
	settings Settings
	turns    chan struct{}

	mu     sync.RWMutex
	chunks []*chunk
	nodes  map[string]*node
	// evictions are the chunks that went before their retention had passed, evicted their records.
	evictions losses
	evicted   uint64
	records   uint64
	// bytes is the memory of the chunks.
	bytes uint64
	// covered is the instant from which on no record is missing, as far as eviction goes.
	covered int64
}

// New returns an empty store.
func New(settings Settings) *Store {
	return &Store{
		settings: settings,
		turns:    make(chan struct{}, maxQueries),
		nodes:    map[string]*node{},
		covered:  settings.Now().UnixNano(),
	}
}

// WriteFlows appends records.
func (s *Store) WriteFlows(records []flow.Record) {
	now := s.settings.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range records {
		head := s.head()
		before := head.size()
		head.append(&records[i], now.UnixNano())
		s.bytes += head.size() - before
	}
	s.records += uint64(len(records))
	s.expire(now)
	s.evict()
}

// head returns the chunk to append to.
func (s *Store) head() *chunk {
	if n := len(s.chunks); n > 0 {
		if !s.chunks[n-1].full() {
			return s.chunks[n-1]
		}
		s.chunks[n-1].seal()
	}
	head := newChunk()
	s.chunks = append(s.chunks, head)
	s.bytes += head.size()
	return head
}

// expire drops what is older than the retention.
func (s *Store) expire(now time.Time) {
	before := s.horizon(now)
	for len(s.chunks) > 0 && s.chunks[0].written < before {
		s.drop()
	}
	s.evictions.expire(before)
}

// evict drops the oldest chunks until the rest fits, and counts what it drops. The chunk that is being written stays.
func (s *Store) evict() {
	for len(s.chunks) > 1 && s.bytes > s.settings.MaxBytes {
		c := s.drop()
		lost := storage.Loss{EvictedRecords: uint64(len(c.rows))}
		s.evicted += lost.EvictedRecords
		s.evictions.add(span{from: c.start, to: c.end, loss: lost})
		// A node whose clock is ahead must not move the edge beyond what has arrived.
		s.covered = max(s.covered, min(c.end, c.written))
	}
}

func (s *Store) drop() *chunk {
	c := s.chunks[0]
	s.chunks = slices.Delete(s.chunks, 0, 1)
	s.bytes -= c.size()
	s.records -= uint64(len(c.rows))
	return c
}

// horizon returns the instant before which everything has expired.
func (s *Store) horizon(now time.Time) int64 {
	return now.Add(-s.settings.Retention).UnixNano()
}

func (s *Store) oldest(now time.Time) time.Time {
	return time.Unix(0, max(s.horizon(now), s.covered)).UTC()
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
			Records:        s.records,
			Bytes:          s.bytes,
			MaxBytes:       s.settings.MaxBytes,
			Oldest:         s.oldest(now),
			EvictedRecords: s.evicted,
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
