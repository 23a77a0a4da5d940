package orb8queryextension

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"
	"go.opentelemetry.io/collector/extension/extensioncapabilities"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"google.golang.org/protobuf/reflect/protoreflect"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/extension/orb8queryextension/internal/metadata"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

func TestQueryInEveryProtocol(t *testing.T) {
	store, component := newStore(t)
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(443), record(80)}))
	s := serve(t, component, nil)
	for name, client := range map[string]orb8v1connect.OrbitServiceClient{
		"gRPC":     s.client(t),
		"gRPC-Web": orb8v1connect.NewOrbitServiceClient(http1(t), "http://"+s.address, connect.WithGRPCWeb()),
		"Connect":  orb8v1connect.NewOrbitServiceClient(http1(t), "http://"+s.address),
		"GET":      orb8v1connect.NewOrbitServiceClient(http1(t), "http://"+s.address, connect.WithHTTPGet()),
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := client.QueryFlows(t.Context(), connect.NewRequest(&orb8v1.QueryFlowsRequest{
				Allow: []*orb8v1.FlowFilter{{Ports: []uint32{443}, Pods: []string{"shop/web-0"}}},
			}))
			require.NoError(t, err)
			require.Len(t, resp.Msg.GetFlows(), 1)
			assert.EqualValues(t, 443, resp.Msg.GetFlows()[0].GetDestination().GetPort())
			assert.EqualValues(t, 1500, resp.Msg.GetFlows()[0].GetBytes())
			assert.EqualValues(t, 1, resp.Msg.GetMatched())
			assert.False(t, resp.Msg.GetTruncated())
			assert.NotNil(t, resp.Msg.GetLost(), "a reply always says what was lost")
		})
	}
}

// post sends what curl would.
func post(t *testing.T, s *server, procedure, body string) (status int, reply map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.address+procedure, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http1(t).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &reply), "%s", data)
	return resp.StatusCode, reply
}

func TestPlainJSON(t *testing.T) {
	store, component := newStore(t)
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(443)}))
	now := record(0).End
	require.NoError(t, store.WriteStatus(t.Context(), flow.NetworkStatus{Node: "node-a", Time: now, Started: now, Interval: 1e9, LostPackets: 3}))
	s := serve(t, component, nil)

	status, reply := post(t, s, orb8v1connect.OrbitServiceQueryFlowsProcedure, `{"allow": [{"protocols": ["tcp"]}]}`)
	assert.Equal(t, http.StatusOK, status)
	require.Len(t, reply["flows"], 1)
	row := reply["flows"].([]any)[0].(map[string]any)
	assert.Equal(t, "1500", row["bytes"], "64-bit numbers are strings, as in protojson")
	assert.Equal(t, "DIRECTION_EGRESS", row["direction"])
	assert.Equal(t, map[string]any{"packets": "3"}, reply["lost"])

	status, reply = post(t, s, orb8v1connect.OrbitServiceGetStatusProcedure, `{}`)
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, "1.2.3", reply["version"])
	require.Len(t, reply["nodes"], 1)
	assert.Equal(t, "node-a", reply["nodes"].([]any)[0].(map[string]any)["node"])
	assert.Equal(t, "embedded", reply["store"].(map[string]any)["backend"])

	status, reply = post(t, s, orb8v1connect.OrbitServiceQueryFlowsProcedure, `{"allow": [{"ips": ["10.0.0.0/33"]}]}`)
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Equal(t, "invalid_argument", reply["code"])
	assert.Contains(t, reply["message"], `allow[0]: ips[0]: "10.0.0.0/33"`)
}

func TestTruncation(t *testing.T) {
	store, component := newStore(t)
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(1), record(2), record(3)}))
	client := serve(t, component, func(cfg *Config) { cfg.MaxRows = 2 }).client(t)
	for _, tt := range []struct {
		limit uint32
		rows  int
	}{{0, 2}, {1, 1}, {3, 2}} {
		resp, err := client.QueryFlows(t.Context(), connect.NewRequest(&orb8v1.QueryFlowsRequest{Limit: tt.limit}))
		require.NoError(t, err)
		assert.Len(t, resp.Msg.GetFlows(), tt.rows, "limit %d", tt.limit)
		assert.True(t, resp.Msg.GetTruncated(), "limit %d", tt.limit)
		assert.EqualValues(t, 3, resp.Msg.GetMatched(), "limit %d", tt.limit)
	}
}

func TestRequestThatIsTooLarge(t *testing.T) {
	_, component := newStore(t)
	s := serve(t, component, func(cfg *Config) { cfg.HTTP.MaxRequestBodySize = 100 })
	large := connect.NewRequest(&orb8v1.QueryFlowsRequest{Allow: []*orb8v1.FlowFilter{{Pods: []string{strings.Repeat("x", 200)}}}})
	for name, options := range map[string][]connect.ClientOption{
		"plain": nil,
		// It fits while it is compressed.
		"compressed": {connect.WithSendGzip()},
	} {
		t.Run(name, func(t *testing.T) {
			options = append(options, connect.WithGRPC())
			client := orb8v1connect.NewOrbitServiceClient(h2c(t), "http://"+s.address, options...)
			_, err := client.QueryFlows(t.Context(), large)
			assert.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err), err)
		})
	}
}

func TestReflection(t *testing.T) {
	_, component := newStore(t)
	s := serve(t, component, nil)
	stream := grpcreflect.NewClient(h2c(t), "http://"+s.address, connect.WithGRPC()).NewStream(t.Context())
	defer stream.Close()
	services, err := stream.ListServices()
	require.NoError(t, err)
	assert.EqualValues(t, []protoreflect.FullName{orb8v1connect.OrbitServiceName, "grpc.health.v1.Health"}, services)
	files, err := stream.FileContainingSymbol(orb8v1connect.OrbitServiceName)
	require.NoError(t, err)
	assert.NotEmpty(t, files)
}

func TestTLS(t *testing.T) {
	store, component := newStore(t)
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(443)}))
	certFile, keyFile, pool := certificate(t)
	s := serve(t, component, func(cfg *Config) {
		tls := configtls.NewDefaultServerConfig()
		tls.CertFile, tls.KeyFile = certFile, keyFile
		cfg.HTTP.TLS = configoptional.Some(tls)
	})
	for name, options := range map[string][]connect.ClientOption{"gRPC": {connect.WithGRPC()}, "Connect": nil} {
		t.Run(name, func(t *testing.T) {
			client := orb8v1connect.NewOrbitServiceClient(trusting(t, pool), "https://"+s.address, options...)
			resp, err := client.QueryFlows(t.Context(), connect.NewRequest(&orb8v1.QueryFlowsRequest{}))
			require.NoError(t, err)
			assert.Len(t, resp.Msg.GetFlows(), 1)
		})
	}
	_, err := s.client(t).QueryFlows(t.Context(), connect.NewRequest(&orb8v1.QueryFlowsRequest{}))
	assert.Error(t, err, "without TLS nobody answers")
}

func TestStartErrors(t *testing.T) {
	_, store := newStore(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	missing := configtls.NewDefaultServerConfig()
	missing.CertFile, missing.KeyFile = "nowhere.crt", "nowhere.key"
	tests := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{
			"port in use",
			func(cfg *Config) { cfg.HTTP.NetAddr.Endpoint = taken.Addr().String() },
			"orb8_query: endpoint: " + taken.Addr().String() + " is in use; stop what listens there, or set another endpoint",
		},
		{
			"port out of range",
			func(cfg *Config) { cfg.HTTP.NetAddr.Endpoint = "127.0.0.1:99999" },
			"orb8_query: endpoint: cannot listen on 127.0.0.1:99999: ",
		},
		{
			"no certificate",
			func(cfg *Config) { cfg.HTTP.TLS = configoptional.Some(missing) },
			"nowhere.crt",
		},
		{
			"no storage",
			func(cfg *Config) { cfg.Storage = component.MustNewID("elsewhere") },
			`storage: there is no extension "elsewhere"; configure it under extensions`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := createDefaultConfig().(*Config)
			cfg.HTTP.NetAddr.Endpoint = "127.0.0.1:0"
			tt.change(cfg)
			set := extensiontest.NewNopSettings(metadata.Type)
			set.ID = component.NewID(metadata.Type)
			extension, err := NewFactory().Create(t.Context(), set, cfg)
			require.NoError(t, err)
			err = extension.Start(t.Context(), host{component.MustNewID("orb8_storage"): store})
			require.ErrorContains(t, err, tt.want)
			assert.NotContains(t, err.Error(), "\n", "one line")
			assert.NoError(t, extension.Shutdown(t.Context()))
		})
	}
}

func TestDependsOnStorage(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.Storage = component.MustNewIDWithName("orb8_storage", "second")
	extension, err := NewFactory().Create(t.Context(), extensiontest.NewNopSettings(metadata.Type), cfg)
	require.NoError(t, err)
	assert.Equal(t, []component.ID{cfg.Storage}, extension.(extensioncapabilities.Dependent).Dependencies())
}

func TestErrorsOfCalls(t *testing.T) {
	calls := map[string]func(context.Context, orb8v1connect.OrbitServiceClient) error{
		"QueryFlows": func(ctx context.Context, c orb8v1connect.OrbitServiceClient) error {
			_, err := c.QueryFlows(ctx, connect.NewRequest(&orb8v1.QueryFlowsRequest{}))
			return err
		},
		"GetStatus": func(ctx context.Context, c orb8v1connect.OrbitServiceClient) error {
			_, err := c.GetStatus(ctx, connect.NewRequest(&orb8v1.GetStatusRequest{}))
			return err
		},
	}
	for name, call := range calls {
		t.Run(name+" fails", func(t *testing.T) {
			fail := func(context.Context) error { return io.ErrUnexpectedEOF }
			client := serve(t, &stub{query: fail, status: fail}, nil).client(t)
			err := call(t.Context(), client)
			assert.Equal(t, connect.CodeInternal, connect.CodeOf(err))
			assert.ErrorContains(t, err, io.ErrUnexpectedEOF.Error())
		})
		t.Run(name+" cannot be answered now", func(t *testing.T) {
			fail := func(context.Context) error {
				return fmt.Errorf("of this hour: %w", &storage.UnavailableError{Err: errors.New("cannot read from Loki: no")})
			}
			client := serve(t, &stub{query: fail, status: fail}, nil).client(t)
			err := call(t.Context(), client)
			assert.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
			assert.ErrorContains(t, err, "of this hour: cannot read from Loki: no")
		})
		t.Run(name+" takes too long", func(t *testing.T) {
			client := serve(t, &stub{query: untilDone, status: untilDone}, func(cfg *Config) { cfg.QueryTimeout = 50 * time.Millisecond }).client(t)
			err := call(t.Context(), client)
			assert.Equal(t, connect.CodeDeadlineExceeded, connect.CodeOf(err))
			assert.ErrorContains(t, err, "longer than the query_timeout of 50ms")
		})
		t.Run(name+" ends at shutdown", func(t *testing.T) {
			entered := make(chan struct{})
			wait := func(ctx context.Context) error {
				close(entered)
				return untilDone(ctx)
			}
			s := serve(t, &stub{query: wait, status: wait}, nil)
			result := make(chan error)
			client := s.client(t)
			go func() { result <- call(t.Context(), client) }()
			<-entered
			s.stop(t)
			err := <-result
			assert.Equal(t, connect.CodeUnavailable, connect.CodeOf(err), err)
			assert.ErrorContains(t, err, errStopping.Error())
		})
	}
}

func TestCallerGivesUp(t *testing.T) {
	var s service
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Equal(t, connect.CodeCanceled, connect.CodeOf(s.failure(canceled, canceled.Err())))
	expired, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	assert.Equal(t, connect.CodeDeadlineExceeded, connect.CodeOf(s.failure(expired, expired.Err())))
}
