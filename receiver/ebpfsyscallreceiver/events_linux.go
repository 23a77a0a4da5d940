package ebpfsyscallreceiver

import (
	"bytes"
	"fmt"

	"go.opentelemetry.io/collector/component/componentstatus"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/kernelclock"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/arguments"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/engine"
)

// recorder turns what the kernel saw into events. It is of the goroutine of readEvents alone.
type recorder struct {
	decoder *arguments.Decoder
	clock   kernelclock.Follower
}

func (r *syscallReceiver) readEvents() {
	defer r.wg.Done()
	rec := recorder{decoder: r.decoder}
	if err := r.engine.ReadEvents(func(e *engine.Event) { r.addEvent(rec.event(e)) }); err != nil {
		componentstatus.ReportStatus(r.host, componentstatus.NewRecoverableErrorEvent(fmt.Errorf("%s: %w", r.set.ID, err)))
	}
}

func (c *recorder) event(e *engine.Event) syscalls.Event {
	memory := arguments.Memory{
		Bytes: e.Text, OK: e.State == engine.TextWhole || e.State == engine.TextCut, Cut: e.State == engine.TextCut,
	}
	return syscalls.Event{
		Time:      c.clock.At(int64(e.Time)).Wall(int64(e.Time)),
		Identity:  flow.Identity{CgroupID: e.CgroupID, PID: e.PID, Process: string(bytes.ToValidUTF8(e.Comm, []byte("\ufffd")))},
		TID:       e.TID,
		Call:      e.Call,
		Arguments: c.decoder.Decode(e.Call, &e.Args, memory),
		Sampling:  e.Sampling,
	}
}

func (r *syscallReceiver) addEvent(e syscalls.Event) {
	r.mu.Lock()
	r.events.addEvent(&e)
	full := r.events.full()
	r.mu.Unlock()
	if full {
		r.flushEvents()
	}
}

func (r *syscallReceiver) flushEvents() {
	r.mu.Lock()
	b := r.events
	if b.Records == 0 {
		r.mu.Unlock()
		return
	}
	r.events = newBatch(r.set.BuildInfo.Version)
	r.mu.Unlock()
	r.consume(b)
}
