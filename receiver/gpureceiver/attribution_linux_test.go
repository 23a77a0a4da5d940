package gpureceiver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pmetric"
	api "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/orb8/orb8/internal/fakenvml"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/testutil/fakekubelet"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/podresources"
)

const (
	cardA = "GPU-a0000000-0000-4000-8000-000000000000"
	cardB = "GPU-b0000000-0000-4000-8000-000000000000"
)

func instance(i int) string { return fmt.Sprintf("MIG-%08d-0000-4000-8000-000000000000", i) }

// exporter is a dcgm-exporter whose page the test sets: a file of internal/dcgm/testdata.
type exporter struct {
	*httptest.Server
	page atomic.Pointer[[]byte]
}

func newExporter(t *testing.T, page string) *exporter {
	e := &exporter{}
	e.set(t, page)
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(*e.page.Load()) }))
	t.Cleanup(e.Close)
	return e
}

func (e *exporter) set(t *testing.T, page string) {
	text, err := os.ReadFile(filepath.Join("internal", "dcgm", "testdata", page))
	require.NoError(t, err)
	e.page.Store(&text)
}

// attributed is a receiver of an exporter and a kubelet, either of which may be missing.
func attributed(t *testing.T, sources []observation, e *exporter, k *fakekubelet.Kubelet) (*gpuReceiver, *statusHost) {
	r, host, _ := newTestReceiver(t)
	if sources != nil {
		r.add("nvml", ModeOn, func() source { return &scripted{sees: sources} })
	}
	if e != nil {
		r.cfg.DCGM.Endpoint = e.URL + "/metrics"
		r.add("dcgm", ModeOn, r.newDCGMSource)
	}
	if k != nil {
		r.cfg.PodResources.Socket = filepath.Join(t.TempDir(), "kubelet.sock")
		k.Serve(t, r.cfg.PodResources.Socket)
		r.add("pod_resources", ModeOn, r.newPodResources)
	}
	return r, host
}

// told is what is emitted, by metric, device, attributes and whose it is. Each is there once, and all are of one time.
func told(t *testing.T, md pmetric.Metrics) map[string]float64 {
	t.Helper()
	rows := map[string]float64{}
	for _, s := range samples(t, md) {
		who := s.Identity.Pod
		if s.Identity.CgroupID != 0 {
			who = fmt.Sprint("cgroup ", s.Identity.CgroupID)
		}
		name := fmt.Sprintf("%s|%s|%s|%s", s.Metric, s.Device.ID, s.Attributes, who)
		require.NotContains(t, rows, name)
		rows[name] = s.Value
	}
	times := map[time.Time]bool{}
	for _, s := range samples(t, md) {
		times[s.Time] = true
	}
	require.Len(t, times, 1)
	return rows
}

func scrapeOf(t *testing.T, r *gpuReceiver) map[string]float64 {
	t.Helper()
	md, err := r.scrape(t.Context())
	require.NoError(t, err)
	return told(t, md)
}

// Two pods share a card by time-slicing: what is the card's is there once, and each pod has what was measured for it.
func TestTwoPodsShareACard(t *testing.T) {
	card := gpu.Device{ID: cardA, Model: "Tesla T4", PCIAddress: "00000000:17:00.0"}
	kubelet := &fakekubelet.Kubelet{}
	kubelet.Set(nil,
		fakekubelet.Pod("train-0", fakekubelet.Container("main", "nvidia.com/gpu", cardA+"::0")),
		fakekubelet.Pod("infer-0", fakekubelet.Container("main", "nvidia.com/gpu", cardA+"::1", cardA+"::2")),
	)
	t.Run("NVML before DCGM", func(t *testing.T) {
		r, _ := attributed(t, []observation{
			{metric: "hw.power", device: card, value: 66},
			{metric: "hw.gpu.memory.usage", device: card, value: 12001 << 20},
			{metric: "gpu.process.memory.usage", device: card, container: container{cgroupID: 7}, value: 8001 << 20},
			{metric: "gpu.process.memory.usage", device: card, container: container{cgroupID: 8}, value: 3500 << 20},
		}, newExporter(t, "4.4.1-virtual-gpus.prom"), kubelet)
		rows := scrapeOf(t, r)
		allocation := "gpu.allocation|" + cardA + "|gpu.allocation.replica=%d,gpu.allocation.resource=nvidia.com/gpu|%s"
		for name, want := range map[string]float64{
			"hw.power|" + cardA + "||":                              66,
			"hw.gpu.memory.usage|" + cardA + "||":                   12001 << 20,
			"hw.gpu.utilization|" + cardA + "|hw.gpu.task=general|": 0.8,
			"gpu.process.memory.usage|" + cardA + "||cgroup 7":      8001 << 20,
			fmt.Sprintf(allocation, 0, "train-0"):                   1,
			fmt.Sprintf(allocation, 1, "infer-0"):                   1,
			fmt.Sprintf(allocation, 2, "infer-0"):                   1,
		} {
			assert.InDelta(t, want, rows[name], 1e-9, name)
			assert.Contains(t, rows, name)
		}
		for name := range rows {
			assert.NotRegexp(t, `^gpu\.process\.memory\.usage\|.*\|(train|infer)-0$`, name, "NVML has measured it for the cgroups")
		}
	})
	t.Run("DCGM alone", func(t *testing.T) {
		r, _ := attributed(t, nil, newExporter(t, "4.4.1-virtual-gpus.prom"), nil)
		assert.Equal(t, map[string]float64{
			"hw.power|" + cardA + "||":                                      65.5,
			"hw.gpu.utilization|" + cardA + "|hw.gpu.task=general|":         0.8,
			"hw.gpu.memory.usage|" + cardA + "||":                           12000 << 20,
			"gpu.process.memory.usage|" + cardA + "||train-0":               8000 << 20,
			"gpu.process.memory.usage|" + cardA + "||infer-0":               3500 << 20,
			"gpu.process.utilization|" + cardA + "|gpu.engine=sm|train-0":   0.6,
			"gpu.process.utilization|" + cardA + "|gpu.engine=sm|infer-0":   0.2,
			"gpu.allocation|" + cardA + "|gpu.allocation.replica=0|train-0": 1,
			"gpu.allocation|" + cardA + "|gpu.allocation.replica=1|infer-0": 1,
		}, scrapeOf(t, r))
	})
	t.Run("a kubelet alone", func(t *testing.T) {
		r, _ := attributed(t, nil, nil, kubelet)
		md, err := r.scrape(t.Context())
		require.NoError(t, err)
		assert.Len(t, told(t, md), 3)
		point := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Gauge().DataPoints().At(0).Attributes()
		id, _ := point.Get(gpu.AttrID)
		assert.Equal(t, cardA, id.Str())
		_, numbered := point.Get(gpu.AttrIndex)
		assert.False(t, numbered, "nobody has told its number")
	})
}

// Seven MIG instances, seven pods: each has its own.
func TestSevenInstances(t *testing.T) {
	kubelet := &fakekubelet.Kubelet{}
	var pods []*api.PodResources
	for i := range 7 {
		pods = append(pods, fakekubelet.Pod(fmt.Sprintf("small-%d", i), fakekubelet.Container("main", "nvidia.com/mig-1g.10gb", instance(i))))
	}
	kubelet.Set(nil, pods...)
	check := func(t *testing.T, r *gpuReceiver) {
		rows := scrapeOf(t, r)
		assert.InDelta(t, 450.25, rows["hw.power|"+cardB+"||"], 1e-9)
		for i := range 7 {
			for name, want := range map[string]float64{
				"gpu.sm.activity|" + instance(i) + "||":     float64(i) / 10,
				"hw.gpu.memory.usage|" + instance(i) + "||": float64(i+1) * (1 << 30),
				"gpu.allocation|" + instance(i) + "|gpu.allocation.resource=nvidia.com/mig-1g.10gb|small-" + fmt.Sprint(i): 1,
			} {
				assert.Contains(t, rows, name)
				assert.InDelta(t, want, rows[name], 1e-9, name)
			}
		}
		for name := range rows {
			assert.NotContains(t, name, "MIG-GPU-")
		}
		md, err := r.scrape(t.Context())
		require.NoError(t, err)
		for _, s := range samples(t, md) {
			if s.Device.ID != cardB {
				assert.Equal(t, cardB, s.Device.Parent, s.Metric)
				assert.Equal(t, "1g.10gb", s.Device.MIGProfile, s.Metric)
			}
		}
	}
	t.Run("the kubelet names what DCGM numbers", func(t *testing.T) {
		r, _ := attributed(t, nil, newExporter(t, "4.8.3-mig.prom"), kubelet)
		check(t, r)
	})
	t.Run("NVML names them", func(t *testing.T) {
		r, _, _ := newTestReceiver(t)
		r.add("nvml", ModeOn, func() source {
			return sourceFunc(func(to *recorder) {
				to.know(gpu.Device{ID: cardB}, noNumber, noNumber)
				for i := range 7 {
					to.know(gpu.Device{ID: instance(i), Parent: cardB, MIGProfile: "1g.10gb"}, i+7, 0)
				}
			})
		})
		r.cfg.DCGM.Endpoint = newExporter(t, "4.8.3-mig.prom").URL
		r.add("dcgm", ModeOn, r.newDCGMSource)
		r.cfg.PodResources.Socket = filepath.Join(t.TempDir(), "kubelet.sock")
		kubelet.Serve(t, r.cfg.PodResources.Socket)
		r.add("pod_resources", ModeOn, r.newPodResources)
		check(t, r)
	})
	t.Run("nobody names them", func(t *testing.T) {
		r, _ := attributed(t, nil, newExporter(t, "4.8.3-mig.prom"), nil)
		rows := scrapeOf(t, r)
		assert.InDelta(t, 0.1, rows["gpu.sm.activity|MIG-"+cardB+"/8/0||"], 1e-9)
		assert.InDelta(t, 1, rows["gpu.allocation|MIG-"+cardB+"/8/0||small-1"], 0)
		assert.InDelta(t, 1, rows["gpu.allocation|"+instance(6)+"|gpu.allocation.claim=ml/small-6-gpu,gpu.allocation.resource=gpu.nvidia.com|small-6"], 0,
			"of a claim the exporter tells the UUID")
	})
}

func TestResolve(t *testing.T) {
	to := newRecorder(time.Now())
	card := gpu.Device{ID: cardA, Index: 2}
	mig := gpu.Device{ID: instance(1), Index: 2, Parent: cardA}
	to.know(card, noNumber, noNumber)
	to.know(mig, 9, 1)
	to.know(gpu.Device{ID: cardA, Model: "another word"}, noNumber, noNumber)
	for id, want := range map[string]gpu.Device{
		cardA + "::4":           card,
		"nvidia2":               card,
		"nvidia2/vgpu1":         card,
		"nvidia2/gi9":           mig,
		"MIG-" + cardA + "/9/1": mig,
		instance(1) + "::0":     mig,
		instance(2):             {ID: instance(2)},
		"MIG-" + cardA + "/9/0": {ID: "MIG-" + cardA + "/9/0", Parent: cardA},
		"nvidia3":               {},
		"nvidia2/gi1":           {},
	} {
		d, ok := podresources.ParseDevice(id)
		require.True(t, ok)
		got, known := to.resolve(&d)
		assert.Equal(t, want, got, id)
		assert.Equal(t, want.ID != "", known, id)
	}
}

func TestClaimsWithoutAGPU(t *testing.T) {
	kubelet := &fakekubelet.Kubelet{}
	kubelet.Set(nil, fakekubelet.Pod("claims-0", fakekubelet.Claimed("main", "one", podresources.DriverNVIDIA, "node-a", "gpu-0"),
		fakekubelet.Claimed("main", "other", podresources.DriverNVIDIA, "node-a", "gpu-1")))
	r, _ := attributed(t, nil, nil, kubelet)
	assert.Equal(t, map[string]float64{
		"gpu.allocation||gpu.allocation.claim=ml/one,gpu.allocation.resource=gpu.nvidia.com|claims-0":   1,
		"gpu.allocation||gpu.allocation.claim=ml/other,gpu.allocation.resource=gpu.nvidia.com|claims-0": 1,
	}, scrapeOf(t, r), "who has it is known, and not what")
}

// apiServer answers for ResourceSlices and for a node.
func apiServer(t *testing.T) (kubeconfig string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/apis/resource.k8s.io/v1/resourceslices":
			assert.Equal(t, "spec.nodeName=node-a", r.URL.Query().Get("fieldSelector"))
			_, _ = fmt.Fprintf(w, `{"kind": "ResourceSliceList", "apiVersion": "resource.k8s.io/v1", "items": [{"spec": {"driver": "gpu.nvidia.com",
				"pool": {"name": "node-a"}, "devices": [{"name": "gpu-0", "attributes": {"uuid": {"string": %q}}}]}}]}`, cardA)
		case "/api/v1/nodes/node-a":
			_, _ = fmt.Fprint(w, `{"kind": "Node", "apiVersion": "v1", "metadata": {"name": "node-a", "labels": {"nvidia.com/gpu.sharing-strategy": "mps"}}}`)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(kubeconfig, []byte(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "`+server.URL+`"}}]
contexts: [{name: c, context: {cluster: c}}]
current-context: c
`), 0o600))
	return kubeconfig
}

func TestKubernetesTellsOfClaimsAndSharing(t *testing.T) {
	kubelet := &fakekubelet.Kubelet{}
	kubelet.Set(nil, fakekubelet.Pod("claims-0", fakekubelet.Claimed("main", "one", podresources.DriverNVIDIA, "node-a", "gpu-0")),
		fakekubelet.Pod("train-0", fakekubelet.Container("main", "nvidia.com/gpu", cardB+"::0")))
	r, _ := attributed(t, nil, nil, kubelet)
	t.Setenv("KUBECONFIG", apiServer(t))
	r.cfg.PodResources.Kubernetes = configoptional.Some(KubernetesConfig{AuthType: "kubeConfig", NodeName: "node-a"})
	md, err := r.scrape(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]float64{
		"gpu.allocation|" + cardA + "|gpu.allocation.claim=ml/one,gpu.allocation.resource=gpu.nvidia.com|claims-0": 1,
		"gpu.allocation|" + cardB + "|gpu.allocation.replica=0,gpu.allocation.resource=nvidia.com/gpu|train-0":     1,
	}, told(t, md))
	strategies := map[string]string{}
	for _, rm := range md.ResourceMetrics().All() {
		a := rm.ScopeMetrics().At(0).Metrics().At(0).Gauge().DataPoints().At(0).Attributes()
		id, _ := a.Get(gpu.AttrID)
		if strategy, ok := a.Get(gpu.AttrSharing); ok {
			strategies[id.Str()] = strategy.AsString()
		}
	}
	assert.Equal(t, map[string]string{cardB: "mps"}, strategies, "a claimed card is not shared so")
}

func TestKubernetesThatCannotBeAsked(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	r, _ := attributed(t, nil, nil, &fakekubelet.Kubelet{})
	r.cfg.PodResources.Kubernetes = configoptional.Some(KubernetesConfig{AuthType: "kubeConfig"})
	_, err := r.scrape(t.Context())
	require.ErrorContains(t, err, "pod_resources: kubernetes: auth_type kubeConfig: ")
}

func TestWhatIsNotThereIsSaid(t *testing.T) {
	kubelet := &fakekubelet.Kubelet{}
	kubelet.Set([]*api.ContainerDevices{{ResourceName: "example.com/nic", DeviceIds: []string{"eth1"}}})
	gone := newExporter(t, "3.3.9-a100.prom")
	gone.Close()
	r, host := attributed(t, nil, gone, kubelet)
	for _, s := range r.sources {
		s.mode = ModeAuto
	}
	_, err := r.scrape(t.Context())
	require.NoError(t, err)
	require.Len(t, host.events, 1)
	assert.Equal(t, componentstatus.StatusOK, host.events[0].Status())
	absent, _ := host.events[0].Attributes().Get(attrAbsent)
	assert.Contains(t, absent.Str(), "dcgm: cannot scrape dcgm-exporter: Get \""+gone.URL)
	assert.Contains(t, absent.Str(), "; pod_resources: the kubelet has no GPU to give: is the device plugin of the GPUs running?")
	kubelet.Set([]*api.ContainerDevices{{ResourceName: "nvidia.com/gpu", DeviceIds: []string{cardA}}})
	_, err = r.scrape(t.Context())
	require.NoError(t, err)
	absent, _ = host.events[1].Attributes().Get(attrAbsent)
	assert.NotContains(t, absent.Str(), "pod_resources", "there is one, and nobody has it")
}

// Errors that dcgm-exporter counted before us are not ours, and it may begin again.
func TestErrorsOfTheExporter(t *testing.T) {
	page := func(values string) []byte {
		return []byte(strings.ReplaceAll(values, "@", `{gpu="4",UUID="`+cardA+`"`))
	}
	e := newExporter(t, "4.8.3-mig.prom")
	r, _ := attributed(t, nil, e, nil)
	sink := &consumertest.LogsSink{}
	r.logs, r.events.send = sink, r.sendEvents
	var errors []float64
	for _, counted := range []int{4, 4, 6, 1} {
		text := page(fmt.Sprintf("DCGM_EXP_XID_ERRORS_TOTAL@,xid=\"31\"} %d\nDCGM_FI_DEV_XID_ERRORS@} %d\n", counted, counted))
		e.page.Store(&text)
		md, err := r.scrape(t.Context())
		require.NoError(t, err)
		n := 0.0
		for _, s := range samples(t, md) {
			assert.Equal(t, "gpu.xid.errors", s.Metric)
			n = s.Value
		}
		errors = append(errors, n)
	}
	assert.Equal(t, []float64{0, 0, 2, 3}, errors)
	require.Equal(t, 3, sink.LogRecordCount(), "one at once, and one for all others of its interval; then the next")
	lr := sink.AllLogs()[0].ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0)
	assert.Equal(t, eventXID, lr.EventName())
	assert.Contains(t, lr.Body().Str(), "GPU 4 ("+cardA+"): XID 31")

	// One that does not count tells of the last error alone.
	sink.Reset()
	for _, values := range []string{"79 1", "79 1", "48 1", "48 2"} {
		last, rows, _ := strings.Cut(values, " ")
		text := page("DCGM_FI_DEV_XID_ERROR@} " + last + "\nDCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL@} " + rows + "\n")
		e.page.Store(&text)
		_, err := r.scrape(t.Context())
		require.NoError(t, err)
	}
	var names []string
	for _, ld := range sink.AllLogs() {
		names = append(names, ld.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0).EventName())
	}
	assert.Equal(t, []string{eventXID, eventXID, eventRowRemap}, names, "each other code, and rows")
}

// A Service may lead to the exporters of all nodes.
func TestExporterOfAnotherNode(t *testing.T) {
	e := newExporter(t, "4.4.1-virtual-gpus.prom")
	r, _ := attributed(t, nil, e, nil)
	scrapeOf(t, r)
	e.set(t, "4.8.3-mig.prom")
	md, err := r.scrape(t.Context())
	require.ErrorContains(t, err, "answers for node-a and for node-b; name the exporter of this node alone")
	assert.Zero(t, md.DataPointCount())

	r, _ = attributed(t, []observation{{metric: "hw.power", device: gpu.Device{ID: cardA}, value: 1}}, e, nil)
	md, err = r.scrape(t.Context())
	require.ErrorContains(t, err, "tells of none of this node's GPUs; name the exporter of this node")
	assert.Equal(t, 1, md.DataPointCount())
}

func TestConflictsAreTold(t *testing.T) {
	kubelet := &fakekubelet.Kubelet{}
	kubelet.Set(nil, fakekubelet.Pod("train-0", fakekubelet.Container("main", "nvidia.com/gpu", cardA)))
	card := gpu.Device{ID: cardA}
	r, _ := attributed(t, []observation{{metric: "hw.gpu.memory.limit", device: card, value: 1 << 30}, {metric: "hw.power", device: card, value: 1}},
		newExporter(t, "4.4.1-virtual-gpus.prom"), kubelet)
	sink := &consumertest.LogsSink{}
	r.logs, r.events.send = sink, r.sendEvents
	scrapeOf(t, r)
	assert.Zero(t, sink.LogRecordCount(), "it may be an old page")
	for c := range r.quarrels.since {
		r.quarrels.since[c] = time.Now().Add(-conflictAfter)
	}
	for range 2 {
		scrapeOf(t, r)
	}
	require.Equal(t, 1, sink.LogRecordCount(), "once, and powers may differ")
	lr := sink.AllLogs()[0].ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0)
	assert.Equal(t, eventConflict, lr.EventName())
	assert.Equal(t, "sources disagree about the container of "+cardA+": ml/train-0/main, or ml/infer-0/main", lr.Body().Str())
	assert.Equal(t, map[string]any{
		"hw.id": cardA, attrConflictKind: "owner", attrConflictAbout: "container", attrConflictFirst: "ml/train-0/main", attrConflictOther: "ml/infer-0/main",
	}, lr.Attributes().AsRaw())
}

func TestProcessesOnAGPUThatNobodyWasGiven(t *testing.T) {
	kubelet := &fakekubelet.Kubelet{}
	train := fakekubelet.Pod("train-0", fakekubelet.Container("main", "nvidia.com/gpu", cardA))
	kubelet.Set(nil, train)
	r, _ := attributed(t, []observation{
		{metric: "gpu.process.memory.usage", device: gpu.Device{ID: cardA}, container: container{cgroupID: 7}, value: 1},
		{metric: "gpu.process.memory.usage", device: gpu.Device{ID: cardB}, container: container{cgroupID: 8}, value: 1},
	}, nil, kubelet)
	sink := &consumertest.LogsSink{}
	r.logs, r.events.send = sink, r.sendEvents
	scrapeOf(t, r)
	for c := range r.quarrels.since {
		r.quarrels.since[c] = time.Now().Add(-conflictAfter)
	}
	scrapeOf(t, r)
	require.Equal(t, 1, sink.LogRecordCount())
	rl := sink.AllLogs()[0].ResourceLogs().At(0)
	assert.Equal(t, map[string]any{"orb8.cgroup.id": int64(8)}, rl.Resource().Attributes().AsRaw(), "pod_enrichment names it")
	assert.Equal(t, "sources disagree about the processes of "+cardB+": none, or cgroup 8", rl.ScopeLogs().At(0).LogRecords().At(0).Body().Str())

	kubelet.Set(nil, train, fakekubelet.Pod("claims-0", fakekubelet.Claimed("main", "one", podresources.DriverNVIDIA, "node-a", "gpu-0")))
	scrapeOf(t, r)
	assert.Empty(t, r.quarrels.since, "it may be the claim's")
}

func TestCompare(t *testing.T) {
	a := newAttribution()
	for _, o := range []observation{
		{metric: "hw.gpu.memory.limit", device: gpu0, value: 100.5},
		{metric: "hw.gpu.memory.limit", device: gpu0, value: 102},
		{metric: "gpu.rows.remapped", part: "corrected", device: gpu0, value: 101},
		{metric: "hw.power", device: gpu0, value: 300},
	} {
		a.compare(&o, 100)
	}
	assert.Equal(t, []conflict{
		{kind: conflictValue, device: "GPU-0", about: "hw.gpu.memory.limit", first: "100", other: "102"},
		{kind: conflictValue, device: "GPU-0", about: "gpu.rows.remapped corrected", first: "100", other: "101"},
	}, a.disagreements)
}

// testNamesOfInstances has NVML's instances given out by the names of each device plugin. An instance with a process and its pod are one device.
func testNamesOfInstances(t *testing.T, library string) {
	gpus := strings.Replace(fakenvml.Scenario("h100-mig"), "gi 9\n", "gi 9\nprocess c 500 1073741824 9 0\n", 1)
	n := newNVMLReceiver(t, library, gpus, processTable{500: 42})
	kubelet := &fakekubelet.Kubelet{}
	n.cfg.PodResources.Socket = filepath.Join(t.TempDir(), "kubelet.sock")
	kubelet.Serve(t, n.cfg.PodResources.Socket)
	n.add("pod_resources", ModeOn, n.newPodResources)
	for _, called := range []string{
		"MIG-c1000000-0000-0000-0000-000000000002", "MIG-c1000000-0000-0000-0000-000000000002::1", "MIG-GPU-c1000000-0000-0000-0000-000000000000/9/0",
		"nvidia0/gi9", "nvidia0/gi9/vgpu0",
	} {
		kubelet.Set(nil, fakekubelet.Pod("small-2", fakekubelet.Container("main", "nvidia.com/gpu", called)))
		md, err := n.scrape(t.Context())
		require.NoError(t, err, called)
		devices := map[string]gpu.Device{}
		for _, s := range samples(t, md) {
			if s.Metric == gpu.MetricAllocation || s.Metric == gpu.MetricProcessMemory {
				devices[s.Metric] = s.Device
			}
		}
		require.Len(t, devices, 2, called)
		assert.Equal(t, devices[gpu.MetricProcessMemory], devices[gpu.MetricAllocation], called)
		assert.Equal(t, "MIG-c1000000-0000-0000-0000-000000000002", devices[gpu.MetricAllocation].ID, called)
		assert.Empty(t, n.quarrels.since, "nobody is on a GPU that was given to nobody")
	}
}
