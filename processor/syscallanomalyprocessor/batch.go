package syscallanomalyprocessor

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.uber.org/zap"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/processor/syscallanomalyprocessor/internal/metadata"
)

// batch examines one batch of records, with the detector locked.
type batch struct {
	d   *detector
	now time.Time

	// Of the resource whose records are examined:
	resource  plog.ResourceLogs
	attrs     pcommon.Map
	profile   *profile
	container *container
	ev        event
	found     []syscalls.Anomaly
}

// enter looks up whose records come next.
func (b *batch) enter(ctx context.Context, rl plog.ResourceLogs) {
	d := b.d
	b.resource, b.attrs = rl, rl.Resource().Attributes()
	var displaced bool
	b.profile, displaced = d.profiles.get(d.naming.keyOf(b.attrs), b.now)
	if displaced {
		d.counters.evicted(ctx, causeDisplaced, 1)
	}
	if b.profile.profiled() {
		b.profile.seen(b.now, d.cfg.Learning)
	}
	var key containerKey
	if v, ok := b.attrs.Get(flow.AttrNodeName); ok {
		key.node = v.Str()
	}
	if v, ok := b.attrs.Get(flow.AttrCgroupID); ok {
		key.cgroup = v.Int()
	}
	b.container = d.containers.get(key)
}

// leave appends the anomalies of a resource to it.
func (b *batch) leave(rl plog.ResourceLogs) {
	if len(b.found) == 0 {
		return
	}
	sl := rl.ScopeLogs().AppendEmpty()
	sl.Scope().SetName(metadata.ScopeName)
	sl.Scope().SetVersion(b.d.set.BuildInfo.Version)
	sl.LogRecords().EnsureCapacity(len(b.found))
	for i := range b.found {
		b.found[i].PutTo(sl.LogRecords().AppendEmpty())
	}
	b.found = b.found[:0]
}

func (b *batch) examine(ctx context.Context, sl plog.ScopeLogs, lr plog.LogRecord) {
	if !b.profile.profiled() {
		b.d.counters.unprofiled(ctx)
		if len(b.d.profiles.byKey) >= b.d.cfg.MaxProfiles {
			b.d.once("", "There are more workloads than max_profiles; nothing is learned of the others, and only their sensitive calls are told",
				zap.Int("max_profiles", b.d.cfg.MaxProfiles))
		}
	}
	native, err := syscalls.ParseABI(text(lr.Attributes(), syscalls.AttrABI))
	switch {
	case err != nil:
	case lr.EventName() == syscalls.EventNameEvent:
		err = b.event(ctx, native, sl, lr)
	default:
		err = b.counts(ctx, native, lr)
	}
	if err != nil {
		b.d.counters.malformed(ctx)
		b.d.once(lr.EventName(), "A record of system calls could not be read; it passes, unexamined, and so do others like it", zap.Error(err))
	}
}

func (b *batch) event(ctx context.Context, abi syscalls.ABI, sl plog.ScopeLogs, lr plog.LogRecord) error {
	c, err := b.d.rules.call(abi, text(lr.Attributes(), syscalls.AttrName))
	if err != nil {
		return err
	}
	unseen := b.unseen(c)
	if !unseen && len(c.rules) == 0 && len(c.first) == 0 {
		return nil
	}
	b.ev = event{resource: b.resource, scope: sl, record: lr}
	defer b.ev.close()
	excused, told := false, false
	for _, r := range c.rules {
		switch b.apply(ctx, r, c, unseen) {
		case reported:
			told = true
		case reasonException:
			excused = true
		}
	}
	for _, r := range c.first {
		if b.meets(ctx, r, r.first, &b.ev) {
			b.container.begin(step{r, *b.ev.read()})
		}
	}
	// What an exception of another rule is for is no news either.
	if unseen && !excused {
		excused = b.unheardOf(ctx, c, &witness{event: &b.ev}, told)
	}
	if unseen || c.byCounts {
		b.container.note(c.Call, lr.Timestamp().AsTime(), excused)
	}
	return b.ev.err
}

// apply judges the event by a rule of kind call.
func (b *batch) apply(ctx context.Context, r *rule, c *call, unseen bool) verdict {
	if r.After != nil && len(b.container.steps) == 0 || !b.meets(ctx, r, r.condition, &b.ev) {
		return notMet
	}
	w := witness{event: &b.ev, unseen: unseen}
	if r.After != nil {
		if w.before = b.container.begun(r, b.ev.read()); w.before == nil {
			return notMet
		}
	}
	return b.judge(ctx, r, c, &w)
}

// unseen tells whether the workload never made the call, as far as a complete profile knows.
func (b *batch) unseen(c *call) bool {
	if !b.profile.profiled() || b.profile.learning() {
		return false
	}
	_, seen := b.profile.calls[c.Call]
	return !seen
}

// unheardOf applies the rules of kind new to a call that the profile lacks, and adds it to the profile unless it is excused. told says
// that another rule has reported it: the same once more is of no use.
func (b *batch) unheardOf(ctx context.Context, c *call, w *witness, told bool) (excused bool) {
	if !told {
		for _, r := range c.new {
			if b.judge(ctx, r, c, w) == reasonException {
				excused = true
			}
		}
	}
	if !excused {
		b.profile.add(c.Call, b.now)
	}
	return excused
}

func (b *batch) counts(ctx context.Context, native syscalls.ABI, lr plog.LogRecord) error {
	v, ok := lr.Attributes().Get(syscalls.AttrCalls)
	if !ok || v.Type() != pcommon.ValueTypeMap {
		return nil
	}
	end := lr.Timestamp().AsTime()
	start := end
	if v, ok := lr.Attributes().Get(syscalls.AttrStart); ok {
		start = time.Unix(0, v.Int())
	}
	calls := v.Map()
	i := interval{start: start, end: end, whole: end.Sub(start) >= minRateInterval}
	if i.whole {
		for _, n := range calls.All() {
			i.total += n.Int()
		}
	}
	for name, n := range calls.All() {
		c, err := b.d.rules.qualified(native, name)
		if err != nil {
			return err
		}
		b.count(ctx, c, n.Int(), &i)
	}
	if b.profile.profiled() {
		b.profile.intervals++
	}
	b.container.forget(end)
	return nil
}

// minRateInterval is the shortest interval that says how often a call is made: the last one of a receiver may be a moment.
const minRateInterval = 500 * time.Millisecond

// interval is that of a record of counts.
type interval struct {
	start, end time.Time
	// whole says that it is long enough for a rate. total is all calls of the container; 0 if it is not.
	whole bool
	total int64
}

func (b *batch) count(ctx context.Context, c *call, n int64, i *interval) {
	var seen *history
	if b.profile.profiled() {
		seen = b.profile.calls[c.Call]
	}
	if seen != nil {
		seen.last = b.now
	} else if b.profile.learning() {
		seen, _ = b.profile.add(c.Call, b.now)
	}
	told := false
	if c.byCounts {
		told = b.withoutEvent(ctx, c, n, i, seen == nil)
	}
	if seen == nil && b.profile.profiled() {
		// An event that was excused says why the profile still lacks the call.
		if r, ok := b.container.during(c.Call, i.start); !ok || !r.excused {
			b.unheardOf(ctx, c, &witness{at: i.end, calls: n}, told)
		}
	}
	if seen != nil && i.whole && len(c.rates) > 0 {
		b.rate(ctx, c, seen, n, i)
	}
}

// withoutEvent applies the rules that need no event, if there was none in the interval: the ring buffer may have been full.
func (b *batch) withoutEvent(ctx context.Context, c *call, n int64, i *interval, unseen bool) (told bool) {
	if _, ok := b.container.during(c.Call, i.start); ok {
		return false
	}
	for _, r := range c.rules {
		if r.byCounts() && b.judge(ctx, r, c, &witness{at: i.end, calls: n, unseen: unseen && b.profile.profiled()}) == reported {
			told = true
		}
	}
	return told
}

func (b *batch) rate(ctx context.Context, c *call, seen *history, n int64, i *interval) {
	rate, share := float64(n)/i.end.Sub(i.start).Seconds(), float64(n)/float64(max(i.total, 1))
	ceiling := rate
	for _, r := range c.rates {
		if seen.rate.far(rate, share, r.Rate) {
			ceiling = min(ceiling, max(seen.rate.mean*r.Rate.Factor, r.Rate.Minimum))
			if !b.profile.learning() {
				b.judge(ctx, r, c, &witness{at: i.end, calls: n, rate: rate, baseline: seen.rate.mean})
			}
		}
	}
	seen.rate.observe(rate, share, ceiling)
}

// meets counts a condition that cannot be evaluated, and takes it as not met.
func (b *batch) meets(ctx context.Context, r *rule, c *condition, ev *event) bool {
	if c == nil {
		return true
	}
	met, err := ev.meets(ctx, c)
	if err != nil {
		b.conditionFailed(ctx, r, err)
		return false
	}
	return met
}

func (b *batch) conditionFailed(ctx context.Context, r *rule, err error) {
	b.d.counters.conditionError(ctx, r)
	b.d.once(r.Name, "A condition could not be evaluated, and counts as not met; so do others of this rule", zap.String("rule", r.Name), zap.Error(err))
}

func text(a pcommon.Map, key string) string {
	if v, ok := a.Get(key); ok {
		return v.Str()
	}
	return ""
}
