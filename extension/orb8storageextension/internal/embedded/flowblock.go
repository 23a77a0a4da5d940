package embedded

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/internal/flow"
)

// batchRows is how many rows are made or used at once on their way to or from a block.
const batchRows = 1024

// place is where a row is, with what it is sorted by.
type place struct {
	start     int64
	rank      uint32
	view, row uint32
}

// flowRows yields the rows of views in the order of a block: those of one local endpoint together, oldest first, so that what
// they have in common takes no room and a row group has few endpoints. Between some and others it pauses.
func flowRows(views []view, pause func()) iter.Seq2[[]block.FlowRow, error] {
	return func(yield func([]block.FlowRow, error) bool) {
		places := sorted(views)
		rows := make([]block.FlowRow, 0, batchRows)
		for len(places) > 0 {
			rows = rows[:0]
			for _, p := range places[:min(batchRows, len(places))] {
				rows = append(rows, views[p.view].blockRow(p.row))
			}
			if !yield(rows, nil) {
				return
			}
			pause()
			places = places[len(rows):]
		}
	}
}

func sorted(views []view) []place {
	numbers := map[flow.Identity]uint32{}
	ids := make([][]uint32, len(views))
	var n int
	for i := range views {
		ids[i] = translate(views[i].identities, numbers)
		n += len(views[i].rows)
	}
	ranks := rank(numbers)
	places := make([]place, 0, n)
	for i := range views {
		for j := range views[i].rows {
			r := &views[i].rows[j]
			places = append(places, place{start: r.start, rank: ranks[ids[i][r.local()]], view: uint32(i), row: uint32(j)})
		}
	}
	slices.SortStableFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.start, b.start))
	})
	return places
}

// rank returns the place of each identity in their order, by its number.
func rank(numbers map[flow.Identity]uint32) []uint32 {
	type numbered struct {
		identity *flow.Identity
		number   uint32
	}
	order := make([]numbered, 0, len(numbers))
	for identity, number := range numbers {
		order = append(order, numbered{&identity, number})
	}
	slices.SortFunc(order, func(x, y numbered) int {
		a, b := x.identity, y.identity
		return cmp.Or(
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Container, b.Container),
			cmp.Compare(a.Cgroup, b.Cgroup), cmp.Compare(a.CgroupID, b.CgroupID), cmp.Compare(a.PID, b.PID), cmp.Compare(x.number, y.number),
		)
	})
	ranks := make([]uint32, len(order))
	for at, n := range order {
		ranks[n.number] = uint32(at)
	}
	return ranks
}

// local is the identity of the endpoint that is on the row's node.
func (r *row) local() uint32 {
	if r.direction == flow.Ingress {
		return r.destinationID
	}
	return r.sourceID
}

func (v *view) blockRow(i uint32) block.FlowRow {
	r := &v.rows[i]
	from, to := &v.identities[r.sourceID], &v.identities[r.destinationID]
	b := block.FlowRow{
		Start: r.start, End: r.end, Node: v.strings[r.node], Direction: r.direction.String(), Transport: r.transport.String(),
		SourceAddress: netip.AddrFrom16(r.source).Unmap().String(), SourcePort: uint32(r.sourcePort),
		DestinationAddress: netip.AddrFrom16(r.destination).Unmap().String(), DestinationPort: uint32(r.destinationPort),

		SourceCgroupID: from.CgroupID, SourceCgroup: from.Cgroup, SourceContainerID: from.ContainerID, SourceRuntime: from.Runtime,
		SourcePodUID: from.PodUID, SourceQOSClass: from.QOSClass, SourcePod: from.Pod, SourceNamespace: from.Namespace,
		SourceContainer: from.Container, SourceUnit: from.Unit, SourceProcess: from.Process, SourcePID: from.PID,
		SourceWorkload: from.Workload, SourceWorkloadKind: from.WorkloadKind, SourceService: from.Service, SourceKubernetesNode: from.KubernetesNode,
		SourceLabels: from.Labels,

		DestinationCgroupID: to.CgroupID, DestinationCgroup: to.Cgroup, DestinationContainerID: to.ContainerID, DestinationRuntime: to.Runtime,
		DestinationPodUID: to.PodUID, DestinationQOSClass: to.QOSClass, DestinationPod: to.Pod, DestinationNamespace: to.Namespace,
		DestinationContainer: to.Container, DestinationUnit: to.Unit, DestinationProcess: to.Process, DestinationPID: to.PID,
		DestinationWorkload: to.Workload, DestinationWorkloadKind: to.WorkloadKind, DestinationService: to.Service,
		DestinationKubernetesNode: to.KubernetesNode, DestinationLabels: to.Labels,

		PeerName: v.strings[r.peerName], Interfaces: v.strings[r.interfaces],
		ICMPType: uint32(r.icmpType), ICMPCode: uint32(r.icmpCode), TCPFlags: uint32(r.tcpFlags),
		Bytes: r.bytes, Packets: r.packets, Connections: r.connections, LostPackets: r.lost,
		Initiator: block.Initiator(r.initiator), Outcome: r.outcome.String(), Ended: r.ended,
	}
	if r.health != 0 {
		h := &v.health[r.health-1]
		b.ClientISN, b.ServerISN = uint32(h.isns>>32), uint32(h.isns)
		b.SRTT, b.MinRTT, b.Handshake = h.srtt, h.minRTT, h.handshake
		b.Retransmits, b.ZeroWindows = h.retransmits, h.zeroWindows
	}
	return b
}

// readFlows reads a row group into a view.
func readFlows(g *block.Group) (view, error) {
	r := columnReader{Group: g, chunk: newChunk(), rows: make([]row, g.Len())}
	each(block.Numbers[int64](g, "start"), func(i int, n int64) { r.rows[i].start = n })
	each(block.Numbers[int64](g, "end"), func(i int, n int64) { r.rows[i].end = n })
	each(block.Numbers[uint64](g, "bytes"), func(i int, n uint64) { r.rows[i].bytes = n })
	each(block.Numbers[uint64](g, "packets"), func(i int, n uint64) { r.rows[i].packets = n })
	each(block.Numbers[uint64](g, "connections"), func(i int, n uint64) { r.rows[i].connections = n })
	each(block.Numbers[uint64](g, "lost_packets"), func(i int, n uint64) { r.rows[i].lost = n })
	each(block.Numbers[uint32](g, "source_port"), func(i int, n uint32) { r.rows[i].sourcePort = uint16(n) })
	each(block.Numbers[uint32](g, "destination_port"), func(i int, n uint32) { r.rows[i].destinationPort = uint16(n) })
	each(block.Numbers[uint32](g, "icmp_type"), func(i int, n uint32) { r.rows[i].icmpType = uint8(n) })
	each(block.Numbers[uint32](g, "icmp_code"), func(i int, n uint32) { r.rows[i].icmpCode = uint8(n) })
	each(block.Numbers[uint32](g, "tcp_flags"), func(i int, n uint32) { r.rows[i].tcpFlags = uint8(n) })
	each(g.Flags("ended"), func(i int, ended bool) { r.rows[i].ended = ended })
	each(r.words("node"), func(i int, word uint32) { r.rows[i].node = word })
	each(r.words("peer_name"), func(i int, word uint32) { r.rows[i].peerName = word })
	each(r.words("interfaces"), func(i int, word uint32) { r.rows[i].interfaces = word })
	parsed(&r, "direction", block.ParseDirection, func(i int, d flow.Direction) { r.rows[i].direction = d })
	parsed(&r, "transport", flow.ParseTransport, func(i int, t flow.Transport) { r.rows[i].transport = t })
	parsed(&r, "outcome", flow.ParseOutcome, func(i int, o flow.Outcome) { r.rows[i].outcome = o })
	parsed(&r, "initiator", block.ParseInitiator, func(i int, o flow.Initiator) { r.rows[i].initiator = o })
	parsed(&r, "source_address", address16, func(i int, a [16]byte) { r.rows[i].source = a })
	parsed(&r, "destination_address", address16, func(i int, a [16]byte) { r.rows[i].destination = a })
	r.identities("source_", func(i int, id uint32) { r.rows[i].sourceID = id })
	r.identities("destination_", func(i int, id uint32) { r.rows[i].destinationID = id })
	r.healths()
	if err := g.Err(); err != nil {
		return view{}, err
	}
	return view{words: r.chunk.words, rows: r.rows, health: r.chunk.health}, nil
}

func each[T any](column []T, use func(int, T)) {
	for i, v := range column {
		use(i, v)
	}
}

// columnReader puts the columns of a row group together again. The chunk lends its dictionary.
type columnReader struct {
	*block.Group
	chunk *chunk
	rows  []row
}

// words reads a column of strings as indexes into the chunk's dictionary.
func (r *columnReader) words(column string) []uint32 {
	dictionary, rows := r.Words(column)
	ids := make([]uint32, len(dictionary))
	for i, word := range dictionary {
		ids[i] = r.chunk.stringID(word)
	}
	if len(ids) > 0 {
		for i, at := range rows {
			rows[i] = ids[at]
		}
	}
	return rows
}

// parsed reads a column of strings that stand for something else.
func parsed[T any](r *columnReader, column string, parse func(string) (T, error), use func(int, T)) {
	dictionary, rows := r.Words(column)
	values := make([]T, len(dictionary))
	for i, word := range dictionary {
		v, err := parse(word)
		if err != nil {
			r.Fail(err)
			return
		}
		values[i] = v
	}
	if len(values) > 0 {
		each(rows, func(i int, at uint32) { use(i, values[at]) })
	}
}

func address16(s string) ([16]byte, error) {
	a, err := netip.ParseAddr(s)
	return a.As16(), err
}

// identities reads the columns of an end. Rows follow one another whose identity is the same: it is looked up when it changes.
func (r *columnReader) identities(end string, use func(int, uint32)) {
	type key struct {
		cgroup uint64
		pid    uint32
		words  [15]uint32
	}
	cgroups, pids := block.Numbers[uint64](r.Group, end+"cgroup_id"), block.Numbers[uint32](r.Group, end+"pid")
	var words [15][]uint32
	for i, column := range [15]string{
		"cgroup", "container_id", "runtime", "pod_uid", "qos_class", "pod", "namespace", "container", "unit", "process",
		"workload", "workload_kind", "service", "kubernetes_node", "labels",
	} {
		if column == "labels" && !r.Has(end+column) {
			words[i] = slices.Repeat([]uint32{r.chunk.stringID("")}, len(r.rows)) // an older file
			continue
		}
		words[i] = r.words(end + column)
	}
	known := map[key]uint32{}
	var last key
	var id uint32
	s := func(n uint32) string { return r.chunk.strings[n] }
	for i := range r.Len() {
		k := key{cgroup: cgroups[i], pid: pids[i]}
		for j := range words {
			k.words[j] = words[j][i]
		}
		if i == 0 || k != last {
			last = k
			var found bool
			if id, found = known[k]; !found && r.Err() == nil {
				w := &k.words
				id = r.chunk.identityID(flow.Identity{
					CgroupID: k.cgroup, Cgroup: s(w[0]), ContainerID: s(w[1]), Runtime: s(w[2]), PodUID: s(w[3]), QOSClass: s(w[4]),
					Pod: s(w[5]), Namespace: s(w[6]), Container: s(w[7]), Unit: s(w[8]), Process: s(w[9]), PID: k.pid,
					Workload: s(w[10]), WorkloadKind: s(w[11]), Service: s(w[12]), KubernetesNode: s(w[13]), Labels: s(w[14]),
				})
				known[k] = id
			}
		}
		use(i, id)
	}
}

func (r *columnReader) healths() {
	client, server := block.Numbers[uint32](r.Group, "client_isn"), block.Numbers[uint32](r.Group, "server_isn")
	srtt, minRTT, handshake := block.Numbers[uint32](r.Group, "srtt_us"), block.Numbers[uint32](r.Group, "min_rtt_us"), block.Numbers[uint32](r.Group, "handshake_us")
	retransmits, zeroWindows := block.Numbers[uint32](r.Group, "retransmits"), block.Numbers[uint32](r.Group, "zero_windows")
	for i := range r.rows {
		h := health{
			isns: uint64(client[i])<<32 | uint64(server[i]), srtt: srtt[i], minRTT: minRTT[i], handshake: handshake[i],
			retransmits: retransmits[i], zeroWindows: zeroWindows[i],
		}
		if h != (health{}) {
			r.chunk.health = append(r.chunk.health, h)
			r.rows[i].health = uint32(len(r.chunk.health))
		}
	}
}
