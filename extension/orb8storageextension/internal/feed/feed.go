// Package feed hands live events to subscribers, each with a bounded buffer of its own.
package feed

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
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
	f.publish(len(records), func(i int) (flow.EventKind, *flow.Record, *flow.Lookup) {
		if records[i].Ended {
			return flow.EventEnd, &records[i], nil
		}
		return flow.EventFlow, &records[i], nil
	})
}

// PublishEvents publishes events.
func (f *Feed) PublishEvents(events []flow.Event) {
	f.publish(len(events), func(i int) (flow.EventKind, *flow.Record, *flow.Lookup) {
		return events[i].Kind, &events[i].Record, events[i].Lookup
	})
}

// PublishLookups publishes each lookup as a DNS event.
func (f *Feed) PublishLookups(lookups []flow.Lookup) {
	f.publish(len(lookups), func(i int) (flow.EventKind, *flow.Record, *flow.Lookup) {
		question, lookup := lookups[i].Record(), lookups[i]
		return flow.EventDNS, &question, &lookup
	})
}

func (f *Feed) publish(n int, at func(int) (flow.EventKind, *flow.Record, *flow.Lookup)) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if len(f.subscribers) == 0 {
		return
	}
	for i := range n {
		kind, record, lookup := at(i)
		// One copy, made for the first subscriber that wants it, serves all: the caller may reuse its slice.
		var event *flow.Event
		for s := range f.subscribers {
			if !s.selects(kind, record, lookup) {
				continue
			}
			if event == nil {
				event = &flow.Event{Kind: kind, Record: *record, Lookup: lookup}
			}
			s.offer(event)
		}
	}
}

// Subscribe starts a subscription. The caller must Close it.
func (f *Feed) Subscribe(selection storage.EventSelection) storage.Subscription {
	s := &subscription{feed: f, selection: selection, events: make(chan *flow.Event, bufferSize)}
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
	events    chan *flow.Event
	// dropped is what was lost since Next last returned.
	dropped atomic.Uint64
}

// selects is asked with a lookup for kind DNS alone.
func (s *subscription) selects(kind flow.EventKind, r *flow.Record, l *flow.Lookup) bool {
	kinds := s.selection.Kinds
	return (len(kinds) == 0 || slices.Contains(kinds, kind)) && s.selection.Selection.Match(r) &&
		(l == nil || s.selection.Lookups.Match(l))
}

func (s *subscription) offer(event *flow.Event) {
	select {
	case s.events <- event:
	default:
		s.dropped.Add(1)
		s.feed.drops.Add(1)
	}
}

func (s *subscription) Next(ctx context.Context) (flow.Event, uint64, error) {
	select {
	case event := <-s.events:
		return *event, s.dropped.Swap(0), nil
	case <-ctx.Done():
		return flow.Event{}, 0, ctx.Err()
	}
}

func (s *subscription) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	delete(s.feed.subscribers, s)
}
