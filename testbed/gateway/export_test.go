//go:build linux

package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/backends"
	"github.com/orb8/orb8/testbed/internal/collector"
)

var (
	opening = regexp.MustCompile(`^ *# --- ([a-z]+)$`)
	closing = regexp.MustCompile(`^ *# ---$`)
	comment = regexp.MustCompile(`^( *)# (.*)$`)
)

// uncomment does to a shipped configuration what it tells users to do, and returns the file.
func uncomment(t testing.TB, name string, examples ...string) string {
	t.Helper()
	text, err := os.ReadFile(shipped(name))
	require.NoError(t, err)
	found := map[string]bool{}
	var out strings.Builder
	inside := ""
	for line := range strings.Lines(string(text)) {
		bare := strings.TrimSuffix(line, "\n")
		switch m := opening.FindStringSubmatch(bare); {
		case m != nil:
			inside = m[1]
			found[inside] = true
		case closing.MatchString(bare):
			inside = ""
		case inside != "" && slices.Contains(examples, inside):
			parts := comment.FindStringSubmatch(bare)
			require.NotNil(t, parts, "a line without # between the marks: %s", bare)
			line = parts[1] + parts[2] + "\n"
		}
		out.WriteString(line)
	}
	require.Empty(t, inside, "an example without an end")
	for _, example := range examples {
		require.True(t, found[example], "no example %s in %s.yaml", example, name)
	}
	path := filepath.Join(t.TempDir(), name+".yaml")
	require.NoError(t, os.WriteFile(path, []byte(out.String()), 0o600))
	return path
}

// exportOverlay names Loki's tenant, and has metrics reported sooner.
const exportOverlay = gatewayOverlay + `
exporters: {otlp_http/loki: {headers: {X-Scope-OrgID: orb8}}}
connectors: {flow_metrics: {interval: 1s}}
`

// What gateway.yaml has as examples works with the real servers; what Loki does not take while it is away waits on disk, also
// when the gateway is killed meanwhile.
func TestExports(t *testing.T) {
	const nodes, connections = 5, 20
	loki := backends.Loki(t)
	tempo := startSink(t)
	otlp, env := ports(t)
	env = append(env, "KUBECONFIG="+serveNames(t, nodes), "ORB8_STATE_DIR="+t.TempDir(),
		"ORB8_LOKI_ENDPOINT="+loki.URL, "ORB8_TEMPO_ENDPOINT="+tempo.otlp)
	config := uncomment(t, "gateway", "forward", "loki", "tempo")
	g := launch(t, config, exportOverlay, otlp, env...)
	agents := start(t, nodes, otlp)
	report := func() (flows int) {
		began := time.Now()
		each(agents, func(a *agent) { assert.NoError(t, a.report(t.Context(), connections, began, time.Now())) })
		return nodes * connections * recordsPerConnection
	}
	inLoki := func(what string, want int) {
		t.Helper()
		var got float64
		collector.Await(t, what, func() bool {
			got = askLoki(t, loki.URL, `sum(count_over_time({service_name=~".+"} | event="orb8.network.flow" [1h]))`)
			return int(got) == want
		}, func() any { return fmt.Sprintf("%v of %d records", got, want) })
	}

	flows := report()
	inLoki("flow records in Loki", flows)
	assert.Equal(t, float64(flows), askLoki(t, loki.URL, `sum(count_over_time({service_name=~".+"} |= "source.address" | event="orb8.network.flow" [1h]))`),
		"records with a body")

	connection, err := grpc.NewClient(otlp, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer connection.Close()
	_, err = ptraceotlp.NewGRPCClient(connection).Export(t.Context(), ptraceotlp.NewExportRequestFromTraces(span()))
	require.NoError(t, err)
	collector.Await(t, "the span behind the gateway", func() bool { return strings.Contains(tempo.received(t), "a-connection") }, func() any { return tempo.received(t) })

	loki.Stop()
	flows += report()
	// What is not in the queue yet is in the store alone when the gateway is killed.
	collector.Await(t, "all in the queue", func() bool { return queued(g) == total(agents, acknowledged) }, func() any { return queued(g) })
	g.Kill()
	g = launch(t, config, exportOverlay, otlp, env...)
	flows += report()
	loki.Start()
	inLoki("all records in Loki after it came back", flows)
	assert.Equal(t, reported(agents), stored(t, g), "records in the gateway")
}

// What gateway.yaml has for Prometheus, pushed and scraped, comes to the same.
func TestPrometheus(t *testing.T) {
	const nodes, connections = 5, 20
	otlp, env := ports(t)
	scraped := testutil.FreeAddress(t)
	server := backends.Prometheus(t, scraped)
	g := launch(t, uncomment(t, "gateway", "prometheus"), gatewayOverlay+"connectors: {flow_metrics: {interval: 1s}}\n", otlp,
		append(env, "KUBECONFIG="+serveNames(t, nodes), "ORB8_PROMETHEUS_URL="+server.URL, "ORB8_PROMETHEUS_ENDPOINT="+scraped)...)
	agents := start(t, nodes, g.otlp)
	each(agents, func(a *agent) { assert.NoError(t, a.report(t.Context(), connections, time.Now(), time.Now())) })
	for way, job := range map[string]string{"scraped": `job="scraped"`, "pushed": `job=""`} {
		var got float64
		collector.Await(t, "all bytes in Prometheus, "+way, func() bool {
			got = instant(t, server.URL+"/api/v1/query", `sum(orb8_workload_flow_io_bytes_total{orb8_flow_direction="egress",`+job+`})`)
			return uint64(got) == reportedBytes(agents)
		}, func() any { return fmt.Sprintf("%.0f of %d", got, reportedBytes(agents)) })
	}
}

var handedOn = regexp.MustCompile(`(?m)^otelcol_processor_batch_batch_send_size_sum\{.*\} (\d+)$`)

// queued is how many records a gateway has put into queues for other back ends.
func queued(g *process) (records uint64) {
	for _, m := range handedOn.FindAllStringSubmatch(g.Get(g.Telemetry, "/metrics"), -1) {
		n, _ := strconv.ParseUint(m[1], 10, 64) // they are digits
		records += n
	}
	return records
}

// The agents' part of the example is valid.
func TestAgentSendsTraces(t *testing.T) {
	validate := collector.Launch(t, collector.Options{Config: uncomment(t, "agent", "tempo"), Wrapper: []string{"sh", "-c", `exec "$0" validate "$@"`}, Env: []string{"NODE_NAME=here"}})
	assert.Zero(t, validate.Wait(), validate.Log())
}

func span() ptrace.Traces {
	traces := ptrace.NewTraces()
	s := traces.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty()
	s.SetName("a-connection")
	s.SetTraceID(pcommon.TraceID{1})
	s.SetSpanID(pcommon.SpanID{2})
	s.SetStartTimestamp(pcommon.NewTimestampFromTime(time.Now()))
	s.SetEndTimestamp(pcommon.NewTimestampFromTime(time.Now()))
	return traces
}

// sink is a collector that takes OTLP as Tempo does, and writes it to a file.
type sink struct{ otlp, file string }

func startSink(t testing.TB) *sink {
	t.Helper()
	s := &sink{otlp: testutil.FreeAddress(t), file: filepath.Join(t.TempDir(), "received")}
	config := filepath.Join(t.TempDir(), "sink.yaml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
receivers: {otlp: {protocols: {grpc: {endpoint: "%s"}}}}
exporters: {file: {path: "%s"}}
service:
  pipelines: {traces: {receivers: [otlp], exporters: [file]}}
  telemetry: {metrics: {level: none}}
`, s.otlp, s.file), 0o600))
	collector.Launch(t, collector.Options{Config: config})
	return s
}

func (s *sink) received(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(s.file)
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	return string(text)
}

func askLoki(t testing.TB, at, query string) float64 {
	t.Helper()
	return instant(t, at+"/loki/api/v1/query", query)
}

// instant returns the value of an instant query of Loki or Prometheus, 0 if it has none yet.
func instant(t testing.TB, at, query string) float64 {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at+"?query="+url.QueryEscape(query), nil)
	require.NoError(t, err)
	request.Header.Set("X-Scope-OrgID", "orb8")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	if response.StatusCode == http.StatusServiceUnavailable {
		return 0 // it has just been started
	}
	require.Equal(t, http.StatusOK, response.StatusCode, "%s", body)
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	require.NoError(t, json.Unmarshal(body, &answer), "%s", body)
	if len(answer.Data.Result) == 0 {
		return 0
	}
	value, err := strconv.ParseFloat(answer.Data.Result[0].Value[1].(string), 64)
	require.NoError(t, err)
	return value
}
