package ebpfnetworkreceiver

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// spans makes a span of every TCP connection whose opening it saw, for each of its ends on this node. It adds up the flow
// records of the connections that are open. It is not safe for concurrent use.
type spans struct {
	// isHost tells whether an address is this host's. It is nil where connections are seen at their sockets, once for each end.
	isHost func(netip.Addr) bool
	// idle is the silence after which nothing more is expected of a connection.
	idle time.Duration
	// max bounds open: connections beyond it get no span.
	max  int
	open map[connectionKey]*connection
	// replaced are connections whose addresses were used again before their end was seen.
	replaced []*connection
	// halves are the open connections that make a span of their half, where one may be seen with several addresses.
	halves map[half]*connection
}

// half is an end of a connection, whatever addresses it is seen with.
type half struct {
	clientISN, serverISN uint32
	client               bool
}

// connectionKey is a TCP connection as one of its ends sees it.
type connectionKey struct {
	// cgroup is the socket's, as two network namespaces may use the same addresses. It is 0 where the connection is seen at
	// an interface, where a packet does not always tell whose it is.
	cgroup      uint64
	local, peer netip.AddrPort
}

// connection is what the flow records of both directions told so far.
type connection struct {
	key        connectionKey
	start, end time.Time
	// interfaces saw it, in the order in which they turned up.
	interfaces     []string
	ip4            bool
	identity       flow.Identity
	client         bool
	initiatorKnown bool
	sent, received counts
	health         flow.TCPHealth
	outcome        flow.Outcome
	// id is that of its last record. It is a span's when the handshake was seen.
	id string
	// claimed tells that its half is known, and repeats that the span is made of another view of it.
	claimed, repeats bool
}

// counts are those of one direction.
type counts struct {
	bytes, packets uint64
	seen, ended    bool
}

func newSpans(cfg *Config, isHost func(netip.Addr) bool) *spans {
	return &spans{
		isHost: isHost, idle: cfg.IdleTimeout, max: 2 * int(cfg.FlowTableSize),
		open: map[connectionKey]*connection{}, halves: map[half]*connection{},
	}
}

// add takes a flow record of any transport. Connections that only pass by have no end here, and no span.
func (s *spans) add(r *flow.Record) {
	if r.Transport != flow.TCP || r.Direction == flow.Transit {
		return
	}
	key := connectionKey{local: r.Local().Addr, peer: r.Peer().Addr}
	if s.isHost == nil {
		key.cgroup = r.Local().Identity.CgroupID
	}
	c := s.open[key]
	if c != nil && c.isBefore(r) {
		s.replaced = append(s.replaced, c)
		delete(s.open, key)
		c = nil
	}
	if c == nil {
		opening := r.Initiator != flow.InitiatorUnknown || r.TCPFlags&tcpSYN != 0
		if !opening || len(s.open)+len(s.replaced) >= s.max {
			return
		}
		c = &connection{key: key, start: r.Start, ip4: r.Source.Addr.Addr().Is4()}
		s.open[key] = c
	}
	c.add(r)
	if s.isHost != nil && !c.claimed && c.initiatorKnown && c.health.HasISNs {
		s.claim(c)
	}
}

// claim decides which view of a half makes its span, as both would have the same ids. A host that translates addresses is
// an end of what it forwards, to judge by its own: the view of the endpoint behind it goes first.
func (s *spans) claim(c *connection) {
	c.claimed = true
	other, known := s.halves[c.half()]
	switch {
	case !known:
	case s.isHost(other.key.local.Addr()) && !s.isHost(c.key.local.Addr()):
		other.repeats = true
	default:
		c.repeats = true
		return
	}
	s.halves[c.half()] = c
}

func (c *connection) half() half { return half{c.health.ClientISN, c.health.ServerISN, c.client} }

// isBefore tells whether the record is of a later connection between the same addresses.
func (c *connection) isBefore(r *flow.Record) bool {
	return r.HasISNs && c.health.HasISNs && (r.ClientISN != c.health.ClientISN || r.ServerISN != c.health.ServerISN)
}

func (c *connection) add(r *flow.Record) {
	for _, name := range r.Interfaces {
		if !slices.Contains(c.interfaces, name) {
			c.interfaces = append(c.interfaces, name)
		}
	}
	direction := &c.received
	if r.Direction == flow.Egress {
		direction = &c.sent
	}
	direction.bytes += r.Bytes
	direction.packets += r.Packets
	direction.seen, direction.ended = true, direction.ended || r.Ended

	if r.Start.Before(c.start) {
		c.start = r.Start
	}
	if r.End.After(c.end) {
		c.end = r.End
	}
	if r.Initiator != flow.InitiatorUnknown {
		c.initiatorKnown = true
		c.client = (r.Initiator == flow.InitiatorSource) == (r.Direction == flow.Egress)
	}
	if r.Outcome != flow.OutcomeUnknown {
		c.outcome = r.Outcome
	}
	if id := r.Local().Identity; id.CgroupID != 0 {
		c.identity = id
	}
	c.addHealth(r)
}

func (c *connection) addHealth(r *flow.Record) {
	h := &c.health
	if r.HasISNs || c.id == "" {
		h.ClientISN, h.ServerISN, h.HasISNs = r.ClientISN, r.ServerISN, r.HasISNs
		c.id = r.ConnectionID()
	}
	if r.SRTT != 0 {
		h.SRTT = r.SRTT
	}
	if r.MinRTT != 0 && (h.MinRTT == 0 || r.MinRTT < h.MinRTT) {
		h.MinRTT = r.MinRTT
	}
	if r.Handshake != 0 {
		h.Handshake = r.Handshake
	}
	h.Retransmits += r.Retransmits
	h.ZeroWindows += r.ZeroWindows
}

// over tells whether every direction that was seen has ended.
func (c *connection) over() bool {
	return (c.sent.ended || c.received.ended) &&
		c.sent.ended == c.sent.seen && c.received.ended == c.received.seen
}

// end returns the spans of the connections that are over, and forgets them, as of now.
func (s *spans) end(now time.Time, version string) ptrace.Traces {
	batch := newSpanBatch(version)
	for _, c := range s.replaced {
		s.conclude(c, batch)
	}
	s.replaced = s.replaced[:0]
	for key, c := range s.open {
		// A flow that the tracker has no room for has no end record: its silence is its end.
		if !c.over() && now.Sub(c.end) < s.idle {
			continue
		}
		delete(s.open, key)
		s.conclude(c, batch)
	}
	return batch.traces
}

func (s *spans) conclude(c *connection, b *spanBatch) {
	b.add(c)
	// A view that comes later repeats nothing: before an end is over, all that is on the way to it saw the handshake.
	if c.claimed && !c.repeats {
		delete(s.halves, c.half())
	}
}

// sendSpans hands the spans of the connections that are over down the pipeline.
func (r *networkReceiver) sendSpans(now time.Time) {
	if r.spans == nil {
		return
	}
	td := r.spans.end(now, r.set.BuildInfo.Version)
	n := td.SpanCount()
	if n == 0 {
		return
	}
	ctx := r.obs.StartTracesOp(context.Background())
	err := r.traces.ConsumeTraces(ctx, td)
	r.obs.EndTracesOp(ctx, metadata.Type.String(), n, err)
}
