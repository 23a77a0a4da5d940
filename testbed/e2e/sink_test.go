//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"google.golang.org/grpc"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/testbed/cluster"
)

// record is a flow record, or what a cgroup called in an interval.
type record struct {
	event      string
	start, end time.Time
	// arrived is when the sink got it.
	arrived time.Time
	// source and destination are set for flows, local for both.
	source, destination, local end
	// egress is whether local is the source.
	egress      bool
	connections int64
}

// end is what a record says of who it is about.
type end struct {
	address     netip.AddrPort
	cgroup      uint64
	containerID string
	podUID      string
	name
	service string
}

// name is what people call a container.
type name struct{ namespace, pod, container, workload string }

func (n name) String() string {
	return fmt.Sprintf("%s/%s/%s of %s", n.namespace, n.pod, n.container, n.workload)
}

func (r record) String() string {
	if r.event != flow.EventNameFlow {
		return fmt.Sprintf("%s of %s (cgroup %d)", r.event, r.local.name, r.local.cgroup)
	}
	direction := "ingress"
	if r.egress {
		direction = "egress"
	}
	return fmt.Sprintf("%s %s..%s %s [%s, cgroup %d, service %q] -> %s [%s, cgroup %d, service %q]", direction,
		r.start.Format(time.StampMilli), r.end.Format(time.StampMilli),
		r.source.address, r.source.name, r.source.cgroup, r.source.service,
		r.destination.address, r.destination.name, r.destination.cgroup, r.destination.service)
}

// sink is an OTLP server that keeps what it is sent.
type sink struct {
	plogotlp.UnimplementedGRPCServer
	address string

	mu      sync.Mutex
	records []record
}

// newSink listens on the node.
func newSink(t *testing.T, c *cluster.Cluster) *sink {
	t.Helper()
	l, err := c.Listen("tcp4", cluster.NodeIP+":0")
	require.NoError(t, err)
	s := &sink{address: l.Addr().String()}
	server := grpc.NewServer()
	plogotlp.RegisterGRPCServer(server, s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-done)
	})
	return s
}

func (s *sink) Export(_ context.Context, request plogotlp.ExportRequest) (plogotlp.ExportResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, resource := range request.Logs().ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, r := range scope.LogRecords().All() {
				switch r.EventName() {
				case flow.EventNameFlow, syscalls.EventNameCounts:
					out := parse(resource.Resource().Attributes(), r)
					out.arrived = now
					s.records = append(s.records, out)
				}
			}
		}
	}
	return plogotlp.NewExportResponse(), nil
}

// since returns the records after the first n.
func (s *sink) since(n int) []record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]record(nil), s.records[n:]...)
}

// count returns how many records there are.
func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.records)
}

// await waits until the records after the first n satisfy the condition, and returns them.
func (s *sink) await(t *testing.T, n int, timeout time.Duration, what string, done func([]record) bool) []record {
	t.Helper()
	for deadline := time.Now().Add(timeout); ; {
		records := s.since(n)
		if done(records) {
			return records
		}
		if time.Now().After(deadline) {
			var text strings.Builder
			for _, r := range records {
				fmt.Fprintln(&text, r)
			}
			require.Fail(t, "after "+timeout.String()+" still not: "+what, "%s", &text)
		}
		select {
		case <-t.Context().Done():
			require.NoError(t, t.Context().Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func parse(resource pcommon.Map, r plog.LogRecord) record {
	out := record{event: r.EventName(), end: r.Timestamp().AsTime(), start: r.Timestamp().AsTime(), local: endOf(resource, "")}
	attributes := r.Attributes()
	if start, ok := attributes.Get(flow.AttrFlowStart); ok {
		out.start = time.Unix(0, start.Int())
	}
	if out.event != flow.EventNameFlow {
		return out
	}
	out.connections = number(attributes, flow.AttrConnections)
	out.egress = text(attributes, flow.AttrDirection) == "egress"
	out.source, out.destination = endOf(attributes, flow.PrefixSource), endOf(attributes, flow.PrefixDestination)
	here, address := &out.destination, out.destination.address
	if out.egress {
		here, address = &out.source, out.source.address
	}
	*here = out.local
	here.address = address
	return out
}

// owners are the attributes of which one names a pod's workload, the outermost owner first.
var owners = []string{
	flow.AttrDeployment, flow.AttrCronJob, flow.AttrStatefulSet, flow.AttrDaemonSet, flow.AttrJob, flow.AttrReplicaSet,
}

func endOf(m pcommon.Map, prefix string) end {
	e := end{
		cgroup: uint64(number(m, prefix+flow.AttrCgroupID)), containerID: text(m, prefix+flow.AttrContainerID), podUID: text(m, prefix+flow.AttrPodUID),
		service: text(m, prefix+flow.AttrService),
		name: name{
			namespace: text(m, prefix+flow.AttrNamespace), pod: text(m, prefix+flow.AttrPod), container: text(m, prefix+flow.AttrContainer),
		},
	}
	for _, owner := range owners {
		if e.workload = text(m, prefix+owner); e.workload != "" {
			break
		}
	}
	if prefix != "" {
		if address, err := netip.ParseAddr(text(m, prefix+"address")); err == nil {
			e.address = netip.AddrPortFrom(address, uint16(number(m, prefix+"port")))
		}
	}
	return e
}

func text(m pcommon.Map, key string) string {
	v, ok := m.Get(key)
	if !ok {
		return ""
	}
	return v.AsString()
}

func number(m pcommon.Map, key string) int64 {
	v, ok := m.Get(key)
	if !ok {
		return 0
	}
	return v.Int()
}
