package orb8queryextension

import (
	"context"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

type stream = connect.ServerStreamForClient[orb8v1.StreamEventsResponse]

// open opens a stream and waits for its headers, which say that it is subscribed.
func open(t *testing.T, client orb8v1connect.OrbitServiceClient, req *orb8v1.StreamEventsRequest) *stream {
	t.Helper()
	s, err := client.StreamEvents(t.Context(), connect.NewRequest(req))
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	require.NotEmpty(t, s.ResponseHeader().Get("Content-Type"))
	return s
}

func receive(t *testing.T, s *stream) *orb8v1.StreamEventsResponse {
	t.Helper()
	require.True(t, s.Receive(), "the stream ended: %v", s.Err())
	return s.Msg()
}

func TestStreamInEveryProtocol(t *testing.T) {
	store, component := newStore(t)
	server := serve(t, component, nil)
	for name, client := range map[string]orb8v1connect.OrbitServiceClient{
		"gRPC":     server.client(t),
		"gRPC-Web": orb8v1connect.NewOrbitServiceClient(http1(t), "http://"+server.address, connect.WithGRPCWeb()),
		"Connect":  orb8v1connect.NewOrbitServiceClient(http1(t), "http://"+server.address),
	} {
		t.Run(name, func(t *testing.T) {
			// The headers come before any event: what is written after them arrives.
			s := open(t, client, &orb8v1.StreamEventsRequest{
				Allow: []*orb8v1.FlowFilter{{Ports: []uint32{443}}},
				Kinds: []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_SYN, orb8v1.EventKind_EVENT_KIND_END},
			})
			ended := record(443)
			ended.Ended = true
			require.NoError(t, store.WriteEvents(t.Context(), []flow.Event{
				{Kind: flow.EventSYN, Record: record(80)},
				{Kind: flow.EventFIN, Record: record(443)},
				{Kind: flow.EventSYN, Record: record(443)},
			}))
			require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(443), ended}))
			for _, want := range []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_SYN, orb8v1.EventKind_EVENT_KIND_END} {
				got := receive(t, s)
				assert.Equal(t, want, got.GetKind())
				assert.EqualValues(t, 443, got.GetFlow().GetDestination().GetPort())
				assert.Zero(t, got.GetDropped())
			}
		})
	}
}

func TestStreamOfInvalidFilter(t *testing.T) {
	_, component := newStore(t)
	s, err := serve(t, component, nil).client(t).StreamEvents(t.Context(), connect.NewRequest(&orb8v1.StreamEventsRequest{
		Deny: []*orb8v1.FlowFilter{{Protocols: []string{"quic"}}},
	}))
	require.NoError(t, err)
	defer s.Close()
	assert.False(t, s.Receive())
	assert.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(s.Err()))
	assert.ErrorContains(t, s.Err(), `deny[0]: protocols[0]: protocol "quic"`)
}

func TestMaxStreams(t *testing.T) {
	store, component := newStore(t)
	client := serve(t, component, func(cfg *Config) { cfg.MaxStreams = 2 }).client(t)
	first := open(t, client, &orb8v1.StreamEventsRequest{})
	open(t, client, &orb8v1.StreamEventsRequest{})

	third, err := client.StreamEvents(t.Context(), connect.NewRequest(&orb8v1.StreamEventsRequest{}))
	require.NoError(t, err)
	defer third.Close()
	assert.False(t, third.Receive())
	assert.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(third.Err()))
	assert.ErrorContains(t, third.Err(), "all 2 streams of this collector are in use; close one, or raise max_streams")

	require.NoError(t, first.Close())
	require.Eventually(t, func() bool {
		s, err := client.StreamEvents(t.Context(), connect.NewRequest(&orb8v1.StreamEventsRequest{}))
		require.NoError(t, err)
		defer s.Close()
		s.ResponseHeader()
		require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(1)}))
		return s.Receive()
	}, 10*time.Second, time.Millisecond, "a stream that closes gives its place back")
}

func TestStreamEndsAtShutdown(t *testing.T) {
	_, component := newStore(t)
	server := serve(t, component, nil)
	s := open(t, server.client(t), &orb8v1.StreamEventsRequest{})
	server.stop(t)
	assert.False(t, s.Receive())
	assert.Equal(t, connect.CodeUnavailable, connect.CodeOf(s.Err()), s.Err())
	assert.ErrorContains(t, s.Err(), errStopping.Error())
}

func TestStreamOutlivesTheWriteTimeout(t *testing.T) {
	const timeout = 20 * time.Millisecond
	for name, client := range map[string]*http.Client{"HTTP/1.1": http1(t), "HTTP/2": h2c(t)} {
		t.Run(name, func(t *testing.T) {
			store, component := newStore(t)
			server := serve(t, component, func(cfg *Config) { cfg.HTTP.WriteTimeout, cfg.HTTP.ReadTimeout = timeout, timeout })
			s := open(t, orb8v1connect.NewOrbitServiceClient(client, "http://"+server.address), &orb8v1.StreamEventsRequest{})
			for opened := time.Now(); time.Since(opened) < 10*timeout; {
				require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(1)}))
				receive(t, s)
			}
		})
	}
}

func TestSlowSubscriberIsTold(t *testing.T) {
	store, component := newStore(t)
	server := serve(t, component, nil)
	s := open(t, server.client(t), &orb8v1.StreamEventsRequest{})

	// Nobody reads: events fill the connection, then the subscriber's buffer, then get lost. The writer goes on.
	records := make([]flow.Record, 500)
	for i := range records {
		records[i] = record(uint16(i))
	}
	var written, lost uint64
	for lost == 0 {
		require.NoError(t, store.WriteFlows(t.Context(), records))
		written += uint64(len(records))
		status, err := store.Status(t.Context())
		require.NoError(t, err)
		lost = status.Store.SubscriberDrops
	}
	var received, told uint64
	for received+told < written {
		told += receive(t, s).GetDropped()
		received++
	}
	assert.Equal(t, written, received+told, "every event arrived or was told of")
	assert.Equal(t, lost, told)
}

// A client that stops reading must not hold the shutdown up.
func TestShutdownDoesNotWaitForStuckClient(t *testing.T) {
	server := serve(t, &stub{subscribe: func() storage.Subscription { return endless{} }}, nil)
	open(t, server.client(t), &orb8v1.StreamEventsRequest{})
	patience, cancel := context.WithCancel(context.Background())
	cancel()
	server.stopped = true
	assert.NoError(t, server.extension.Shutdown(patience))
}

// endless is a subscription that always has an event, so that a client that does not read is soon stuck.
type endless struct{}

func (endless) Next(context.Context) (storage.Event, uint64, error) {
	return storage.Event{Flow: &flow.Event{Kind: flow.EventFlow, Record: record(1)}}, 0, nil
}

func (endless) Close() {}
