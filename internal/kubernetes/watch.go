package kubernetes

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

// patience is how long an outage lasts before somebody hears of it: a server that starts ends a watch or two.
const patience = 5 * time.Second

// Watcher keeps a Cache up to date.
type Watcher struct {
	cache     *Cache
	onHealth  func(error)
	onRestart func(objects string)

	mu sync.Mutex
	// down are the sources that are away.
	down map[string]bool
	// alarm reports the outage, unless it is over by then; outages are numbered.
	alarm    *time.Timer
	outage   int
	reported bool
}

// NewWatcher returns a watcher that fills the cache. OnHealth is called with an error when the API has gone away and with nil
// when it is back, onRestart whenever a watch of objects, such as pods, begins. Calls of onHealth do not overlap.
func NewWatcher(c *Cache, onHealth func(error), onRestart func(objects string)) *Watcher {
	return &Watcher{cache: c, onHealth: onHealth, onRestart: onRestart, down: map[string]bool{}}
}

// Scope says what of the cluster is watched.
type Scope struct {
	// Node is the name of the only node whose pods are watched; empty: all nodes', and Services and EndpointSlices too.
	Node string
	// Kubelet, if there is one, is asked for the pods instead of the API server.
	Kubelet *Kubelet
}

// Run watches until the context ends.
func (w *Watcher) Run(ctx context.Context, client kubernetes.Interface, scope Scope) {
	// What there is to say, onHealth says once; the library says it every time.
	ctx = klog.NewContext(ctx, logr.Discard())
	sources := w.sources(client, scope)
	var running sync.WaitGroup
	if scope.Kubelet == nil {
		w.cache.expect(len(sources))
	} else {
		w.cache.expect(len(sources) + 1)
		running.Go(func() { scope.Kubelet.follow(ctx, w) })
	}
	for _, s := range sources {
		running.Go(func() { s.reflector.RunWithContext(ctx) })
	}
	running.Wait()
	w.end()
}

func (w *Watcher) sources(client kubernetes.Interface, scope Scope) []*source {
	core, discovery := client.CoreV1(), client.DiscoveryV1()
	onNode, itself := fields.Everything(), fields.Everything()
	if scope.Node != "" {
		onNode = fields.OneTermEqualSelector("spec.nodeName", scope.Node)
		itself = fields.OneTermEqualSelector(metav1.ObjectNameField, scope.Node)
	}
	c := w.cache
	sources := []*source{
		newSource(w, client, "nodes", &corev1.Node{}, core.Nodes(), itself, sink[*corev1.Node, *Node]{
			trim: nodeFrom, set: c.setNode, remove: c.deleteNode, replace: c.replaceNodes,
		}),
	}
	if scope.Kubelet == nil {
		sources = append(sources, newSource(w, client, "pods", &corev1.Pod{}, core.Pods(metav1.NamespaceAll), onNode, sink[*corev1.Pod, *Pod]{
			trim: podFrom, set: c.setPod, remove: c.deletePod, replace: c.replacePods,
		}))
	}
	if scope.Node == "" {
		sources = append(sources,
			newSource(w, client, "services", &corev1.Service{}, core.Services(metav1.NamespaceAll), fields.Everything(),
				sink[*corev1.Service, *Service]{
					trim: serviceFrom, set: c.setService, remove: c.deleteService, replace: c.replaceServices,
				}),
			newSource(w, client, "endpointslices", &discoveryv1.EndpointSlice{}, discovery.EndpointSlices(metav1.NamespaceAll), fields.Everything(),
				sink[*discoveryv1.EndpointSlice, *slice]{
					trim: sliceFrom, set: c.setSlice, remove: c.deleteSlice, replace: c.replaceSlices,
				}))
	}
	return sources
}

// lose says that a source has told nothing since a time.
func (w *Watcher) lose(source string, since time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down[source] {
		return
	}
	w.down[source] = true
	if len(w.down) == 1 {
		w.cache.setLost(since)
		w.outage++
		this := w.outage
		w.alarm = time.AfterFunc(patience, func() { w.report(this, err) })
	}
}

// report tells of an outage unless it is over.
func (w *Watcher) report(outage int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if outage == w.outage && len(w.down) > 0 {
		w.reported = true
		w.onHealth(err)
	}
}

func (w *Watcher) regain(source string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.down[source] {
		return
	}
	delete(w.down, source)
	if len(w.down) > 0 {
		return
	}
	w.alarm.Stop()
	w.cache.setLost(time.Time{})
	if w.reported {
		w.reported = false
		w.onHealth(nil)
	}
}

// end keeps outages that were not reported to itself.
func (w *Watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.down)
	if w.alarm != nil {
		w.alarm.Stop()
	}
}
