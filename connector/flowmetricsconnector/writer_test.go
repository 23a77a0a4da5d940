package flowmetricsconnector

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/orb8/orb8/internal/flow"
)

func TestReportIsTheGoldenOne(t *testing.T) {
	tab := tableOf(func(c *Config) { c.MaxSeries = 3 })
	web, api := workload{"shop", "web"}, workload{name: "api.example.com"}
	tab.add(key{web, api, flow.Egress, flow.TCP}, &counts{
		bytes: 1500, packets: 10, connections: 5, retransmits: 2, zeroWindows: 1, closed: 1, reset: 2, refused: 3, timedOut: 4,
	}, began)
	tab.add(key{api, web, flow.Ingress, flow.TCP}, &counts{bytes: 900, packets: 9}, began)
	tab.add(key{workload{name: "private"}, workload{name: "sshd.service"}, flow.Ingress, flow.UDP}, &counts{bytes: 1, packets: 1, connections: 1}, began)
	tab.add(numbered(4), &counts{bytes: 2, packets: 1}, began)
	tab.add(numbered(5), &counts{bytes: 3, packets: 1}, began)

	md := pmetric.NewMetrics()
	metrics := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	tab.report(metrics, began.Add(10*time.Second))
	for _, m := range metrics.All() {
		m.Sum().DataPoints().Sort(func(a, b pmetric.NumberDataPoint) bool { return text(a.Attributes()) < text(b.Attributes()) })
	}
	var marshaler pmetric.JSONMarshaler
	got, err := marshaler.MarshalMetrics(md)
	require.NoError(t, err)
	want, err := os.ReadFile(filepath.Join("testdata", "metrics.json"))
	require.NoError(t, err)
	assert.JSONEq(t, string(want), string(got))
}

// text joins the values of attributes, which are written in the same order for every point.
func text(attributes pcommon.Map) string {
	var values []string
	for _, v := range attributes.All() {
		values = append(values, v.Str())
	}
	return strings.Join(values, " ")
}

func TestInstrumentsOfOneMetricFollowEachOther(t *testing.T) {
	seen := map[string]int{}
	for i, in := range instruments() {
		require.NotEmpty(t, in.name, "counter %d", i)
		assert.NotEmpty(t, in.description)
		if before, ok := seen[in.name]; ok {
			assert.Equal(t, i-1, before, in.name)
		}
		seen[in.name] = i
	}
	assert.Len(t, seen, 6)
}
