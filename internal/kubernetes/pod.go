package kubernetes

import (
	"cmp"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/orb8/orb8/internal/flow"
)

const (
	// annotationStaticUID of a mirror pod is the UID that its cgroup has: the kubelet made that before the API server knew.
	annotationStaticUID = "kubernetes.io/config.hash"
	// labelTemplateHash is what the Deployment controller names a ReplicaSet by, after the Deployment.
	labelTemplateHash = "pod-template-hash"
	// maxCronJobDelay is how much later than scheduled a pod of a CronJob may be made and still be known as such. The
	// suffix of a Job's name is a minute, so that a number that means anything else lies outside.
	maxCronJobDelay = 7 * 24 * time.Hour
)

// scheduledMinute is the end of the name of a Job that a CronJob made.
var scheduledMinute = regexp.MustCompile(`^(.+)-(\d{8,9})$`)

// Pod is what is kept of a pod. It does not change: a newer state of the pod is another Pod.
type Pod struct {
	UID, Name, Namespace string
	// Node is the node's name.
	Node string
	// Workload are the pod's owners, the nearest first.
	Workload []Owner
	// labels are shared by all pods that have the same.
	labels unique.Handle[string]
	// HostNetwork pods have their node's addresses, and so no Addresses.
	HostNetwork bool
	Addresses   []netip.Addr
	Containers  []Container

	// staticUID is the UID in the cgroups of a static pod; empty for others.
	staticUID string
	// from is when the kubelet accepted the pod, or, where that is not known, when the pod was made. Stopped is when the last
	// of its containers ended, zero while one runs. The API rounds both down to seconds.
	from, stopped time.Time
	// over pods start no container any more.
	over bool
	// running is when the first of the containers that run began; zero when none does.
	running time.Time
}

// Owner is an object that a pod is made by.
type Owner struct {
	// Kind is the API's, such as Deployment.
	Kind string
	Name string
}

// Container is a container of a pod.
type Container struct {
	Name string
	// Image has neither tag nor digest.
	Image string
	Ports []Port

	// ids are those of the container's instances, the present one first.
	ids []string
}

// Port is a port of a transport protocol.
type Port struct {
	Number uint16
	// Transport is the protocol's number in the IP header.
	Transport uint8
}

// maxInstances is how many ids of a container that was started again are kept.
const maxInstances = 8

// Labels returns the pod's labels, as flow.FormatLabels writes them.
func (p *Pod) Labels() string {
	if p.labels == (unique.Handle[string]{}) {
		return ""
	}
	return p.labels.Value()
}

// CgroupUID returns the UID by which the pod's cgroups are named.
func (p *Pod) CgroupUID() string { return cmp.Or(p.staticUID, p.UID) }

// ContainerNamed returns the id of the container's present instance, or of its last. It returns false where none has started yet.
func (p *Pod) ContainerNamed(name string) (id string, ok bool) {
	for i := range p.Containers {
		if c := &p.Containers[i]; c.Name == name && len(c.ids) > 0 {
			return c.ids[0], true
		}
	}
	return "", false
}

// Container returns the container with the id, which is 64 hexadecimal digits. It returns false for the pod's sandbox.
func (p *Pod) Container(id string) (*Container, bool) {
	for i := range p.Containers {
		for _, instance := range p.Containers[i].ids {
			if instance == id {
				return &p.Containers[i], true
			}
		}
	}
	return nil, false
}

// ContainerOf returns the container that listens at the port: the only one that says so, or the only one that there is.
func (p *Pod) ContainerOf(port Port) (*Container, bool) {
	if len(p.Containers) == 1 {
		return &p.Containers[0], true
	}
	var found *Container
	for i := range p.Containers {
		for _, declared := range p.Containers[i].Ports {
			if declared == port {
				if found != nil && found != &p.Containers[i] {
					return nil, false
				}
				found = &p.Containers[i]
			}
		}
	}
	return found, found != nil
}

// podFrom keeps of an API object what is needed.
func podFrom(p *corev1.Pod) *Pod {
	out := &Pod{
		UID: string(p.UID), Name: p.Name, Namespace: p.Namespace, Node: p.Spec.NodeName,
		HostNetwork: p.Spec.HostNetwork,
		Workload:    workloadOf(p),
		labels:      unique.Make(flow.FormatLabels(p.Labels)),
		staticUID:   p.Annotations[annotationStaticUID],
		from:        p.CreationTimestamp.Time,
	}
	if p.Status.StartTime != nil {
		out.from = p.Status.StartTime.Time
	}
	if !p.Spec.HostNetwork {
		for _, ip := range p.Status.PodIPs {
			if addr, err := netip.ParseAddr(ip.IP); err == nil {
				out.Addresses = append(out.Addresses, addr.Unmap())
			}
		}
	}
	out.addContainers(p)
	out.over = p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	out.running, out.stopped = lifeOf(p)
	return out
}

// addContainers reads the containers of the specification, which have the ports, and their states, which have the ids.
func (p *Pod) addContainers(from *corev1.Pod) {
	spec, status := &from.Spec, &from.Status
	for _, c := range spec.Containers {
		p.addContainer(c.Name, c.Image, c.Ports, status.ContainerStatuses)
	}
	for _, c := range spec.InitContainers {
		p.addContainer(c.Name, c.Image, c.Ports, status.InitContainerStatuses)
	}
	for _, c := range spec.EphemeralContainers {
		p.addContainer(c.Name, c.Image, nil, status.EphemeralContainerStatuses)
	}
}

func (p *Pod) addContainer(name, image string, ports []corev1.ContainerPort, statuses []corev1.ContainerStatus) {
	c := Container{Name: name, Image: imageName(image)}
	for _, port := range ports {
		c.Ports = append(c.Ports, Port{Number: uint16(port.ContainerPort), Transport: transportNumber(port.Protocol)})
	}
	for i := range statuses {
		if s := &statuses[i]; s.Name == name {
			c.addID(s.ContainerID)
			if last := s.LastTerminationState.Terminated; last != nil {
				c.addID(last.ContainerID)
			}
		}
	}
	p.Containers = append(p.Containers, c)
}

// addID takes an id as the API has it: containerd://0123...
func (c *Container) addID(id string) {
	if _, digits, ok := strings.Cut(id, "://"); ok {
		id = digits
	}
	if id == "" || len(c.ids) >= maxInstances {
		return
	}
	for _, known := range c.ids {
		if known == id {
			return
		}
	}
	c.ids = append(c.ids, id)
}

// inherit keeps the ids of earlier instances, which the API forgets one after the other.
func (p *Pod) inherit(older *Pod) {
	for i := range p.Containers {
		for j := range older.Containers {
			if older.Containers[j].Name == p.Containers[i].Name {
				for _, id := range older.Containers[j].ids {
					p.Containers[i].addID(id)
				}
			}
		}
	}
}

// lifeOf returns when the first of the containers that run began, and, if none runs, when the last one ended.
func lifeOf(p *corev1.Pod) (running, stopped time.Time) {
	for _, statuses := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for i := range statuses {
			switch state := &statuses[i].State; {
			case state.Terminated != nil:
				if t := state.Terminated.FinishedAt.Time; t.After(stopped) {
					stopped = t
				}
			case state.Running != nil:
				if t := state.Running.StartedAt.Time; running.IsZero() || t.Before(running) {
					running = t
				}
			}
		}
	}
	if !running.IsZero() {
		stopped = time.Time{}
	}
	return running, stopped
}

// workloadOf returns the owners of a pod from the pod alone: see ADR 13 for why that is exact.
func workloadOf(p *corev1.Pod) []Owner {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil {
		return nil
	}
	owner := Owner{Kind: ref.Kind, Name: ref.Name}
	switch ref.Kind {
	case "ReplicaSet":
		if hash := p.Labels[labelTemplateHash]; hash != "" {
			if name, ok := strings.CutSuffix(ref.Name, "-"+hash); ok && name != "" {
				return []Owner{owner, {Kind: "Deployment", Name: name}}
			}
		}
	case "Job":
		if name, ok := cronJobOf(ref.Name, p.CreationTimestamp.Time); ok {
			return []Owner{owner, {Kind: "CronJob", Name: name}}
		}
	case "Node": // of a mirror pod
		return nil
	}
	return []Owner{owner}
}

// cronJobOf returns the CronJob that named a Job by the minute for which it was scheduled.
func cronJobOf(job string, created time.Time) (string, bool) {
	match := scheduledMinute.FindStringSubmatch(job)
	if match == nil {
		return "", false
	}
	minutes, err := strconv.ParseInt(match[2], 10, 64)
	if err != nil {
		return "", false
	}
	delay := created.Sub(time.Unix(minutes*60, 0))
	return match[1], delay > -time.Minute && delay < maxCronJobDelay
}

// imageName cuts tag and digest off.
func imageName(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if colon := strings.LastIndexByte(image, ':'); colon > strings.LastIndexByte(image, '/') {
		image = image[:colon]
	}
	return image
}

// transportNumber returns the protocol's number in the IP header.
func transportNumber(p corev1.Protocol) uint8 {
	switch p {
	case corev1.ProtocolUDP:
		return 17
	case corev1.ProtocolSCTP:
		return 132
	}
	return 6
}
