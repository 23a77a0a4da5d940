package ebpfnetworkreceiver

import (
	"cmp"
	"fmt"

	"go.opentelemetry.io/collector/component/componentstatus"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/kernelclock"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/engine"
)

// events takes what comes through the ring buffer, one by one. It is of the goroutine of readEvents alone.
type events struct {
	receiver *networkReceiver
	recorder recorder
	echoes   *echoes // nil in cgroup mode, where no packet is seen twice at one endpoint
	clock    kernelclock.Follower
}

func (r *networkReceiver) newEvents() *events {
	ev := &events{receiver: r}
	if r.devices != nil {
		ev.recorder.interfaces, ev.echoes = r.interfaceOf, newEchoes()
	}
	return ev
}

func (r *networkReceiver) readEvents() {
	defer r.wg.Done()
	if err := r.engine.ReadEvents(r.newEvents().observe); err != nil {
		componentstatus.ReportStatus(r.host, componentstatus.NewRecoverableErrorEvent(fmt.Errorf("%s: %w", r.set.ID, err)))
	}
}

func (ev *events) observe(e *network.NetworkEvent, payload engine.Payload) {
	r := ev.receiver
	switch kind := network.NetworkEventKind(e.Kind); kind {
	case network.NetworkEventKindEVENT_PRESSURE:
		select {
		case r.pressure <- struct{}{}:
		default: // a flip is already asked for
		}
	case network.NetworkEventKindEVENT_OVERFLOW:
		r.addOverflow(e)
	case network.NetworkEventKindEVENT_DNS:
		if ev.isNews(e) {
			r.lookups.observe(r.dnsPacket(e, payload), r.addLookup)
		}
	case network.NetworkEventKindEVENT_PACKET:
		ev.report(e, flow.EventPacket)
	default: // the others have the same numbers
		ev.report(e, flow.EventKind(kind))
	}
}

func (ev *events) report(e *network.NetworkEvent, kind flow.EventKind) {
	key := e.Key
	if r := ev.receiver; r.devices != nil {
		key, _, _ = place(r.devices.Devices(), &e.Key)
	}
	if !ev.isNews(e) || kind == flow.EventNew && !ev.receiver.newcomers.isNew(&key, e) {
		return
	}
	ev.recorder.clock = ev.clock.At(int64(e.Flow.FirstNs))
	ev.receiver.addPacket(&ev.recorder, e, kind)
}

func (ev *events) isNews(e *network.NetworkEvent) bool {
	return ev.echoes == nil || ev.echoes.isNews(ev.receiver.devices.Devices(), e)
}

func (r *networkReceiver) addOverflow(e *network.NetworkEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.overflow.add(&e.Key, &e.Flow, int(r.cfg.FlowTableSize)) {
		r.lostPackets += e.Flow.Packets
		r.lostBytes += e.Flow.Bytes
	}
}

// merge adds what b counted to a, which is zero or an earlier part of the same flow.
func merge(a, b network.NetworkFlow) network.NetworkFlow {
	if a.Packets == 0 {
		return b
	}
	if b.ClientIsn == a.ClientIsn && b.Connections == 1 {
		b.Connections = 0
	}
	a.Bytes += b.Bytes
	a.Packets += b.Packets
	a.Connections += b.Connections
	a.TcpFlags |= b.TcpFlags
	if b.Seen&seenSYN != 0 && (a.Seen&seenSYN == 0 || b.Seen&seenSYNACK != 0 && a.Seen&seenSYNACK == 0) {
		a.ClientIsn, a.ServerIsn = b.ClientIsn, b.ServerIsn
	}
	a.Seen |= b.Seen
	a.HandshakeUs = cmp.Or(a.HandshakeUs, b.HandshakeUs)
	if b.SrttUs != 0 && (a.SrttUs == 0 || b.LastNs > a.LastNs) {
		a.SrttUs, a.MinRttUs = b.SrttUs, b.MinRttUs
	}
	a.Retransmits = max(a.Retransmits, b.Retransmits) // each is a socket's total
	a.ZeroWindows += b.ZeroWindows
	a.FirstNs = min(a.FirstNs, b.FirstNs)
	a.LastNs = max(a.LastNs, b.LastNs)
	return a
}

// addNew adds the event of a new flow that a drain has kept waiting. It is of the goroutine of run.
func (r *networkReceiver) addNew(e *network.NetworkEvent) {
	rec := recorder{clock: r.tracker.recorder.clock}
	if r.devices != nil {
		rec.interfaces = r.interfaceOf
	}
	r.addPacket(&rec, e, flow.EventNew)
}

// addPacket adds the event of a packet.
func (r *networkReceiver) addPacket(rec *recorder, e *network.NetworkEvent, kind flow.EventKind) {
	event := flow.Event{Kind: kind, Record: rec.record(&e.Key, &e.Flow, nil)}
	if r.namer != nil && (kind == flow.EventNew || kind == flow.EventSYN) {
		event.Peer().Name = r.namer.lookup(&event.Record, rec.clock)
	}
	r.addEvent(&event)
}

func (r *networkReceiver) addEvent(e *flow.Event) {
	r.add(func(b *batch) { b.addEvent(e) })
}

func (r *networkReceiver) addLookup(l *flow.Lookup) {
	r.add(func(b *batch) { b.addLookup(l) })
}

// add puts a log record into the batch of events.
func (r *networkReceiver) add(to func(*batch)) {
	r.mu.Lock()
	to(r.events)
	full := r.events.Records >= maxBatch
	r.mu.Unlock()
	if full {
		r.flushEvents()
	}
}

func (r *networkReceiver) flushEvents() {
	r.mu.Lock()
	full := r.events
	if full.Records == 0 {
		r.mu.Unlock()
		return
	}
	r.events = newBatch(r.set.BuildInfo.Version)
	r.mu.Unlock()
	r.consume(full)
}
