//go:build linux

package testbed

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/testbed/internal/collector"
)

// The two halves of a connection, as two nodes send them, are one edge for the upstream connector: in either order, and though
// the client knows the server by another address than the server itself.
func TestServiceGraphOfTwoHalves(t *testing.T) {
	for name, halves := range map[string][]string{
		"client first": {"client.json", "server.json"},
		"server first": {"server.json", "client.json"},
	} {
		t.Run(name, func(t *testing.T) {
			c := collector.Launch(t, collector.Options{Config: writeConfig(t, serviceGraph)})
			collector.Await(t, "the collector runs", func() bool {
				return strings.Contains(c.Log(), "Everything is ready")
			}, func() any { return c.Log() })
			for _, half := range halves {
				sendSpans(t, c.Query, half)
			}
			var got map[string]float64
			collector.Await(t, "the edge", func() bool {
				got = edges(t, c.Get(c.Prometheus, "/metrics"))
				return len(got) > 0
			}, func() any { return c.Log() })
			assert.Equal(t, map[string]float64{"curl -> nginx": 1}, got)
			c.Stop()
		})
	}
}

const serviceGraph = `
receivers:
  otlp:
    protocols:
      http:
        endpoint: ${env:ORB8_QUERY_ENDPOINT}
connectors:
  service_graph:
    metrics_flush_interval: 100ms
exporters:
  prometheus:
    endpoint: ${env:ORB8_PROMETHEUS_ENDPOINT}
service:
  telemetry:
    metrics:
      level: none
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [service_graph]
    metrics:
      receivers: [service_graph]
      exporters: [prometheus]
`

// sendSpans sends golden spans of the receiver by OTLP over HTTP.
func sendSpans(t *testing.T, endpoint, name string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(collector.Root(), "receiver", "ebpfnetworkreceiver", "testdata", "spans", name))
	require.NoError(t, err)
	resp, err := http.Post("http://"+endpoint+"/v1/traces", "application/json", bytes.NewReader(text))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

// edges returns the connections of each pair of services, as a Prometheus endpoint has them.
func edges(t *testing.T, text string) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err)
	sums := map[string]float64{}
	for _, m := range families["traces_service_graph_request_total"].GetMetric() {
		label := labels(m)
		sums[label["client"]+" -> "+label["server"]] += m.GetCounter().GetValue()
	}
	return sums
}
