package flowmetricsconnector

import (
	"net/netip"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/orb8/orb8/internal/flow"
)

// workload is the best name that is known of an end of a flow. Namespace is Kubernetes', and empty for what has none.
type workload struct{ namespace, name string }

func (w workload) String() string {
	if w.namespace == "" {
		return w.name
	}
	return w.namespace + "/" + w.name
}

// rank orders the kinds of names: the higher, the better it says what somebody would call the workload.
type rank int

const (
	noName rank = iota
	dnsName
	cgroupPath
	systemdUnit
	containerID
	containerName
	podUID
	// A Service's own address; a pod that it stands before has a name of its own.
	serviceName
	podName
	// A pod's owners, and their owners above them.
	replicaSetName
	jobName
	cronJobName
	daemonSetName
	statefulSetName
	deploymentName
)

// rankOf returns the rank of the name that an attribute holds, noName if it holds none.
func rankOf(attribute string) rank {
	switch attribute {
	case flow.AttrDNSName:
		return dnsName
	case flow.AttrCgroupPath:
		return cgroupPath
	case flow.AttrUnit:
		return systemdUnit
	case flow.AttrContainerID:
		return containerID
	case "container.name":
		return containerName
	case flow.AttrPodUID:
		return podUID
	case flow.AttrService:
		return serviceName
	case flow.AttrPod:
		return podName
	case "k8s.replicaset.name":
		return replicaSetName
	case "k8s.job.name":
		return jobName
	case "k8s.cronjob.name":
		return cronJobName
	case "k8s.daemonset.name":
		return daemonSetName
	case "k8s.statefulset.name":
		return statefulSetName
	case "k8s.deployment.name":
		return deploymentName
	}
	return noName
}

// naming finds the workload of an end among its attributes, in whatever order they come.
type naming struct {
	rank                     rank
	namespace, name, address string
}

// note takes an attribute, named as in a resource.
func (n *naming) note(attribute string, v pcommon.Value) {
	switch attribute {
	case "address":
		n.address = v.Str()
	case flow.AttrNamespace:
		n.namespace = v.Str()
	default:
		if r := rankOf(attribute); r > n.rank && v.Str() != "" {
			n.rank, n.name = r, v.Str()
		}
	}
}

// improve takes the name of the other if it is better.
func (n *naming) improve(other *naming) {
	if other.rank > n.rank {
		n.rank, n.name = other.rank, other.name
	}
	if other.namespace != "" {
		n.namespace = other.namespace
	}
}

// workload returns the best name, or the kind of the address where there is none: addresses are too many to count by. It
// returns false when there is not even an address.
func (n *naming) workload() (workload, bool) {
	switch {
	case n.rank >= serviceName:
		return workload{n.namespace, n.name}, true
	case n.rank != noName:
		return workload{name: n.name}, true
	}
	addr, err := netip.ParseAddr(n.address)
	if err != nil {
		return workload{}, false
	}
	return workload{name: kindOf(addr.Unmap())}, true
}

// kindOf returns the kind of network that an address is of.
func kindOf(addr netip.Addr) string {
	switch {
	case addr.IsLoopback():
		return "loopback"
	case addr.IsUnspecified():
		return "unspecified"
	case addr.IsMulticast():
		return "multicast"
	case addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "broadcast"
	case addr.IsLinkLocalUnicast():
		return "link-local"
	case addr.IsPrivate(), isShared(addr):
		return "private"
	}
	return "public"
}

// isShared tells whether an address is of 100.64.0.0/10 (RFC 6598), which providers' networks use for nodes and pods.
func isShared(addr netip.Addr) bool {
	if !addr.Is4() {
		return false
	}
	b := addr.As4()
	return b[0] == 100 && b[1]&0xc0 == 64
}
