package ebpfnetworkreceiver

import (
	"time"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/kernelclock"
)

const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
)

// closingTimeout ends a TCP flow that has seen a FIN and nothing since. It is short because the last packets of a
// connection may never be seen at a socket: the kernel answers them from TIME_WAIT, without one.
const closingTimeout = 10 * time.Second

// tracker knows which flows are alive. It turns the counts of an interval into flow records, notices when a flow has
// ended, and adds up the metrics. It is not safe for concurrent use.
type tracker struct {
	idle, interval time.Duration
	// maxFlows bounds flows: those beyond it are reported as well as the others but have no end record.
	maxFlows int
	recorder recorder
	// emit is given every record; it may keep it.
	emit func(flow.Record)

	flows *memory
	// live is how many of them had not ended when the last interval did.
	live    int
	series  map[seriesKey]*series
	closing []closingFlow
}

// closingFlow is a flow of this interval with FIN or RST, or of which only half of the handshake is known, put off until the
// other direction is known too.
type closingFlow struct {
	key     network.NetworkFlowKey
	flow    network.NetworkFlow
	outcome flow.Outcome
}

// seriesKey is the identity of a metric's data points.
type seriesKey struct {
	cgroupID  uint64
	direction uint8
	transport uint8
	ipv4      bool
}

// series adds up since its start. It ends when its resource has been silent for seriesTimeout.
type series struct {
	bytes, packets, connections uint64
	start                       time.Time
	lastNS                      int64
}

// seriesTimeout drops the series of a silent cgroup, so that series do not pile up as containers come and go.
const seriesTimeout = 10 * time.Minute

func newTracker(cfg *Config, r recorder, emit func(flow.Record)) *tracker {
	return &tracker{
		idle:     cfg.IdleTimeout,
		interval: cfg.Interval,
		maxFlows: 2 * int(cfg.FlowTableSize),
		recorder: r,
		emit:     emit,
		flows:    newMemory(),
		series:   map[seriesKey]*series{},
	}
}

// begin opens an interval in which lost packets were lost.
func (t *tracker) begin(c kernelclock.Clock, lost uint64) {
	t.recorder.clock = c
	t.recorder.lost = lost
}

// observe takes what a flow did in the interval.
func (t *tracker) observe(k *network.NetworkFlowKey, f *network.NetworkFlow) {
	st, known := t.flows.get(k)
	if flow.Transport(k.Transport) == flow.TCP {
		st.tcp.learn(f, t.other(k))
	} else if !known {
		f.Connections = 1
	}
	if !known {
		st.firstNS = int64(f.FirstNs)
	}
	st.lastNS = max(st.lastNS, int64(f.LastNs))
	// Who it is may have been seen only when the connection was opened, in an earlier generation.
	if f.CgroupId != 0 {
		st.owner.cgroupID = f.CgroupId
	} else {
		f.CgroupId = st.owner.cgroupID
	}
	if f.Pid != 0 {
		st.owner.pid, st.owner.comm = f.Pid, f.Comm
	} else {
		f.Pid, f.Comm = st.owner.pid, st.owner.comm
	}
	if known || t.flows.len() < t.maxFlows {
		t.flows.put(k, &st)
	}
	t.count(k, f)
	if st.tcp.ended != flow.OutcomeUnknown {
		// A straggler: it belongs to what has been told to have ended, and tells nobody that a connection was opened.
		r := t.recorder.record(k, f, &st.tcp.ended)
		r.Initiator = flow.InitiatorUnknown
		t.emit(r)
		return
	}
	if st.tcp.tcpFlags&(tcpFIN|tcpRST) != 0 || st.tcp.halfOpen() {
		t.closing = append(t.closing, closingFlow{key: *k, flow: *f})
		return
	}
	t.emit(t.recorder.record(k, f, nil))
}

// end closes the interval: it reports the flows that are closing and ends those that are closed or idle.
func (t *tracker) end() {
	for i := range t.closing {
		c := &t.closing[i]
		t.complete(&c.key, &c.flow)
		if c.outcome = t.outcome(&c.key); c.outcome == flow.OutcomeUnknown {
			t.emit(t.recorder.record(&c.key, &c.flow, nil))
		} else {
			t.emit(t.recorder.record(&c.key, &c.flow, &c.outcome))
		}
	}
	for i := range t.closing {
		t.conclude(&t.closing[i].key, t.closing[i].outcome)
	}
	for i := range t.closing {
		if t.closing[i].outcome == flow.OutcomeUnknown {
			continue
		}
		other := reverse(&t.closing[i].key)
		if st, ok := t.flows.get(&other); ok && st.tcp.ended == flow.OutcomeUnknown {
			t.tellEnd(&other, &st, t.closing[i].outcome)
			t.conclude(&other, t.closing[i].outcome)
		}
	}
	t.closing = t.closing[:0]
	t.expire()
}

// complete adds to a flow what the other direction has meanwhile told of the handshake.
func (t *tracker) complete(k *network.NetworkFlowKey, f *network.NetworkFlow) {
	st, known := t.flows.get(k)
	if !known || !st.tcp.halfOpen() {
		return
	}
	st.tcp.learnFrom(f, t.other(k))
	t.flows.put(k, &st)
}

// conclude remembers how a connection ended, for its stragglers.
func (t *tracker) conclude(k *network.NetworkFlowKey, o flow.Outcome) {
	if st, ok := t.flows.get(k); ok {
		st.tcp.ended = o
		t.flows.put(k, &st)
	}
}

// outcome tells how a TCP connection has ended, if it has.
func (t *tracker) outcome(k *network.NetworkFlowKey) flow.Outcome {
	st, _ := t.flows.get(k)
	return outcome(st.tcp, t.other(k))
}

// other returns what is remembered of the other direction of a connection.
func (t *tracker) other(k *network.NetworkFlowKey) tcpState {
	other := reverse(k)
	st, _ := t.flows.get(&other)
	return st.tcp
}

// expire ends flows and series that have been silent for too long.
func (t *tracker) expire() {
	now := kernelclock.Now()
	idle := t.idle
	if t.flows.len() > t.maxFlows/2 {
		idle = t.interval // room for those that are alive
	}
	// First they are told, then forgotten: the two directions ask for each other.
	t.live = 0
	for k, st := range t.flows.all() {
		switch {
		case st.tcp.ended != flow.OutcomeUnknown:
		case st.isSilent(now, idle):
			t.tellEnd(k, st, outcomeOfSilence(st.tcp, t.other(k)))
		default:
			t.live++
		}
	}
	for k, st := range t.flows.all() {
		if st.isSilent(now, idle) {
			t.flows.remove(k)
		}
	}
	for k, s := range t.series {
		if now-s.lastNS >= int64(seriesTimeout) {
			delete(t.series, k)
		}
	}
}

func (st *flowState) isSilent(now int64, idle time.Duration) bool {
	if st.tcp.tcpFlags&(tcpFIN|tcpRST) != 0 {
		idle = min(idle, closingTimeout)
	}
	return now-st.lastNS >= int64(idle)
}

// tellEnd reports the end of a flow that did nothing in this interval.
func (t *tracker) tellEnd(k *network.NetworkFlowKey, st *flowState, o flow.Outcome) {
	f := network.NetworkFlow{
		FirstNs: uint64(st.lastNS), LastNs: uint64(st.lastNS), CgroupId: st.owner.cgroupID, Pid: st.owner.pid, Comm: st.owner.comm,
		TcpFlags: st.tcp.tcpFlags, Seen: st.tcp.seen, ClientIsn: st.tcp.clientISN, ServerIsn: st.tcp.serverISN,
	}
	t.complete(k, &f)
	t.emit(t.recorder.record(k, &f, &o))
}

func (t *tracker) count(k *network.NetworkFlowKey, f *network.NetworkFlow) {
	key := seriesKey{cgroupID: f.CgroupId, direction: k.Direction, transport: k.Transport, ipv4: isIPv4(&k.Saddr)}
	s := t.series[key]
	if s == nil {
		s = &series{start: t.recorder.clock.Wall(int64(f.FirstNs))}
		t.series[key] = s
	}
	s.bytes += f.Bytes
	s.packets += f.Packets
	s.connections += uint64(f.Connections)
	s.lastNS = max(s.lastNS, int64(f.LastNs))
}
