package engine

import (
	"cmp"
	"context"
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/embedded"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

const (
	// slack is by how much a record's instant may be later than the clock here: nodes' clocks differ.
	slack = 10 * time.Minute
	// longest is how long a record may be, whose instant in the engine is that of its end: agents tell every few seconds. One that
	// began in the range and ended so much after it is not found.
	longest = time.Minute
	// idsPerQuery bounds a query's text: engines refuse one of more than 100 KiB.
	idsPerQuery = 1000
	// maxIDs is from when on reading all of the range is less work than asking for each connection.
	maxIDs = 10 * idsPerQuery
	// maxRounds ends the search for records of the same connections. What a filter finds may have no handshake, its connection's
	// others do, those at the other end may have other addresses, and those again may have no handshake.
	maxRounds = 4
)

// QueryFlows answers a query; see storage.Reader.
func (s *Store) QueryFlows(ctx context.Context, query storage.FlowQuery) (storage.FlowResult, error) {
	done, err := s.turn(ctx)
	if err != nil {
		return storage.FlowResult{}, err
	}
	defer done()
	v, err := s.view(ctx, query.Since, query.Until, s.networkStatuses, func(v *view) error { return v.flows(ctx, &query.Selection) })
	if err != nil {
		return storage.FlowResult{}, err
	}
	result, err := v.store.QueryFlows(ctx, query)
	v.cover(&result.Coverage)
	return result, err
}

// QueryLookups answers a query; see storage.Reader.
func (s *Store) QueryLookups(ctx context.Context, query storage.LookupQuery) (storage.LookupResult, error) {
	done, err := s.turn(ctx)
	if err != nil {
		return storage.LookupResult{}, err
	}
	defer done()
	v, err := s.view(ctx, query.Since, query.Until, s.networkStatuses, func(v *view) error { return v.lookups(ctx, &query.Selection) })
	if err != nil {
		return storage.LookupResult{}, err
	}
	result, err := v.store.QueryLookups(ctx, query)
	v.cover(&result.Coverage)
	return result, err
}

// QuerySyscalls answers a query; see storage.Reader.
func (s *Store) QuerySyscalls(ctx context.Context, query storage.SyscallQuery) (storage.SyscallResult, error) {
	done, err := s.turn(ctx)
	if err != nil {
		return storage.SyscallResult{}, err
	}
	defer done()
	v, err := s.view(ctx, query.Since, query.Until, s.syscallStatuses, func(v *view) error { return v.counts(ctx, &query.Selection) })
	if err != nil {
		return storage.SyscallResult{}, err
	}
	result, err := v.store.QuerySyscalls(ctx, query)
	v.cover(&result.Coverage)
	return result, err
}

// QueryAnomalies answers a query; see storage.Reader.
func (s *Store) QueryAnomalies(ctx context.Context, query storage.AnomalyQuery) (storage.AnomalyResult, error) {
	done, err := s.turn(ctx)
	if err != nil {
		return storage.AnomalyResult{}, err
	}
	defer done()
	v, err := s.view(ctx, query.Since, query.Until, s.syscallStatuses, func(v *view) error { return v.anomalies(ctx, &query.Selection) })
	if err != nil {
		return storage.AnomalyResult{}, err
	}
	result, err := v.store.QueryAnomalies(ctx, query)
	v.cover(&result.Coverage)
	return result, err
}

// Aggregate answers a query; see storage.Reader.
func (s *Store) Aggregate(ctx context.Context, query storage.AggregateQuery) (storage.AggregateResult, error) {
	if _, err := storage.NewGroups(&query); err != nil {
		return storage.AggregateResult{}, err
	}
	done, err := s.turn(ctx)
	if err != nil {
		return storage.AggregateResult{}, err
	}
	defer done()
	statuses, read := s.networkStatuses, func(v *view) error { return v.flows(ctx, &query.Flows) }
	switch query.Signal {
	case storage.SignalLookups:
		read = func(v *view) error { return v.lookups(ctx, &query.Lookups) }
	case storage.SignalSyscalls:
		statuses, read = s.syscallStatuses, func(v *view) error { return v.counts(ctx, &query.Syscalls) }
	case storage.SignalAnomalies:
		statuses, read = s.syscallStatuses, func(v *view) error { return v.anomalies(ctx, &query.Anomalies) }
	}
	v, err := s.view(ctx, query.Since, query.Until, statuses, read)
	if err != nil {
		return storage.AggregateResult{}, err
	}
	result, err := v.store.Aggregate(ctx, query)
	v.cover(&result.Coverage)
	return result, err
}

// Status returns the state of the nodes, and of the store: what the engine itself holds is the engine's to tell.
func (s *Store) Status(ctx context.Context) (storage.Status, error) {
	done, err := s.turn(ctx)
	if err != nil {
		return storage.Status{}, err
	}
	defer done()
	v := s.newView(time.Time{}, time.Time{})
	if err := s.allStatuses(ctx, v, false); err != nil {
		return storage.Status{}, err
	}
	status := v.store.Status()
	status.Store = storage.StoreStatus{Backend: s.Engine.Name(), Oldest: v.since}
	return status, nil
}

func (s *Store) turn(ctx context.Context) (done func(), err error) {
	select {
	case s.turns <- struct{}{}:
		return func() { <-s.turns }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// view is what of the engine's records a query reads, in a store in memory, whose code then answers it.
type view struct {
	*Store
	store *embedded.Store
	// clock is that of the store in memory: a status is as old there as it is in the engine.
	clock        time.Time
	since, until time.Time
	now          time.Time
	// from is the instant from which on nothing was left out, and unreadable how many lines were not records.
	from       time.Time
	unreadable uint64
}

func (s *Store) newView(since, until time.Time) *view {
	v := &view{Store: s, now: s.Now()}
	v.since, v.until = v.now.Add(-s.Retention), v.now.Add(slack)
	if since.After(v.since) {
		v.since = since
	}
	if !until.IsZero() && until.Before(v.until) {
		v.until = until
	}
	v.clock = v.now.Add(-s.Retention)
	v.store = embedded.New(embedded.Settings{Retention: s.Retention, MaxBytes: math.MaxInt64, Now: func() time.Time { return v.clock }})
	return v
}

// view reads what a query needs.
func (s *Store) view(ctx context.Context, since, until time.Time, statuses statusReader, records func(*view) error) (*view, error) {
	v := s.newView(since, until)
	if err := statuses(ctx, v, true); err != nil {
		return nil, err
	}
	v.clock = v.now
	return v, records(v)
}

// cover completes what an answer says of itself.
func (v *view) cover(c *storage.Coverage) {
	c.Lost.EvictedRecords += v.unreadable
	if v.from.After(c.Oldest) {
		c.Oldest = v.from
	}
}

// found are records without those that were sent twice.
type found[R any] struct {
	view *view
	at   map[string]int
	all  []entry[R]
}

type entry[R any] struct {
	id     string
	time   int64
	length int
	hash   uint64
	record R
}

func newFound[R any](v *view) *found[R] { return &found[R]{view: v, at: map[string]int{}} }

// seed makes hashes that are the same for all of a process. They only decide between versions of a record that are equally long.
var seed = maphash.MakeSeed()

// read reads what an engine has of an event in the view's range and up to after later.
func (f *found[R]) read(ctx context.Context, event string, after time.Duration, where Any, decode func(*line) (R, error)) error {
	v := f.view
	if !v.since.Before(v.until) {
		return nil
	}
	q := Query{Event: event, Since: v.since, Until: v.until.Add(after), Where: where}
	from, err := v.Engine.Read(ctx, q, v.MaxQueryRecords, func(text []byte) error {
		l, err := parse(text)
		var r R
		if err == nil {
			r, err = decode(&l)
		}
		if err != nil {
			v.unreadable++
			v.Logger.Debug("A line of the engine is no record", zap.String("event", event), zap.Error(err))
			return nil
		}
		f.add(&l, text, r)
		return nil
	})
	if from.After(v.from) {
		v.from = from
	}
	return err
}

// add keeps of equal records the one that knows more.
func (f *found[R]) add(l *line, text []byte, r R) {
	e := entry[R]{id: l.id, time: int64(l.record.Timestamp()), length: len(text), hash: maphash.Bytes(seed, text), record: r}
	at, known := f.at[l.id]
	if !known {
		f.at[l.id] = len(f.all)
		f.all = append(f.all, e)
		return
	}
	if old := &f.all[at]; cmp.Or(cmp.Compare(e.length, old.length), cmp.Compare(e.hash, old.hash)) > 0 {
		*old = e
	}
}

// write puts the records into the store in memory, in an order that does not depend on the engine's.
func (f *found[R]) write(ctx context.Context, to func(context.Context, []R) (bool, error)) error {
	slices.SortFunc(f.all, func(a, b entry[R]) int { return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.id, b.id)) })
	const batch = 4096
	records := make([]R, 0, batch)
	for entries := range slices.Chunk(f.all, batch) {
		if err := ctx.Err(); err != nil {
			return err
		}
		records = records[:0]
		for i := range entries {
			records = append(records, entries[i].record)
		}
		if _, err := to(ctx, records); err != nil {
			return err
		}
	}
	return nil
}

// flows reads the records that a selection may want, and all others of their flows and of the other ends of those.
func (v *view) flows(ctx context.Context, selection *storage.Selection) error {
	f := newFound[flow.Record](v)
	where := flowCondition(selection)
	decode := (*line).flow
	if err := f.read(ctx, flow.EventNameFlow, longest, where, decode); err != nil {
		return err
	}
	asked := map[string]bool{}
	for round := 1; len(where) > 0 && round < maxRounds; round++ {
		var fresh []string
		for i := range f.all {
			for _, id := range []string{f.all[i].record.ConnectionID(), tupleID(&f.all[i].record)} {
				if !asked[id] {
					asked[id] = true
					fresh = append(fresh, id)
				}
			}
		}
		if len(asked) > maxIDs {
			if err := f.read(ctx, flow.EventNameFlow, longest, nil, decode); err != nil {
				return err
			}
			break
		}
		for ids := range slices.Chunk(fresh, idsPerQuery) {
			of := Any{{{Fields: []string{flow.AttrConnectionID, AttrTuple}, Equal: ids}}}
			if err := f.read(ctx, flow.EventNameFlow, longest, of, decode); err != nil {
				return err
			}
		}
		if len(fresh) == 0 {
			break
		}
	}
	return f.write(ctx, v.store.WriteFlows)
}

func (v *view) lookups(ctx context.Context, selection *storage.LookupSelection) error {
	f := newFound[flow.Lookup](v)
	if err := f.read(ctx, flow.EventNameLookup, 0, lookupCondition(selection), (*line).lookup); err != nil {
		return err
	}
	return f.write(ctx, v.store.WriteLookups)
}

// counts reads the counts that a selection may want, and all others of their callers: who a caller is, its newest counts say.
func (v *view) counts(ctx context.Context, selection *storage.SyscallSelection) error {
	f := newFound[syscalls.Counts](v)
	where := syscallCondition(selection)
	if err := f.read(ctx, syscalls.EventNameCounts, longest, where, (*line).counts); err != nil {
		return err
	}
	callers := map[string]struct{}{}
	for i := range f.all {
		if id := f.all[i].record.Identity.CgroupID; id != 0 {
			callers[itoa(id)] = struct{}{}
		}
	}
	if len(where) > 0 {
		for ids := range slices.Chunk(slices.Sorted(maps.Keys(callers)), idsPerQuery) {
			of := Any{{{Fields: []string{flow.AttrCgroupID}, Equal: ids}}}
			if err := f.read(ctx, syscalls.EventNameCounts, longest, of, (*line).counts); err != nil {
				return err
			}
		}
	}
	return f.write(ctx, v.store.WriteSyscalls)
}

func (v *view) anomalies(ctx context.Context, selection *storage.AnomalySelection) error {
	f := newFound[syscalls.Anomaly](v)
	if err := f.read(ctx, syscalls.EventNameAnomaly, 0, anomalyCondition(selection), (*line).anomaly); err != nil {
		return err
	}
	return f.write(ctx, v.store.WriteAnomalies)
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }
