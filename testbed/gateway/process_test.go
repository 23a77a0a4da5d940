//go:build linux

package gateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/collector"
)

// shipped returns the path of a configuration.
func shipped(name string) string {
	return filepath.Join(filepath.Dir(collector.Standalone()), name+".yaml")
}

// process is a collector with its listeners on ports of their own.
type process struct {
	*collector.Collector
	// otlp takes records.
	otlp  string
	query orb8v1connect.OrbitServiceClient
}

// ports are environment variables that give a collector addresses of its own, apart from those that collector.Launch sees to.
func ports(t testing.TB) (otlp string, env []string) {
	t.Helper()
	otlp = testutil.FreeAddress(t)
	return otlp, []string{"ORB8_OTLP_GRPC_ENDPOINT=" + otlp, "ORB8_OTLP_HTTP_ENDPOINT=" + testutil.FreeAddress(t), "ORB8_HEALTH_ENDPOINT=" + testutil.FreeAddress(t)}
}

// launch starts a collector, and returns when it answers. More of the environment comes last, and counts.
func launch(t testing.TB, config, overlay, otlp string, env ...string) *process {
	t.Helper()
	c := collector.Launch(t, collector.Options{Config: config, Overlay: overlay, Env: env})
	p := &process{Collector: c, otlp: otlp, query: orb8v1connect.NewOrbitServiceClient(http.DefaultClient, "http://"+c.Query)}
	collector.Await(t, "an answer of the collector", func() bool {
		_, err := p.query.GetStatus(t.Context(), connect.NewRequest(&orb8v1.GetStatusRequest{}))
		if err != nil {
			return false
		}
		connection, err := net.Dial("tcp", otlp)
		if err == nil {
			connection.Close()
		}
		return err == nil
	}, func() any { return c.Log() })
	return p
}

// scrape reads all metrics as Prometheus does, and returns how long that took, how many series there were and how large they are.
func (p *process) scrape(ctx context.Context) (took time.Duration, series, bytes int, err error) {
	began := time.Now()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Prometheus+"/metrics", nil)
	if err != nil {
		return 0, 0, 0, err
	}
	// As of Prometheus 3, which takes names as they are.
	request.Header.Set("Accept", "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, 0, 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	took = time.Since(began)
	for line := range strings.Lines(string(body)) {
		if !strings.HasPrefix(line, "#") {
			series++
		}
	}
	return took, series, len(body), err
}
