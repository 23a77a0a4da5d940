package orb8queryextension

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/flow"
)

// dial connects as clients of grpc-go do, which is another implementation than the server's.
func dial(t *testing.T, s *server, how credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(how))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestGRPCGoClient(t *testing.T) {
	store, component := newStore(t)
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(443), record(80)}))
	conn := dial(t, serve(t, component, nil), insecure.NewCredentials())

	var reply orb8v1.QueryFlowsResponse
	require.NoError(t, conn.Invoke(t.Context(), orb8v1connect.OrbitServiceQueryFlowsProcedure,
		&orb8v1.QueryFlowsRequest{Allow: []*orb8v1.FlowFilter{{Destination: &orb8v1.EndpointFilter{Ports: []uint32{443}}}}}, &reply))
	assert.Len(t, reply.GetFlows(), 1)
	err := conn.Invoke(t.Context(), orb8v1connect.OrbitServiceQueryFlowsProcedure,
		&orb8v1.QueryFlowsRequest{Allow: []*orb8v1.FlowFilter{{Pods: []string{""}}}}, &reply)
	assert.Equal(t, codes.InvalidArgument, status.Code(err))
	assert.Equal(t, "allow[0]: pods[0]: must not be empty", status.Convert(err).Message())

	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, orb8v1connect.OrbitServiceStreamEventsProcedure)
	require.NoError(t, err)
	require.NoError(t, stream.SendMsg(&orb8v1.StreamEventsRequest{}))
	require.NoError(t, stream.CloseSend())
	_, err = stream.Header()
	require.NoError(t, err)
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(53)}))
	var event orb8v1.StreamEventsResponse
	require.NoError(t, stream.RecvMsg(&event))
	assert.EqualValues(t, 53, event.GetFlow().GetDestination().GetPort())
}

func TestHealth(t *testing.T) {
	_, component := newStore(t)
	well := healthv1.NewHealthClient(dial(t, serve(t, component, nil), insecure.NewCredentials()))
	broken := &stub{status: func(context.Context) error { return assert.AnError }}
	ill := healthv1.NewHealthClient(dial(t, serve(t, broken, nil), insecure.NewCredentials()))
	for _, service := range []string{"", orb8v1connect.OrbitServiceName} {
		resp, err := well.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		require.NoError(t, err)
		assert.Equal(t, healthv1.HealthCheckResponse_SERVING, resp.GetStatus())
		resp, err = ill.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		require.NoError(t, err)
		assert.Equal(t, healthv1.HealthCheckResponse_NOT_SERVING, resp.GetStatus())
	}
	_, err := well.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "x"})
	assert.Equal(t, codes.NotFound, status.Code(err))
	assert.ErrorContains(t, err, `service "x" is not served here; ask for orb8.v1.OrbitService`)
}

func TestMutualTLS(t *testing.T) {
	store, component := newStore(t)
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(443)}))
	certFile, keyFile, pool := certificate(t)
	theirCert, theirKey, _ := certificate(t)
	s := serve(t, component, func(cfg *Config) {
		tls := configtls.NewDefaultServerConfig()
		tls.CertFile, tls.KeyFile, tls.ClientCAFile = certFile, keyFile, theirCert
		cfg.HTTP.TLS = configoptional.Some(tls)
	})
	pair, err := tls.LoadX509KeyPair(theirCert, theirKey)
	require.NoError(t, err)
	strangerCert, strangerKey, _ := certificate(t)
	stranger, err := tls.LoadX509KeyPair(strangerCert, strangerKey)
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		certificates []tls.Certificate
		want         codes.Code
	}{
		"known":    {[]tls.Certificate{pair}, codes.OK},
		"unknown":  {[]tls.Certificate{stranger}, codes.Unavailable},
		"stranger": {nil, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, s, credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: tt.certificates}))
			var reply orb8v1.QueryFlowsResponse
			err := conn.Invoke(t.Context(), orb8v1connect.OrbitServiceQueryFlowsProcedure, &orb8v1.QueryFlowsRequest{}, &reply)
			assert.Equal(t, tt.want, status.Code(err), err)
		})
	}
}

func TestQueriesWaitInTurn(t *testing.T) {
	entered, release := make(chan struct{}, 10), make(chan struct{})
	store := &stub{query: func(ctx context.Context) error {
		entered <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, status: func(context.Context) error { return nil }}
	cfg := createDefaultConfig().(*Config)
	cfg.MaxQueries, cfg.MaxQueuedQueries, cfg.QueryTimeout = 2, 2, patience
	a := newAdmission(cfg)
	handler := http.NewServeMux()
	handler.Handle(orb8v1connect.NewOrbitServiceHandler(&service{store: store, limits: limits{rows: 1}, queryTimeout: patience}))
	server := httptest.NewServer(a.wrap(handler))
	defer server.Close()
	client := orb8v1connect.NewOrbitServiceClient(server.Client(), server.URL)
	ask := func() <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := client.QueryFlows(t.Context(), connect.NewRequest(&orb8v1.QueryFlowsRequest{}))
			done <- err
		}()
		return done
	}
	first := ask()
	<-entered
	second := ask()
	require.Eventually(t, func() bool {
		a.queries.mu.Lock()
		defer a.queries.mu.Unlock()
		return len(a.queries.waiting) == 1
	}, patience, tick)
	for name, options := range map[string][]connect.ClientOption{"Connect": nil, "gRPC-Web": {connect.WithGRPCWeb()}} {
		_, err := orb8v1connect.NewOrbitServiceClient(server.Client(), server.URL, options...).
			QueryAnomalies(t.Context(), connect.NewRequest(&orb8v1.QueryAnomaliesRequest{}))
		assert.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err), name)
		assert.ErrorContains(t, err, "this client has 1 queries, and 1 that wait: half of what may be; ask again later, or raise max_queries or max_queued_queries")
	}
	_, err := client.GetStatus(t.Context(), connect.NewRequest(&orb8v1.GetStatusRequest{}))
	require.NoError(t, err, "the status is always told")
	assert.Empty(t, entered, "it waits")
	close(release)
	assert.NoError(t, <-first)
	assert.NoError(t, <-second)
}

func TestQueryThatWaitsTooLong(t *testing.T) {
	s := serve(t, &stub{query: untilDone}, func(c *Config) { c.MaxQueries, c.MaxQueuedQueries, c.QueryTimeout = 1, 4, 100*time.Millisecond })
	var errs [2]error
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = s.client(t).QueryFlows(t.Context(), connect.NewRequest(&orb8v1.QueryFlowsRequest{}))
		})
	}
	wg.Wait()
	for _, err := range errs {
		assert.Equal(t, connect.CodeDeadlineExceeded, connect.CodeOf(err), err)
	}
}

func TestMaxStreamsPerClient(t *testing.T) {
	_, component := newStore(t)
	client := serve(t, component, func(cfg *Config) { cfg.MaxStreams, cfg.MaxStreamsPerClient = 3, 2 }).client(t)
	open(t, client, &orb8v1.StreamEventsRequest{})
	open(t, client, &orb8v1.StreamEventsRequest{})
	third, err := client.StreamEvents(t.Context(), connect.NewRequest(&orb8v1.StreamEventsRequest{}))
	require.NoError(t, err)
	defer third.Close()
	assert.False(t, third.Receive())
	assert.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(third.Err()))
	assert.ErrorContains(t, third.Err(), "2 streams are open to this client, as many as may be; close one, or raise max_streams_per_client")
}

// What a query holds it holds until its reply has been taken in: a client that does not read cannot have the server fill its memory.
func TestSlowReaderHoldsItsQuery(t *testing.T) {
	store, component := newStore(t)
	// Three times what an HTTP/2 client takes in without reading.
	records := make([]flow.Record, 60_000)
	for i := range records {
		records[i] = record(uint16(i))
	}
	require.NoError(t, store.WriteFlows(t.Context(), records))
	s := serve(t, component, func(c *Config) { c.MaxQueries, c.MaxQueuedQueries = 1, 0 })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.address+orb8v1connect.OrbitServiceQueryFlowsProcedure, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/proto")
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := h2c(t).Do(req)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	_, err = s.client(t).QueryFlows(t.Context(), connect.NewRequest(&orb8v1.QueryFlowsRequest{Limit: 1}))
	assert.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err), err)
	require.NoError(t, resp.Body.Close())
	require.Eventually(t, func() bool {
		_, err := s.client(t).QueryFlows(t.Context(), connect.NewRequest(&orb8v1.QueryFlowsRequest{Limit: 1}))
		return err == nil
	}, patience, tick)
}
