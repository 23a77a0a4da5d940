package podenrichmentprocessor

import (
	"net/netip"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/kubernetes"
)

// roomForPod is how many attributes a pod brings, nearly always at most.
const roomForPod = 9

// reason why an end has no name.
type reason int

const (
	unknown reason = iota
	ambiguous
	numReasons
)

// namer adds what Kubernetes says of resources and of the ends of flows. What is there already is never overwritten, so
// that naming may be tried again and again.
type namer struct {
	cache *kubernetes.Cache
	// absent are what was waited for in vain.
	absent *absentees
	// labels is whether to add those of pods.
	labels bool
	// ask says that somebody wants to know a pod that is not known.
	ask func()

	local, source, destination *attributeNames
}

// attempt is one try at a batch. Methods that return false have met something that is worth waiting for; with final set they
// make do with what there is.
type attempt struct {
	*namer
	final   bool
	unnamed [numReasons]int64
	// now stands for a record's time where it has none.
	now time.Time
}

func (n *namer) attempt(final bool) *attempt {
	return &attempt{namer: n, final: final, now: time.Now()}
}

// resource names a resource by the pod and container that the cgroup has told, and the zone by its node.
func (t *attempt) resource(attrs pcommon.Map) bool {
	if v, ok := attrs.Get(flow.AttrNodeName); ok {
		if node, known := t.cache.Node(v.Str()); known {
			putAbsent(attrs, flow.AttrZone, node.Zone)
		}
	}
	return t.byName(attrs) && t.byUID(attrs, t.local)
}

// byName identifies the container that a resource names without its cgroup, as the kubelet names whom a device belongs to: it gets the
// UID and the id that its cgroup would have told, so that both are one.
func (t *attempt) byName(attrs pcommon.Map) bool {
	names := t.local
	pod, container := str(attrs, names.pod), str(attrs, names.container)
	if pod == "" || container == "" || str(attrs, names.podUID) != "" || str(attrs, names.containerID) != "" {
		return true
	}
	if _, ok := attrs.Get(names.cgroupID); ok {
		return true
	}
	namespace := str(attrs, names.namespace)
	known, ok := t.cache.PodNamed(namespace, pod)
	if !ok {
		t.ask()
		return t.missing(absentee{id: namespace + "/" + pod})
	}
	id, ok := known.ContainerNamed(container)
	if !ok {
		// It has been given a device, and is about to start.
		t.ask()
		return t.missing(absentee{id: namespace + "/" + pod + "/" + container})
	}
	putAbsent(attrs, names.podUID, known.CgroupUID())
	putAbsent(attrs, names.containerID, id)
	t.putPod(attrs, names, known)
	if c, ok := known.Container(id); ok {
		putContainer(attrs, names, c)
	}
	return true
}

// byUID names the pod that attrs have the UID of, and the container that they have the id of.
func (t *attempt) byUID(attrs pcommon.Map, names *attributeNames) bool {
	uid := str(attrs, names.podUID)
	if uid == "" {
		return true
	}
	id := str(attrs, names.containerID)
	if str(attrs, names.pod) != "" && (id == "" || str(attrs, names.container) != "") {
		return true
	}
	pod, ok := t.cache.Pod(uid)
	if !ok {
		t.ask()
		return t.missing(absentee{id: uid})
	}
	t.putPod(attrs, names, pod)
	if id == "" {
		return true
	}
	if container, ok := pod.Container(id); ok {
		putContainer(attrs, names, container)
		return true
	}
	// A container that has just begun, unless it is the pod's sandbox, which the API does not tell of.
	t.ask()
	if t.final {
		t.absent.add(absentee{id: id}, t.now)
	}
	return t.final || t.outage() || t.absent.has(absentee{id: id}, t.now)
}

// outage tells whether the API, for now, tells nothing. A container that was started again has no name then, and what it is seen to do
// is not held for one: nothing else shows to others that its pod has an address which was another's.
func (t *attempt) outage() bool { return t.cache.Ready() && !t.cache.Stale().IsZero() }

// label adds the labels of the pod that attrs have the UID of, if it is known. Only log records are selected by labels: metrics would
// become as many as there are labels.
func (t *attempt) label(attrs pcommon.Map, names *attributeNames) {
	if !t.labels {
		return
	}
	if uid := str(attrs, names.podUID); uid != "" {
		if pod, ok := t.cache.Pod(uid); ok {
			putAbsent(attrs, names.labels, pod.Labels())
		}
	}
}

// missing says whether to go on without something, and then counts it.
func (t *attempt) missing(who absentee) bool {
	if t.final {
		t.absent.add(who, t.now)
	} else if !t.absent.has(who, t.now) {
		return false
	}
	t.unnamed[unknown]++
	return true
}

// observeAll learns who has which address before anything is named: within one batch are often both ends of a flow.
func (t *attempt) observeAll(ld plog.Logs) {
	for _, rl := range ld.ResourceLogs().All() {
		if uid := str(rl.Resource().Attributes(), t.local.podUID); uid != "" {
			for _, sl := range rl.ScopeLogs().All() {
				for _, lr := range sl.LogRecords().All() {
					t.observe(uid, lr)
				}
			}
		}
	}
}

// observe tells the cache which address the resource's pod had, and names the Service that it is a backend of.
func (t *attempt) observe(uid string, lr plog.LogRecord) {
	attrs := lr.Attributes()
	var names *attributeNames
	switch str(attrs, flow.AttrDirection) {
	case "egress":
		names = t.source
	case "ingress":
		names = t.destination
	default:
		return
	}
	addr, ok := address(attrs, names)
	if !ok || addr.IsLoopback() {
		return
	}
	first, last := t.span(lr)
	t.cache.Observe(uid, addr, first, last)
	if service, ok := t.cache.Backend(addr, port(attrs, names)); ok {
		putAbsent(attrs, names.service, service.Name)
	}
}

// record names the peer of a flow, and both of its ends where the resource tells nothing of the local one.
func (t *attempt) record(resource pcommon.Map, lr plog.LogRecord) bool {
	attrs := lr.Attributes()
	source, destination := true, true
	if identified(resource) {
		switch str(attrs, flow.AttrDirection) {
		case "egress":
			source = false
		case "ingress":
			destination = false
		}
	}
	before := t.unnamed
	done := true
	if source {
		done = t.end(resource, lr, t.source)
	}
	if destination {
		done = t.end(resource, lr, t.destination) && done
	}
	if !done {
		t.unnamed = before // counted when it is tried again
	}
	t.label(attrs, t.source)
	t.label(attrs, t.destination)
	return done
}

// identified tells whether the resource's cgroup says who the local endpoint is. The root cgroup has what the kernel itself
// sends, in whatever network namespace.
func identified(resource pcommon.Map) bool {
	return str(resource, flow.AttrPodUID) != "" || str(resource, flow.AttrContainerID) != "" || len(str(resource, flow.AttrCgroupPath)) > 1
}

// end names an end by its UID, where its cgroup is known too, or else by its address at the time.
func (t *attempt) end(resource pcommon.Map, lr plog.LogRecord, names *attributeNames) bool {
	attrs := lr.Attributes()
	if str(attrs, names.podUID) != "" {
		return t.byUID(attrs, names)
	}
	addr, ok := address(attrs, names)
	if !ok {
		return true
	}
	if addr.IsLoopback() {
		t.sameAs(resource, attrs, names)
		return true
	}
	at := port(attrs, names)
	first, last := t.span(lr)
	answer := t.cache.Address(addr, at, first, last)
	switch answer.State {
	case kubernetes.Foreign:
		return true
	case kubernetes.Ambiguous:
		t.unnamed[ambiguous]++
	case kubernetes.Awaited:
		if t.outage() {
			// Whoever it is, its own flows say so, and for the next record again.
			if t.final {
				t.unnamed[unknown]++
			}
			return t.final
		}
		return t.missing(absentee{addr: addr})
	case kubernetes.Tentative:
		if !t.final {
			return false
		}
	}
	t.put(attrs, names, &answer, at)
	return true
}

// sameAs names an end on the loopback device: it is in the same pod, or on the same node.
func (t *attempt) sameAs(resource, attrs pcommon.Map, names *attributeNames) {
	if pod, ok := t.cache.Pod(str(resource, flow.AttrPodUID)); ok && !pod.HostNetwork {
		t.put(attrs, names, &kubernetes.Answer{Pod: pod}, port(attrs, names))
		return
	}
	if str(resource, flow.AttrPodUID) == "" && str(resource, flow.AttrContainerID) != "" {
		return // a container without Kubernetes, whose network may be its own
	}
	putAbsent(attrs, names.node, str(resource, flow.AttrNodeName))
}

func (t *attempt) put(attrs pcommon.Map, names *attributeNames, answer *kubernetes.Answer, at kubernetes.Port) {
	if pod := answer.Pod; pod != nil {
		attrs.EnsureCapacity(attrs.Len() + roomForPod)
		putAbsent(attrs, names.podUID, pod.UID)
		t.putPod(attrs, names, pod)
		if container, ok := pod.ContainerOf(at); ok {
			putContainer(attrs, names, container)
		}
	}
	if node := answer.Node; node != nil {
		putAbsent(attrs, names.node, node.Name)
		putAbsent(attrs, names.zone, node.Zone)
	}
	if service := answer.Service; service != nil {
		putAbsent(attrs, names.service, service.Name)
		if answer.Pod == nil && answer.Node == nil {
			putAbsent(attrs, names.namespace, service.Namespace)
		}
	}
}

func (t *attempt) putPod(attrs pcommon.Map, names *attributeNames, pod *kubernetes.Pod) {
	putAbsent(attrs, names.pod, pod.Name)
	putAbsent(attrs, names.namespace, pod.Namespace)
	putAbsent(attrs, names.node, pod.Node)
	for i := range pod.Workload {
		if name, ok := names.owners[pod.Workload[i].Kind]; ok {
			putAbsent(attrs, name, pod.Workload[i].Name)
		}
	}
	if node, ok := t.cache.Node(pod.Node); ok {
		putAbsent(attrs, names.zone, node.Zone)
	}
}

func putContainer(attrs pcommon.Map, names *attributeNames, container *kubernetes.Container) {
	putAbsent(attrs, names.container, container.Name)
	putAbsent(attrs, names.image, container.Image)
}

// span returns the times of the first and the last packet of a record.
func (t *attempt) span(lr plog.LogRecord) (first, last time.Time) {
	last = t.now
	if ts := lr.Timestamp(); ts != 0 {
		last = ts.AsTime()
	}
	if v, ok := lr.Attributes().Get(flow.AttrFlowStart); ok {
		return time.Unix(0, v.Int()), last
	}
	return last, last
}

func address(attrs pcommon.Map, names *attributeNames) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(str(attrs, names.address))
	return addr.Unmap(), err == nil
}

func port(attrs pcommon.Map, names *attributeNames) kubernetes.Port {
	var p kubernetes.Port
	if v, ok := attrs.Get(names.port); ok {
		p.Number = uint16(v.Int())
	}
	switch str(attrs, flow.AttrTransport) {
	case "tcp":
		p.Transport = uint8(flow.TCP)
	case "udp":
		p.Transport = uint8(flow.UDP)
	case "sctp":
		p.Transport = uint8(flow.SCTP)
	}
	return p
}

func str(attrs pcommon.Map, name string) string {
	if v, ok := attrs.Get(name); ok {
		return v.Str()
	}
	return ""
}
