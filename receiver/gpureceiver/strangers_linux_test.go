package gpureceiver

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/orb8/orb8/internal/fakenvml"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/testutil/fakekubelet"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/podresources"
)

// named are the pods of the API server, by the cgroups of a processTable.
func named(t *testing.T, pods map[uint64]string) *podresources.Slices {
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}})
	for id, name := range pods {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(podUID(id))}}
		_, err := client.CoreV1().Pods("ml").Create(t.Context(), pod, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	return podresources.NewSlices(client, "node-a", func(err error) { t.Error(err) })
}

// testIntruders has processes of pods on a card that a fake kubelet gave whole to one of them.
func testIntruders(t *testing.T, library string) {
	const given, other = 42, 43
	main := fakekubelet.Container("main", "nvidia.com/gpu", "GPU-a1000000-0000-0000-0000-000000000000")
	share := func(n int) string { return fmt.Sprintf("GPU-a1000000-0000-0000-0000-000000000000::%d", n) }
	wants := func(other string, cgroup uint64) []conflict {
		return []conflict{{
			kind: conflictOwner, device: "GPU-a1000000-0000-0000-0000-000000000000", about: "processes", first: "ml/train-0/main", other: other, cgroupID: cgroup,
		}}
	}
	both := processTable{100: given, 200: other}
	names := map[uint64]string{given: "train-0", other: "infer-0"}
	for name, tt := range map[string]struct {
		processes processTable
		// names are what the API server tells; nil where it is not asked.
		names map[uint64]string
		want  []conflict
	}{
		"its own alone":                     {processTable{100: given}, names, nil},
		"its own alone, not known by name":  {processTable{100: given}, nil, nil},
		"another alone":                     {processTable{200: other}, names, wants("ml/infer-0", other)},
		"another alone, not known by name":  {processTable{200: other}, nil, nil},
		"both":                              {both, names, wants("ml/infer-0", other)},
		"both, not known by name":           {both, nil, wants("one or more of cgroup 42, cgroup 43, which are of several pods", 0)},
		"one that the API server has not":   {both, map[uint64]string{given: "train-0"}, wants("cgroup 43", other)},
		"two that the API server has not":   {both, map[uint64]string{7: "web-0"}, wants("one or more of cgroup 42, cgroup 43, which are of several pods", 0)},
		"one of the host, which has no pod": {processTable{100: given, 200: hostCgroup}, nil, wants(fmt.Sprint("cgroup ", hostCgroup), hostCgroup)},
	} {
		t.Run(name, func(t *testing.T) {
			gpus := fakenvml.Scenario("a100") + fmt.Sprintf(processLine+processLine, 100, 1<<30, 200, 2<<30)
			n := newNVMLReceiver(t, library, gpus, tt.processes)
			kubelet := &fakekubelet.Kubelet{}
			kubelet.Set(nil, fakekubelet.Pod("train-0", main))
			n.cfg.PodResources.Socket = filepath.Join(t.TempDir(), "kubelet.sock")
			kubelet.Serve(t, n.cfg.PodResources.Socket)
			asked := &podResources{r: n.gpuReceiver, client: podresources.NewClient(n.cfg.PodResources.Socket, nil)}
			if tt.names != nil {
				asked.slices = named(t, tt.names)
			}
			n.add("pod_resources", ModeOn, func() source { return asked })
			sink := &consumertest.LogsSink{}
			n.gpuReceiver.logs = sink
			seen := func() (all []conflict) {
				_, err := n.scrape(t.Context())
				require.NoError(t, err)
				for c := range n.quarrels.since {
					all = append(all, c)
				}
				return all
			}
			require.Equal(t, tt.want, seen())
			for c := range n.quarrels.since {
				n.quarrels.since[c] = time.Now().Add(-conflictAfter)
			}
			seen()
			require.Equal(t, len(tt.want), sink.LogRecordCount(), "each is told once")
			require.Len(t, n.quarrels.lasting(), len(tt.want), "and is in the status")
			for i, c := range tt.want {
				assert.Equal(t, c.other, n.quarrels.lasting()[i].Other)
				rl := sink.AllLogs()[i].ResourceLogs().At(0)
				assert.Equal(t, "sources disagree about the processes of "+c.device+": ml/train-0/main, or "+c.other, rl.ScopeLogs().At(0).LogRecords().At(0).Body().Str())
				id, whose := rl.Resource().Attributes().Get("orb8.cgroup.id")
				require.Equal(t, c.cgroupID != 0, whose)
				assert.True(t, !whose || id.Int() == int64(c.cgroupID), "so that pod_enrichment names it")
			}

			kubelet.Set(nil, fakekubelet.Pod("train-0", fakekubelet.Container("main", "nvidia.com/gpu", share(0))),
				fakekubelet.Pod("infer-0", fakekubelet.Container("main", "nvidia.com/gpu", share(1))))
			assert.Empty(t, seen(), "the card is shared")
			kubelet.Set(nil, fakekubelet.Pod("train-0", fakekubelet.Container("main", "nvidia.com/gpu", share(0))))
			assert.Empty(t, seen(), "it can be: others may be let in by another resource")
			kubelet.Set(nil, fakekubelet.Pod("train-0", main), fakekubelet.Pod("infer-0", main))
			assert.Empty(t, seen(), "it was given to both, as a claim can be")
		})
	}
}

func TestHolders(t *testing.T) {
	const cardC = "GPU-c0000000-0000-4000-8000-000000000000"
	to := newRecorder(time.Now())
	for _, a := range []struct{ pod, container, device string }{
		{"a", "main", cardA}, {"a", "side", cardA}, {"b", "main", cardB}, {"c", "main", instance(1)}, {"d", "main", instance(1)},
		{"e", "main", cardC}, {"f", "main", "nvidia7"},
	} {
		d, ok := podresources.ParseDevice(a.device)
		require.True(t, ok)
		to.allocations = append(to.allocations, podresources.Allocation{Namespace: "ml", Pod: a.pod, Container: a.container, Device: d})
	}
	to.share(cardC, "mps")
	assert.Equal(t, map[string]holder{
		cardA: {"ml/a", []string{"ml/a/main", "ml/a/side"}}, cardB: {"ml/b", []string{"ml/b/main"}},
	}, to.holders())
	_, known := to.known["nvidia7"]
	assert.False(t, known)
	to.add(observation{metric: gpu.MetricProcessMemory, device: gpu.Device{ID: cardA}, container: container{namespace: "ml", pod: "x"}, value: 1})
	assert.Empty(t, to.intruders(), "dcgm-exporter's word for a container is compared elsewhere")
}
