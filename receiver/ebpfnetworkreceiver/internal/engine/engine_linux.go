// Package engine loads the flow engine's BPF programs, attaches them to cgroups or interfaces, and reads what they
// counted.
package engine

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/bpf/network"
)

// Options say how large the kernel's tables are and what is left out.
type Options struct {
	// RingBufferSize is in bytes, a power of two and a multiple of the page size.
	RingBufferSize uint32
	// FlowTableSize is the number of flows that one interval can hold.
	FlowTableSize uint32
	// Events turns on events other than overflow.
	Events bool
	// SelfTraffic counts the sockets of this process too.
	SelfTraffic bool
	// CgroupPath is the cgroup v2 root. Without it no socket is given its owner.
	CgroupPath string
}

// Loss is what was seen since the start and could be neither counted nor reported.
type Loss struct {
	Packets, Bytes uint64
	// Events found the ring buffer full. They are not in Packets: their packets were counted.
	Events uint64
	// Unparsed packets had a truncated or malformed IP header.
	Unparsed uint64
}

// Engine is a loaded set of programs and maps. Drain and Close are for one goroutine, ReadEvents for another.
type Engine struct {
	objs  network.NetworkObjects
	own   *owners
	links []link.Link
	ring  *ringbuf.Reader
	grace *gracePeriod

	generation uint32
	keys       []network.NetworkFlowKey
	values     []network.NetworkFlow
	losses     []network.NetworkLoss
}

// The kernel refuses a batch smaller than its fullest bucket; drainBatch grows when it must.
const drainBatch = 4096

// A program asks for an early drain when this share of the flow table is used.
const pressureNumerator, pressureDenominator = 3, 4

// New loads the programs. It needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN; a refusal by the verifier is in the error
// (*ebpf.VerifierError). Nothing is attached yet.
//
// That sockets cannot be given their owners is no reason to fail: OwnersError tells why they could not.
func New(opts Options) (*Engine, error) {
	e := &Engine{
		keys:   make([]network.NetworkFlowKey, drainBatch),
		values: make([]network.NetworkFlow, drainBatch),
	}
	if err := e.load(opts); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Engine) load(opts Options) error {
	spec, err := network.LoadNetwork()
	if err != nil {
		return fmt.Errorf("cannot read the flow engine's programs: %w", err)
	}
	spec.Maps["events"].MaxEntries = opts.RingBufferSize
	spec.Maps["flows_0"].MaxEntries = opts.FlowTableSize
	spec.Maps["flows_1"].MaxEntries = opts.FlowTableSize
	pressure := max(1, uint32(uint64(opts.FlowTableSize)*pressureNumerator/pressureDenominator))

	ownersMap, err := ebpf.NewMap(spec.Maps["owners"])
	if err != nil {
		return fmt.Errorf("cannot create the map of socket owners: %w", err)
	}
	e.own = newOwners(ownersMap, opts.CgroupPath)
	self := e.own.pid
	if opts.SelfTraffic {
		self = 0
	}
	if err := errors.Join(
		spec.Variables["pressure_entries"].Set(pressure),
		spec.Variables["events_enabled"].Set(opts.Events),
		spec.Variables["self_pid"].Set(self),
	); err != nil {
		return fmt.Errorf("cannot set the flow engine's constants: %w", err)
	}
	if err := spec.LoadAndAssign(&e.objs, &ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{"owners": ownersMap},
	}); err != nil {
		return fmt.Errorf("cannot load the flow engine: %w", err)
	}
	if e.grace, err = newGracePeriod(); err != nil {
		return err
	}
	if e.ring, err = ringbuf.NewReader(e.objs.Events); err != nil {
		return fmt.Errorf("cannot read the ring buffer: %w", err)
	}
	return nil
}

// OwnersError tells why sockets have no owners: then no flow has a process name, and this process's own traffic is
// counted too. It is nil when they have.
func (e *Engine) OwnersError() error { return e.own.err }

// AttachCgroup watches every socket of the cgroup v2 hierarchy at path.
func (e *Engine) AttachCgroup(path string) error {
	for _, a := range []struct {
		prog *ebpf.Program
		hook ebpf.AttachType
	}{
		{e.objs.CgroupIngress, ebpf.AttachCGroupInetIngress},
		{e.objs.CgroupEgress, ebpf.AttachCGroupInetEgress},
	} {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: path, Attach: a.hook, Program: a.prog})
		if err != nil {
			return fmt.Errorf("cannot attach to cgroup %s: %w", path, err)
		}
		e.links = append(e.links, l)
	}
	return nil
}

// Detach takes the cgroup programs off. What they counted can still be drained.
func (e *Engine) Detach() error {
	var errs []error
	for _, l := range e.links {
		errs = append(errs, l.Close())
	}
	e.links = nil
	return errors.Join(errs...)
}

// Flip makes the programs write to the other generation and returns when none of them can still write to the old one:
// its counters are then final. Drain must have emptied the other one.
func (e *Engine) Flip() error {
	if err := e.objs.Generation.Set(e.generation ^ 1); err != nil {
		return fmt.Errorf("cannot flip the flow table: %w", err)
	}
	e.generation ^= 1
	return e.grace.wait()
}

// Drain hands every flow of the generation that Flip closed to yield, once, and empties it. Flows that are still alive
// have begun anew at zero in the other one. It returns how many flows there were.
func (e *Engine) Drain(yield func(*network.NetworkFlowKey, *network.NetworkFlow)) (int, error) {
	old, entries := e.objs.Flows1, e.objs.Entries1
	if e.generation == 1 {
		old, entries = e.objs.Flows0, e.objs.Entries0
	}
	total := 0
	var cursor ebpf.MapBatchCursor
	for {
		n, err := old.BatchLookupAndDelete(&cursor, e.keys, e.values, nil)
		total += n
		for i := range n {
			yield(&e.keys[i], &e.values[i])
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return total, errors.Join(entries.Set(uint32(0)), e.objs.Pressed.Set(uint32(0)))
		case errors.Is(err, unix.ENOSPC):
			e.keys = slices.Grow(e.keys, len(e.keys))[:2*len(e.keys)]
			e.values = slices.Grow(e.values, len(e.values))[:2*len(e.values)]
		case err != nil:
			return total, fmt.Errorf("cannot empty the flow table: %w", err)
		}
	}
}

// ReadEvents hands every event to yield until Close or Flush; the event is valid until yield returns.
func (e *Engine) ReadEvents(yield func(*network.NetworkEvent)) error {
	var rec ringbuf.Record
	for {
		err := e.ring.ReadInto(&rec)
		if errors.Is(err, ringbuf.ErrFlushed) || errors.Is(err, ringbuf.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the ring buffer: %w", err)
		}
		if len(rec.RawSample) < int(unsafe.Sizeof(network.NetworkEvent{})) {
			return fmt.Errorf("the ring buffer holds a record of %d bytes, not of %d", len(rec.RawSample),
				unsafe.Sizeof(network.NetworkEvent{}))
		}
		yield((*network.NetworkEvent)(unsafe.Pointer(unsafe.SliceData(rec.RawSample))))
	}
}

// Flush makes ReadEvents return once it has read what is in the ring buffer now.
func (e *Engine) Flush() error { return e.ring.Flush() }

// RingBufferUtilization returns the unread share of the ring buffer, 0 to 1.
func (e *Engine) RingBufferUtilization() float64 {
	return float64(e.ring.AvailableBytes()) / float64(e.ring.BufferSize())
}

// Losses returns what was lost since New.
func (e *Engine) Losses() (Loss, error) {
	var sum Loss
	if err := e.objs.Losses.Lookup(uint32(0), &e.losses); err != nil {
		return sum, fmt.Errorf("cannot read the loss counters: %w", err)
	}
	for _, l := range e.losses {
		sum.Packets += l.Packets
		sum.Bytes += l.Bytes
		sum.Events += l.Events
		sum.Unparsed += l.Unparsed
	}
	return sum, nil
}

// Close detaches and unloads everything.
func (e *Engine) Close() error {
	err := e.Detach()
	if e.ring != nil {
		err = errors.Join(err, e.ring.Close())
	}
	if e.grace != nil {
		err = errors.Join(err, e.grace.close())
	}
	if e.own != nil {
		err = errors.Join(err, e.own.close())
	}
	return errors.Join(err, e.objs.Close())
}
