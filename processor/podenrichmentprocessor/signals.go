package podenrichmentprocessor

import (
	"context"

	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/processor/processorhelper"
)

// logs names resources, and the ends of flows in their records. What waits for its pod goes to the queue, which is nil
// without Kubernetes.
func (e *enricher) logs(ctx context.Context, ld plog.Logs, q *queue[plog.Logs]) (plog.Logs, error) {
	var n tally
	for _, rl := range ld.ResourceLogs().All() {
		if !e.resource(rl.Resource().Attributes(), &n) {
			continue
		}
		for _, sl := range rl.ScopeLogs().All() {
			for _, lr := range sl.LogRecords().All() {
				e.identify(lr.Attributes(), &e.source, &n)
				e.identify(lr.Attributes(), &e.destination, &n)
			}
		}
	}
	e.report(ctx, &n)
	if q == nil {
		return ld, nil
	}
	if e.cfg.Gateway {
		e.pods.attempt(false).observeAll(ld)
		return ld, q.await(ctx, ld, ld.LogRecordCount())
	}
	if held := e.pods.logs(ld); held.ResourceLogs().Len() > 0 && !q.hold(held, held.LogRecordCount()) {
		held.ResourceLogs().MoveAndAppendTo(ld.ResourceLogs())
	}
	if ld.ResourceLogs().Len() == 0 {
		return ld, processorhelper.ErrSkipProcessingData
	}
	return ld, nil
}

func (e *enricher) metrics(ctx context.Context, md pmetric.Metrics, q *queue[pmetric.Metrics]) (pmetric.Metrics, error) {
	var n tally
	for _, rm := range md.ResourceMetrics().All() {
		e.resource(rm.Resource().Attributes(), &n)
	}
	e.report(ctx, &n)
	if q == nil {
		return md, nil
	}
	t, held := e.pods.attempt(false), pmetric.NewMetrics()
	md.ResourceMetrics().RemoveIf(func(rm pmetric.ResourceMetrics) bool {
		waits := !t.resource(rm.Resource().Attributes())
		if waits {
			rm.MoveTo(held.ResourceMetrics().AppendEmpty())
		}
		return waits
	})
	e.pods.report(t)
	if held.ResourceMetrics().Len() > 0 && !q.hold(held, held.DataPointCount()) {
		held.ResourceMetrics().MoveAndAppendTo(md.ResourceMetrics())
	}
	if md.ResourceMetrics().Len() == 0 {
		return md, processorhelper.ErrSkipProcessingData
	}
	return md, nil
}

func (e *enricher) traces(ctx context.Context, td ptrace.Traces, q *queue[ptrace.Traces]) (ptrace.Traces, error) {
	var n tally
	for _, rs := range td.ResourceSpans().All() {
		attrs := rs.Resource().Attributes()
		if e.resource(attrs, &n) {
			nameService(attrs)
		}
	}
	e.report(ctx, &n)
	if q == nil {
		return td, nil
	}
	t, held := e.pods.attempt(false), ptrace.NewTraces()
	td.ResourceSpans().RemoveIf(func(rs ptrace.ResourceSpans) bool {
		waits := !t.resource(rs.Resource().Attributes())
		nameService(rs.Resource().Attributes())
		if waits {
			rs.MoveTo(held.ResourceSpans().AppendEmpty())
		}
		return waits
	})
	e.pods.report(t)
	if held.ResourceSpans().Len() > 0 && !q.hold(held, held.SpanCount()) {
		held.ResourceSpans().MoveAndAppendTo(td.ResourceSpans())
	}
	if td.ResourceSpans().Len() == 0 {
		return td, processorhelper.ErrSkipProcessingData
	}
	return td, nil
}

// logs names what it can and returns what is worth waiting for, which is no longer in ld then.
func (p *pods) logs(ld plog.Logs) plog.Logs {
	t, held := p.attempt(false), plog.NewLogs()
	t.observeAll(ld)
	ld.ResourceLogs().RemoveIf(func(rl plog.ResourceLogs) bool {
		if !t.resource(rl.Resource().Attributes()) {
			rl.MoveTo(held.ResourceLogs().AppendEmpty())
			return true
		}
		t.label(rl.Resource().Attributes(), t.local)
		var waiting plog.ResourceLogs
		some := false
		rl.ScopeLogs().RemoveIf(func(sl plog.ScopeLogs) bool {
			var of plog.ScopeLogs
			first := true
			sl.LogRecords().RemoveIf(func(lr plog.LogRecord) bool {
				if t.record(rl.Resource().Attributes(), lr) {
					return false
				}
				if !some {
					some = true
					waiting = held.ResourceLogs().AppendEmpty()
					rl.Resource().CopyTo(waiting.Resource())
					waiting.SetSchemaUrl(rl.SchemaUrl())
				}
				if first {
					first = false
					of = waiting.ScopeLogs().AppendEmpty()
					sl.Scope().CopyTo(of.Scope())
					of.SetSchemaUrl(sl.SchemaUrl())
				}
				lr.MoveTo(of.LogRecords().AppendEmpty())
				return true
			})
			return sl.LogRecords().Len() == 0 && !first
		})
		return rl.ScopeLogs().Len() == 0 && some
	})
	p.report(t)
	return held
}

// tryLogs, tryMetrics and tryTraces are tries at what was held.
func (p *pods) tryLogs(ld plog.Logs, final bool) bool {
	t, done := p.attempt(final), true
	for _, rl := range ld.ResourceLogs().All() {
		attrs := rl.Resource().Attributes()
		done = t.resource(attrs) && done
		t.label(attrs, t.local)
		for _, sl := range rl.ScopeLogs().All() {
			for _, lr := range sl.LogRecords().All() {
				done = t.record(attrs, lr) && done
			}
		}
	}
	if done {
		p.report(t)
	}
	return done
}

func (p *pods) tryMetrics(md pmetric.Metrics, final bool) bool {
	t, done := p.attempt(final), true
	for _, rm := range md.ResourceMetrics().All() {
		done = t.resource(rm.Resource().Attributes()) && done
	}
	if done {
		p.report(t)
	}
	return done
}

func (p *pods) tryTraces(td ptrace.Traces, final bool) bool {
	t, done := p.attempt(final), true
	for _, rs := range td.ResourceSpans().All() {
		attrs := rs.Resource().Attributes()
		done = t.resource(attrs) && done
		nameService(attrs)
	}
	if done {
		p.report(t)
	}
	return done
}

// logsQueue, metricsQueue and tracesQueue are what a pipeline holds. They are nil without Kubernetes.
func (p *pods) logsQueue(next consumer.Logs) *queue[plog.Logs] {
	if p == nil {
		return nil
	}
	merge := func(from, to plog.Logs) { from.ResourceLogs().MoveAndAppendTo(to.ResourceLogs()) }
	return newQueue(p.waiting, p.tryLogs, merge, plog.NewLogs, next.ConsumeLogs)
}

func (p *pods) metricsQueue(next consumer.Metrics) *queue[pmetric.Metrics] {
	if p == nil {
		return nil
	}
	merge := func(from, to pmetric.Metrics) { from.ResourceMetrics().MoveAndAppendTo(to.ResourceMetrics()) }
	return newQueue(p.waiting, p.tryMetrics, merge, pmetric.NewMetrics, next.ConsumeMetrics)
}

func (p *pods) tracesQueue(next consumer.Traces) *queue[ptrace.Traces] {
	if p == nil {
		return nil
	}
	merge := func(from, to ptrace.Traces) { from.ResourceSpans().MoveAndAppendTo(to.ResourceSpans()) }
	return newQueue(p.waiting, p.tryTraces, merge, ptrace.NewTraces, next.ConsumeTraces)
}
