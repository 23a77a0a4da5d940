// Package dns makes lookups of DNS packets: it matches queries and responses, and remembers by which name an address was
// looked up.
package dns

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/orb8/orb8/internal/flow"
)

const (
	// maxPending bounds the queries that wait for a response, maxStreams the TCP streams that are followed.
	maxPending = 8192
	maxStreams = 512
)

// Packet is a packet from or to a port of DNS, seen at an endpoint.
type Packet struct {
	// Time is CLOCK_MONOTONIC in nanoseconds.
	Time                int64
	Direction           flow.Direction
	Transport           flow.Transport
	Source, Destination netip.AddrPort
	// Scope tells sockets of the same addresses apart: their cgroup; 0 where packets are seen at interfaces.
	Scope uint64
	// Interface is where the packet was seen; empty where at a socket.
	Interface string
	// Asker is who names are remembered for if this is a query of the local endpoint, which Local is the identity of.
	Asker Asker
	Local flow.Identity
	// Seq is the sequence number of TCP.
	Seq uint32
	// Length is that of the transport's payload, of which Payload is the beginning. Payload is only read until Observe
	// returns.
	Length  int
	Payload []byte
}

// Counts are what could not be made a lookup of, since the start.
type Counts struct {
	// Malformed messages are no DNS, or broken.
	Malformed uint64
	// Unmatched responses answer no query that was seen and is still waited for.
	Unmatched uint64
	// Overflow is queries and streams that were given up because there were too many at once, or too much of a stream was
	// missing.
	Overflow uint64
}

// Watcher turns packets into lookups. It is safe for concurrent use.
type Watcher struct {
	timeout int64
	wall    func(ns int64) time.Time

	mu      sync.Mutex
	pending *simplelru.LRU[exchange, *query]
	streams *simplelru.LRU[direction, *timedStream]
	names   names
	counts  Counts
	// done are the lookups of the call that is running.
	done []flow.Lookup
}

// direction is one direction of the packets between two sockets, as one of them or an interface sees it.
type direction struct {
	source, destination netip.AddrPort
	transport           flow.Transport
	seen                flow.Direction
	scope               uint64
}

// exchange is where a query waits for its response.
type exchange struct {
	query direction
	id    uint16
}

// query is a question that waits for its response.
type query struct {
	question question
	lookup   flow.Lookup // without a response
	asker    Asker
	first    int64
}

type timedStream struct {
	stream
	last int64
}

// New returns a watcher that gives queries up after timeout. Wall turns CLOCK_MONOTONIC into wall time; it is
// called by one goroutine at a time.
func New(timeout time.Duration, wall func(ns int64) time.Time) *Watcher {
	// They fail only for a size that is not positive.
	pending, _ := simplelru.NewLRU[exchange, *query](maxPending, nil)
	streams, _ := simplelru.NewLRU[direction, *timedStream](maxStreams, nil)
	return &Watcher{timeout: int64(timeout), wall: wall, pending: pending, streams: streams, names: newNames()}
}

// Observe takes a packet and returns the lookups that it ends.
func (w *Watcher) Observe(p *Packet) []flow.Lookup {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = nil
	if p.Transport == flow.TCP {
		w.segment(p)
	} else {
		w.message(p, p.Payload, p.Length == len(p.Payload))
	}
	return w.done
}

// Expire gives up what has waited for too long, and returns the lookups that this ends.
func (w *Watcher) Expire(now int64) []flow.Lookup {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = nil
	// The oldest are those that were put in first: only that moves an entry.
	for {
		at, q, ok := w.pending.GetOldest()
		if !ok || now-q.first < w.timeout {
			break
		}
		w.pending.Remove(at)
		w.giveUp(q, now)
	}
	for {
		at, s, ok := w.streams.GetOldest()
		if !ok || now-s.last < w.timeout {
			break
		}
		w.streams.Remove(at)
	}
	return w.done
}

// Name returns the name by which the asker had looked the address up, last before that instant (CLOCK_MONOTONIC) and not
// too long before. It is empty where it had not.
func (w *Watcher) Name(asker Asker, addr netip.Addr, at int64) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names.lookup(asker, addr, at)
}

// Counts returns what could not be made a lookup of.
func (w *Watcher) Counts() Counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts
}

func (p *Packet) flow() direction {
	return direction{p.Source, p.Destination, p.Transport, p.Direction, p.Scope}
}

// reverse returns the other direction, as the same place sees it.
func (d direction) reverse() direction {
	d.source, d.destination = d.destination, d.source
	d.seen = flow.Ingress + flow.Egress - d.seen
	return d
}

// segment takes a segment of a TCP stream.
func (w *Watcher) segment(p *Packet) {
	at := p.flow()
	s, known := w.streams.Get(at)
	if !known {
		s = &timedStream{}
		if w.streams.Add(at, s) {
			w.counts.Overflow++
		}
	}
	s.last = p.Time
	intact := s.add(segment{p.Seq, p.Length, p.Payload}, func(message []byte, whole bool) { w.message(p, message, whole) })
	if !intact {
		w.counts.Overflow++
		w.streams.Remove(at)
	}
}

func (w *Watcher) message(p *Packet, b []byte, whole bool) {
	m, err := parse(b, whole)
	switch {
	case errors.Is(err, errNoLookup):
	case err != nil:
		w.counts.Malformed++
	case m.response:
		w.answer(p, &m)
	default:
		w.ask(p, &m)
	}
}

func (w *Watcher) ask(p *Packet, m *message) {
	at := exchange{p.flow(), m.id}
	if q, waiting := w.pending.Peek(at); waiting {
		if q.question == m.question {
			q.lookup.Queries++
			return
		}
		// The client has taken the id for another question: it waits for this one no longer.
		w.pending.Remove(at)
		w.giveUp(q, p.Time)
	}
	q := &query{
		question: m.question, asker: p.Asker, first: p.Time,
		lookup: flow.Lookup{
			Time: w.wall(p.Time), Direction: p.Direction, Transport: p.Transport, Interface: p.Interface,
			Client: flow.Endpoint{Addr: p.Source}, Server: flow.Endpoint{Addr: p.Destination},
			Name: m.name, Type: typeName(m.question.kind), Queries: 1,
		},
	}
	q.lookup.Local().Identity = p.Local
	if w.pending.Add(at, q) {
		w.counts.Overflow++
	}
}

func (w *Watcher) answer(p *Packet, m *message) {
	at := exchange{p.flow().reverse(), m.id}
	q, waiting := w.pending.Peek(at)
	if !waiting || m.asked && m.question != q.question {
		w.counts.Unmatched++
		return
	}
	w.pending.Remove(at)
	l := q.lookup
	l.RCode = m.rcode
	l.Latency = time.Duration(p.Time - q.first)
	l.Answers, l.Truncated, l.Incomplete = m.answers, m.truncated, m.incomplete
	if l.Direction == flow.Egress {
		w.names.learn(q.asker, q.question.name, l.Answers, p.Time)
	}
	w.done = append(w.done, l)
}

func (w *Watcher) giveUp(q *query, now int64) {
	l := q.lookup
	l.RCode = flow.RCodeTimeout
	l.Latency = time.Duration(now - q.first)
	w.done = append(w.done, l)
}
