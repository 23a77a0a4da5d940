package flow

// Event names of the log records (OpenTelemetry EventName).
const (
	// EventNameFlow is a Record.
	EventNameFlow = "orb8.network.flow"
	// EventNameEvent is an Event of kind New, SYN, FIN or RST.
	EventNameEvent = "orb8.network.event"
	// EventNameLookup is a Lookup.
	EventNameLookup = "orb8.dns"
	// EventNameStatus is a NetworkStatus.
	EventNameStatus = "orb8.network.status"
	// EventNameDrop is a Drop.
	EventNameDrop = "orb8.network.drop"
)

// Attributes of the resource: the node, and the local endpoint's identity.
const (
	AttrNodeName    = "k8s.node.name"
	AttrCgroupID    = "orb8.cgroup.id"
	AttrCgroupPath  = "orb8.cgroup.path"
	AttrContainerID = "container.id"
	AttrRuntime     = "container.runtime.name"
	AttrPodUID      = "k8s.pod.uid"
	AttrPodQOSClass = "orb8.k8s.pod.qos_class"
	AttrPod         = "k8s.pod.name"
	AttrNamespace   = "k8s.namespace.name"
	AttrContainer   = "k8s.container.name"
	AttrUnit        = "orb8.systemd.unit"
	// AttrLabels are the pod's labels, as FormatLabels writes them.
	AttrLabels = "orb8.k8s.pod.labels"
)

// Attributes of the resource, and after PrefixSource or PrefixDestination of a flow's ends, that Kubernetes knows.
const (
	AttrZone        = "cloud.availability_zone"
	AttrImage       = "container.image.name"
	AttrService     = "k8s.service.name"
	AttrDeployment  = "k8s.deployment.name"
	AttrReplicaSet  = "k8s.replicaset.name"
	AttrStatefulSet = "k8s.statefulset.name"
	AttrDaemonSet   = "k8s.daemonset.name"
	AttrJob         = "k8s.job.name"
	AttrCronJob     = "k8s.cronjob.name"
)

// Attributes of flow records and events.
const (
	AttrSourceAddress      = "source.address"
	AttrSourcePort         = "source.port"
	AttrDestinationAddress = "destination.address"
	AttrDestinationPort    = "destination.port"
	AttrTransport          = "network.transport"
	AttrNetworkType        = "network.type"
	AttrInterface          = "network.interface.name"
	AttrInterfaces         = "orb8.flow.interfaces"
	AttrProcessName        = "process.executable.name"
	AttrProcessPID         = "process.pid"
	AttrDirection          = "orb8.flow.direction"
	AttrFlowStart          = "orb8.flow.start"
	AttrBytes              = "orb8.flow.bytes"
	AttrPackets            = "orb8.flow.packets"
	AttrConnections        = "orb8.flow.connections"
	AttrTCPFlags           = "orb8.flow.tcp_flags"
	AttrICMPType           = "orb8.flow.icmp.type"
	AttrICMPCode           = "orb8.flow.icmp.code"
	AttrEnded              = "orb8.flow.ended"
	AttrLostPackets        = "orb8.flow.lost_packets"
	AttrConnectionID       = "orb8.connection.id"
	AttrEventKind          = "orb8.event.kind"
	AttrClientISN          = "orb8.tcp.client.isn"
	AttrServerISN          = "orb8.tcp.server.isn"
	AttrSRTT               = "orb8.tcp.rtt.smoothed"
	AttrMinRTT             = "orb8.tcp.rtt.min"
	AttrHandshake          = "orb8.tcp.handshake.duration"
	AttrRetransmits        = "orb8.tcp.retransmits"
	AttrZeroWindows        = "orb8.tcp.zero_windows"
	AttrOutcome            = "orb8.connection.outcome"
	AttrClientAddress      = "client.address"
	AttrClientPort         = "client.port"
	AttrServerAddress      = "server.address"
	AttrServerPort         = "server.port"
	// AttrDNSName follows PrefixSource or PrefixDestination.
	AttrDNSName = "dns.name"
	// PrefixSource and PrefixDestination before a resource attribute's name give the identity of the peer, which the
	// resource cannot hold: source.k8s.pod.name, destination.container.id, ...
	PrefixSource      = "source."
	PrefixDestination = "destination."
)

// Attributes of lookups, next to those that say who asked whom. The first two are semantic conventions.
const (
	AttrQuestionName = "dns.question.name"
	// AttrAnswers is the addresses alone, AttrRecords all of the answer section: "NAME TTL TYPE DATA".
	AttrAnswers      = "dns.answers"
	AttrRecords      = "orb8.dns.records"
	AttrQuestionType = "orb8.dns.question.type"
	AttrRCode        = "orb8.dns.response_code"
	AttrLatency      = "orb8.dns.latency"
	AttrQueries      = "orb8.dns.queries"
	AttrTruncated    = "orb8.dns.truncated"
	AttrIncomplete   = "orb8.dns.incomplete"
)

// Attributes of drops; their addresses are named as those of flow records.
const (
	AttrDropReason  = "orb8.drop.reason"
	AttrDropPackets = "orb8.drop.packets"
)

// Attributes of connection spans: those of flow records that say the same, and what each side sent.
const (
	AttrServiceName     = "service.name"
	AttrErrorType       = "error.type"
	AttrSentBytes       = "orb8.connection.sent.bytes"
	AttrSentPackets     = "orb8.connection.sent.packets"
	AttrReceivedBytes   = "orb8.connection.received.bytes"
	AttrReceivedPackets = "orb8.connection.received.packets"
)

// Attributes of status records.
const (
	AttrAgentVersion          = "orb8.agent.version"
	AttrAgentStarted          = "orb8.agent.started"
	AttrKernelVersion         = "orb8.kernel.version"
	AttrProbes                = "orb8.bpf.programs"
	AttrPacketRate            = "orb8.network.packets_per_second"
	AttrByteRate              = "orb8.network.bytes_per_second"
	AttrAttachMode            = "orb8.network.attach.mode"
	AttrAttachPoints          = "orb8.network.attach.points"
	AttrInterval              = "orb8.network.interval"
	AttrCountedPackets        = "orb8.network.packets"
	AttrCountedBytes          = "orb8.network.bytes"
	AttrTotalLostPackets      = "orb8.network.lost.packets"
	AttrTotalLostBytes        = "orb8.network.lost.bytes"
	AttrTotalLostEvents       = "orb8.network.lost.events"
	AttrUnparsedPackets       = "orb8.network.unparsed.packets"
	AttrLiveFlows             = "orb8.network.flows.live"
	AttrRingBufferBytes       = "orb8.network.ring_buffer.size"
	AttrRingBufferUtilization = "orb8.network.ring_buffer.utilization"
	AttrFlowTableSize         = "orb8.network.flow_table.size"
	AttrFlowTableEntries      = "orb8.network.flow_table.entries"
	AttrDrops                 = "orb8.network.drops"
	AttrUnavailable           = "orb8.network.unavailable"
)
