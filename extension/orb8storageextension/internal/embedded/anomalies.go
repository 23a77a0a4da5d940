package embedded

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"
	"unsafe"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/journal"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

const (
	// anomalyChunkRows is small because hardly two anomalies have the same words.
	anomalyChunkRows = 128
	// anomalyShare is the part of the store's memory that anomalies may take: one in so many.
	anomalyShare = 16
)

// anomalyRow is an anomaly without pointers.
type anomalyRow struct {
	time, seen              int64
	calls                   uint64
	rate, baseline          float64
	node, identity          uint32
	workload, rule, message uint32
	process, pid            uint32
	tid, sampling           uint32
	// from and to bound the arguments in the chunk's column of that name.
	from, to uint32
	call     syscalls.Call
	severity syscalls.Severity
	evidence bool
}

// anomalyArgument has its name and value as words.
type anomalyArgument struct{ name, value uint32 }

const (
	anomalyRowBytes      = uint64(unsafe.Sizeof(anomalyRow{}))
	anomalyArgumentBytes = uint64(unsafe.Sizeof(anomalyArgument{}))
)

// anomalyView is to an anomalyChunk what view is to a chunk.
type anomalyView struct {
	words
	rows      []anomalyRow
	arguments []anomalyArgument
}

// anomalyChunk is a run of anomalies.
type anomalyChunk struct {
	run
	rows      []anomalyRow
	arguments []anomalyArgument
}

func newAnomalyChunk() *anomalyChunk { return &anomalyChunk{run: newRun()} }

func (c *anomalyChunk) view() *anomalyView {
	return &anomalyView{words: c.words, rows: c.rows, arguments: c.arguments}
}

func (c *anomalyChunk) full() bool { return len(c.rows) == anomalyChunkRows }

func (c *anomalyChunk) size() uint64 {
	return c.bytes + uint64(len(c.rows))*anomalyRowBytes + uint64(len(c.arguments))*anomalyArgumentBytes
}

func (c *anomalyChunk) seal() {
	c.dictionary.seal()
	c.rows, c.arguments = slices.Clone(c.rows), slices.Clone(c.arguments)
}

func (c *anomalyChunk) append(n *syscalls.Anomaly, now int64) {
	at := n.Time.UnixNano()
	c.note(at, at, now)
	row := anomalyRow{
		time: at, node: c.stringID(n.Node), identity: c.identityID(n.Identity), workload: c.stringID(n.Workload), rule: c.stringID(n.Rule),
		message: c.stringID(n.Message), severity: n.Severity, call: n.Call, calls: n.Calls, rate: n.Rate, baseline: n.Baseline,
	}
	if e := n.Evidence; e != nil {
		row.evidence, row.seen, row.tid, row.sampling = true, e.Time.UnixNano(), e.TID, e.Sampling
		row.process, row.pid = c.stringID(e.Identity.Process), e.Identity.PID
		row.from = uint32(len(c.arguments))
		for _, argument := range e.Arguments {
			c.arguments = append(c.arguments, anomalyArgument{c.stringID(argument.Name), c.stringID(argument.Value)})
		}
		row.to = uint32(len(c.arguments))
	}
	c.rows = append(c.rows, row)
}

// anomaly decodes a row.
func (v *anomalyView) anomaly(i uint32) syscalls.Anomaly {
	row := &v.rows[i]
	n := syscalls.Anomaly{
		Time: time.Unix(0, row.time).UTC(), Node: v.strings[row.node], Identity: v.identities[row.identity], Workload: v.strings[row.workload],
		Rule: v.strings[row.rule], Severity: row.severity, Call: row.call, Message: v.strings[row.message],
		Calls: row.calls, Rate: row.rate, Baseline: row.baseline,
	}
	if row.evidence {
		n.Evidence = &syscalls.Event{Time: time.Unix(0, row.seen).UTC(), Node: n.Node, Call: n.Call, TID: row.tid, Sampling: row.sampling}
		n.Evidence.Identity.Process, n.Evidence.Identity.PID = v.strings[row.process], row.pid
		for _, argument := range v.arguments[row.from:row.to] {
			n.Evidence.Arguments = append(n.Evidence.Arguments,
				syscalls.Argument{Name: v.strings[argument.name], Value: v.strings[argument.value]})
		}
	}
	return n
}

// WriteAnomalies is WriteFlows of anomalies.
func (s *Store) WriteAnomalies(ctx context.Context, anomalies []syscalls.Anomaly) (fresh bool, err error) {
	return s.write(ctx, &journal.Batch{Kind: journal.Anomalies, Anomalies: anomalies})
}

// QueryAnomalies answers a query; see storage.Reader.
func (s *Store) QueryAnomalies(ctx context.Context, query storage.AnomalyQuery) (storage.AnomalyResult, error) {
	done, err := s.turn(ctx)
	if err != nil {
		return storage.AnomalyResult{}, err
	}
	defer done()
	var all []syscalls.Anomaly
	coverage, err := s.scanAnomalies(ctx, query.Since, query.Until, func(n syscalls.Anomaly) {
		if query.Selection.Match(&n) {
			all = append(all, n)
		}
	})
	if err != nil {
		return storage.AnomalyResult{}, err
	}
	slices.SortFunc(all, func(a, b syscalls.Anomaly) int {
		if c := cmp.Compare(b.Time.UnixNano(), a.Time.UnixNano()); c != 0 {
			return c
		}
		return bytes.Compare(storage.AnomalyKey(&a), storage.AnomalyKey(&b))
	})
	coverage.Matched = len(all)
	keyOf := func(i int) []byte { return storage.AnomalyKey(&all[i]) }
	var first, end int
	first, end, coverage.Next, err = storage.Page(storage.SignalAnomalies, len(all), keyOf, query.After, query.Limit)
	return storage.AnomalyResult{Anomalies: all[first:end], Coverage: coverage}, err
}

// scanAnomalies hands the anomalies of a range to a function.
func (s *Store) scanAnomalies(ctx context.Context, from, to time.Time, use func(syscalls.Anomaly)) (storage.Coverage, error) {
	now := s.settings.Now()
	since, until := s.bounds(now, from, to)
	coverage, files, views := note(s, &s.anomalies, now, since, until, s.settings.MaxQueryRecords, (*node).callReports, (*anomalyChunk).view)
	defer free(files)
	useAll := func(v *anomalyView) {
		for i := range v.rows {
			if at := v.rows[i].time; at >= since && at < until {
				use(v.anomaly(uint32(i)))
			}
		}
	}
	lost, err := s.readBlocks(ctx, "anomalies", files, func(f *block.File) error {
		return readAnomalies(f, since, until, checked(ctx, func(c *anomalyChunk) { useAll(c.view()) }))
	})
	if err != nil {
		return coverage, err
	}
	coverage.Lost = coverage.Lost.Add(lost)
	for _, v := range views {
		if err := ctx.Err(); err != nil {
			return coverage, err
		}
		useAll(v)
	}
	return coverage, nil
}
