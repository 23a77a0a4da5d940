package podresources

import (
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	api "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/orb8/orb8/internal/testutil/fakekubelet"
)

// resolver knows one claimed device.
type resolver map[[3]string]string

func (r resolver) Resolve(_ context.Context, driver, pool, device string) (string, bool) {
	uuid, ok := r[[3]string{driver, pool, device}]
	return uuid, ok
}

func TestAllocations(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	claimed := func(driver, device string) *api.ContainerResources {
		return fakekubelet.Claimed("main", "gpu", driver, "node-a", device)
	}
	fake := &fakekubelet.Kubelet{}
	fake.Set(nil,
		fakekubelet.Pod("web", &api.ContainerResources{Name: "main", CpuIds: []int64{1}}),
		fakekubelet.Pod("train-0", fakekubelet.Container("main", "nvidia.com/gpu", "GPU-"+uuid+"::0"), fakekubelet.Container("side", "nvidia.com/gpu", "GPU-"+uuid+"::1")),
		fakekubelet.Pod("infer-0", fakekubelet.Container("main", "nvidia.com/mig-1g.10gb", "MIG-"+uuid), fakekubelet.Container("nic", "example.com/nic", "eth1")),
		fakekubelet.Pod("claims-0", claimed(DriverNVIDIA, "gpu-0"), claimed(DriverNVIDIA, "gpu-1"), claimed("compute-domain.nvidia.com", "channel-0")),
	)
	fake.Serve(t, socket)
	all, err := NewClient(socket, resolver{{DriverNVIDIA, "node-a", "gpu-0"}: "GPU-" + uuid}).Allocations(t.Context())
	require.NoError(t, err)
	device := func(id string) Device {
		d, ok := ParseDevice(id)
		require.True(t, ok)
		return d
	}
	assert.Equal(t, []Allocation{
		{"ml", "train-0", "main", "nvidia.com/gpu", device("GPU-" + uuid + "::0"), nil},
		{"ml", "train-0", "side", "nvidia.com/gpu", device("GPU-" + uuid + "::1"), nil},
		{"ml", "infer-0", "main", "nvidia.com/mig-1g.10gb", device("MIG-" + uuid), nil},
		{"ml", "claims-0", "main", DriverNVIDIA, device("GPU-" + uuid), &Claim{"ml", "gpu", DriverNVIDIA, "node-a", "gpu-0"}},
		{"ml", "claims-0", "main", DriverNVIDIA, Device{}, &Claim{"ml", "gpu", DriverNVIDIA, "node-a", "gpu-1"}},
	}, all)

	all, err = NewClient(socket, nil).Allocations(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 5)
	assert.Equal(t, Device{}, all[3].Device, "nobody resolves claims")
}

func TestCapacity(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	fake := &fakekubelet.Kubelet{}
	fake.Set([]*api.ContainerDevices{
		{ResourceName: "nvidia.com/gpu", DeviceIds: []string{"GPU-" + uuid + "::0", "GPU-" + uuid + "::1"}},
		{ResourceName: "nvidia.com/gpu", DeviceIds: []string{"nvidia3"}},
		{ResourceName: "example.com/nic", DeviceIds: []string{"eth1"}},
	})
	stop := fake.Serve(t, socket)
	capacity, err := NewClient(socket, nil).Capacity(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"nvidia.com/gpu": 3}, capacity)
	stop()
	(&fakekubelet.Kubelet{}).Serve(t, socket)
	capacity, err = NewClient(socket, nil).Capacity(t.Context())
	require.NoError(t, err, "an older kubelet")
	assert.Nil(t, capacity)
}

// A kubelet that starts again has a new socket, and is found by the next scrape.
func TestKubeletThatStartsAgain(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	before := "cannot ask the kubelet which container has which GPU: " + socket + ": "
	c := NewClient(socket, nil)
	_, err := c.Allocations(t.Context())
	require.EqualError(t, err, before+"file does not exist; on a node of Kubernetes, mount its folder into the pod")
	require.ErrorIs(t, err, fs.ErrNotExist)

	fake := &fakekubelet.Kubelet{}
	fake.Set(nil, fakekubelet.Pod("train-0", fakekubelet.Container("main", "nvidia.com/gpu", "GPU-"+uuid)))
	for range 2 {
		stop := fake.Serve(t, socket)
		all, err := c.Allocations(t.Context())
		require.NoError(t, err)
		assert.Len(t, all, 1)
		stop()
		_, err = c.Allocations(t.Context())
		require.ErrorContains(t, err, before)
	}
}

func TestSocketsOfOthers(t *testing.T) {
	folder := t.TempDir()
	before := "cannot ask the kubelet which container has which GPU: "
	fails := func(socket, want string) {
		t.Helper()
		_, err := NewClient(socket, nil).Allocations(t.Context())
		require.ErrorContains(t, err, before+socket+": ")
		assert.ErrorContains(t, err, want)
	}
	file := filepath.Join(folder, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	fails(file, "it is no socket")

	other := filepath.Join(folder, "other.sock")
	fakekubelet.Serve(t, other, func(s *grpc.Server) { healthpb.RegisterHealthServer(s, health.NewServer()) })
	fails(other, "; it is the socket of something else, or of a kubelet before Kubernetes 1.20")

	dead := filepath.Join(folder, "dead.sock")
	l, err := net.Listen("unix", dead)
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	fails(dead, "connection refused")

	// Root passes by the bits, so that an error stands for those who do not.
	assert.EqualError(t, NewClient(dead, nil).explain(fs.ErrPermission), before+dead+": permission denied; it is root's")
}
