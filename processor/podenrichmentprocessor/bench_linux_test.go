package podenrichmentprocessor

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/orb8/orb8/internal/flow"
)

// oldServer answers lists and keeps watches open. Like API servers before 1.32 it streams no first list.
type oldServer struct {
	pods corev1.PodList
	done chan struct{}
}

func (s *oldServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	query := r.URL.Query()
	switch {
	case query.Get("sendInitialEvents") == "true":
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonInvalid,
			Code: http.StatusUnprocessableEntity, Message: "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
		})
	case query.Get("watch") == "true":
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-s.done:
		}
	case strings.HasSuffix(r.URL.Path, "/pods"):
		_ = json.NewEncoder(w).Encode(s.pods)
	case strings.HasSuffix(r.URL.Path, "/endpointslices"):
		_ = json.NewEncoder(w).Encode(discoveryv1.EndpointSliceList{
			TypeMeta: metav1.TypeMeta{Kind: "EndpointSliceList", APIVersion: "discovery.k8s.io/v1"},
		})
	case strings.HasSuffix(r.URL.Path, "/services"):
		_ = json.NewEncoder(w).Encode(corev1.ServiceList{TypeMeta: metav1.TypeMeta{Kind: "ServiceList", APIVersion: "v1"}})
	case strings.HasSuffix(r.URL.Path, "/nodes"):
		_ = json.NewEncoder(w).Encode(corev1.NodeList{TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"}})
	}
}

func podNumber(i int) (uid, name, ip, container string) {
	return fmt.Sprintf("00000000-0000-0000-0000-%012d", i), fmt.Sprintf("web-7c9-%05d", i), fmt.Sprintf("10.%d.%d.%d", 100+i>>16, i>>8&255, i&255),
		fmt.Sprintf("%064x", i)
}

// start serves the API with so many pods and returns a kubeconfig.
func (s *oldServer) start(t testing.TB, pods int) string {
	t.Helper()
	s.done = make(chan struct{})
	s.pods.TypeMeta = metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}
	s.pods.ResourceVersion = "1"
	started := metav1.NewTime(time.Now().Add(-time.Hour))
	for i := range pods {
		uid, name, ip, container := podNumber(i)
		s.pods.Items = append(s.pods.Items, corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				UID: types.UID(uid), Name: name, Namespace: "shop", ResourceVersion: "1", Labels: map[string]string{
					"pod-template-hash": "7c9", "app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "shop-production", "app.kubernetes.io/part-of": "shop",
				},
				OwnerReferences: []metav1.OwnerReference{*controller("ReplicaSet", "web-7c9")},
			},
			Spec: corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "main", Image: "image:1"}}},
			Status: corev1.PodStatus{
				Phase: corev1.PodRunning, StartTime: &started, PodIPs: []corev1.PodIP{{IP: ip}},
				ContainerStatuses: []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://" + container}},
			},
		})
	}
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		close(s.done)
		server.Close()
	})
	path := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(path, []byte(strings.ReplaceAll(noServer, "http://127.0.0.1:1", server.URL)), 0o600))
	return path
}

func TestServerThatStreamsNoFirstList(t *testing.T) {
	server := &oldServer{}
	a := newAgent(t, server.start(t, 3), nil, nil)
	require.Eventually(t, func() bool { return a.pods.cache.Sizes()["pod"] == 3 }, soon, time.Millisecond)
	uid, name, _, container := podNumber(2)
	_, _, peer, _ := podNumber(1)
	a.consume(t, oneRecord(t, a.cgroupOf(t, uid, container), record("egress", "10.100.0.2", peer, 80)))
	resource, rec := a.received(t, 0)
	assert.Equal(t, name, resource["k8s.pod.name"])
	assert.Equal(t, "web-7c9-00001", rec["destination.k8s.pod.name"])
	assert.True(t, a.pods.cache.Stale().IsZero())
	assert.Empty(t, a.host.reported())
	require.Eventually(t, func() bool { return a.warnings.FilterMessageSnippet("No node of the cluster").Len() == 1 }, soon, time.Millisecond)
}

// cpuTime is what the process has computed for, the garbage collector included: on a machine with other work the clock says
// more of that.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPods is 10,000 flow records of 100 containers as a receiver makes them, of pods that talk to each other: on an
// agent, where each resource is one of its cgroups, and on a gateway with 50,000 pods, where no end was named yet.
func BenchmarkPods(b *testing.B) {
	for _, bench := range []struct {
		name    string
		pods    int
		gateway bool
		labels  bool
	}{{"agent", 110, false, false}, {"agent with labels", 110, false, true}, {"gateway", 50000, true, false}, {"gateway with labels", 50000, true, true}} {
		b.Run(bench.name, func(b *testing.B) {
			server := &oldServer{}
			a := newAgent(b, server.start(b, bench.pods), func(cfg *Config, k *KubernetesConfig) {
				k.Labels = bench.labels
				if bench.gateway {
					cfg.Gateway, k.Scope = true, scopeCluster
				}
			}, nil)
			require.Eventually(b, func() bool { return a.pods.cache.Sizes()["pod"] == bench.pods }, soon, time.Millisecond)
			template, out := plog.NewLogs(), plog.NewLogs()
			for i := range 100 {
				uid, _, ip, container := podNumber(i)
				rl := template.ResourceLogs().AppendEmpty()
				attrs := rl.Resource().Attributes()
				if bench.gateway {
					attrs.PutStr(flow.AttrNodeName, "node-1")
					attrs.PutStr(flow.AttrPodUID, uid)
					attrs.PutStr(flow.AttrContainerID, container)
				} else {
					attrs.PutInt(flow.AttrCgroupID, a.cgroupOf(b, uid, container))
				}
				records := rl.ScopeLogs().AppendEmpty().LogRecords()
				for j := range 100 {
					_, _, peer, _ := podNumber((i*100 + j*37) % bench.pods)
					r := flow.Record{
						Start: time.Now().Add(-5 * time.Second), End: time.Now(), Direction: flow.Egress, Transport: flow.TCP, Bytes: 1, Packets: 1,
						Source: flow.Endpoint{Addr: netip.MustParseAddrPort(ip + ":40000")}, Destination: flow.Endpoint{Addr: netip.MustParseAddrPort(peer + ":443")},
						Initiator: flow.InitiatorSource,
					}
					r.PutTo(records.AppendEmpty())
				}
			}
			var cpu time.Duration
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				template.CopyTo(out)
				before := cpuTime(b)
				b.StartTimer()
				if _, err := a.enricher.logs(b.Context(), out, a.logs); err != nil {
					b.Fatal(err)
				}
				cpu += cpuTime(b) - before
			}
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N*10000), "cpu-ns/record")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*10000), "ns/record")
			_, named := out.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0).Attributes().Get("destination.k8s.deployment.name")
			require.True(b, named)
			require.Zero(b, a.number(b, "waiting"))
		})
	}
}
