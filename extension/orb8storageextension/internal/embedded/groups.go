package embedded

import (
	"cmp"
	"context"

	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// Aggregate answers a query; see storage.Reader.
func (s *Store) Aggregate(ctx context.Context, query storage.AggregateQuery) (storage.AggregateResult, error) {
	groups, err := storage.NewGroups(&query)
	if err != nil {
		return storage.AggregateResult{}, err
	}
	done, err := s.turn(ctx)
	if err != nil {
		return storage.AggregateResult{}, err
	}
	defer done()
	coverage, err := s.sum(ctx, &query, groups)
	for s.repaired(err) {
		if groups, err = storage.NewGroups(&query); err == nil {
			coverage, err = s.sum(ctx, &query, groups)
		}
	}
	if err = cmp.Or(err, groups.Err()); err != nil {
		return storage.AggregateResult{}, err
	}
	return groups.Result(coverage), nil
}

// sum adds what a query selects to groups.
func (s *Store) sum(ctx context.Context, query *storage.AggregateQuery, groups *storage.Groups) (storage.Coverage, error) {
	switch query.Signal {
	case storage.SignalLookups:
		return s.scanLookups(ctx, query.Since, query.Until, func(v *lookupView, i uint32) {
			if l := v.lookup(i); query.Lookups.Match(&l) {
				groups.AddLookup(&l)
			}
		})
	case storage.SignalSyscalls:
		return s.scanCounts(ctx, query.Since, query.Until, func(v *countsView, since, until int64) {
			for i := range v.rows {
				if r := &v.rows[i]; r.end > since && r.start < until {
					n := v.counts(i)
					groups.AddCounts(&n)
				}
			}
		})
	case storage.SignalAnomalies:
		return s.scanAnomalies(ctx, query.Since, query.Until, func(n syscalls.Anomaly) {
			if query.Anomalies.Match(&n) {
				groups.AddAnomaly(&n)
			}
		})
	}
	if rolledUp(query) {
		return s.sumRollups(ctx, query, groups)
	}
	a, coverage, err := s.sumFlows(ctx, &query.Flows, query.Since, query.Until, query.Bucket)
	if err != nil {
		return coverage, err
	}
	a.groups(&query.Flows, groups)
	return coverage, nil
}
