package embedded

import (
	"slices"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/internal/storage"
)

// run is what all runs of rows have in common. Rows are in order of arrival.
type run struct {
	dictionary
	// start is the first and end the last instant of all rows.
	start, end int64
	// written is when the last row arrived.
	written int64
	count   uint64
}

func newRun() run {
	return run{dictionary: newDictionary()}
}

// note takes a row into account that lasted from start to end.
func (r *run) note(start, end, now int64) {
	if r.count == 0 {
		r.start, r.end = start, end
	}
	r.start, r.end = min(r.start, start), max(r.end, end)
	r.written = now
	r.count++
}

func (r *run) common() *run { return r }

// segment is a run with its rows.
type segment interface {
	common() *run
	full() bool
	// size is the memory that the segment takes.
	size() uint64
	// seal drops what only the writer needs.
	seal()
}

// history is rows in segments, in order of arrival. Segments are evicted whole, the oldest first. On disk, older rows are in
// blocks.
type history[S segment] struct {
	fresh    func() S
	segments []S
	// sealing is how many segments are being written to a block: they take no more rows.
	sealing int
	// records are those of the segments.
	records uint64
	// bytes is the memory of the segments.
	bytes uint64
	// blocks are oldest first.
	blocks []*block.File
	// evictions are the segments that went before their retention had passed, evicted their rows.
	evictions losses
	evicted   uint64
	// covered is the instant from which on no row is missing, as far as eviction goes.
	covered int64
}

func newHistory[S segment](fresh func() S, now int64) history[S] {
	return history[S]{fresh: fresh, covered: now}
}

// head returns the segment to append to. The caller says by wrote what it appended.
func (h *history[S]) head() S {
	if n := len(h.segments); n > h.sealing {
		if !h.segments[n-1].full() {
			return h.segments[n-1]
		}
		h.segments[n-1].seal()
	}
	head := h.fresh()
	h.segments = append(h.segments, head)
	h.bytes += head.size()
	return head
}

// wrote notes a new row that took so many bytes.
func (h *history[S]) wrote(bytes uint64) {
	h.records++
	h.bytes += bytes
}

// in returns the segments that may hold rows of [since, until).
func (h *history[S]) in(since, until int64) []S {
	var segments []S
	for _, s := range h.segments {
		if c := s.common(); c.end >= since && c.start < until {
			segments = append(segments, s)
		}
	}
	return segments
}

// expire drops what arrived before an instant.
func (h *history[S]) expire(before int64) {
	for len(h.segments) > 0 && h.segments[0].common().written < before {
		h.drop()
	}
	h.evictions.expire(before)
}

// evict drops the oldest segments until the rest fits, and counts what it drops. The segment that is being written
// stays.
func (h *history[S]) evict(maxBytes uint64) {
	for len(h.segments) > 1 && h.bytes > maxBytes {
		r := h.drop()
		h.evicted += r.count
		h.evictions.add(span{from: r.start, to: r.end, loss: storage.Loss{EvictedRecords: r.count}})
		// A node whose clock is ahead must not move the edge beyond what has arrived.
		h.covered = max(h.covered, min(r.end, r.written))
	}
}

func (h *history[S]) drop() *run {
	s := h.segments[0]
	h.segments = slices.Delete(h.segments, 0, 1)
	h.bytes -= s.size()
	h.records -= s.common().count
	return s.common()
}
