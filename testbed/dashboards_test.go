//go:build linux

package testbed

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.yaml.in/yaml/v3"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/backends"
	"github.com/orb8/orb8/testbed/internal/collector"
)

// exportedGPUs has the standalone configuration give metrics of GPUs that the test sends to Prometheus, as those of its own receivers.
const exportedGPUs = `
receivers:
  otlp:
    protocols:
      http:
        endpoint: ${env:ORB8_OTLP_HTTP_ENDPOINT}
service:
  pipelines:
    metrics/pushed:
      receivers: [otlp]
      processors: [memory_limiter, pod_enrichment]
      exporters: [prometheus]
`

// dashboard is what a test must know of a dashboard of Grafana.
type dashboard struct {
	Title  string
	UID    string
	Panels []struct {
		ID      int
		Title   string
		Type    string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	}
}

func readDashboard(t *testing.T, name string) dashboard {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(collector.Root(), "deploy", "dashboards", name))
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(text, &d))
	return d
}

// queries are the PromQL of a dashboard by panel, with its variables set to all.
func (d dashboard) queries(interval string) map[string]string {
	values := strings.NewReplacer("$namespace", ".*", "$pod", ".*", "$node", ".*", "$__rate_interval", interval)
	queries := map[string]string{}
	for _, p := range d.Panels {
		for i, target := range p.Targets {
			queries[fmt.Sprintf("%s %d", p.Title, i)] = values.Replace(target.Expr)
		}
	}
	return queries
}

// gpuMetadata is what the gpu receiver says of its metrics.
type gpuMetadata struct {
	Attributes map[string]struct {
		Type string
		Enum []string
	}
	Metrics map[string]struct {
		Unit  string
		Gauge *struct{}
		Sum   *struct {
			Monotonic bool
		}
		Attributes []string
	}
}

// sample makes metrics of all that the receiver documents, at one instant: of GPU-a, which a pod of namespace ml has for itself, and of GPU-b, which
// two pods of namespace serve share. All levels are 0.5, counters are as large as value.
func (m gpuMetadata) sample(t *testing.T, value float64) pmetric.Metrics {
	all := pmetric.NewMetrics()
	m.put(t, all, nil, "GPU-a", value)
	m.put(t, all, nil, "GPU-b", value)
	for pod, device := range map[[2]string]string{{"ml", "train-0"}: "GPU-a", {"serve", "infer-0"}: "GPU-b", {"serve", "infer-1"}: "GPU-b"} {
		m.put(t, all, map[string]any{"k8s.namespace.name": pod[0], "k8s.pod.name": pod[1], "k8s.container.name": "main"}, device, value)
	}
	return all
}

// put adds the metrics of a device, or of the pod that the resource is.
func (m gpuMetadata) put(t *testing.T, all pmetric.Metrics, resource map[string]any, device string, value float64) {
	rm := all.ResourceMetrics().AppendEmpty()
	require.NoError(t, rm.Resource().Attributes().FromRaw(resource))
	rm.Resource().Attributes().PutStr("k8s.node.name", "node-a")
	metrics := rm.ScopeMetrics().AppendEmpty().Metrics()
	now := pcommon.NewTimestampFromTime(time.Now())
	add := func(name, unit string) pmetric.Metric {
		metric := metrics.AppendEmpty()
		metric.SetName(name)
		metric.SetUnit(unit)
		return metric
	}
	ofPods := func(name string) bool {
		return name == "gpu.allocation" || strings.HasPrefix(name, "gpu.process.") || strings.HasPrefix(name, "gpu.cuda.")
	}
	for name, of := range m.Metrics {
		if ofPods(name) != (resource != nil) {
			continue
		}
		metric := add(name, of.Unit)
		var p pmetric.NumberDataPoint
		level := 0.5
		switch {
		case of.Gauge != nil:
			p = metric.SetEmptyGauge().DataPoints().AppendEmpty()
		default:
			metric.SetEmptySum().SetIsMonotonic(of.Sum.Monotonic)
			metric.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			p = metric.Sum().DataPoints().AppendEmpty()
			level = value
		}
		if name == "gpu.allocation" {
			level = 1
		}
		p.SetTimestamp(now)
		p.SetDoubleValue(level)
		for _, attribute := range of.Attributes {
			switch a := m.Attributes[attribute]; {
			case attribute == "hw.id":
				p.Attributes().PutStr(attribute, device)
			case a.Type == "int":
				p.Attributes().PutInt(attribute, 0)
			case len(a.Enum) > 0:
				p.Attributes().PutStr(attribute, a.Enum[0])
			default:
				p.Attributes().PutStr(attribute, "-")
			}
		}
	}
	if resource == nil {
		return
	}
	// The one histogram: mdatagen makes none whose sums go on.
	p := add("gpu.cuda.synchronize.duration", "s").SetEmptyHistogram().DataPoints().AppendEmpty()
	metrics.At(metrics.Len() - 1).Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	p.SetTimestamp(now)
	p.SetSum(value)
	p.SetCount(uint64(value))
	p.BucketCounts().FromRaw([]uint64{uint64(value), 0})
	p.ExplicitBounds().FromRaw([]float64{1})
}

// A dashboard asks for nothing but what our exporter gives Prometheus: each name of a metric and of a label in its queries, which all are valid,
// is in a scrape of the gpu receiver's documented metrics; and a real Prometheus has an answer to each of them.
func TestDashboards(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(collector.Root(), "receiver", "gpureceiver", "metadata.yaml"))
	require.NoError(t, err)
	var documented gpuMetadata
	require.NoError(t, yaml.Unmarshal(text, &documented))
	require.Greater(t, len(documented.Metrics), 25)
	d := readDashboard(t, "gpu.json")

	ports := testutil.FreeAddresses(t, net.Listen, 1)
	c := collector.Start(t, collector.Options{Overlay: exportedGPUs, Env: []string{"ORB8_OTLP_HTTP_ENDPOINT=" + ports[0]}})
	(&gpuNode{t: t, metrics: documented.sample(t, 1)}).send(ports[0])
	exported := scraped(t, c, "gpu_allocation_ratio")

	t.Run("metrics and labels are exported", func(t *testing.T) {
		promQL := parser.NewParser(parser.Options{})
		for name, query := range d.queries("1m") {
			expr, err := promQL.ParseExpr(query)
			if !assert.NoError(t, err, "%s: %s", name, query) {
				continue
			}
			labels := map[string]bool{}
			parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
				switch n := node.(type) {
				case *parser.VectorSelector:
					family := exported[n.Name]
					if !assert.NotNil(t, family, "%s asks for %s, which is not exported", name, n.Name) {
						return nil
					}
					has := labelsOf(family)
					for _, m := range n.LabelMatchers {
						assert.True(t, m.Name == "__name__" || has[m.Name], "%s: %s has no label %s", name, n.Name, m.Name)
					}
					for label := range has {
						labels[label] = true
					}
				case *parser.AggregateExpr:
					for _, label := range n.Grouping {
						assert.True(t, labels[label] || knownLabel(exported, label), "%s groups by %s, which no metric has", name, label)
					}
				case *parser.BinaryExpr:
					if n.VectorMatching != nil {
						for _, label := range n.VectorMatching.MatchingLabels {
							assert.True(t, knownLabel(exported, label), "%s matches on %s, which no metric has", name, label)
						}
					}
				}
				return nil
			})
		}
	})
	t.Run("panels have a place each", func(t *testing.T) {
		ids, taken := map[int]bool{}, map[[2]int]string{}
		for _, p := range d.Panels {
			assert.False(t, ids[p.ID], "panel %d is there twice", p.ID)
			ids[p.ID] = true
			assert.Equal(t, p.Type != "row", len(p.Targets) > 0, p.Title)
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					assert.Empty(t, taken[[2]int{x, y}], "below %s", p.Title)
					taken[[2]int{x, y}] = p.Title
				}
			}
		}
	})
	t.Run("Prometheus answers", func(t *testing.T) {
		server := backends.Prometheus(t, c.Prometheus)
		value := 1.0
		// A rate needs two scrapes between which it grew.
		missing := d.queries("20s")
		collector.Await(t, "an answer to each query", func() bool {
			value++
			(&gpuNode{t: t, metrics: documented.sample(t, value)}).send(ports[0])
			for name, query := range missing {
				if len(askPrometheus(t, server.URL, query)) > 0 {
					delete(missing, name)
				}
			}
			return len(missing) == 0
		}, func() any { return missing })
		// Shares of a card are parts of it: nothing is there twice.
		for name, want := range map[string][]float64{
			"GPUs 0": {2}, "Allocated 0": {2}, "GPUs by namespace 0": {1, 1}, "Utilization by namespace 0": {0.5, 0.5}, "Utilization by pod 0": {0.5, 0.5, 0.5},
			"Idle GPUs by namespace 0": {0.5}, "Power by namespace 0": {0.5}, "Power 0": {1},
		} {
			assert.Equal(t, want, askPrometheus(t, server.URL, d.queries("20s")[name]), name)
		}
	})
}

// scraped are the metrics that a collector exports, once there is one of this name.
func scraped(t *testing.T, c *collector.Collector, name string) map[string]*dto.MetricFamily {
	t.Helper()
	var families map[string]*dto.MetricFamily
	collector.Await(t, name+" is exported", func() bool {
		text := expfmt.NewTextParser(model.UTF8Validation)
		var err error
		families, err = text.TextToMetricFamilies(strings.NewReader(c.Get(c.Prometheus, "/metrics")))
		require.NoError(t, err)
		return families[name] != nil
	}, func() any { return len(families) })
	// Prometheus takes a histogram apart.
	for name, family := range families {
		if family.GetType() == dto.MetricType_HISTOGRAM {
			families[name+"_sum"], families[name+"_count"] = family, family
		}
	}
	return families
}

func labelsOf(family *dto.MetricFamily) map[string]bool {
	has := map[string]bool{}
	for _, m := range family.GetMetric() {
		for _, l := range m.GetLabel() {
			has[l.GetName()] = true
		}
	}
	return has
}

func knownLabel(families map[string]*dto.MetricFamily, label string) bool {
	for name, family := range families {
		if (strings.HasPrefix(name, "gpu_") || strings.HasPrefix(name, "hw_")) && labelsOf(family)[label] {
			return true
		}
	}
	return false
}

// askPrometheus returns the values of an instant query.
func askPrometheus(t *testing.T, server, query string) []float64 {
	t.Helper()
	resp, err := http.Get(server + "/api/v1/query?query=" + url.QueryEscape(query))
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s: %s", query, text)
	var reply struct {
		Data struct {
			Result []struct {
				Value [2]json.RawMessage
			}
		}
	}
	require.NoError(t, json.Unmarshal(text, &reply))
	var values []float64
	for _, r := range reply.Data.Result {
		var v string
		require.NoError(t, json.Unmarshal(r.Value[1], &v))
		var number float64
		_, err := fmt.Sscan(v, &number)
		require.NoError(t, err)
		values = append(values, number)
	}
	return values
}
