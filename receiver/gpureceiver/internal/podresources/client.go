// Package podresources asks the kubelet which container has which GPU.
package podresources

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	api "k8s.io/kubelet/pkg/apis/podresources/v1"
)

const (
	// timeout bounds a question, which the kubelet answers from memory.
	timeout = 5 * time.Second
	// maxAnswer bounds an answer: 16 MiB is what the kubelet's own client takes.
	maxAnswer = 16 << 20
)

// DriverNVIDIA is the driver of claims (DRA) to NVIDIA's GPUs. Its other one is of the network between them.
const DriverNVIDIA = "gpu.nvidia.com"

// Allocation is a device that a container has.
type Allocation struct {
	Namespace, Pod, Container string
	// Resource is what the container asked for, such as nvidia.com/gpu, or the driver of its claim.
	Resource string
	// Device is its zero value for a claim whose device is not known.
	Device Device
	// Claim is nil for what a device plugin gave.
	Claim *Claim
}

// Claim is a device that was given by dynamic resource allocation. Driver, Pool and Device name it in the ResourceSlices.
type Claim struct{ Namespace, Name, Driver, Pool, Device string }

// Resolver finds the UUID of a claimed device.
type Resolver interface {
	// Resolve returns false where nobody has told of the device.
	Resolve(ctx context.Context, driver, pool, device string) (uuid string, ok bool)
}

// Client asks one kubelet.
type Client struct {
	socket string
	claims Resolver
}

// NewClient returns a client of the kubelet with the socket, which need not be there yet. Claims may be nil: then only claims are known and
// not their devices.
func NewClient(socket string, claims Resolver) *Client { return &Client{socket, claims} }

// ask has the kubelet asked over a connection of its own: the kubelet makes its socket anew when it starts, and a connection that waits
// to be tried again would miss it.
func (c *Client) ask(ctx context.Context, question func(context.Context, api.PodResourcesListerClient) error) error {
	// gRPC would warn in the log each time on a host that has no kubelet.
	if _, err := os.Stat(c.socket); err != nil {
		return c.explain(err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// Why the socket could not be reached, for a clearer word than gRPC's.
	var dialled atomic.Pointer[error]
	conn, err := grpc.NewClient("passthrough:///localhost",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", c.socket)
			if err != nil {
				dialled.Store(&err)
			}
			return conn, err
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return c.explain(err)
	}
	err = question(ctx, api.NewPodResourcesListerClient(conn))
	if p := dialled.Load(); p != nil && status.Code(err) == codes.Unavailable {
		err = *p
	}
	if closeErr := conn.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return c.explain(err)
	}
	return nil
}

// Allocations returns which containers have which GPUs, in the kubelet's order. It asks for all pods: to ask for one (Get) would need to know
// that it has changed. An error is fs.ErrNotExist where the socket is not there.
func (c *Client) Allocations(ctx context.Context) ([]Allocation, error) {
	var reply *api.ListPodResourcesResponse
	if err := c.ask(ctx, func(ctx context.Context, kubelet api.PodResourcesListerClient) (err error) {
		reply, err = kubelet.List(ctx, &api.ListPodResourcesRequest{})
		return err
	}); err != nil {
		return nil, err
	}
	var all []Allocation
	for _, pod := range reply.GetPodResources() {
		for _, container := range pod.GetContainers() {
			whose := Allocation{Namespace: pod.GetNamespace(), Pod: pod.GetName(), Container: container.GetName()}
			all = append(all, plugged(whose, container)...)
			all = append(all, c.claimed(ctx, whose, container)...)
		}
	}
	return all, nil
}

// plugged returns what device plugins gave to a container. A resource comes once for each NUMA node.
func plugged(whose Allocation, container *api.ContainerResources) []Allocation {
	var all []Allocation
	for _, devices := range container.GetDevices() {
		for _, id := range devices.GetDeviceIds() {
			if d, ok := ParseDevice(id); ok {
				a := whose
				a.Resource, a.Device = devices.GetResourceName(), d
				all = append(all, a)
			}
		}
	}
	return all
}

// claimed returns what was given to a container by claims.
func (c *Client) claimed(ctx context.Context, whose Allocation, container *api.ContainerResources) []Allocation {
	var all []Allocation
	for _, dynamic := range container.GetDynamicResources() {
		for _, r := range dynamic.GetClaimResources() {
			if r.GetDriverName() != DriverNVIDIA {
				continue
			}
			a := whose
			a.Resource = r.GetDriverName()
			a.Claim = &Claim{
				Namespace: dynamic.GetClaimNamespace(), Name: dynamic.GetClaimName(),
				Driver: r.GetDriverName(), Pool: r.GetPoolName(), Device: r.GetDeviceName(),
			}
			if c.claims != nil {
				if uuid, ok := c.claims.Resolve(ctx, r.GetDriverName(), r.GetPoolName(), r.GetDeviceName()); ok {
					a.Device, _ = ParseDevice(uuid)
				}
			}
			all = append(all, a)
		}
	}
	return all
}

// Capacity returns how many devices of each resource the kubelet may give to containers, shares of devices included, those of GPUs alone.
// It is nil where the kubelet is too old for the question.
func (c *Client) Capacity(ctx context.Context) (map[string]int, error) {
	var reply *api.AllocatableResourcesResponse
	if err := c.ask(ctx, func(ctx context.Context, kubelet api.PodResourcesListerClient) (err error) {
		if reply, err = kubelet.GetAllocatableResources(ctx, &api.AllocatableResourcesRequest{}); status.Code(err) == codes.Unimplemented {
			err = nil
		}
		return err
	}); err != nil {
		return nil, err
	}
	if reply == nil {
		return nil, nil
	}
	devices := map[string]int{}
	for _, d := range reply.GetDevices() {
		for _, id := range d.GetDeviceIds() {
			if _, ok := ParseDevice(id); ok {
				devices[d.GetResourceName()]++
			}
		}
	}
	return devices, nil
}

// explain says what is wrong with the socket, and the way out.
func (c *Client) explain(err error) error {
	way := ""
	info, statErr := os.Stat(c.socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		way = "; on a node of Kubernetes, mount its folder into the pod"
		err = fs.ErrNotExist
	case errors.Is(err, fs.ErrPermission):
		way = "; it is root's"
		err = fs.ErrPermission
	case statErr == nil && info.Mode().Type() != fs.ModeSocket:
		err = errors.New("it is no socket")
	case status.Code(err) == codes.Unimplemented:
		way = "; it is the socket of something else, or of a kubelet before Kubernetes 1.20"
	}
	return fmt.Errorf("cannot ask the kubelet which container has which GPU: %s: %w%s", c.socket, err, way)
}
