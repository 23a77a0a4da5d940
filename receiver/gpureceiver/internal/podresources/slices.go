package podresources

import (
	"context"
	"fmt"
	"sync"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// attributeUUID is what NVIDIA's driver publishes of GPUs and MIG instances, with or without its domain.
	attributeUUID = "uuid"
	// slicesInterval is the shortest time between two readings of the ResourceSlices: they change when a driver starts or a GPU fails.
	slicesInterval = 30 * time.Second
	// slicesTimeout bounds a reading, for which a scrape waits.
	slicesTimeout = 2 * time.Second
)

// Slices knows the devices that drivers have published as ResourceSlices, which Kubernetes has since 1.34.
type Slices struct {
	client kubernetes.Interface
	node   string
	now    func() time.Time
	failed func(error)

	mu      sync.Mutex
	uuids   map[published]string
	read    time.Time
	lastErr string
}

// published is the name of a device.
type published struct{ driver, pool, device string }

// NewSlices returns the devices of a node. They are read when somebody asks for one that is not known; failed is told why they cannot be, once
// for each reason.
func NewSlices(client kubernetes.Interface, node string, failed func(error)) *Slices {
	return &Slices{client: client, node: node, now: time.Now, failed: failed}
}

// Resolve implements Resolver.
func (s *Slices) Resolve(ctx context.Context, driver, pool, device string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := published{driver, pool, device}
	if uuid, ok := s.uuids[name]; ok {
		return uuid, true
	}
	if now := s.now(); s.read.IsZero() || now.Sub(s.read) >= slicesInterval {
		s.read = now
		s.refresh(ctx)
	}
	uuid, ok := s.uuids[name]
	return uuid, ok
}

// refresh reads what is published for the node. What was known stays where that fails.
func (s *Slices) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, slicesTimeout)
	defer cancel()
	list, err := s.client.ResourceV1().ResourceSlices().List(ctx, metav1.ListOptions{FieldSelector: resourcev1.ResourceSliceSelectorNodeName + "=" + s.node})
	if err != nil {
		if text := err.Error(); text != s.lastErr {
			s.lastErr = text
			s.failed(fmt.Errorf("cannot read the ResourceSlices of node %s, so which GPU a claim has is not known: %w", s.node, err))
		}
		return
	}
	s.lastErr = ""
	s.uuids = map[published]string{}
	for i := range list.Items {
		spec := &list.Items[i].Spec
		for j := range spec.Devices {
			d := &spec.Devices[j]
			for _, name := range []string{attributeUUID, spec.Driver + "/" + attributeUUID} {
				if a, ok := d.Attributes[resourcev1.QualifiedName(name)]; ok && a.StringValue != nil {
					s.uuids[published{spec.Driver, spec.Pool.Name, d.Name}] = *a.StringValue
				}
			}
		}
	}
}
