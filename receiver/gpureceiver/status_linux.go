package gpureceiver

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/metadata"
)

// gap is the error of a source that works, and does not tell everything.
type gap struct{ error }

func (g gap) Unwrap() error { return g.error }

// offReason is what the status says of a source that nobody wants.
const offReason = "the configuration says so"

// state is what became of a source: err is what it said, and more whether it told something nevertheless.
func (s *sourceState) state(err error, more bool) string {
	var partly gap
	switch {
	case err == nil:
		return gpu.SourceUp
	case more, errors.As(err, &partly):
		return gpu.SourcePartial
	case s.absent:
		return gpu.SourceAbsent
	}
	return gpu.SourceFailed
}

// instancePrefix begins the UUIDs of MIG instances. Of one that the kubelet alone tells of it is all that is known.
const instancePrefix = "MIG-"

// status is how the receiver is after a scrape, whose sources saw the devices. The caller holds the lock.
func (r *gpuReceiver) status(at time.Time, devices map[string]knownDevice) gpu.Status {
	s := gpu.Status{
		Version: r.set.BuildInfo.Version, Kernel: r.kernel, Time: at, Started: r.started, Interval: r.cfg.CollectionInterval,
		Scrapes: r.scrapes, FailedScrapes: r.failedScrapes, ScrapeTime: time.Since(at), LostEvents: r.lostEvents.Load(),
		Conflicts: r.quarrels.lasting(),
	}
	for _, d := range devices {
		if d.Parent != "" || strings.HasPrefix(d.ID, instancePrefix) {
			s.Instances++
			continue
		}
		if s.Models == nil {
			s.Models = map[string]uint32{}
		}
		s.Models[d.Model]++
	}
	for _, source := range r.sources {
		s.Sources = append(s.Sources, gpu.SourceStatus{
			Name: source.name, State: source.became, ScrapeTime: source.took,
			// Of several errors each has a line.
			Reason: strings.ReplaceAll(source.said, "\n", "; "),
		})
	}
	for _, name := range r.off {
		s.Sources = append(s.Sources, gpu.SourceStatus{Name: name, State: gpu.SourceOff, Reason: offReason})
	}
	return s
}

// sendStatus hands a status to the pipeline. There is another one soon, so that one that is refused is not missed.
func (r *gpuReceiver) sendStatus(ctx context.Context, s gpu.Status) {
	logs := plog.NewLogs()
	scope := logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty()
	scope.Scope().SetName(metadata.ScopeName)
	scope.Scope().SetVersion(r.set.BuildInfo.Version)
	s.PutTo(scope.LogRecords().AppendEmpty())
	ctx = r.obs.StartLogsOp(ctx)
	err := r.logs.ConsumeLogs(ctx, logs)
	r.obs.EndLogsOp(ctx, metadata.Type.String(), 1, err)
}

// lasting are the conflicts that are there, and were told.
func (q *quarrels) lasting() (all []gpu.Conflict) {
	for c, told := range q.told {
		if told {
			all = append(all, gpu.Conflict{
				Device: c.device, Kind: string(c.kind), About: c.about, First: c.first, Other: c.other, Since: q.since[c],
			})
		}
	}
	slices.SortFunc(all, func(a, b gpu.Conflict) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.About, b.About), cmp.Compare(a.Other, b.Other))
	})
	return all
}
