package embedded

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/orb8/orb8/internal/storage"
)

// QueryFlows answers a query; see storage.Reader.
func (s *Store) QueryFlows(ctx context.Context, query storage.FlowQuery) (storage.FlowResult, error) {
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-ctx.Done():
		return storage.FlowResult{}, ctx.Err()
	}
	now := s.settings.Now()
	horizon := s.horizon(now)
	since, until := horizon, int64(math.MaxInt64)
	if !query.Since.IsZero() {
		since = max(since, nanos(query.Since))
	}
	if !query.Until.IsZero() {
		until = nanos(query.Until)
	}
	result, views := s.note(now, since, until)

	a := newAggregation(since, until)
	for i := range views {
		// A chunk takes well under a millisecond: often enough to notice that nobody waits for the answer any more.
		if err := ctx.Err(); err != nil {
			return storage.FlowResult{}, err
		}
		a.add(&views[i])
	}
	a.join()
	result.Flows, result.Matched = a.answer(&query)
	return result, nil
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

// note takes the views of a range, and all else that a query needs to know of the store. It is the only part of a
// query that holds the lock.
func (s *Store) note(now time.Time, since, until int64) (storage.FlowResult, []view) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	result := storage.FlowResult{Oldest: s.oldest(now), Lost: s.evictions.in(since, until)}
	end := time.Unix(0, min(until, now.UnixNano()))
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		n := s.nodes[name]
		if s.forgotten(n, now) {
			continue
		}
		result.Lost = result.Lost.Add(n.losses.in(since, until))
		if n.missing(end) {
			result.MissingNodes = append(result.MissingNodes, name)
		}
	}
	views := make([]view, 0, len(s.chunks))
	for _, c := range s.chunks {
		if c.end >= since && c.start < until {
			views = append(views, c.view())
		}
	}
	return result, views
}
