package engine

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"

	bpf "github.com/orb8/orb8/bpf/syscall"
	"github.com/orb8/orb8/internal/ebpfmap"
)

// Events are thinned out when more than this share of the ring buffer is unread.
const thinningNumerator, thinningDenominator = 4, 5

// The reader is woken when more than one in so many bytes of the ring buffer is unread.
const wakeupFraction = 8

// Engine is a loaded and attached set of programs and maps. Drain and Close are for one goroutine, ReadEvents for another.
type Engine struct {
	enter, exit *ebpf.Program // exit is nil when latency is not measured
	maps        bpf.SyscallMaps
	vars        bpf.SyscallVariables
	links       []link.Link
	ring        *ringbuf.Reader
	grace       *ebpfmap.GracePeriod
	latencyErr  error

	layout layout
	epoch  uint32
	sums   sums
	losses []bpf.SyscallLoss
}

// Programs are in structs as bpf2go makes them.
func (e *Engine) Programs() []any {
	return []any{&struct {
		Enter *ebpf.Program `ebpf:"sys_enter"`
		Exit  *ebpf.Program `ebpf:"sys_exit"`
	}{e.enter, e.exit}}
}

// New loads the programs and attaches them. It needs CAP_BPF and CAP_PERFMON; a refusal by the verifier is in the error
// (*ebpf.VerifierError).
//
// That latency cannot be measured is no reason to fail: LatencyError tells why.
func New(opts Options) (*Engine, error) {
	policies, err := encodePolicies(opts.Policy)
	if err != nil {
		return nil, err
	}
	// Before Linux 5.11 the memory of maps counts as locked, of which a process may have very little.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("cannot lift the limit on locked memory (RLIMIT_MEMLOCK); add CAP_SYS_RESOURCE: %w", err)
	}
	e := &Engine{}
	if err := e.load(opts, policies); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	if err := e.attach(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

// load tries with all that is asked for, then without latency, then with what old kernels have. It returns the error of the
// last try, and keeps that of the first for LatencyError.
func (e *Engine) load(opts Options, policies []uint32) error {
	var self uint32
	var err error
	if opts.Policy != nil && !opts.SelfEvents {
		if self, err = ownPID(); err != nil {
			return err
		}
	}
	tries := []layout{{modern: true, latency: true}, {modern: true}, {}}
	for _, l := range tries {
		if l.latency && !opts.Latency || l.modern && opts.helpers {
			continue
		}
		if err = e.loadAs(opts, l, policies, self); err == nil {
			break
		}
		if l.latency {
			e.latencyErr = fmt.Errorf("latency needs storage of tasks for tracing programs (Linux 5.13): %w", err)
		}
	}
	if err != nil {
		return err
	}
	if opts.helpers && opts.Latency {
		e.latencyErr = errors.New("latency needs more than helpers")
	}
	if err := e.vars.Epoch.Get(&e.epoch); err != nil {
		return fmt.Errorf("cannot read the number of flips: %w", err)
	}
	if e.grace, err = ebpfmap.NewGracePeriod(); err != nil {
		return err
	}
	if e.ring, err = ringbuf.NewReader(e.maps.Events); err != nil {
		return fmt.Errorf("cannot read the ring buffer: %w", err)
	}
	return nil
}

func (e *Engine) loadAs(opts Options, l layout, policies []uint32, self uint32) error {
	spec, err := bpf.LoadSyscall()
	if err != nil {
		return fmt.Errorf("cannot read the programs that count system calls: %w", err)
	}
	if err := l.fit(opts); err != nil {
		return err
	}
	l.apply(spec)
	ring := max(opts.RingBufferSize, uint32(os.Getpagesize()))
	spec.Maps["events"].MaxEntries = ring
	delete(spec.Programs, "whoami")
	if !l.latency {
		delete(spec.Programs, "sys_exit")
	}
	if err := errors.Join(
		spec.Variables["modern"].Set(l.modern),
		spec.Variables["latency_enabled"].Set(l.latency),
		spec.Variables["row_limit"].Set(l.rowLimit),
		spec.Variables["rows_usable"].Set(l.rows),
		spec.Variables["rows_per_cpu"].Set(l.rowsPerCPU),
		spec.Variables["cell_limit"].Set(l.cellLimit),
		spec.Variables["cells_usable"].Set(l.cells),
		spec.Variables["starts_mask"].Set(l.starts-1),
		spec.Variables["events_enabled"].Set(opts.Policy != nil),
		spec.Variables["policies"].Set(policies),
		spec.Variables["self_pid"].Set(self),
		spec.Variables["thinning_bytes"].Set(ring/thinningDenominator*thinningNumerator),
		spec.Variables["wakeup_bytes"].Set(ring/wakeupFraction),
	); err != nil {
		return fmt.Errorf("cannot set the constants of the programs that count system calls: %w", err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return fmt.Errorf("cannot load the programs that count system calls: %w", err)
	}
	defer coll.Close() // of what is not taken from it
	if err := errors.Join(coll.Assign(&e.maps), coll.Assign(&e.vars)); err != nil {
		return fmt.Errorf("cannot find the maps of the programs that count system calls: %w", err)
	}
	e.enter, e.exit, e.layout = coll.DetachProgram("sys_enter"), coll.DetachProgram("sys_exit"), l
	return nil
}

// ownPID returns this process's id in the first pid namespace.
func ownPID() (uint32, error) {
	spec, err := bpf.LoadSyscall()
	if err != nil {
		return 0, fmt.Errorf("cannot read the programs that count system calls: %w", err)
	}
	var objs struct {
		Whoami *ebpf.Program  `ebpf:"whoami"`
		OwnPID *ebpf.Variable `ebpf:"own_pid"`
	}
	if err := spec.LoadAndAssign(&objs, nil); err != nil {
		return 0, fmt.Errorf("cannot load the program that learns the own process id: %w", err)
	}
	defer objs.Whoami.Close()
	if _, err := objs.Whoami.Run(&ebpf.RunOptions{}); err != nil {
		return 0, fmt.Errorf("cannot learn the own process id: %w", err)
	}
	var pid uint32
	if err := objs.OwnPID.Get(&pid); err != nil {
		return 0, fmt.Errorf("cannot read the own process id: %w", err)
	}
	return pid, nil
}

func (e *Engine) attach() error {
	for name, prog := range map[string]*ebpf.Program{"sys_enter": e.enter, "sys_exit": e.exit} {
		if prog == nil {
			continue
		}
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: name, Program: prog})
		if err != nil {
			return fmt.Errorf("cannot attach to the raw tracepoint %s (a kernel with CONFIG_FTRACE_SYSCALLS has it): %w", name, err)
		}
		e.links = append(e.links, l)
	}
	return nil
}

// LatencyError tells why latency is not measured although Options asked for it.
func (e *Engine) LatencyError() error { return e.latencyErr }

// Detach takes the programs off. What they counted can still be drained.
func (e *Engine) Detach() error {
	var errs []error
	for _, l := range e.links {
		errs = append(errs, l.Close())
	}
	e.links = nil
	return errors.Join(errs...)
}

// RingBufferUtilization returns the unread share of the ring buffer, 0 to 1.
func (e *Engine) RingBufferUtilization() float64 {
	return float64(e.ring.AvailableBytes()) / float64(e.ring.BufferSize())
}

// Losses returns what was lost since New.
func (e *Engine) Losses() (Loss, error) {
	var sum Loss
	if err := e.maps.Losses.Lookup(uint32(0), &e.losses); err != nil {
		return sum, fmt.Errorf("cannot read the loss counters: %w", err)
	}
	for _, l := range e.losses {
		sum.Calls += l.Calls
		sum.Events += l.Events
		sum.Thinned += l.Thinned
		sum.Unmeasured += l.Unmeasured
	}
	// The kernel does not run a program inside itself on one CPU; it counts how often.
	missed, err := recursions(e.enter)
	if err != nil {
		return sum, err
	}
	sum.Calls += missed
	if e.exit != nil {
		if missed, err = recursions(e.exit); err != nil {
			return sum, err
		}
		sum.Unmeasured += missed
	}
	return sum, nil
}

func recursions(p *ebpf.Program) (uint64, error) {
	stats, err := p.Stats()
	if err != nil {
		return 0, fmt.Errorf("cannot read how often %s was not run: %w", p, err)
	}
	return stats.RecursionMisses, nil
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
	return errors.Join(err, e.enter.Close(), e.exit.Close(), e.maps.Close())
}
