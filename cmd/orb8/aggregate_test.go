package main

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// cannedGroups answers with what was asked for; buckets are of a minute.
func cannedGroups(req *orb8v1.AggregateRequest) *orb8v1.AggregateResponse {
	measures := []string{"bytes", "packets", "errors"}
	if len(req.GetMeasures()) > 0 {
		measures = req.GetMeasures()
	}
	by := []string{"source.pod", "destination.pod"}
	if len(req.GetBy()) > 0 {
		by = req.GetBy()
	}
	bucket := func(ago time.Duration, v uint64) *orb8v1.AggregateBucket {
		return &orb8v1.AggregateBucket{Start: timestamppb.New(testNow().Truncate(time.Minute).Add(-ago)), Values: []uint64{v, v / 1000, 0}}
	}
	groups := []*orb8v1.AggregateGroup{
		{By: []string{"shop/cart-7d9c5b8f6d-x2k7p", "shop/db-0"}, Values: []uint64{3 << 30, 3_000_000, 0}, Buckets: []*orb8v1.AggregateBucket{
			bucket(4*time.Minute, 1<<30), bucket(3*time.Minute, 2<<30-1000), bucket(0, 1000),
		}},
		{By: []string{"shop/web-0", ""}, Values: []uint64{1 << 29, 12, 17}, Buckets: []*orb8v1.AggregateBucket{bucket(time.Minute, 1<<29)}},
		{By: []string{"", "kube-system/coredns-5d78c9869d-abcde"}, Values: []uint64{0, 12_345_678, 1}},
	}
	total := &orb8v1.AggregateGroup{Values: []uint64{4 << 30, 20_000_000, 18}, Buckets: []*orb8v1.AggregateBucket{
		bucket(4*time.Minute, 1<<30), bucket(3*time.Minute, 2<<30), bucket(time.Minute, 1<<29), bucket(0, 1000),
	}}
	return &orb8v1.AggregateResponse{By: by, Measures: measures, Groups: groups, Total: total, Matched: 54, Truncated: true}
}

func TestAggregateGolden(t *testing.T) {
	agent := (&fakeCollector{aggregate: cannedGroups}).serve(t)
	for golden, args := range map[string]string{
		"aggregate.txt":          "",
		"aggregate.json":         "-o json",
		"aggregate.csv":          "-o csv",
		"aggregate_buckets.txt":  "--bucket 1m --since 6m",
		"aggregate_buckets.json": "--bucket 1m --since 6m -o jsonl",
		"aggregate_buckets.csv":  "--bucket 1m --since 6m -o csv",
		"aggregate_latency.txt":  "--signal dns --by client.pod --sum latency,lookups",
	} {
		t.Run(golden, func(t *testing.T) {
			got := orb8(t, agent, append([]string{"aggregate", "--top", "3"}, strings.Fields(args)...)...)
			assert.Zero(t, got.code)
			assert.Equal(t, "orb8: 3 of 54 groups shown; raise --top\n", got.stderr)
			assertGolden(t, golden, got.stdout)
			if strings.HasSuffix(golden, ".txt") {
				for line := range strings.Lines(got.stdout) {
					assert.LessOrEqual(t, utf8.RuneCountInString(line), defaultWidth+1, line)
				}
			}
		})
	}
}

func TestAggregateAsks(t *testing.T) {
	tests := map[string]*orb8v1.AggregateRequest{
		"": {Signal: orb8v1.Signal_SIGNAL_FLOWS, Top: 20},
		"--by source.pod,destination.pod --by transport --sum packets,bytes --top 5 --bucket 1m --since 5m --until 1m": {
			Signal: orb8v1.Signal_SIGNAL_FLOWS, Top: 5, By: []string{"source.pod", "destination.pod", "transport"}, Measures: []string{"packets", "bytes"},
			Bucket: durationpb.New(time.Minute), Since: ago(5 * time.Minute), Until: ago(time.Minute),
		},
		"--from shop/ --not --port 53": {
			Signal: orb8v1.Signal_SIGNAL_FLOWS, Top: 20,
			Allow: []*orb8v1.FlowFilter{{Source: &orb8v1.EndpointFilter{Namespaces: []string{"shop"}}}}, Deny: []*orb8v1.FlowFilter{{Ports: []uint32{53}}},
		},
		"--signal dns --name *.local --not --rcode NOERROR": {
			Signal: orb8v1.Signal_SIGNAL_DNS, Top: 20,
			Dns: []*orb8v1.DnsFilter{{Names: []string{"*.local"}}}, DenyDns: []*orb8v1.DnsFilter{{Rcodes: []string{"NOERROR"}}},
		},
		"--signal syscalls --syscall openat --not --workload db --top 0": {
			Signal:   orb8v1.Signal_SIGNAL_SYSCALLS,
			Syscalls: []*orb8v1.SyscallFilter{{Syscalls: []string{"openat"}}}, DenySyscalls: []*orb8v1.SyscallFilter{{Workloads: []string{"db"}}},
		},
		"--severity warning --signal anomalies --not --rule burst": {
			Signal: orb8v1.Signal_SIGNAL_ANOMALIES, Top: 20,
			Anomalies:     []*orb8v1.AnomalyFilter{{MinSeverity: orb8v1.Severity_SEVERITY_WARNING}},
			DenyAnomalies: []*orb8v1.AnomalyFilter{{Rules: []string{"burst"}}},
		},
	}
	for args, want := range tests {
		t.Run(args, func(t *testing.T) {
			collector := &fakeCollector{aggregate: cannedGroups}
			got := orb8(t, collector.serve(t), append([]string{"aggregate"}, strings.Fields(args)...)...)
			require.Zero(t, got.code, got.stderr)
			assert.True(t, proto.Equal(want, collector.askedAggregate), "want %v, got %v", want, collector.askedAggregate)
		})
	}
}

func TestAggregateRefuses(t *testing.T) {
	for args, says := range map[string]string{
		"--signal gpu":                      "use flows, dns, syscalls or anomalies",
		"--signal syscalls --port 53":       "--port does not choose among syscalls; use some of --not, --pod,",
		"--rcode NXDOMAIN":                  "--rcode does not choose among flows",
		"--signal dns --outcome reset":      "--outcome does not choose among dns",
		"--by source.pod,":                  "use names such as source.pod",
		"--bucket 10ms":                     "use a duration of a second or more",
		"--bucket minute":                   "use a duration of a second or more",
		"--top -1":                          "use a number from 1 to 4294967295, or 0 for all",
		"--since 1m --until 5m":             "is not before --until",
		"--not --signal flows":              "--not denies the filter that follows it",
		"--signal flows --syscall openat":   "--syscall does not choose among flows",
		"--signal anomalies --from default": "--from does not choose among anomalies",
	} {
		got := orb8(t, "127.0.0.1:1", append([]string{"aggregate"}, strings.Fields(args)...)...)
		assert.Equal(t, exitUsage, got.code, args)
		assert.Contains(t, got.stderr, says, args)
	}
}

// TestEveryFilterIsOfASignal holds that no filter of aggregate is without effect.
func TestEveryFilterIsOfASignal(t *testing.T) {
	cmd := newAggregateCommand(&app{now: testNow})
	for _, s := range signals() {
		for _, name := range s.filters {
			assert.NotNil(t, cmd.Flags().Lookup(name), name)
		}
	}
	for _, name := range []string{"from", "port", "outcome", "rcode", "type", "cgroup", "syscall", "rule", "severity", "label", "node", "ip"} {
		assert.True(t, slices.ContainsFunc(signals(), func(s recordSignal) bool { return slices.Contains(s.filters, name) }), name)
	}
}

func TestTimeline(t *testing.T) {
	at := func(ago time.Duration, v uint64) *orb8v1.AggregateBucket {
		return &orb8v1.AggregateBucket{Start: ago2(ago), Values: []uint64{v}}
	}
	// testNow is 7 seconds after the minute.
	all := []*orb8v1.AggregateBucket{at(5*time.Minute, 1), at(time.Minute, 2), at(0, 4)}
	line := newTimeline(time.Minute, ago(4*time.Minute), nil, testNow(), all)
	assert.Equal(t, 6, line.count, "from the bucket that began before the range to the one of now")
	assert.Equal(t, []uint64{1, 0, 0, 0, 2, 4}, line.values(all, 0, 32))
	assert.Equal(t, []uint64{1, 0, 6}, line.values(all, 0, 3))
	assert.Equal(t, []uint64{0, 0}, line.values(all, 7, 2), "a measure that is not there")
	assert.Equal(t, 1, newTimeline(time.Hour, nil, nil, testNow(), nil).count)
	assert.Equal(t, []uint64{0}, newTimeline(time.Hour, nil, nil, testNow(), nil).values(nil, 0, 32))
}

func ago2(d time.Duration) *timestamppb.Timestamp {
	return timestamppb.New(testNow().Truncate(time.Minute).Add(-d))
}

func TestDrawings(t *testing.T) {
	assert.Equal(t, "", bar(0, 10))
	assert.Equal(t, "▏", bar(0.00001, 10))
	assert.Equal(t, "█████", bar(0.5, 10))
	assert.Equal(t, "█████▌", bar(0.55, 10))
	assert.Equal(t, "██████████", bar(1, 10))
	assert.Equal(t, "·▁▅█", spark([]uint64{0, 1, 500, 1000}))
	assert.Equal(t, "··", spark([]uint64{0, 0}))
	assert.Equal(t, "█", spark([]uint64{1 << 63}))
}
