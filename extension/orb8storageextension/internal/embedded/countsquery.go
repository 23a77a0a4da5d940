package embedded

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// caller tells apart who calls: containers, and cgroups that are none.
type caller struct {
	node string
	// cgroup is the cgroup's id; where it is 0, identity tells.
	cgroup   uint64
	identity flow.Identity
}

// callerSum is all that one caller did, in progress.
type callerSum struct {
	caller
	// end is that of the newest counts, whose identity is the caller's.
	end  int64
	lost uint64
	// calls are by the aggregation's index of a call.
	calls []callSum
}

// callSum is how often one caller made one call, in progress.
type callSum struct {
	// seen tells from no call at all: one that was made before the range may return in it.
	seen       bool
	start, end int64
	calls      uint64
	errors     map[string]uint64
	latency    *syscalls.Latency
}

// callAggregation sums the rows of many chunks.
type callAggregation struct {
	index   map[caller]int
	callers []callerSum
	calls   map[syscalls.Call]uint32
}

func newCallAggregation() *callAggregation {
	return &callAggregation{index: map[caller]int{}, calls: map[syscalls.Call]uint32{}}
}

func (a *callAggregation) add(v *countsView, since, until int64) {
	calls := translate(v.calls, a.calls)
	// A chunk has many rows of the same few callers: hashing an identity for each would take longer than all the rest.
	type place struct{ node, identity uint32 }
	places := map[place]int{}
	for i := range v.rows {
		r := &v.rows[i]
		if r.end <= since || r.start >= until {
			continue
		}
		where := place{r.node, r.identity}
		at, known := places[where]
		if !known {
			at = a.callerID(v.strings[r.node], &v.identities[r.identity])
			places[where] = at
		}
		a.callers[at].add(v, r, calls)
	}
}

func (a *callAggregation) callerID(node string, who *flow.Identity) int {
	key := caller{node: node, cgroup: who.CgroupID}
	if key.cgroup == 0 {
		key.identity = *who
	}
	at, known := a.index[key]
	if !known {
		at = len(a.callers)
		a.index[key] = at
		a.callers = append(a.callers, callerSum{caller: caller{node: node, identity: *who}})
	}
	return at
}

func (c *callerSum) add(v *countsView, r *countsRow, calls []uint32) {
	// Equal ends: the later arrival is the newer.
	if r.end >= c.end {
		c.end, c.identity = r.end, v.identities[r.identity]
	}
	c.lost += uint64(r.lost)
	sumOf := func(call uint64) *callSum {
		at := int(calls[call])
		if grow := at + 1 - len(c.calls); grow > 0 {
			c.calls = append(c.calls, make([]callSum, grow)...)
		}
		sum := &c.calls[at]
		if !sum.seen {
			sum.seen, sum.start, sum.end = true, r.start, r.end
		}
		sum.start, sum.end = min(sum.start, r.start), max(sum.end, r.end)
		return sum
	}
	for reader := (countsReader{v.data[r.from:r.to]}); len(reader.data) > 0; {
		reader.next(v, sumOf)
	}
}

// answer returns the rows that the query selects in their order, those of its page, what to go on from, and how many it selects.
func (a *callAggregation) answer(query *storage.SyscallQuery) (rows []storage.Syscall, next string, matched int, err error) {
	byIndex := make([]syscalls.Call, len(a.calls))
	for call, at := range a.calls {
		byIndex[at] = call
	}
	for i := range a.callers {
		c := &a.callers[i]
		for at := range c.calls {
			sum := &c.calls[at]
			if !sum.seen || !query.Selection.Match(c.node, &c.identity, byIndex[at]) {
				continue
			}
			rows = append(rows, storage.Syscall{
				Start: time.Unix(0, sum.start).UTC(), End: time.Unix(0, sum.end).UTC(), Node: c.node, Identity: c.identity, Lost: c.lost,
				Count: syscalls.Count{Call: byIndex[at], Calls: sum.calls, Errors: sum.errors, Latency: sum.latency},
			})
		}
	}
	slices.SortFunc(rows, compareSyscalls)
	from, to, next, err := storage.Page(storage.SignalSyscalls, len(rows), func(i int) []byte { return storage.SyscallKey(&rows[i]) },
		query.After, query.Limit)
	return rows[from:to], next, len(rows), err
}

// compareSyscalls orders rows as storage.SyscallResult promises.
func compareSyscalls(a, b storage.Syscall) int {
	if c := cmp.Compare(b.Calls, a.Calls); c != 0 {
		return c
	}
	return bytes.Compare(storage.SyscallKey(&a), storage.SyscallKey(&b))
}

// QuerySyscalls answers a query; see storage.Reader.
func (s *Store) QuerySyscalls(ctx context.Context, query storage.SyscallQuery) (storage.SyscallResult, error) {
	done, err := s.turn(ctx)
	if err != nil {
		return storage.SyscallResult{}, err
	}
	defer done()
	a := newCallAggregation()
	coverage, err := s.scanCounts(ctx, query.Since, query.Until, func(v *countsView, since, until int64) {
		a.add(v, since, until)
	})
	if err != nil {
		return storage.SyscallResult{}, err
	}
	result := storage.SyscallResult{Coverage: coverage}
	result.Syscalls, result.Next, result.Matched, err = a.answer(&query)
	return result, err
}

// scanCounts hands the counts of a range, among others that are near it, to a function.
func (s *Store) scanCounts(ctx context.Context, from, to time.Time, use func(v *countsView, since, until int64)) (storage.Coverage, error) {
	now := s.settings.Now()
	since, until := s.bounds(now, from, to)
	coverage, files, views := note(s, &s.counts, now, since, until, s.settings.MaxQueryRecords, (*node).callReports, (*countsChunk).view)
	defer free(files)
	lost, err := s.readBlocks(ctx, "syscalls", files, func(f *block.File) error {
		return readCounts(f, since, until, checked(ctx, func(c *countsChunk) { use(c.view(), since, until) }))
	})
	if err != nil {
		return coverage, err
	}
	coverage.Lost = coverage.Lost.Add(lost)
	for _, v := range views {
		// A chunk takes a few milliseconds.
		if err := ctx.Err(); err != nil {
			return coverage, err
		}
		use(v, since, until)
	}
	return coverage, nil
}
