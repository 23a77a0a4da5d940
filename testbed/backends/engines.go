//go:build linux

package backends

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/testutil"
)

// VictoriaLogs starts one that keeps its data itself.
func VictoriaLogs(t testing.TB) *Server {
	t.Helper()
	at := testutil.FreeAddress(t)
	return start(t, victoriaLogs, at, "/health", "-httpListenAddr="+at, "-storageDataPath="+t.TempDir())
}

// Cluster is a VictoriaLogs cluster: front ends that have no data, and nodes that keep it.
type Cluster struct {
	// Insert takes data, and Select answers; each front end of two does one of them alone.
	Insert, Select *Server
	// Gateways are two front ends that do both.
	Gateways [2]*Server
	Storage  [2]*Server
}

// VictoriaLogsCluster starts a cluster.
func VictoriaLogsCluster(t testing.TB) *Cluster {
	t.Helper()
	var c Cluster
	nodes := "-storageNode="
	for i := range c.Storage {
		at := testutil.FreeAddress(t)
		c.Storage[i] = start(t, victoriaLogs, at, "/health", "-httpListenAddr="+at, "-storageDataPath="+t.TempDir())
		if i > 0 {
			nodes += ","
		}
		nodes += at
	}
	front := func(args ...string) *Server {
		at := testutil.FreeAddress(t)
		return start(t, victoriaLogs, at, "/health", append(args, "-httpListenAddr="+at, nodes)...)
	}
	for i := range c.Gateways {
		c.Gateways[i] = front()
	}
	c.Insert, c.Select = front("-select.disable"), front("-insert.disable")
	return &c
}

// Flush makes all that a VictoriaLogs server was told visible to queries, which else takes it about a second.
func (s *Server) Flush(ctx context.Context) error {
	_, err := s.post(ctx, "/internal/force_flush", "")
	return err
}

// markers are how many rows tell that those before them have arrived: so many that each node gets some.
const markers = 64

// Flush makes all that the front ends were told visible to queries. A front end sends on what it has each second, in order: what is
// sent last tells that all has arrived.
func (c *Cluster) Flush(ctx context.Context) error {
	mark := fmt.Sprint("mark-", time.Now().UnixNano())
	var rows strings.Builder
	for i := range markers {
		fmt.Fprintf(&rows, "{\"_msg\":%q,\"stream\":\"%d\"}\n", mark, i)
	}
	fronts := []*Server{c.Gateways[0], c.Gateways[1], c.Insert}
	for _, front := range fronts {
		if _, err := front.post(ctx, "/insert/jsonline?_stream_fields=stream", rows.String()); err != nil {
			return err
		}
	}
	for {
		arrived := 0
		for _, node := range c.Storage {
			if err := node.Flush(ctx); err != nil {
				return err
			}
			lines, err := node.post(ctx, "/select/logsql/query?query="+url.QueryEscape(`"`+mark+`"`), "")
			if err != nil {
				return err
			}
			arrived += strings.Count(lines, "\n")
		}
		if arrived == markers*len(fronts) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the nodes have %d of %d rows: %w", arrived, markers*len(fronts), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// post returns what the server answers.
func (s *Server) post(ctx context.Context, path, body string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode/100 != 2 {
		err = fmt.Errorf("%s%s answers %s: %s", s.URL, path, response.Status, text)
	}
	return string(text), err
}

// Flusher makes visible what was written, when somebody asks.
type Flusher struct {
	// Flush is a server's, or a cluster's.
	Flush func(context.Context) error

	// tenants are those that wrote: *shown by the value of tenantHeader.
	tenants sync.Map
}

// shown tells what a tenant may see.
type shown struct {
	// writes are how many there were.
	writes atomic.Uint64

	mu sync.Mutex
	// visible is how many of them can be seen.
	visible uint64
}

const tenantHeader = "AccountID"

// wrote notes that a tenant wrote something.
func (f *Flusher) wrote(tenant string) {
	of, _ := f.tenants.LoadOrStore(tenant, &shown{})
	of.(*shown).writes.Add(1)
}

// show returns when all is visible that the tenant wrote before, to each of those who ask at once.
func (f *Flusher) show(ctx context.Context, tenant string) error {
	value, found := f.tenants.Load(tenant)
	if !found {
		return nil
	}
	of := value.(*shown)
	of.mu.Lock()
	defer of.mu.Unlock()
	writes := of.writes.Load()
	if of.visible == writes {
		return nil
	}
	if err := f.Flush(ctx); err != nil {
		return err
	}
	of.visible = writes
	return nil
}

// Prompt returns the address of a proxy before the server that shows at once what was written through it, or through another proxy
// with the same flusher.
func (s *Server) Prompt(f *Flusher) string {
	s.t.Helper()
	target, err := url.Parse(s.URL)
	require.NoError(s.t, err)
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.ModifyResponse = func(r *http.Response) error { // before the writer knows
		if strings.HasPrefix(r.Request.URL.Path, "/insert/") {
			f.wrote(r.Request.Header.Get(tenantHeader))
		}
		return nil
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/insert/") {
			if err := f.show(r.Context(), r.Header.Get(tenantHeader)); err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
		}
		// Whole, or the proxy breaks off an answer that comes before it has seen the request's end.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		forward.ServeHTTP(w, r)
	}))
	s.t.Cleanup(proxy.Close)
	return proxy.URL
}

// lokiConfig keeps all in a directory, with a tenant for whom X-Scope-OrgID names one. The limits on streams and rates are raised
// as for a cluster of a thousand nodes; all others are Loki's own.
const lokiConfig = `
auth_enabled: true
analytics: {reporting_enabled: false}
server: {http_listen_address: %[1]s, http_listen_port: %[2]s, grpc_listen_address: 127.0.0.1, grpc_listen_port: %[3]s, log_level: warn%[5]s}
common:
  instance_addr: 127.0.0.1
  path_prefix: %[4]s
  storage: {filesystem: {chunks_directory: %[4]s/chunks, rules_directory: %[4]s/rules}}
  replication_factor: 1
  ring: {kvstore: {store: inmemory}}
schema_config:
  configs:
  - {from: 2020-10-24, store: tsdb, object_store: filesystem, schema: v13, index: {prefix: index_, period: 24h}}
limits_config:
  ingestion_rate_mb: 256
  ingestion_burst_size_mb: 512
  per_stream_rate_limit: 256MB
  per_stream_rate_limit_burst: 512MB
  max_global_streams_per_user: 100000
`

// Loki starts one process that does all of Loki's work, and keeps its data itself.
func Loki(t testing.TB) *Server {
	t.Helper()
	return startLoki(t, http.DefaultClient, "http://", "")
}

// startLoki starts Loki with further settings of its server.
func startLoki(t testing.TB, client *http.Client, scheme, settings string) *Server {
	t.Helper()
	at, rpc, dir := testutil.FreeAddress(t), testutil.FreeAddress(t), t.TempDir()
	host, port, err := net.SplitHostPort(at)
	require.NoError(t, err)
	_, rpcPort, err := net.SplitHostPort(rpc)
	require.NoError(t, err)
	config := filepath.Join(dir, "loki.yaml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, lokiConfig, host, port, rpcPort, dir, settings), 0o600))
	return startAt(t, loki, client, scheme+at, "/ready", "-config.file="+config)
}

// Prometheus starts one that takes OTLP, and scrapes an address.
func Prometheus(t testing.TB, scrape string) *Server {
	t.Helper()
	at, dir := testutil.FreeAddress(t), t.TempDir()
	config := filepath.Join(dir, "prometheus.yaml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "scrape_configs: [{job_name: scraped, scrape_interval: 1s, static_configs: [{targets: [%q]}]}]\n", scrape), 0o600))
	return start(t, prometheus, at, "/-/ready", "--config.file="+config, "--storage.tsdb.path="+dir, "--web.listen-address="+at, "--web.enable-otlp-receiver")
}
