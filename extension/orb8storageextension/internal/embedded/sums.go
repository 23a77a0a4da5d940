package embedded

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/orb8/orb8/internal/storage"
)

// sumsBytes bounds the memory of sums of blocks that are kept for the next query. A block with flows between 40,000 pairs of pods
// has 0.5 MB a measure.
const sumsBytes = 64 << 20

// sumsKept are the questions that were asked last, with what blocks answered: a block never changes, and who asks once asks again.
type sumsKept struct {
	limit uint64

	mu sync.Mutex
	// questions are in the order in which they were asked last.
	questions []*question
}

// question is what queries that differ only in their range ask, and what the blocks' rollups say to it.
type question struct {
	asked string

	// mu is held while blocks are summed.
	mu    sync.Mutex
	parts map[*index]*part
	// size is the memory of all of it, guarded by sumsKept's lock.
	size uint64

	// pairs number the pairs of what the dimensions before one are and what it is, by that dimension: the last number is the group's.
	pairs []map[uint64]uint32
	// groups is how many there are, and keys are the numbers of their values, one after another.
	groups int
	keys   []uint32
	ids    map[string]uint32
	values []string
}

// part is what the rollup of a block sums up to.
type part struct {
	groups []uint32
	// sums has the asked measures of each group.
	sums []uint64
	// open is where the rollup's open flows are.
	open int
}

func (k *sumsKept) of(query *storage.AggregateQuery) *question {
	asked := fmt.Sprintf("%#v %#v %#v", query.By, query.Measures, query.Flows)
	k.mu.Lock()
	defer k.mu.Unlock()
	at := slices.IndexFunc(k.questions, func(q *question) bool { return q.asked == asked })
	if at < 0 {
		at = len(k.questions)
		k.questions = append(k.questions, &question{asked: asked, parts: map[*index]*part{}, ids: map[string]uint32{}})
	}
	q := k.questions[at]
	k.questions = append(slices.Delete(k.questions, at, at+1), q)
	return q
}

// summed notes how much a question keeps, and forgets those that were asked longest ago where all keep too much.
func (k *sumsKept) summed(q *question) {
	k.mu.Lock()
	defer k.mu.Unlock()
	q.size = q.bytes()
	var all uint64
	for i, q := range slices.Backward(k.questions) {
		if all += q.size; all > k.limit {
			k.questions = slices.Delete(k.questions, 0, i+1)
			return
		}
	}
}

// pairBytes is what an entry of a map of pairs takes, about.
const pairBytes = 24

// questionBytes is what one takes of which no block knows anything.
const questionBytes = 512

func (q *question) bytes() uint64 {
	n := questionBytes + uint64(len(q.asked)) + 4*uint64(len(q.keys))
	for _, p := range q.parts {
		n += 4*uint64(len(p.groups)) + 8*uint64(len(p.sums))
	}
	for _, pairs := range q.pairs {
		n += pairBytes * uint64(len(pairs))
	}
	for _, v := range q.values {
		n += uint64(len(v)) + 2*stringBytes
	}
	return n
}

func (q *question) id(value string) uint32 {
	id, known := q.ids[value]
	if !known {
		id = uint32(len(q.values))
		q.ids[value] = id
		q.values = append(q.values, value)
	}
	return id
}

// group returns the number of the group that has these values.
func (q *question) group(key []uint32) uint32 {
	var at uint32
	fresh := q.groups == 0
	for i, value := range key {
		if i == len(q.pairs) {
			q.pairs = append(q.pairs, map[uint64]uint32{})
		}
		pair := uint64(at)<<32 | uint64(value)
		number, known := q.pairs[i][pair]
		if !known {
			number = uint32(len(q.pairs[i]))
			q.pairs[i][pair] = number
		}
		at, fresh = number, !known
	}
	if fresh {
		q.keys = append(q.keys, key...)
		q.groups++
	}
	return at
}

// prune forgets the blocks that are not there any more.
func (q *question) prune(s *Store) {
	there := map[*index]bool{}
	s.mu.RLock()
	for _, f := range s.flows.blocks {
		there[indexOf(f)] = true
	}
	s.mu.RUnlock()
	maps.DeleteFunc(q.parts, func(x *index, _ *part) bool { return !there[x] })
}

// sumIndexes adds up what the blocks' rollups sum up to, and notes their open flows.
func (r *rollupSum) sumIndexes(ctx context.Context) error {
	if len(r.indexes) == 0 {
		return nil
	}
	q := r.store.sums.of(r.query)
	q.mu.Lock()
	defer q.mu.Unlock()
	fresh := len(q.parts) == 0
	defer func() {
		if fresh {
			q.prune(r.store)
			r.store.sums.summed(q)
		}
	}()
	for i, x := range r.indexes {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := q.parts[x]
		if err := faults(func() (err error) {
			if p != nil && !x.hasOpenFlows(p.open) {
				return nil
			}
			w, err := r.wordsOf(i)
			if err != nil {
				return err
			}
			if p == nil {
				if p, err = q.sum(x, w, r.query); err != nil {
					return err
				}
				fresh = true
			}
			return x.openFlows(p.open, w, func(o *openFlow) { r.addOpen(*o, r.record(i, &o.near, o.transport)) })
		}); err != nil {
			return &indexError{x, err}
		}
		q.parts[x] = p
		r.addPart(p, q.groups)
	}
	// Who asks next appends to these, and changes nothing.
	r.keys, r.values = q.keys, q.values
	return nil
}

func (r *rollupSum) addPart(p *part, groups int) {
	n := len(r.query.Measures)
	if more := groups - len(r.seen); more > 0 {
		r.seen, r.sums = append(r.seen, make([]bool, more)...), append(r.sums, make([]uint64, more*n)...)
	}
	for i, group := range p.groups {
		r.seen[group] = true
		for j, v := range p.sums[i*n : (i+1)*n] {
			r.sums[int(group)*n+j] += v
		}
	}
}

// sum reads the rollup of a block.
func (q *question) sum(x *index, w *words, query *storage.AggregateQuery) (*part, error) {
	s := newIndexSums(q, w, query)
	var err error
	s.open, err = x.rollup(s.add)
	s.part.groups, s.part.sums = slices.Clone(s.part.groups), slices.Clone(s.part.sums)
	return &s.part, err
}
