package orb8queryextension

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/extension/orb8queryextension/internal/metadata"
	"github.com/orb8/orb8/extension/orb8storageextension"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

type host map[component.ID]component.Component

func (h host) GetExtensions() map[component.ID]component.Component { return h }

// stub is a store whose answers the test sets.
type stub struct {
	component.Component
	storage.Writer
	query     func(context.Context) error
	status    func(context.Context) error
	subscribe func() storage.Subscription
}

func (s *stub) QueryFlows(ctx context.Context, _ storage.FlowQuery) (storage.FlowResult, error) {
	return storage.FlowResult{}, s.query(ctx)
}

func (s *stub) QueryLookups(ctx context.Context, _ storage.LookupQuery) (storage.LookupResult, error) {
	return storage.LookupResult{}, s.query(ctx)
}

func (s *stub) QuerySyscalls(ctx context.Context, _ storage.SyscallQuery) (storage.SyscallResult, error) {
	return storage.SyscallResult{}, s.query(ctx)
}

func (s *stub) QueryAnomalies(ctx context.Context, _ storage.AnomalyQuery) (storage.AnomalyResult, error) {
	return storage.AnomalyResult{}, s.query(ctx)
}

func (s *stub) Aggregate(ctx context.Context, _ storage.AggregateQuery) (storage.AggregateResult, error) {
	return storage.AggregateResult{}, s.query(ctx)
}

func (s *stub) QueryGPU(ctx context.Context, _ storage.GPUQuery) (storage.GPUResult, error) {
	return storage.GPUResult{}, s.query(ctx)
}

func (s *stub) Status(ctx context.Context) (storage.Status, error) {
	return storage.Status{}, s.status(ctx)
}

func (s *stub) Subscribe(storage.EventSelection) storage.Subscription { return s.subscribe() }

// untilDone blocks as a store does that takes forever.
func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// newStore returns a real store.
func newStore(t *testing.T) (storage.Store, component.Component) {
	t.Helper()
	factory := orb8storageextension.NewFactory()
	created, err := factory.Create(t.Context(), extensiontest.NewNopSettings(factory.Type()), factory.CreateDefaultConfig())
	require.NoError(t, err)
	require.NoError(t, created.Start(t.Context(), componenttest.NewNopHost()))
	t.Cleanup(func() { require.NoError(t, created.Shutdown(context.Background())) })
	return created.(storage.Store), created
}

// server is a running query extension.
type server struct {
	extension extension.Extension
	// address is where it listens, as it says in its log.
	address string
	stopped bool
}

// serve starts the extension on a free port of the loopback interface.
func serve(t *testing.T, store component.Component, change func(*Config)) *server {
	t.Helper()
	return serveWith(t, store, host{}, change)
}

// serveWith is serve with other extensions beside it.
func serveWith(t *testing.T, store component.Component, others host, change func(*Config)) *server {
	t.Helper()
	cfg := createDefaultConfig().(*Config)
	cfg.HTTP.NetAddr.Endpoint = "127.0.0.1:0"
	if change != nil {
		change(cfg)
	}
	core, logs := observer.New(zap.InfoLevel)
	set := extensiontest.NewNopSettings(metadata.Type)
	set.Logger = zap.New(core)
	set.BuildInfo.Version = "1.2.3"
	created, err := NewFactory().Create(t.Context(), set, cfg)
	require.NoError(t, err)
	others[cfg.Storage] = store
	require.NoError(t, created.Start(t.Context(), others))
	s := &server{extension: created}
	t.Cleanup(func() { s.stop(t) })
	said := logs.FilterMessage("Answering queries").All()
	require.Len(t, said, 1)
	s.address = said[0].ContextMap()["endpoint"].(string)
	return s
}

func (s *server) stop(t *testing.T) {
	t.Helper()
	if !s.stopped {
		s.stopped = true
		require.NoError(t, s.extension.Shutdown(context.Background()))
	}
}

// h2c returns a client that speaks HTTP/2 without TLS, as gRPC does.
func h2c(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// http1 returns a client that speaks HTTP/1.1, as curl and browsers without TLS do.
func http1(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// client returns a gRPC client.
func (s *server) client(t *testing.T) orb8v1connect.OrbitServiceClient {
	t.Helper()
	return orb8v1connect.NewOrbitServiceClient(h2c(t), "http://"+s.address, connect.WithGRPC())
}

func record(port uint16) flow.Record {
	now := time.Now().UTC().Truncate(0)
	return flow.Record{
		Start: now.Add(-time.Second), End: now, Node: "node-a",
		Direction: flow.Egress, Transport: flow.TCP, Bytes: 1500, Packets: 3, Connections: 1,
		Source: flow.Endpoint{
			Addr:     netip.MustParseAddrPort("10.0.0.1:40000"),
			Identity: flow.Identity{CgroupID: 7, Pod: "web-0", Namespace: "shop"},
		},
		Destination: flow.Endpoint{Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), port)},
	}
}

// certificate writes a certificate for 127.0.0.1 that signs itself, and returns a pool that trusts it.
func certificate(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certFile, keyFile = filepath.Join(t.TempDir(), "server.crt"), filepath.Join(t.TempDir(), "server.key")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	require.NoError(t, os.WriteFile(certFile, certPEM, 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	pool = x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(certPEM))
	return certFile, keyFile, pool
}

func trusting(t *testing.T, pool *x509.CertPool) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

const (
	// patience is how long what happens at once may take on a loaded machine, and tick how often to look.
	patience = 20 * time.Second
	tick     = 2 * time.Millisecond
)
