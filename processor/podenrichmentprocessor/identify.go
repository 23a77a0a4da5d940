package podenrichmentprocessor

import (
	"context"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/flow"
)

// outcome of a lookup.
type outcome int

const (
	resolved outcome = iota
	unresolved
	otherNode
	numOutcomes
)

// tally counts the lookups of one batch.
type tally [numOutcomes]int64

// resource gives a resource the name of this node unless it has one, and the identity of its cgroup. It returns false
// if the resource is another node's: there the ids belong to other cgroups.
func (e *enricher) resource(attrs pcommon.Map, n *tally) bool {
	if e.cfg.Gateway {
		return false
	}
	node, ok := attrs.Get(flow.AttrNodeName)
	if !ok {
		attrs.PutStr(flow.AttrNodeName, e.node)
	} else if node.Str() != e.node {
		if _, ok := attrs.Get(flow.AttrCgroupID); ok {
			n[otherNode]++
		}
		return false
	}
	e.identify(attrs, &e.local, n)
	return true
}

// identify adds what is known of the cgroup that attrs name by its id, and leaves alone what is there already.
func (e *enricher) identify(attrs pcommon.Map, names *attributeNames, n *tally) {
	v, ok := attrs.Get(names.cgroupID)
	if !ok || v.Int() == 0 {
		return
	}
	identity, ok := e.lookup(uint64(v.Int()))
	if !ok {
		n[unresolved]++
		return
	}
	n[resolved]++
	// Room for all six at once, not by doubling.
	attrs.EnsureCapacity(attrs.Len() + 6)
	putAbsent(attrs, names.cgroupPath, identity.Path)
	putAbsent(attrs, names.containerID, identity.ContainerID)
	putAbsent(attrs, names.runtime, identity.Runtime)
	putAbsent(attrs, names.podUID, identity.PodUID)
	putAbsent(attrs, names.qosClass, identity.QOSClass)
	putAbsent(attrs, names.unit, identity.Unit)
}

// nameService names the service of a connection's span by its workload in Kubernetes, or by its systemd service. Until then
// it is named by its process, and a service may have many. A scope is no service: it holds whatever a login started. Other
// spans name their own.
func nameService(attrs pcommon.Map) {
	if _, ours := attrs.Get(flow.AttrCgroupID); !ours {
		return
	}
	for _, workload := range []string{
		flow.AttrDeployment, flow.AttrReplicaSet, flow.AttrStatefulSet, flow.AttrDaemonSet, flow.AttrCronJob, flow.AttrJob, flow.AttrPod,
	} {
		if name := str(attrs, workload); name != "" {
			attrs.PutStr(flow.AttrServiceName, name)
			return
		}
	}
	if unit, ok := attrs.Get(flow.AttrUnit); ok {
		if name, isService := strings.CutSuffix(unit.Str(), ".service"); isService {
			attrs.PutStr(flow.AttrServiceName, name)
		}
	}
}

func (e *enricher) lookup(id uint64) (*cgroup.Identity, bool) {
	if e.resolver == nil {
		return nil, false
	}
	return e.resolver.Resolve(id)
}

func putAbsent(attrs pcommon.Map, name, value string) {
	if value == "" {
		return
	}
	if v, ok := attrs.GetOrPutEmpty(name); !ok {
		v.SetStr(value)
	}
}

func (e *enricher) report(ctx context.Context, n *tally) {
	for o, count := range n {
		if count > 0 {
			e.telemetry.ProcessorPodEnrichmentLookups.Add(ctx, count, e.outcomes[o])
		}
	}
}
