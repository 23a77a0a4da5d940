//go:build linux

package gateway

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/testbed/internal/usage"
)

// envAgents, envSeconds and envMemory name environment variables: how many agents there are, how long each part of the measurement takes,
// and the gateway's memory in MiB. Those of docs/performance.md are 1000, 60, and 2048 or 4096.
const (
	envAgents, envSeconds, envMemory             = "ORB8_LOAD_AGENTS", "ORB8_LOAD_SECONDS", "ORB8_LOAD_MEMORY"
	defaultAgents, defaultSeconds, defaultMemory = 50, 5, 4096
	// share of what the gateway can take is what it gets while it is asked.
	share = 0.5
	// connectionsAtMost is how many an agent reports at once when nothing bounds it.
	connectionsAtMost = 25
	// scrapeEvery is the pause between scrapes, queryEvery that between queries.
	scrapeEvery, queryEvery = 5 * time.Second, 100 * time.Millisecond
	// scrapesAlone are made when nothing is sent any more; what the store still has to write to files is in the processor's time of the first.
	scrapesAlone = 5
	// metricsInterval is that of flow_metrics in gateway.yaml.
	metricsInterval = 30 * time.Second
)

// gatewayOverlay reaches the simulated API server, and has the memory that docs/kubernetes.md says for a thousand nodes: 80 and 15 % of 4 GiB.
const gatewayOverlay = `
processors:
  pod_enrichment: {kubernetes: {auth_type: kubeConfig}}
  memory_limiter: {limit_percentage: 0, spike_limit_percentage: 0, limit_mib: 3276, spike_limit_mib: 614}
`

// loadOverlay is that with memory of its own, and an interval for metrics.
const loadOverlay = `
processors:
  pod_enrichment: {kubernetes: {auth_type: kubeConfig}}
  memory_limiter: {limit_percentage: 0, spike_limit_percentage: 0, limit_mib: %d, spike_limit_mib: %d}
connectors:
  flow_metrics: {interval: %s}
`

func number(t testing.TB, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, variable)
	return n
}

// TestLoad has a simulated cluster report to one gateway: first as fast as it takes it, then half as much while it is asked and scraped.
// It requires that every answer comes and that all that was acknowledged is there. How long things take, it tells: that is the machine's.
func TestLoad(t *testing.T) {
	n := number(t, envAgents, defaultAgents)
	length := time.Duration(number(t, envSeconds, defaultSeconds)) * time.Second
	interval, memory := min(5*time.Second, length/5), number(t, envMemory, defaultMemory)
	otlp, env := ports(t)
	// A short run has some metrics, too.
	overlay := fmt.Sprintf(loadOverlay, memory*80/100, memory*15/100, min(metricsInterval, length/2))
	g := launch(t, shipped("gateway"), overlay, otlp,
		append(env, "KUBECONFIG="+serveNames(t, n), fmt.Sprintf("GOMEMLIMIT=%dMiB", memory*78/100))...)
	agents := start(t, n, g.otlp)

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	began := time.Now()
	each(agents, func(a *agent) { assert.NoError(t, a.report(ctx, 1, began, time.Now())) })
	t.Logf("%d agents connected: %s", n, usage.Of(t, g.PID()))

	most := saturate(t, g, agents, length, interval)
	connections := int(share * most * interval.Seconds() / float64(n) / recordsPerConnection)
	pace(t, g, agents, length, interval, max(1, connections))
	least, series := time.Duration(math.MaxInt64), 0
	for range scrapesAlone {
		from := usage.Of(t, g.PID())
		_, n, _, err := g.scrape(t.Context())
		require.NoError(t, err)
		least, series = min(least, usage.Of(t, g.PID()).CPU-from.CPU), n
	}
	assert.Positive(t, series)
	t.Logf("a scrape of %d series takes %s of processor, the least of %d", series, least, scrapesAlone)
	verify(t, g, agents, began)
}

// saturate has each agent report without a pause, and returns the records a second that this came to.
func saturate(t *testing.T, g *process, agents []*agent, length, interval time.Duration) float64 {
	before, from := total(agents, acknowledged), usage.Of(t, g.PID())
	// What has begun is finished, so that what was acknowledged is known.
	until := from.At.Add(length)
	each(agents, func(a *agent) {
		for time.Now().Before(until) && !t.Failed() {
			assert.NoError(t, a.report(t.Context(), connectionsAtMost, time.Now().Add(-interval), time.Now()))
		}
	})
	to, records := usage.Of(t, g.PID()), float64(total(agents, acknowledged)-before)
	rate := records / to.At.Sub(from.At).Seconds()
	cpu := to.CPU - from.CPU
	t.Logf("as fast as it takes it: %.0f records/s; %.1f µs of processor a record, %.0f records/s a core, with %.2f cores; %s; %d retries",
		rate, float64(cpu.Microseconds())/records, records/cpu.Seconds(), cpu.Seconds()/to.At.Sub(from.At).Seconds(), to, total(agents, retries))
	return rate
}

func acknowledged(a *agent) *atomic.Uint64 { return &a.records }
func retries(a *agent) *atomic.Uint64      { return &a.retries }

// pace has each agent report an interval's connections once an interval, at instants of its own, while queries and a scrape run.
func pace(t *testing.T, g *process, agents []*agent, length, interval time.Duration, connections int) {
	before, from := total(agents, acknowledged), usage.Of(t, g.PID())
	until := from.At.Add(length)
	var late, reports atomic.Int64
	var latest atomic.Int64
	asked := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() { ask(t, g, len(agents), asked) })
	each(agents, func(a *agent) {
		for next := from.At.Add(rand.N(interval)); next.Before(until) && !t.Failed(); next = next.Add(interval) {
			time.Sleep(time.Until(next)) // paces the load
			assert.NoError(t, a.report(t.Context(), connections, next.Add(-interval), next))
			lag := time.Since(next)
			reports.Add(1)
			if lag > interval {
				late.Add(1)
			}
			for old := latest.Load(); int64(lag) > old && !latest.CompareAndSwap(old, int64(lag)); old = latest.Load() {
			}
		}
	})
	close(asked)
	asking.Wait()
	to, records := usage.Of(t, g.PID()), float64(total(agents, acknowledged)-before)
	cpu := to.CPU - from.CPU
	// Where the machine is busy some are late; where queues grow all are, from some instant on.
	t.Logf("asked meanwhile: %.0f records/s in %d reports with %.2f cores; %s; the latest was acknowledged after %s, %d after the next was due",
		records/to.At.Sub(from.At).Seconds(), reports.Load(), cpu.Seconds()/to.At.Sub(from.At).Seconds(), to,
		time.Duration(latest.Load()).Round(time.Millisecond), late.Load())
}

// ask runs queries, one after the other, and scrapes, until done.
func ask(t *testing.T, g *process, nodes int, done <-chan struct{}) {
	queries := map[string]func(context.Context) error{
		"newest 100 of a pod": func(ctx context.Context) error {
			p := pod(rand.N(nodes * podsPerNode))
			_, err := g.query.QueryFlows(ctx, connect.NewRequest(&orb8v1.QueryFlowsRequest{
				Allow: []*orb8v1.FlowFilter{{Pods: []string{p.String()}}}, Limit: 100,
			}))
			return err
		},
		"top 20 pairs of workloads in a minute": func(ctx context.Context) error {
			_, err := g.query.Aggregate(ctx, connect.NewRequest(&orb8v1.AggregateRequest{
				By: []string{"source.workload", "destination.workload"}, Measures: []string{"bytes"}, Top: 20,
				Since: timestamppb.New(time.Now().Add(-time.Minute)),
			}))
			return err
		},
		"status of all nodes": func(ctx context.Context) error {
			_, err := g.query.GetStatus(ctx, connect.NewRequest(&orb8v1.GetStatusRequest{}))
			return err
		},
	}
	took := map[string][]time.Duration{}
	var scrapes sync.WaitGroup
	scrapes.Go(func() {
		var longest time.Duration
		var series, bytes int
		for n := 0; ; n++ {
			d, s, b, err := g.scrape(context.WithoutCancel(t.Context()))
			if !assert.NoError(t, err, "scrape") {
				return
			}
			longest, series, bytes = max(longest, d), s, b
			select {
			case <-done:
				t.Logf("scraped %d times: %d series, %.1f MB, %s at most", n+1, series, float64(bytes)/1e6, longest.Round(time.Millisecond))
				return
			case <-time.After(scrapeEvery):
			}
		}
	})
	defer scrapes.Wait()
	for {
		for name, query := range queries {
			began := time.Now()
			if !assert.NoError(t, query(context.WithoutCancel(t.Context())), name) {
				return
			}
			took[name] = append(took[name], time.Since(began))
			select {
			case <-done:
				for name, all := range took {
					slices.Sort(all)
					t.Logf("%s: %d queries, p50 %s, p99 %s", name, len(all), all[len(all)/2].Round(10*time.Microsecond), all[len(all)*99/100].Round(10*time.Microsecond))
				}
				return
			case <-time.After(queryEvery):
			}
		}
	}
}

// verify compares what the gateway has with what it acknowledged.
func verify(t *testing.T, g *process, agents []*agent, began time.Time) {
	t.Helper()
	// Who reports after an instant was not missing then, however long ago that is when somebody asks.
	last := time.Now()
	each(agents, func(a *agent) { assert.NoError(t, a.report(t.Context(), 1, last.Add(-time.Second), last)) })
	reply, err := g.query.Aggregate(t.Context(), connect.NewRequest(&orb8v1.AggregateRequest{Measures: []string{"bytes"}, Until: timestamppb.New(last)}))
	require.NoError(t, err)
	assert.Empty(t, reply.Msg.GetMissingNodes())
	reply, err = g.query.Aggregate(t.Context(), connect.NewRequest(&orb8v1.AggregateRequest{Measures: []string{"bytes"}}))
	require.NoError(t, err)
	if oldest := reply.Msg.GetOldest().AsTime(); oldest.After(began) {
		t.Logf("not compared: a query reads the newest %s", time.Since(oldest).Round(time.Second))
	} else {
		assert.EqualValues(t, reportedBytes(agents), reply.Msg.GetTotal().GetValues()[0], "bytes of all flows, each once")
	}
	status, err := g.query.GetStatus(t.Context(), connect.NewRequest(&orb8v1.GetStatusRequest{}))
	require.NoError(t, err)
	assert.Len(t, status.Msg.GetNodes(), len(agents))
}
