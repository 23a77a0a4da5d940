package podresources

import (
	"cmp"
	"context"
	"fmt"
	"slices"
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
	// labelsInterval is the time between two readings of the node's labels, which change when somebody configures it anew.
	labelsInterval = 5 * time.Minute
	// slicesTimeout bounds a reading, for which a scrape waits.
	slicesTimeout = 2 * time.Second
)

// Slices knows the devices that drivers have published as ResourceSlices, which Kubernetes has since 1.34, and how the node shares its GPUs.
type Slices struct {
	client kubernetes.Interface
	node   string
	now    func() time.Time
	failed func(error)

	mu    sync.Mutex
	uuids map[published]string
	read  time.Time
	// strategy is that of the node's labels, and labelled when they were read.
	strategy string
	labelled time.Time
	// pods are the names of the node's pods by UID, as of when they were listed.
	pods   map[string]string
	listed time.Time
	// said are the reasons of failures that were told.
	said map[string]string
}

// published is the name of a device.
type published struct{ driver, pool, device string }

// NewSlices returns the devices of a node. They are read when somebody asks for one that is not known; failed is told why they cannot be, once
// for each reason.
func NewSlices(client kubernetes.Interface, node string, failed func(error)) *Slices {
	return &Slices{client: client, node: node, now: time.Now, failed: failed, said: map[string]string{}}
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
	if s.tell("cannot read the ResourceSlices of node "+s.node+", so which GPU a claim has is not known", err) {
		return
	}
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

// strategyLabels are those by which nodes say how GPUs are shared: of NVIDIA's GPU feature discovery, and of Google's nodes.
var strategyLabels = map[string]map[string]string{
	"nvidia.com/gpu.sharing-strategy":           {"time-slicing": "time-slicing", "mps": "mps"},
	"cloud.google.com/gke-gpu-sharing-strategy": {"time-sharing": "time-slicing", "mps": "mps"},
}

// Strategy returns how the node shares its GPUs: time-slicing or mps, or nothing where its labels do not say.
func (s *Slices) Strategy(ctx context.Context) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); s.labelled.IsZero() || now.Sub(s.labelled) >= labelsInterval {
		s.labelled = now
		ctx, cancel := context.WithTimeout(ctx, slicesTimeout)
		defer cancel()
		node, err := s.client.CoreV1().Nodes().Get(ctx, s.node, metav1.GetOptions{})
		if s.tell("cannot read the labels of node "+s.node+", so how its GPUs are shared is not known", err) {
			return s.strategy
		}
		s.strategy = ""
		for label, strategies := range strategyLabels {
			s.strategy = cmp.Or(s.strategy, strategies[node.Labels[label]])
		}
	}
	return s.strategy
}

// annotationHash is on the API server's image of a static pod, and is the UID that the pod itself has on the node.
const annotationHash = "kubernetes.io/config.hash"

// Pods returns namespace/name of the node's pods by UID. They are listed anew when one that is asked for is not known; empty UIDs are
// nobody's.
func (s *Slices) Pods(ctx context.Context, uids []string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	unknown := slices.ContainsFunc(uids, func(uid string) bool { return uid != "" && s.pods[uid] == "" })
	if now := s.now(); unknown && (s.listed.IsZero() || now.Sub(s.listed) >= slicesInterval) {
		s.listed = now
		ctx, cancel := context.WithTimeout(ctx, slicesTimeout)
		defer cancel()
		// From the server's memory: a pod that is missing there is asked for again.
		list, err := s.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + s.node, ResourceVersion: "0"})
		if !s.tell("cannot list the pods of node "+s.node+", so whose processes use a GPU is not known", err) {
			s.pods = make(map[string]string, len(list.Items))
			for i := range list.Items {
				p := &list.Items[i]
				s.pods[cmp.Or(p.Annotations[annotationHash], string(p.UID))] = p.Namespace + "/" + p.Name
			}
		}
	}
	return s.pods
}

// tell tells an error, if it is one, and once until it is another. The caller holds s.mu.
func (s *Slices) tell(what string, err error) (failed bool) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != s.said[what] && err != nil {
		s.failed(fmt.Errorf("%s: %w", what, err))
	}
	s.said[what] = text
	return err != nil
}
