package syscallanomalyprocessor

import (
	"context"

	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/ottl/contexts/ottllog"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/syscalls"
)

// event is a record of an Event, with what conditions may ask about. Most events meet no rule, so it is read when it is asked for.
type event struct {
	resource plog.ResourceLogs
	scope    plog.ScopeLogs
	record   plog.LogRecord

	// tc is nil until a condition asks.
	tc *ottllog.TransformContext
	// whole is nil until it is read, and err what went wrong then.
	whole *syscalls.Event
	err   error
}

func (e *event) meets(ctx context.Context, c *condition) (bool, error) {
	if e.tc == nil {
		e.tc = ottllog.NewTransformContextPtr(e.resource, e.scope, e.record)
	}
	return c.Eval(ctx, e.tc)
}

func (e *event) read() *syscalls.Event {
	if e.whole == nil {
		var whole syscalls.Event
		whole, e.err = syscalls.EventFrom(e.resource.Resource(), e.record)
		e.whole = &whole
	}
	return e.whole
}

func (e *event) close() {
	if e.tc != nil {
		e.tc.Close()
		e.tc = nil
	}
}
