//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/internal/testutil/fakekubelet"
	"github.com/orb8/orb8/testbed/cluster"
	"github.com/orb8/orb8/testbed/internal/collector"
)

const (
	gpuResource = "nvidia.com/gpu"
	card        = "GPU-a0000000-0000-4000-8000-000000000000"
)

// gpuPods share a card, and are called as in the page of dcgm-exporter that the test serves.
const gpuPods = `
apiVersion: v1
kind: Namespace
metadata: {name: ml}
---
apiVersion: v1
kind: Pod
metadata: {name: train-0, namespace: ml}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: ` + cluster.WorkloadImage + `, args: [serve, "8080"], resources: {limits: {` + gpuResource + `: 1}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: infer-0, namespace: ml}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: ` + cluster.WorkloadImage + `, args: [serve, "8080"], resources: {limits: {` + gpuResource + `: 1}}}]
`

const gpuOverlay = `
receivers:
  gpu:
    collection_interval: 1s
    nvml: {mode: off}
    cuda: {mode: off}
    dcgm: {mode: on, endpoint: "http://@/metrics"}
    pod_resources: {mode: on, kubernetes: {auth_type: kubeConfig}}
processors:
  pod_enrichment: {kubernetes: {auth_type: kubeConfig}}
  k8s_attributes: {auth_type: kubeConfig}
`

// devicePlugin gives out shares of a card that is not there.
type devicePlugin struct {
	plugin.UnimplementedDevicePluginServer
	ids []string
}

func (*devicePlugin) GetDevicePluginOptions(context.Context, *plugin.Empty) (*plugin.DevicePluginOptions, error) {
	return &plugin.DevicePluginOptions{}, nil
}

func (p *devicePlugin) ListAndWatch(_ *plugin.Empty, to grpc.ServerStreamingServer[plugin.ListAndWatchResponse]) error {
	var devices []*plugin.Device
	for _, id := range p.ids {
		devices = append(devices, &plugin.Device{ID: id, Health: plugin.Healthy})
	}
	if err := to.Send(&plugin.ListAndWatchResponse{Devices: devices}); err != nil {
		return err
	}
	<-to.Context().Done()
	return nil
}

func (*devicePlugin) Allocate(_ context.Context, r *plugin.AllocateRequest) (*plugin.AllocateResponse, error) {
	reply := &plugin.AllocateResponse{}
	for range r.ContainerRequests {
		reply.ContainerResponses = append(reply.ContainerResponses, &plugin.ContainerAllocateResponse{})
	}
	return reply, nil
}

// register has the node's kubelet give out the devices.
func (p *devicePlugin) register(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	root, err := c.Root()
	require.NoError(t, err)
	folder := filepath.Join(root, plugin.DevicePluginPath)
	fakekubelet.Serve(t, filepath.Join(folder, "shares.sock"), func(s *grpc.Server) { plugin.RegisterDevicePluginServer(s, p) })
	conn, err := grpc.NewClient("unix://"+filepath.Join(folder, filepath.Base(plugin.KubeletSocket)), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	_, err = plugin.NewRegistrationClient(conn).Register(t.Context(), &plugin.RegisterRequest{
		Version: plugin.Version, Endpoint: "shares.sock", ResourceName: gpuResource,
	})
	require.NoError(t, err)
}

// A real kubelet gives shares of a card to two pods: each is found by its container, and what was measured for it is the same container's.
func TestGPUsOfAKubelet(t *testing.T) {
	c := cluster.Start(t)
	(&devicePlugin{ids: []string{card + "::0", card + "::1"}}).register(t, c)
	require.NoError(t, c.Apply(t.Context(), gpuPods))
	client, err := c.Client()
	require.NoError(t, err)
	ids := map[string]string{}
	collector.Await(t, "the pods run", func() bool {
		pods, err := client.CoreV1().Pods("ml").List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		for i := range pods.Items {
			p := &pods.Items[i]
			if s := p.Status.ContainerStatuses; len(s) == 1 && s[0].State.Running != nil {
				_, ids[p.Name], _ = strings.Cut(s[0].ContainerID, "://")
			}
		}
		return len(ids) == 2
	}, func() any { return ids })

	page, err := os.ReadFile(filepath.Join(collector.Root(), "receiver/gpureceiver/internal/dcgm/testdata/4.4.1-virtual-gpus.prom"))
	require.NoError(t, err)
	l, err := c.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	exporter := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) }), ReadHeaderTimeout: time.Minute}
	go func() { _ = exporter.Serve(l) }()
	t.Cleanup(func() { assert.NoError(t, exporter.Close()) })

	ports := testutil.FreeAddresses(t, c.Listen, 4)
	startCollector(t, c, "agent", strings.ReplaceAll(gpuOverlay, "@", l.Addr().String()), "NODE_NAME="+cluster.NodeName, "ORB8_STATE_DIR="+t.TempDir(),
		"ORB8_GATEWAY_ENDPOINT="+ports[0], "ORB8_QUERY_ENDPOINT="+ports[1], "ORB8_PROMETHEUS_ENDPOINT="+ports[2], "ORB8_HEALTH_ENDPOINT="+ports[3])
	type gpuRow struct {
		UUID, Pod, Container, ContainerID string
		Memory                            uint64
		Power                             *float64
	}
	rows := map[string]gpuRow{}
	var text string
	collector.Await(t, "the card and its pods", func() bool {
		cmd, err := c.Command(t.Context(), collector.Binary(t, "orb8"), "gpu", "--agent", ports[1], "-o", "json")
		require.NoError(t, err)
		var stdout bytes.Buffer
		cmd.Stdout = &stdout
		if cmd.Run() != nil {
			return false // it has not begun to answer
		}
		text = stdout.String()
		var all []gpuRow
		if text != "" {
			require.NoError(t, json.Unmarshal(stdout.Bytes(), &all), text)
		}
		clear(rows)
		for _, r := range all {
			require.NotContains(t, rows, r.Pod, "each once: %s", text)
			rows[r.Pod] = r
		}
		return len(rows) == 3 && rows["train-0"].ContainerID != "" && rows["infer-0"].ContainerID != ""
	}, func() any { return text })
	for pod, memory := range map[string]uint64{"": 12000 << 20, "train-0": 8000 << 20, "infer-0": 3500 << 20} {
		r := rows[pod]
		assert.Equal(t, card, r.UUID)
		assert.Equal(t, memory, r.Memory, pod)
		assert.Equal(t, ids[pod], r.ContainerID, pod)
		assert.Equal(t, pod == "", r.Power != nil, "power is the card's")
	}
}
