package embedded

import (
	"context"
	"maps"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/internal/storage"
)

// QueryFlows answers a query; see storage.Reader.
func (s *Store) QueryFlows(ctx context.Context, query storage.FlowQuery) (storage.FlowResult, error) {
	done, err := s.turn(ctx)
	if err != nil {
		return storage.FlowResult{}, err
	}
	defer done()
	a, coverage, err := s.sumFlows(ctx, &query.Selection, query.Since, query.Until, 0)
	if err != nil {
		return storage.FlowResult{}, err
	}
	result := storage.FlowResult{Coverage: coverage}
	result.Flows, result.Next, result.Matched, err = a.answer(&query)
	return result, err
}

// sumFlows sums the records of a range to flows, of which a selection wants some; bucket is as in storage.AggregateQuery.
func (s *Store) sumFlows(
	ctx context.Context, selection *storage.Selection, from, to time.Time, bucket time.Duration,
) (*aggregation, storage.Coverage, error) {
	now := s.settings.Now()
	since, until := s.bounds(now, from, to)
	a := newAggregation(since, until)
	a.bucket = bucket
	clues := selection.Clues()
	limit := s.settings.MaxQueryRecords
	if len(clues) > 0 && s.indexed() {
		limit = 0 // what is read is known when the index was asked
	}
	coverage, files, views := note(s, &s.flows, now, since, until, limit, (*node).flowReports, (*chunk).view)
	defer free(files)
	lost, edge, err := s.readFlows(ctx, a, clues, files, views)
	if s.repaired(err) {
		return s.sumFlows(ctx, selection, from, to, bucket)
	}
	if err != nil {
		return nil, coverage, err
	}
	coverage.Lost = coverage.Lost.Add(lost)
	coverage.Oldest = later(coverage.Oldest, edge)
	a.join()
	return a, coverage, nil
}

// indexed tells whether all blocks of flows have an index.
func (s *Store) indexed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return !slices.ContainsFunc(s.flows.blocks, func(f *block.File) bool { return indexOf(f) == nil })
}

// readFlows adds to an aggregation what is needed of blocks and views, and returns from when on that is all.
func (s *Store) readFlows(
	ctx context.Context, a *aggregation, clues []storage.Clue, files []*block.File, views []view,
) (lost storage.Loss, from int64, err error) {
	var sources []source
	var of []*block.File
	lost, err = s.readBlocks(ctx, "flows", files, func(f *block.File) error {
		if x := indexOf(f); x != nil && len(clues) > 0 {
			sources, of = append(sources, &blockSource{index: x}), append(of, f)
			return nil
		}
		return eachView(ctx, f, func(v *view) {
			if len(clues) == 0 {
				a.add(v)
			} else {
				sources, of = append(sources, &viewSource{view: v}), append(of, f)
			}
		})
	})
	if err != nil {
		return lost, 0, err
	}
	if len(clues) == 0 {
		a.expect(rowsOf(views) / 2)
		for i := range views {
			// A chunk takes well under a millisecond: often enough to notice that nobody waits for the answer any more.
			if err := ctx.Err(); err != nil {
				return lost, 0, err
			}
			a.add(&views[i])
		}
		return lost, 0, nil
	}
	for i := range views {
		sources = append(sources, &viewSource{view: &views[i]})
	}
	search := seek{since: a.since, until: a.until, clues: clues}
	skipped, err := search.run(ctx, sources, s.settings.MaxQueryRecords)
	if err != nil {
		return lost, 0, err
	}
	for _, f := range of[:min(skipped, len(of))] {
		from = max(from, min(f.Meta.End, f.Meta.Written))
	}
	var taken int
	for _, source := range sources[skipped:] {
		taken += source.count()
	}
	a.expect(min(taken, search.keys.n))
	for _, source := range sources[skipped:] {
		source.taken(a)
	}
	return lost, from, nil
}

func rowsOf(views []view) (n int) {
	for i := range views {
		n += len(views[i].rows)
	}
	return n
}

// eachView hands the rows of a block to a function, some at a time: of its index, where those of a flow are in order, or else of a
// row group.
func eachView(ctx context.Context, f *block.File, use func(*view)) error {
	if x := indexOf(f); x != nil {
		return x.eachView(ctx, use)
	}
	for _, g := range f.Groups() {
		if err := ctx.Err(); err != nil {
			return err
		}
		v, err := readFlows(g)
		if err != nil {
			return err
		}
		use(&v)
	}
	return nil
}

// turn waits until another query may run. The caller calls done when it has run.
func (s *Store) turn(ctx context.Context) (done func(), err error) {
	select {
	case s.turns <- struct{}{}:
		return func() {
			<-s.turns
			select {
			case s.answered <- struct{}{}:
			default:
			}
		}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// courtesy is how long a merge waits for queries at a time. It works for about as long between two waits, so that it goes on
// while one query follows another.
const courtesy = 5 * time.Millisecond

// giveWay lets queries go before a merge, which can wait.
func (s *Store) giveWay() {
	if len(s.turns) == 0 {
		runtime.Gosched()
		return
	}
	timer := time.NewTimer(courtesy)
	defer timer.Stop()
	select {
	case <-s.answered:
	case <-timer.C:
	}
}

// bounds returns a query's range in nanoseconds since the epoch, cut at the retention.
func (s *Store) bounds(now, from, to time.Time) (since, until int64) {
	since, until = s.horizon(now), math.MaxInt64
	if !from.IsZero() {
		since = max(since, nanos(from))
	}
	if !to.IsZero() {
		until = nanos(to)
	}
	return since, until
}

// nanos returns t in nanoseconds since the epoch; what int64 cannot hold (before 1678, after 2262) is clamped.
func nanos(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// note takes the blocks and the views of a history's segments in a range, and what the answer says of itself but for Matched. of
// are the reports of the nodes whose rows these are. It is the only part of a query that holds the lock. The caller frees the blocks.
func note[S segment, V any](
	s *Store, h *history[S], now time.Time, since, until int64, maxRecords uint64, of func(*node) *reports, view func(S) V,
) (storage.Coverage, []*block.File, []V) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := storage.Coverage{Oldest: s.oldest(now, h.covered)}
	c.Lost, c.MissingNodes = s.gaps(now, since, until, of)
	c.Lost = c.Lost.Add(h.evictions.in(since, until))
	segments := h.in(since, until)
	views := make([]V, len(segments))
	for i, segment := range segments {
		views[i] = view(segment)
	}
	files, from := h.blocksIn(since, until, maxRecords)
	c.Oldest = later(c.Oldest, from)
	return c, files, views
}

func later(t time.Time, nanos int64) time.Time {
	return time.Unix(0, max(t.UnixNano(), nanos)).UTC()
}

// gaps returns what the nodes lost in a range, and which of them should have reported and did not. of tells which reports of a
// node are meant.
func (s *Store) gaps(now time.Time, since, until int64, of func(*node) *reports) (lost storage.Loss, missing []string) {
	end := time.Unix(0, min(until, now.UnixNano()))
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		r := of(s.nodes[name])
		if s.forgotten(r, now) {
			continue
		}
		lost = lost.Add(r.losses.in(since, until))
		if r.missing(end) {
			missing = append(missing, name)
		}
	}
	return lost, missing
}
