// Package fakekubelet answers as the pod-resources API of a kubelet does.
package fakekubelet

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	api "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// Kubelet is one that tells what it was told.
type Kubelet struct {
	api.UnimplementedPodResourcesListerServer

	mu          sync.Mutex
	pods        []*api.PodResources
	allocatable []*api.ContainerDevices
}

// Set says which pods have what. Allocatable is nil for a kubelet that does not know the question.
func (k *Kubelet) Set(allocatable []*api.ContainerDevices, pods ...*api.PodResources) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.allocatable, k.pods = allocatable, pods
}

// List implements the API.
func (k *Kubelet) List(context.Context, *api.ListPodResourcesRequest) (*api.ListPodResourcesResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &api.ListPodResourcesResponse{PodResources: k.pods}, nil
}

// GetAllocatableResources implements the API.
func (k *Kubelet) GetAllocatableResources(ctx context.Context, r *api.AllocatableResourcesRequest) (*api.AllocatableResourcesResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.allocatable == nil {
		return k.UnimplementedPodResourcesListerServer.GetAllocatableResources(ctx, r)
	}
	return &api.AllocatableResourcesResponse{Devices: k.allocatable}, nil
}

// Serve answers on the socket until the test ends, or stop is called.
func (k *Kubelet) Serve(t testing.TB, socket string) (stop func()) {
	t.Helper()
	return Serve(t, socket, func(s *grpc.Server) { api.RegisterPodResourcesListerServer(s, k) })
}

// Serve runs a server on the socket until the test ends, or stop is called.
func Serve(t testing.TB, socket string, register func(*grpc.Server)) (stop func()) {
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

// Pod is one in the namespace ml.
func Pod(name string, containers ...*api.ContainerResources) *api.PodResources {
	return &api.PodResources{Namespace: "ml", Name: name, Containers: containers}
}

// Container has devices of a resource.
func Container(name, resource string, ids ...string) *api.ContainerResources {
	return &api.ContainerResources{Name: name, Devices: []*api.ContainerDevices{{ResourceName: resource, DeviceIds: ids}}}
}

// Claimed is a container with a device of a claim in the namespace ml.
func Claimed(name, claim, driver, pool, device string) *api.ContainerResources {
	return &api.ContainerResources{Name: name, DynamicResources: []*api.DynamicResource{{
		ClaimNamespace: "ml", ClaimName: claim, ClaimResources: []*api.ClaimResource{{DriverName: driver, PoolName: pool, DeviceName: device}},
	}}}
}
