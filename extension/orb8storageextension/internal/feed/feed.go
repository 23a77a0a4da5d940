// Package feed hands live events to subscribers, each with a bounded buffer of its own.
package feed

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// bufferSize is how many events a subscriber may lag behind: about a second of a busy node.
const bufferSize = 1024

// Feed hands every published event to the subscribers that selected it. The zero value is ready.
type Feed struct {
	mu          sync.RWMutex
	subscribers map[*subscription]struct{}
	drops       atomic.Uint64
}

// PublishFlows publishes each record as a FLOW event, or an END event when the flow has ended.
func (f *Feed) PublishFlows(records []flow.Record) {
	var event flow.Event
	publish(f, records, func(r *flow.Record) storage.Event {
		event = flow.Event{Kind: flow.EventFlow, Record: *r}
		if r.Ended {
			event.Kind = flow.EventEnd
		}
		return storage.Event{Flow: &event}
	})
}

// PublishEvents publishes events.
func (f *Feed) PublishEvents(events []flow.Event) {
	publish(f, events, func(e *flow.Event) storage.Event { return storage.Event{Flow: e} })
}

// PublishLookups publishes each lookup as a DNS event.
func (f *Feed) PublishLookups(lookups []flow.Lookup) {
	var event flow.Event
	publish(f, lookups, func(l *flow.Lookup) storage.Event {
		event = flow.Event{Kind: flow.EventDNS, Record: l.Record(), Lookup: l}
		return storage.Event{Flow: &event}
	})
}

// PublishSyscalls publishes system calls.
func (f *Feed) PublishSyscalls(events []syscalls.Event) {
	publish(f, events, func(e *syscalls.Event) storage.Event { return storage.Event{Syscall: e} })
}

// PublishAnomalies publishes anomalies.
func (f *Feed) PublishAnomalies(anomalies []syscalls.Anomaly) {
	publish(f, anomalies, func(n *syscalls.Anomaly) storage.Event { return storage.Event{Anomaly: n} })
}

// publish offers each item, as what event makes of it, to the subscribers that select it. What an event points to may be used
// again for the next one.
func publish[T any](f *Feed, items []T, event func(*T) storage.Event) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if len(f.subscribers) == 0 {
		return
	}
	for i := range items {
		e, copied := event(&items[i]), false
		for s := range f.subscribers {
			if !s.selection.Match(e) {
				continue
			}
			// One copy, made for the first subscriber that wants it, serves all: the caller may reuse its slice.
			if !copied {
				e, copied = clone(e), true
			}
			s.offer(e)
		}
	}
}

func clone(e storage.Event) storage.Event {
	switch {
	case e.Syscall != nil:
		return storage.Event{Syscall: new(*e.Syscall)}
	case e.Anomaly != nil:
		return storage.Event{Anomaly: new(*e.Anomaly)}
	}
	event := *e.Flow
	if event.Lookup != nil {
		event.Lookup = new(*event.Lookup)
	}
	return storage.Event{Flow: &event}
}

// Subscribe starts a subscription. The caller must Close it.
func (f *Feed) Subscribe(selection storage.EventSelection) storage.Subscription {
	s := &subscription{feed: f, selection: selection, events: make(chan storage.Event, bufferSize)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subscribers == nil {
		f.subscribers = map[*subscription]struct{}{}
	}
	f.subscribers[s] = struct{}{}
	return s
}

// Stats returns the number of subscribers, and how many events all subscribers so far have lost.
func (f *Feed) Stats() (subscribers int, drops uint64) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return len(f.subscribers), f.drops.Load()
}

type subscription struct {
	feed      *Feed
	selection storage.EventSelection
	events    chan storage.Event
	// dropped is what was lost since Next last returned.
	dropped atomic.Uint64
}

func (s *subscription) offer(event storage.Event) {
	select {
	case s.events <- event:
	default:
		s.dropped.Add(1)
		s.feed.drops.Add(1)
	}
}

func (s *subscription) Next(ctx context.Context) (storage.Event, uint64, error) {
	select {
	case event := <-s.events:
		return event, s.dropped.Swap(0), nil
	case <-ctx.Done():
		return storage.Event{}, 0, ctx.Err()
	}
}

func (s *subscription) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	delete(s.feed.subscribers, s)
}
