package embedded

import (
	"slices"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/internal/storage"
)

// totals are what a history holds.
type totals struct {
	records, evicted uint64
	// memory is what the segments take, stored what the blocks do.
	memory, stored uint64
}

// shelf is a history as the disk sees it, whatever is in it. All methods but merge are called with the store's lock.
type shelf interface {
	kind() string
	totals() totals
	// lost and edge are what a restart must not forget: evictions, and since when no row is missing.
	lost() *losses
	edge() *int64

	files() *[]*block.File
	// begin keeps the segments that are there from growing, and returns how many they are and what writes them to a block, for
	// which the lock is not needed.
	begin() (segments int, write func(dir string, name block.Name) (*block.File, error))
	// sealed puts a block in the place of so many segments.
	sealed(file *block.File, segments int)
	// merge writes what several blocks hold to one.
	merge(dir string, name block.Name, files []*block.File) (*block.File, error)
	// evicted notes a block that went before its retention had passed.
	evicted(f *block.File)
}

// histories returns all of them, flows last: they take what the others leave.
func (s *Store) histories() []shelf {
	return []shelf{
		&shelfOf[*lookupChunk]{"lookups", &s.lookups, writeLookups, mergeLookups},
		&shelfOf[*countsChunk]{"syscalls", &s.counts, writeCounts, mergeCounts},
		&shelfOf[*anomalyChunk]{"anomalies", &s.anomalies, writeAnomalies, mergeAnomalies},
		&shelfOf[*gpuChunk]{"gpu", &s.gpu, writeGPU, mergeGPU},
		&shelfOf[*chunk]{"flows", &s.flows, s.writeFlows, s.mergeFlows},
	}
}

// shares are what each kind but the flows may take of the bytes of a store: one in so many.
var shares = map[string]uint64{"lookups": lookupShare, "syscalls": countsShare, "anomalies": anomalyShare, "gpu": gpuShare}

type shelfOf[S segment] struct {
	name    string
	history *history[S]
	writeTo func(dir string, name block.Name, meta block.Meta, segments []S) (*block.File, error)
	mergeTo func(dir string, name block.Name, meta block.Meta, files []*block.File) (*block.File, error)
}

func (s *shelfOf[S]) kind() string          { return s.name }
func (s *shelfOf[S]) lost() *losses         { return &s.history.evictions }
func (s *shelfOf[S]) edge() *int64          { return &s.history.covered }
func (s *shelfOf[S]) files() *[]*block.File { return &s.history.blocks }

func (s *shelfOf[S]) totals() totals {
	t := totals{records: s.history.records, evicted: s.history.evicted, memory: s.history.bytes}
	for _, f := range s.history.blocks {
		t.records += f.Meta.Rows
		t.stored += f.Stored()
	}
	return t
}

func (s *shelfOf[S]) begin() (int, func(dir string, name block.Name) (*block.File, error)) {
	h := s.history
	n := len(h.segments)
	if n > h.sealing {
		h.segments[n-1].seal()
		h.sealing = n
	}
	all := h.segments[:n:n]
	return n, func(dir string, name block.Name) (*block.File, error) {
		meta := block.Meta{Start: all[0].common().start, End: all[0].common().end}
		for _, segment := range all {
			r := segment.common()
			meta.Start, meta.End, meta.Written = min(meta.Start, r.start), max(meta.End, r.end), max(meta.Written, r.written)
		}
		return s.writeTo(dir, name, meta, all)
	}
}

func (s *shelfOf[S]) sealed(file *block.File, segments int) {
	h := s.history
	for _, segment := range h.segments[:segments] {
		h.bytes -= segment.size()
		h.records -= segment.common().count
	}
	h.segments = slices.Delete(h.segments, 0, segments)
	h.sealing -= segments
	h.blocks = append(h.blocks, file)
}

func (s *shelfOf[S]) merge(dir string, name block.Name, files []*block.File) (*block.File, error) {
	meta := files[0].Meta
	meta.Rows = 0
	for _, f := range files {
		meta.Start, meta.End = min(meta.Start, f.Meta.Start), max(meta.End, f.Meta.End)
		meta.Written = max(meta.Written, f.Meta.Written)
	}
	return s.mergeTo(dir, name, meta, files)
}

// drop takes the oldest blocks out until one may stay, and returns them.
func drop(s shelf, mayStay func(oldest *block.File) bool) []*block.File {
	files := s.files()
	var n int
	for n < len(*files) && !mayStay((*files)[n]) {
		n++
	}
	dropped := slices.Clone((*files)[:n])
	*files = slices.Delete(*files, 0, n)
	return dropped
}

func (s *shelfOf[S]) evicted(f *block.File) {
	s.history.evicted += f.Meta.Rows
	s.history.evictions.add(span{from: f.Meta.Start, to: f.Meta.End, loss: storage.Loss{EvictedRecords: f.Meta.Rows}})
	s.history.covered = max(s.history.covered, min(f.Meta.End, f.Meta.Written))
}
