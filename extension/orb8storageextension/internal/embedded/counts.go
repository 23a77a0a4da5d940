package embedded

import (
	"context"
	"encoding/binary"
	"maps"
	"math/bits"
	"slices"
	"time"
	"unsafe"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/journal"
	"github.com/orb8/orb8/internal/syscalls"
)

const (
	// countsChunkRows and countsChunkBytes bound a chunk, whichever comes first: of 200 containers it is about ten intervals.
	countsChunkRows  = 4096
	countsChunkBytes = 512 << 10
	// countsShare is the part of the store's memory that counts may take: one in so many.
	countsShare = 4
)

// countsRow is what a container's processes called in one interval. Which calls, and how often, is in the chunk's data.
type countsRow struct {
	start, end, lost int64
	node, identity   uint32
	// from and to bound the data.
	from, to uint32
}

const countsRowBytes = uint64(unsafe.Sizeof(countsRow{}))

// What the flags of an encoded count say.
const (
	hasErrors = 1 << iota
	hasLatency
	flagBits = iota
)

// countsWords are to calls what words are to strings.
type countsWords struct {
	words
	calls []syscalls.Call
}

// countsView is to a countsChunk what view is to a chunk.
type countsView struct {
	countsWords
	rows []countsRow
	data []byte
}

// countsChunk is a run of counts. Most calls of an interval are told in three bytes: that is why they are encoded.
type countsChunk struct {
	run
	calls     []syscalls.Call
	callIndex map[syscalls.Call]uint32
	rows      []countsRow
	data      []byte
}

func newCountsChunk() *countsChunk {
	return &countsChunk{run: newRun(), callIndex: map[syscalls.Call]uint32{}}
}

func (c *countsChunk) full() bool {
	return len(c.rows) >= countsChunkRows || c.size() >= countsChunkBytes
}

func (c *countsChunk) size() uint64 {
	return c.bytes + uint64(len(c.rows))*countsRowBytes + uint64(len(c.data)) + uint64(len(c.calls))*uint64(unsafe.Sizeof(syscalls.Call{}))
}

func (c *countsChunk) seal() {
	c.dictionary.seal()
	c.callIndex = nil
	c.calls, c.rows, c.data = slices.Clone(c.calls), slices.Clone(c.rows), slices.Clone(c.data)
}

func (c *countsChunk) view() *countsView {
	return &countsView{countsWords: countsWords{words: c.words, calls: c.calls}, rows: c.rows, data: c.data}
}

func (c *countsChunk) append(n *syscalls.Counts, now int64) {
	start, end := n.Start.UnixNano(), n.End.UnixNano()
	c.note(start, end, now)
	row := countsRow{
		start: start, end: end, lost: int64(n.LostCalls), node: c.stringID(n.Node), identity: c.identityID(n.Identity), from: uint32(len(c.data)),
	}
	for i := range n.Calls {
		c.put(&n.Calls[i])
	}
	row.to = uint32(len(c.data))
	c.rows = append(c.rows, row)
}

func (c *countsChunk) callID(call syscalls.Call) uint32 {
	id, known := c.callIndex[call]
	if !known {
		id = uint32(len(c.calls))
		c.calls = append(c.calls, call)
		c.callIndex[call] = id
	}
	return id
}

// put encodes a count: the call with the flags, how often, and what the flags say that there is.
func (c *countsChunk) put(n *syscalls.Count) {
	head := uint64(c.callID(n.Call)) << flagBits
	if len(n.Errors) > 0 {
		head |= hasErrors
	}
	if n.Latency != nil {
		head |= hasLatency
	}
	c.putNumbers(head, n.Calls)
	if len(n.Errors) > 0 {
		c.putNumbers(uint64(len(n.Errors)))
		for _, name := range slices.Sorted(maps.Keys(n.Errors)) {
			c.putNumbers(uint64(c.stringID(name)), n.Errors[name])
		}
	}
	if l := n.Latency; l != nil {
		var used uint64
		for i, calls := range l.Buckets {
			if calls != 0 {
				used |= 1 << i
			}
		}
		c.putNumbers(uint64(l.Sum), used)
		for _, calls := range l.Buckets {
			if calls != 0 {
				c.putNumbers(calls)
			}
		}
	}
}

func (c *countsChunk) putNumbers(numbers ...uint64) {
	for _, n := range numbers {
		c.data = binary.AppendUvarint(c.data, n)
	}
}

// countsReader decodes what put encoded.
type countsReader struct {
	data []byte
}

func (r *countsReader) number() uint64 {
	n, width := binary.Uvarint(r.data)
	r.data = r.data[width:]
	return n
}

// next adds the next count to the sum that sumOf has for its call, by its index in the chunk.
func (r *countsReader) next(v *countsView, sumOf func(call uint64) *callSum) {
	head := r.number()
	sum := sumOf(head >> flagBits)
	sum.calls += r.number()
	if head&hasErrors != 0 {
		if sum.errors == nil {
			sum.errors = map[string]uint64{}
		}
		for range r.number() {
			name := v.strings[r.number()]
			sum.errors[name] += r.number()
		}
	}
	if head&hasLatency != 0 {
		if sum.latency == nil {
			sum.latency = &syscalls.Latency{}
		}
		sum.latency.Sum += time.Duration(r.number())
		for used := r.number(); used != 0; used &= used - 1 {
			sum.latency.Buckets[bits.TrailingZeros64(used)] += r.number()
		}
	}
}

// counts decodes a row.
func (v *countsView) counts(i int) syscalls.Counts {
	r := &v.rows[i]
	n := syscalls.Counts{
		Start: time.Unix(0, r.start).UTC(), End: time.Unix(0, r.end).UTC(), Node: v.strings[r.node], Identity: v.identities[r.identity],
		LostCalls: uint64(r.lost),
	}
	for reader := (countsReader{v.data[r.from:r.to]}); len(reader.data) > 0; {
		var call uint64
		var sum callSum
		reader.next(v, func(at uint64) *callSum {
			call = at
			return &sum
		})
		n.Calls = append(n.Calls, syscalls.Count{Call: v.calls[call], Calls: sum.calls, Errors: sum.errors, Latency: sum.latency})
	}
	return n
}

// WriteSyscalls is WriteFlows of counts of system calls.
func (s *Store) WriteSyscalls(ctx context.Context, counts []syscalls.Counts) (fresh bool, err error) {
	return s.write(ctx, &journal.Batch{Kind: journal.Counts, Counts: counts})
}
