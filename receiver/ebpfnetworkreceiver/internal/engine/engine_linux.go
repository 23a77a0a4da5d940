// Package engine loads the flow engine's BPF programs, attaches them to cgroups or interfaces, and reads what they
// counted.
package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/ebpfmap"
)

// Options say how large the kernel's tables are and what is left out.
type Options struct {
	// RingBufferSize is in bytes, a power of two and a multiple of the page size.
	RingBufferSize uint32
	// FlowTableSize is the number of flows that one interval can hold.
	FlowTableSize uint32
	// Events turns on the events of flows: their beginning, SYN, FIN and RST.
	Events bool
	// FirstPackets makes the first so many packets of a flow in an interval events too, and Sampling one in so many of the
	// others (0: none).
	FirstPackets, Sampling uint32
	// DNSPorts are the ports whose payload is read as DNS: EVENT_DNS. At most four; 0 is none.
	DNSPorts [4]uint16
	// Tunnels counts the packets inside tunnels (VXLAN, Geneve, GRE, IP in IP) rather than those outside.
	Tunnels bool
	// Interfaces says that the programs will watch interfaces, where fragments are seen, rather than sockets.
	Interfaces bool
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
	// Thinned are sampled packet events left out because the ring buffer was nearly full.
	Thinned uint64
	// Unparsed packets had a truncated or malformed IP header.
	Unparsed uint64
}

// Engine is a loaded set of programs and maps. Drain and Close are for one goroutine, ReadEvents for another.
type Engine struct {
	objs  network.NetworkObjects
	own   *owners
	links []link.Link
	ring  *ringbuf.Reader
	grace *ebpfmap.GracePeriod

	generation uint32
	jiffy      uint64 // nanoseconds
	// front and back empty the two parts of the flow table: the flows that came first, and the others.
	front  *front
	back   ebpfmap.Drainer[network.NetworkFlowKey, network.NetworkFlow]
	losses []network.NetworkLoss
}

// A program asks for an early drain when this share of the flow table is used.
const pressureNumerator, pressureDenominator = 3, 4

// Sampled events are thinned out when more than this share of the ring buffer is unread.
const thinningNumerator, thinningDenominator = 4, 5

// New loads the programs. It needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN; a refusal by the verifier is in the error
// (*ebpf.VerifierError). Nothing is attached yet.
//
// That sockets cannot be given their owners is no reason to fail: OwnersError tells why they could not.
func New(opts Options) (*Engine, error) {
	e := &Engine{}
	if err := e.load(opts); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Engine) load(opts Options) error {
	var err error
	if e.jiffy, err = jiffy(); err != nil {
		return err
	}
	// Before Linux 5.11 the memory of maps counts as locked, of which a process may have very little.
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("cannot lift the limit on locked memory (RLIMIT_MEMLOCK); add CAP_SYS_RESOURCE: %w", err)
	}
	spec, err := network.LoadNetwork()
	if err != nil {
		return fmt.Errorf("cannot read the flow engine's programs: %w", err)
	}
	spec.Maps["events"].MaxEntries = opts.RingBufferSize
	inFront := frontEntries(opts.FlowTableSize)
	spec.Maps["front"].MaxEntries = max(1, 2*inFront/frontPage)
	spec.Maps["flows_0"].MaxEntries = opts.FlowTableSize - inFront
	spec.Maps["flows_1"].MaxEntries = opts.FlowTableSize - inFront
	if !opts.Interfaces {
		spec.Maps["fragments"].MaxEntries = 1
	}
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
		spec.Variables["front_entries"].Set(inFront),
		setHashSecret(spec.Variables["hash_secret"]),
		spec.Variables["pressure_entries"].Set(pressure),
		spec.Variables["events_enabled"].Set(opts.Events),
		spec.Variables["self_pid"].Set(self),
		spec.Variables["first_packets"].Set(opts.FirstPackets),
		spec.Variables["sampling"].Set(opts.Sampling),
		spec.Variables["thinning_bytes"].Set(opts.RingBufferSize/thinningDenominator*thinningNumerator),
		spec.Variables["spare_bytes"].Set(opts.RingBufferSize/2),
		spec.Variables["dns_ports"].Set(opts.DNSPorts),
		spec.Variables["tunnels_enabled"].Set(opts.Tunnels),
	); err != nil {
		return fmt.Errorf("cannot set the flow engine's constants: %w", err)
	}
	if err := spec.LoadAndAssign(&e.objs, &ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{"owners": ownersMap},
	}); err != nil {
		return fmt.Errorf("cannot load the flow engine: %w", err)
	}
	if e.front, err = newFront(&e.objs, inFront); err != nil {
		return err
	}
	if e.grace, err = ebpfmap.NewGracePeriod(); err != nil {
		return err
	}
	if e.ring, err = ringbuf.NewReader(e.objs.Events); err != nil {
		return fmt.Errorf("cannot read the ring buffer: %w", err)
	}
	return nil
}

// jiffy returns the length of the kernel's tick in nanoseconds: the resolution of its coarse clock is just that.
func jiffy() (uint64, error) {
	var ts unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &ts); err != nil {
		return 0, fmt.Errorf("cannot learn the length of the kernel's tick: %w", err)
	}
	return uint64(ts.Nano()), nil
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

// Programs are structs of bpf2go with the engine's programs.
func (e *Engine) Programs() []any {
	return []any{&e.objs.NetworkPrograms, &e.own.objs.OwnerPrograms}
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
	return e.grace.Wait()
}

// Drain hands every flow of the generation that Flip closed to yield, once, and empties it. Flows that are still alive
// have begun anew at zero in the other one. It returns how many flows there were.
func (e *Engine) Drain(yield func(*network.NetworkFlowKey, *network.NetworkFlow)) (int, error) {
	old, entries := e.objs.Flows1, e.objs.Entries1
	if e.generation == 1 {
		old, entries = e.objs.Flows0, e.objs.Entries0
	}
	dated := func(k *network.NetworkFlowKey, f *network.NetworkFlow) {
		f.LastNs = f.FirstNs + uint64(f.LastJiffies-f.FirstJiffies)*e.jiffy
		yield(k, f)
	}
	n, err := e.front.drain(e.generation^1, dated)
	if err != nil {
		return n, err
	}
	more, err := e.back.Drain(old, dated)
	n += more
	if err != nil {
		return n, err
	}
	return n, errors.Join(entries.Set(uint32(0)), e.objs.Pressed.Set(uint32(0)))
}

// Payload is the transport payload of an EVENT_DNS: its length, and the beginning that the ring buffer holds.
type Payload struct {
	Length   int
	Captured []byte
}

// ReadEvents hands every event to yield until Close or Flush; event and payload are valid until yield returns. The payload
// of all events but EVENT_DNS is empty.
func (e *Engine) ReadEvents(yield func(ev *network.NetworkEvent, payload Payload)) error {
	const eventSize = int(unsafe.Sizeof(network.NetworkEvent{}))
	var rec ringbuf.Record
	for {
		err := e.ring.ReadInto(&rec)
		if errors.Is(err, ringbuf.ErrFlushed) || errors.Is(err, ringbuf.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the ring buffer: %w", err)
		}
		if len(rec.RawSample) < eventSize {
			return fmt.Errorf("the ring buffer holds a record of %d bytes, not of %d", len(rec.RawSample), eventSize)
		}
		ev := (*network.NetworkEvent)(unsafe.Pointer(unsafe.SliceData(rec.RawSample)))
		var payload Payload
		if network.NetworkEventKind(ev.Kind) == network.NetworkEventKindEVENT_DNS {
			if payload, err = payloadOf(rec.RawSample); err != nil {
				return err
			}
		}
		yield(ev, payload)
	}
}

// payloadOf reads a record that holds a NetworkDnsEvent with only the beginning of its last field.
func payloadOf(record []byte) (Payload, error) {
	const (
		lengthAt   = int(unsafe.Offsetof(network.NetworkDnsEvent{}.Length))
		capturedAt = int(unsafe.Offsetof(network.NetworkDnsEvent{}.Captured))
		payloadAt  = int(unsafe.Offsetof(network.NetworkDnsEvent{}.Payload))
	)
	if len(record) < payloadAt {
		return Payload{}, fmt.Errorf("the ring buffer holds a DNS record of %d bytes, not of %d or more", len(record), payloadAt)
	}
	captured := int(binary.NativeEndian.Uint32(record[capturedAt:]))
	if captured > len(record)-payloadAt {
		return Payload{}, fmt.Errorf("the ring buffer holds a DNS record of %d bytes that claims %d of payload", len(record), captured)
	}
	return Payload{
		Length:   int(binary.NativeEndian.Uint32(record[lengthAt:])),
		Captured: record[payloadAt : payloadAt+captured],
	}, nil
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
		sum.Thinned += l.Thinned
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
		err = errors.Join(err, e.grace.Close())
	}
	if e.own != nil {
		err = errors.Join(err, e.own.close())
	}
	return errors.Join(err, e.objs.Close())
}
