package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/syscalls"
)

// ID is that of a batch, or of a record.
type ID [2]uint64

// String returns 32 hexadecimal digits.
func (id ID) String() string { return fmt.Sprintf("%016x%016x", id[0], id[1]) }

// IDs are made of what the agent alone writes: whose socket or container it was, when, and how much. Names are left out, because
// what comes between the agent and the store may know more of them the second time.

// flowsID returns the id of a batch of flow records.
func flowsID(records []flow.Record) ID {
	h := hasher{buf: make([]byte, 0, 128*len(records)+1)}
	h.number(uint64(Flows))
	for i := range records {
		h.flow(&records[i])
	}
	return h.id()
}

// FlowID returns the id of a record by itself.
func FlowID(r *flow.Record) ID {
	h := hasher{buf: make([]byte, 0, 256)}
	h.flow(r)
	return h.id()
}

func (h *hasher) flow(r *flow.Record) {
	h.text(r.Node)
	h.number(uint64(r.Start.UnixNano()), uint64(r.End.UnixNano()), r.Bytes, r.Packets, r.Connections, r.Local().Identity.CgroupID)
	h.number(uint64(r.Direction)<<40 | uint64(r.Transport)<<32 | uint64(r.ICMPType)<<24 | uint64(r.ICMPCode)<<16 | uint64(r.TCPFlags)<<8)
	h.number(uint64(r.ClientISN)<<32 | uint64(r.ServerISN))
	h.endpoint(&r.Source)
	h.endpoint(&r.Destination)
	for _, name := range r.Interfaces {
		h.text(name)
	}
}

// lookupsID returns the id of a batch of lookups.
func lookupsID(lookups []flow.Lookup) ID {
	var h hasher
	h.number(uint64(Lookups))
	for i := range lookups {
		h.lookup(&lookups[i])
	}
	return h.id()
}

// LookupID is FlowID of a lookup.
func LookupID(l *flow.Lookup) ID {
	var h hasher
	h.lookup(l)
	return h.id()
}

func (h *hasher) lookup(l *flow.Lookup) {
	h.text(l.Node)
	h.number(uint64(l.Time.UnixNano()), uint64(l.Latency), l.Queries, uint64(l.Direction)<<8|uint64(l.Transport), l.Local().Identity.CgroupID)
	h.endpoint(&l.Client)
	h.endpoint(&l.Server)
	for _, s := range []string{l.Interface, l.Name, l.Type, l.RCode} {
		h.text(s)
	}
}

// countsID returns the id of a batch of counts of system calls.
func countsID(counts []syscalls.Counts) ID {
	var h hasher
	h.number(uint64(Counts))
	for i := range counts {
		h.counts(&counts[i])
	}
	return h.id()
}

// CountsID is FlowID of the counts of an interval.
func CountsID(n *syscalls.Counts) ID {
	var h hasher
	h.counts(n)
	return h.id()
}

func (h *hasher) counts(n *syscalls.Counts) {
	h.text(n.Node)
	h.number(uint64(n.Start.UnixNano()), uint64(n.End.UnixNano()), n.Identity.CgroupID, n.LostCalls, uint64(len(n.Calls)))
	for j := range n.Calls {
		h.number(uint64(n.Calls[j].Call.ABI)<<32|uint64(uint32(n.Calls[j].Call.Number)), n.Calls[j].Calls)
	}
}

// anomaliesID returns the id of a batch of anomalies.
func anomaliesID(anomalies []syscalls.Anomaly) ID {
	var h hasher
	h.number(uint64(Anomalies))
	for i := range anomalies {
		h.anomaly(&anomalies[i])
	}
	return h.id()
}

// AnomalyID is FlowID of an anomaly.
func AnomalyID(n *syscalls.Anomaly) ID {
	var h hasher
	h.anomaly(n)
	return h.id()
}

func (h *hasher) anomaly(n *syscalls.Anomaly) {
	h.text(n.Node)
	h.number(uint64(n.Time.UnixNano()), n.Identity.CgroupID, uint64(n.Call.ABI)<<32|uint64(uint32(n.Call.Number)), n.Calls)
	for _, s := range []string{n.Identity.Cgroup, n.Workload, n.Rule, n.Message} {
		h.text(s)
	}
}

// gpuID returns the id of a batch of samples of GPUs.
func gpuID(samples []gpu.Sample) ID {
	var h hasher
	h.number(uint64(GPU))
	for i := range samples {
		h.sample(&samples[i])
	}
	return h.id()
}

// SampleID is FlowID of a sample.
func SampleID(s *gpu.Sample) ID {
	var h hasher
	h.sample(s)
	return h.id()
}

func (h *hasher) sample(s *gpu.Sample) {
	h.number(uint64(s.Time.UnixNano()), math.Float64bits(s.Value), s.Identity.CgroupID)
	for _, text := range []string{s.Node, s.Device.ID, s.Metric, s.Attributes, s.Identity.Cgroup, s.Identity.ContainerID, s.Identity.PodUID} {
		h.text(text)
	}
}

// hasher collects what an id is made of. Texts have their length before them, so that no two batches read the same.
type hasher struct{ buf []byte }

func (h *hasher) number(numbers ...uint64) {
	for _, n := range numbers {
		h.buf = binary.LittleEndian.AppendUint64(h.buf, n)
	}
}

func (h *hasher) text(s string) {
	h.buf = binary.AppendUvarint(h.buf, uint64(len(s)))
	h.buf = append(h.buf, s...)
}

func (h *hasher) endpoint(e *flow.Endpoint) {
	addr := e.Addr.Addr().As16()
	h.buf = append(h.buf, addr[:]...)
	h.buf = binary.LittleEndian.AppendUint16(h.buf, e.Addr.Port())
}

func (h *hasher) id() ID {
	sum := sha256.Sum256(h.buf)
	return ID{binary.LittleEndian.Uint64(sum[:8]), binary.LittleEndian.Uint64(sum[8:])}
}
