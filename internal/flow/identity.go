package flow

import "go.opentelemetry.io/collector/pdata/pcommon"

// workloadAttributes say which attribute names a workload of which kind.
var workloadAttributes = map[string]string{
	"Deployment": AttrDeployment, "StatefulSet": AttrStatefulSet, "DaemonSet": AttrDaemonSet, "CronJob": AttrCronJob, "Job": AttrJob,
	"ReplicaSet": AttrReplicaSet,
}

// PutTo writes what ReadIdentity reads, and the process, each name after the prefix. The node of a record's local endpoint is the
// record's and not the identity's.
func (id *Identity) PutTo(a pcommon.Map, prefix string) {
	put := func(name, value string) {
		if value != "" {
			a.PutStr(prefix+name, value)
		}
	}
	if id.CgroupID != 0 {
		a.PutInt(prefix+AttrCgroupID, int64(id.CgroupID))
	}
	put(AttrCgroupPath, id.Cgroup)
	put(AttrContainerID, id.ContainerID)
	put(AttrRuntime, id.Runtime)
	put(AttrPodUID, id.PodUID)
	put(AttrPodQOSClass, id.QOSClass)
	put(AttrPod, id.Pod)
	put(AttrNamespace, id.Namespace)
	put(AttrContainer, id.Container)
	put(AttrLabels, id.Labels)
	put(AttrUnit, id.Unit)
	put(AttrService, id.Service)
	if name, known := workloadAttributes[id.WorkloadKind]; known {
		put(name, id.Workload)
	}
	if prefix != "" {
		put(AttrNodeName, id.KubernetesNode)
	}
	put(AttrProcessName, id.Process)
	if id.PID != 0 {
		a.PutInt(prefix+AttrProcessPID, int64(id.PID))
	}
}
