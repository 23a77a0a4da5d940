package podresources

import (
	"context"
	"errors"
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
)

// fakeKubelet answers on a socket as a kubelet does.
type fakeKubelet struct {
	api.UnimplementedPodResourcesListerServer
	pods []*api.PodResources
	// allocatable is nil for a kubelet that does not know the question.
	allocatable []*api.ContainerDevices
}

func (f *fakeKubelet) List(context.Context, *api.ListPodResourcesRequest) (*api.ListPodResourcesResponse, error) {
	return &api.ListPodResourcesResponse{PodResources: f.pods}, nil
}

func (f *fakeKubelet) GetAllocatableResources(ctx context.Context, r *api.AllocatableResourcesRequest) (*api.AllocatableResourcesResponse, error) {
	if f.allocatable == nil {
		return f.UnimplementedPodResourcesListerServer.GetAllocatableResources(ctx, r)
	}
	return &api.AllocatableResourcesResponse{Devices: f.allocatable}, nil
}

// serve runs a server on the socket and returns how to end it.
func serve(t *testing.T, socket string, register func(*grpc.Server)) (stop func()) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	server := grpc.NewServer()
	register(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, grpc.ErrServerStopped) {
			assert.NoError(t, err)
		}
	}()
	stop = func() { server.Stop(); <-done }
	t.Cleanup(stop)
	return stop
}

func (f *fakeKubelet) register(s *grpc.Server) { api.RegisterPodResourcesListerServer(s, f) }

func pod(name string, containers ...*api.ContainerResources) *api.PodResources {
	return &api.PodResources{Namespace: "ml", Name: name, Containers: containers}
}

func with(name, resource string, ids ...string) *api.ContainerResources {
	return &api.ContainerResources{Name: name, Devices: []*api.ContainerDevices{{ResourceName: resource, DeviceIds: ids}}}
}

// resolver knows one claimed device.
type resolver map[[3]string]string

func (r resolver) Resolve(_ context.Context, driver, pool, device string) (string, bool) {
	uuid, ok := r[[3]string{driver, pool, device}]
	return uuid, ok
}

func TestAllocations(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	claimed := func(driver, device string) *api.ContainerResources {
		return &api.ContainerResources{Name: "main", DynamicResources: []*api.DynamicResource{{
			ClaimNamespace: "ml", ClaimName: "gpu", ClaimResources: []*api.ClaimResource{{DriverName: driver, PoolName: "node-a", DeviceName: device}},
		}}}
	}
	fake := &fakeKubelet{pods: []*api.PodResources{
		pod("web", &api.ContainerResources{Name: "main", CpuIds: []int64{1}}),
		pod("train-0", with("main", "nvidia.com/gpu", "GPU-"+uuid+"::0"), with("side", "nvidia.com/gpu", "GPU-"+uuid+"::1")),
		pod("infer-0", with("main", "nvidia.com/mig-1g.10gb", "MIG-"+uuid), with("nic", "example.com/nic", "eth1")),
		pod("claims-0", claimed(DriverNVIDIA, "gpu-0"), claimed(DriverNVIDIA, "gpu-1"), claimed("compute-domain.nvidia.com", "channel-0")),
	}}
	serve(t, socket, fake.register)
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
	fake := &fakeKubelet{allocatable: []*api.ContainerDevices{
		{ResourceName: "nvidia.com/gpu", DeviceIds: []string{"GPU-" + uuid + "::0", "GPU-" + uuid + "::1"}},
		{ResourceName: "nvidia.com/gpu", DeviceIds: []string{"nvidia3"}},
		{ResourceName: "example.com/nic", DeviceIds: []string{"eth1"}},
	}}
	stop := serve(t, socket, fake.register)
	capacity, err := NewClient(socket, nil).Capacity(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"nvidia.com/gpu": 3}, capacity)
	stop()
	serve(t, socket, (&fakeKubelet{}).register)
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

	fake := &fakeKubelet{pods: []*api.PodResources{pod("train-0", with("main", "nvidia.com/gpu", "GPU-"+uuid))}}
	for range 2 {
		stop := serve(t, socket, fake.register)
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
	serve(t, other, func(s *grpc.Server) { healthpb.RegisterHealthServer(s, health.NewServer()) })
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
