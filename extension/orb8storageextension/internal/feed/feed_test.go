package feed

import (
	"context"
	"net/netip"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

func record(port uint16) flow.Record {
	return flow.Record{
		Direction:   flow.Egress,
		Transport:   flow.TCP,
		Source:      flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:40000")},
		Destination: flow.Endpoint{Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), port)},
	}
}

func next(t *testing.T, s storage.Subscription) (flow.Event, uint64) {
	t.Helper()
	event, dropped, err := s.Next(t.Context())
	require.NoError(t, err)
	require.NotNil(t, event.Flow)
	return *event.Flow, dropped
}

// requireNone fails when an event is waiting: a context that has ended loses against an event that is there only by
// chance, so it must lose never in many tries.
func requireNone(t *testing.T, s storage.Subscription) {
	t.Helper()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		event, _, err := s.Next(ended)
		require.ErrorIs(t, err, context.Canceled, "unexpected event %v", event)
	}
}

func TestKinds(t *testing.T) {
	var f Feed
	s := f.Subscribe(storage.EventSelection{})
	defer s.Close()
	live, ended := record(1), record(2)
	ended.Ended = true
	f.PublishFlows([]flow.Record{live, ended})
	f.PublishEvents([]flow.Event{{Kind: flow.EventSYN, Record: record(3)}})

	for _, want := range []flow.Event{
		{Kind: flow.EventFlow, Record: live},
		{Kind: flow.EventEnd, Record: ended},
		{Kind: flow.EventSYN, Record: record(3)},
	} {
		got, dropped := next(t, s)
		assert.Equal(t, want, got)
		assert.Zero(t, dropped)
	}
	requireNone(t, s)
}

func TestSelection(t *testing.T) {
	var f Feed
	syns := f.Subscribe(storage.EventSelection{Kinds: []storage.EventKind{storage.EventKind(flow.EventSYN)}})
	defer syns.Close()
	https := f.Subscribe(storage.EventSelection{Flows: storage.Selection{Allow: []storage.Filter{{Ports: []uint16{443}}}}})
	defer https.Close()

	f.PublishEvents([]flow.Event{
		{Kind: flow.EventSYN, Record: record(80)},
		{Kind: flow.EventFIN, Record: record(443)},
		{Kind: flow.EventFIN, Record: record(80)},
	})

	event, _ := next(t, syns)
	assert.Equal(t, flow.Event{Kind: flow.EventSYN, Record: record(80)}, event)
	requireNone(t, syns)
	event, _ = next(t, https)
	assert.Equal(t, flow.Event{Kind: flow.EventFIN, Record: record(443)}, event)
	requireNone(t, https)
}

func TestCallerMayReuseItsSlice(t *testing.T) {
	var f Feed
	s := f.Subscribe(storage.EventSelection{})
	defer s.Close()
	records := []flow.Record{record(1)}
	f.PublishFlows(records)
	records[0] = record(2)
	event, _ := next(t, s)
	assert.Equal(t, record(1), event.Record)
}

func TestSlowSubscriberLosesAndIsTold(t *testing.T) {
	var f Feed
	slow := f.Subscribe(storage.EventSelection{})
	defer slow.Close()
	quick := f.Subscribe(storage.EventSelection{})
	defer quick.Close()

	const over = 7
	for range bufferSize + over {
		f.PublishFlows([]flow.Record{record(1)})
		_, dropped := next(t, quick)
		assert.Zero(t, dropped, "one that keeps up loses nothing")
	}
	_, dropped := next(t, slow)
	assert.EqualValues(t, over, dropped, "the first message after the loss tells of it")
	_, dropped = next(t, slow)
	assert.Zero(t, dropped, "a loss is told once")

	subscribers, drops := f.Stats()
	assert.Equal(t, 2, subscribers)
	assert.EqualValues(t, over, drops)
}

func TestClosedSubscriberCountsNoMore(t *testing.T) {
	var f Feed
	s := f.Subscribe(storage.EventSelection{})
	for range bufferSize + 1 {
		f.PublishFlows([]flow.Record{record(1)})
	}
	s.Close()
	s.Close()
	f.PublishFlows([]flow.Record{record(1)})
	subscribers, drops := f.Stats()
	assert.Zero(t, subscribers)
	assert.EqualValues(t, 1, drops, "what a subscriber lost stays counted, what comes later is not its loss")
}

func TestEveryEventIsDeliveredOrCounted(t *testing.T) {
	var f Feed
	const writers, each = 4, 5000
	s := f.Subscribe(storage.EventSelection{})
	defer s.Close()

	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				f.PublishFlows([]flow.Record{record(1)})
			}
		})
	}
	// Subscribers that come and go must disturb neither the writers nor the one that stays.
	wg.Go(func() {
		for range 200 {
			f.Subscribe(storage.EventSelection{}).Close()
		}
	})
	published, stop := context.WithCancel(t.Context())
	go func() {
		wg.Wait()
		stop()
	}()
	var received, dropped uint64
	for {
		_, lost, err := s.Next(published)
		if err != nil {
			break
		}
		received++
		dropped += lost
	}
	// Next may see the end before the last events, or before a loss that no event came after.
	left := s.(*subscription)
	received += uint64(len(left.events))
	dropped += left.dropped.Load()
	assert.EqualValues(t, writers*each, received+dropped)
}

func BenchmarkPublish(b *testing.B) {
	records := make([]flow.Record, 512)
	for i := range records {
		records[i] = record(uint16(i))
	}
	for name, selection := range map[string]storage.EventSelection{
		"match":   {},
		"nomatch": {Flows: storage.Selection{Allow: []storage.Filter{{Namespaces: []string{"shop"}}}}},
	} {
		b.Run(name, func(b *testing.B) {
			var f Feed
			s := f.Subscribe(selection)
			defer s.Close()
			b.ReportAllocs()
			for b.Loop() {
				f.PublishFlows(records)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(records)), "ns/record")
		})
	}
}
