package gpureceiver

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/metadata"
)

// conflictAfter is for how long sources have to disagree: dcgm-exporter tells what was up to half a minute ago.
const conflictAfter = time.Minute

// conflictKind is what sources disagree about.
type conflictKind string

const (
	// conflictOwner is about which container has a device.
	conflictOwner conflictKind = "owner"
	// conflictValue is about something that does not change by itself.
	conflictValue conflictKind = "value"
)

// conflict is a disagreement of two sources about a device. It can be compared.
type conflict struct {
	kind   conflictKind
	device string
	// about is the metric, or the container.
	about string
	// first and other are what the sources say: the first is believed.
	first, other string
	// cgroupID is of the processes that it is about, 0 where it is about none.
	cgroupID uint64
}

// steady are metrics that two sources must agree on, whenever they looked, and by how much they may differ: memory is told in MiB.
var steady = map[string]float64{
	"hw.gpu.memory.limit": 0.01, "gpu.rows.remapped": 0, "gpu.rows.failed": 0,
}

// compare holds a value against that of a source before.
func (a *attribution) compare(o *observation, before float64) {
	tolerance, ok := steady[o.metric]
	if !ok || math.Abs(o.value-before) <= tolerance*math.Abs(before) {
		return
	}
	about := o.metric
	if o.part != "" {
		about += " " + o.part
	}
	a.disagreements = append(a.disagreements, conflict{
		kind: conflictValue, device: o.device.ID, about: about, first: fmt.Sprint(before), other: fmt.Sprint(o.value),
	})
}

// conflicts are what the sources of a scrape disagree about. dcgm-exporter may leave out containers that share a device: it is in conflict
// where it names one that the kubelet does not.
func (to *recorder) conflicts() []conflict {
	all := slices.Clone(to.disagreements)
	if !to.answered {
		return all
	}
	owners := map[string]map[string]bool{}
	for i := range to.observations {
		if o := &to.observations[i]; o.metric == gpu.MetricAllocation && o.device.ID != "" {
			if owners[o.device.ID] == nil {
				owners[o.device.ID] = map[string]bool{}
			}
			owners[o.device.ID][o.container.String()] = true
		}
	}
	all = append(all, to.strangers()...)
	all = append(all, to.intruders()...)
	for i := range to.labelled {
		l := &to.labelled[i]
		if l.owner.Claim.Name != "" && owners[l.device.ID] == nil {
			continue // the kubelet does not say which device a claim is of
		}
		if name := l.container().String(); !owners[l.device.ID][name] {
			all = append(all, conflict{
				kind: conflictOwner, device: l.device.ID, about: "container",
				first: strings.Join(slices.Sorted(maps.Keys(owners[l.device.ID])), ", "), other: name,
			})
		}
	}
	return all
}

// String is namespace/pod/container.
func (c container) String() string { return c.namespace + "/" + c.pod + "/" + c.name }

// quarrels are the conflicts that last.
type quarrels struct {
	since map[conflict]time.Time
	told  map[conflict]bool
}

// update takes the conflicts of a scrape, and returns those that have now lasted for long enough.
func (q *quarrels) update(all []conflict, now time.Time) (lasting []conflict) {
	since, told := map[conflict]time.Time{}, map[conflict]bool{}
	for _, c := range all {
		begin, known := q.since[c]
		if !known {
			begin = now
		}
		since[c], told[c] = begin, q.told[c]
		if !told[c] && now.Sub(begin) >= conflictAfter {
			told[c] = true
			lasting = append(lasting, c)
		}
	}
	q.since, q.told = since, told
	slices.SortFunc(lasting, func(a, b conflict) int {
		return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.about, b.about), cmp.Compare(a.other, b.other))
	})
	return lasting
}

// Attributes of a conflict.
const (
	eventConflict     = "gpu.conflict"
	attrConflictKind  = "orb8.gpu.conflict.kind"
	attrConflictAbout = "orb8.gpu.conflict.about"
	attrConflictFirst = "orb8.gpu.conflict.first"
	attrConflictOther = "orb8.gpu.conflict.other"
)

// quarrel tells of a conflict: in the log, by a counter and as an event.
func (r *gpuReceiver) quarrel(ctx context.Context, c *conflict) {
	r.telemetry.GpuSourceConflicts.Add(ctx, 1, metric.WithAttributes(attribute.String(attrConflictKind, string(c.kind))))
	r.set.Logger.Warn("Two sources disagree about a GPU; the first is believed", zap.String("gpu", c.device), zap.String("about", c.about),
		zap.String("first", c.first), zap.String("other", c.other))
	if r.events.send == nil {
		return
	}
	now := pcommon.NewTimestampFromTime(time.Now())
	logs := plog.NewLogs()
	rl := logs.ResourceLogs().AppendEmpty()
	if c.cgroupID != 0 {
		// So that pod_enrichment tells whose they are.
		rl.Resource().Attributes().PutInt(flow.AttrCgroupID, int64(c.cgroupID))
	}
	sl := rl.ScopeLogs().AppendEmpty()
	sl.Scope().SetName(metadata.ScopeName)
	sl.Scope().SetVersion(r.events.version)
	lr := sl.LogRecords().AppendEmpty()
	lr.SetTimestamp(now)
	lr.SetObservedTimestamp(now)
	lr.SetEventName(eventConflict)
	lr.SetSeverityNumber(plog.SeverityNumberWarn)
	lr.SetSeverityText(plog.SeverityNumberWarn.String())
	lr.Body().SetStr(fmt.Sprintf("sources disagree about the %s of %s: %s, or %s", c.about, c.device, cmp.Or(c.first, "none"), c.other))
	for _, a := range [][2]string{
		{gpu.AttrID, c.device}, {attrConflictKind, string(c.kind)}, {attrConflictAbout, c.about}, {attrConflictFirst, c.first}, {attrConflictOther, c.other},
	} {
		lr.Attributes().PutStr(a[0], a[1])
	}
	r.events.send(logs)
}
