package podenrichmentprocessor

import "github.com/orb8/orb8/internal/flow"

// attributeNames are the names of an identity's attributes; written out, as joining them costs an allocation each.
type attributeNames struct {
	cgroupID, cgroupPath, containerID, runtime, podUID, qosClass, unit string

	pod, labels, namespace, container, image, node, zone, service string
	// owners are by kind.
	owners map[string]string
	// address and port are empty for the resource, which has none.
	address, port string
}

func namesAfter(prefix string) attributeNames {
	names := attributeNames{
		cgroupID:    prefix + flow.AttrCgroupID,
		cgroupPath:  prefix + flow.AttrCgroupPath,
		containerID: prefix + flow.AttrContainerID,
		runtime:     prefix + flow.AttrRuntime,
		podUID:      prefix + flow.AttrPodUID,
		qosClass:    prefix + flow.AttrPodQOSClass,
		unit:        prefix + flow.AttrUnit,
		pod:         prefix + flow.AttrPod,
		labels:      prefix + flow.AttrLabels,
		namespace:   prefix + flow.AttrNamespace,
		container:   prefix + flow.AttrContainer,
		image:       prefix + flow.AttrImage,
		node:        prefix + flow.AttrNodeName,
		zone:        prefix + flow.AttrZone,
		service:     prefix + flow.AttrService,
		owners: map[string]string{
			"Deployment":  prefix + flow.AttrDeployment,
			"ReplicaSet":  prefix + flow.AttrReplicaSet,
			"StatefulSet": prefix + flow.AttrStatefulSet,
			"DaemonSet":   prefix + flow.AttrDaemonSet,
			"Job":         prefix + flow.AttrJob,
			"CronJob":     prefix + flow.AttrCronJob,
		},
	}
	switch prefix {
	case flow.PrefixSource:
		names.address, names.port = flow.AttrSourceAddress, flow.AttrSourcePort
	case flow.PrefixDestination:
		names.address, names.port = flow.AttrDestinationAddress, flow.AttrDestinationPort
	}
	return names
}
