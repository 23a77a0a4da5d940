package engine

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/syscalls"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

const (
	// recentStatuses is how far back the statuses of all nodes are read. Those of nodes that told nothing since are asked for.
	recentStatuses = time.Minute
	// maxPredecessors bounds the queries for statuses before a loss. Without, the loss is one of since the agent started: no answer
	// says less than there was.
	maxPredecessors = 64
)

// statusReader replays the statuses of one kind into a view: the latest of each node, and where losses are wanted those too that
// tell of one.
type statusReader func(ctx context.Context, v *view, losses bool) error

func (s *Store) networkStatuses(ctx context.Context, v *view, losses bool) error {
	r := statuses[flow.NetworkStatus]{view: v, event: flow.EventNameStatus, decode: flow.StatusFrom, write: v.store.WriteStatus,
		of: func(status *flow.NetworkStatus) run { return run{status.Node, status.Started.UnixNano()} }}
	return r.replay(ctx, losses)
}

func (s *Store) syscallStatuses(ctx context.Context, v *view, losses bool) error {
	r := statuses[syscalls.Status]{view: v, event: syscalls.EventNameStatus, decode: syscalls.StatusFrom, write: v.store.WriteSyscallStatus,
		of: func(status *syscalls.Status) run { return run{status.Node, status.Started.UnixNano()} }}
	return r.replay(ctx, losses)
}

// gpuStatuses tell of no loss.
func (s *Store) gpuStatuses(ctx context.Context, v *view) error {
	r := statuses[gpu.Status]{view: v, event: gpu.EventNameStatus, decode: gpu.StatusFrom, write: v.store.WriteGPUStatus,
		of: func(status *gpu.Status) run { return run{status.Node, status.Started.UnixNano()} }}
	return r.replay(ctx, false)
}

func (s *Store) allStatuses(ctx context.Context, v *view, losses bool) error {
	if err := s.networkStatuses(ctx, v, losses); err != nil {
		return err
	}
	if err := s.syscallStatuses(ctx, v, losses); err != nil {
		return err
	}
	return s.gpuStatuses(ctx, v)
}

// run is one life of an agent. Its counters begin with it.
type run struct {
	node    string
	started int64
}

// told is a status, when it was made and when it arrived.
type told[S any] struct {
	run
	made, arrived time.Time
	status        S
}

type statuses[S any] struct {
	*view
	event  string
	decode func(pcommon.Resource, plog.LogRecord) S
	of     func(*S) run
	write  func(context.Context, S) error
	all    []told[S]
}

func (s *statuses[S]) replay(ctx context.Context, losses bool) error {
	if err := s.latest(ctx); err != nil {
		return err
	}
	if losses {
		if err := s.lossy(ctx); err != nil {
			return err
		}
	}
	slices.SortStableFunc(s.all, func(a, b told[S]) int {
		return cmp.Or(cmp.Compare(a.node, b.node), a.made.Compare(b.made), a.arrived.Compare(b.arrived))
	})
	for i := range s.all {
		s.clock = s.all[i].arrived
		if err := s.write(ctx, s.all[i].status); err != nil {
			return err
		}
	}
	s.clock = s.now
	return nil
}

func (s *statuses[S]) use(text []byte) error {
	l, err := parse(text)
	if err != nil {
		s.unreadable++
		return nil
	}
	t := told[S]{made: l.record.Timestamp().AsTime(), arrived: l.arrived, status: s.decode(l.resource, l.record)}
	if t.arrived.IsZero() {
		t.arrived = t.made
	}
	t.run = s.of(&t.status)
	s.all = append(s.all, t)
	return nil
}

// latest reads the latest status of each node, and others.
func (s *statuses[S]) latest(ctx context.Context) error {
	q := Query{Event: s.event, Since: s.now.Add(-recentStatuses), Until: s.now.Add(slack)}
	if _, err := s.Engine.Read(ctx, q, math.MaxInt32, s.use); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range s.all {
		seen[nodeValue(s.all[i].node)] = true
	}
	q.Since = s.now.Add(-s.Retention)
	nodes, err := s.Engine.Nodes(ctx, q)
	if err != nil {
		return err
	}
	q.Nodes = slices.DeleteFunc(nodes, func(node string) bool { return seen[node] })
	if len(q.Nodes) == 0 {
		return nil
	}
	return s.Engine.Latest(ctx, q, s.use)
}

// lossy reads the statuses that tell of a loss, and the one before each run of them: what was lost between two is the difference.
func (s *statuses[S]) lossy(ctx context.Context) error {
	n := len(s.all)
	q := Query{Event: s.event, Since: s.since, Until: s.now.Add(slack), Where: Any{{{Fields: []string{AttrLossy}, Equal: []string{"true"}}}}}
	if _, err := s.Engine.Read(ctx, q, s.MaxQueryRecords, s.use); err != nil {
		return err
	}
	first := map[run]time.Time{}
	for i := range s.all[n:] {
		t := &s.all[n+i]
		if at, known := first[t.run]; !known || t.made.Before(at) {
			first[t.run] = t.made
		}
	}
	if len(first) > maxPredecessors {
		return nil
	}
	for run, made := range first {
		before := Query{Event: s.event, Nodes: []string{nodeValue(run.node)}, Since: s.now.Add(-s.Retention), Until: made}
		if err := s.Engine.Latest(ctx, before, s.use); err != nil {
			return err
		}
	}
	return nil
}
