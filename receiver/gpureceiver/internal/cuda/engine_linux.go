package cuda

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	bpf "github.com/orb8/orb8/bpf/cuda"
	"github.com/orb8/orb8/internal/ebpfmap"
)

const (
	defaultInterval = 10 * time.Second
	defaultWindow   = time.Second
	defaultKeep     = 30 * time.Second
	// firstPIDNamespace is the inode number of the namespace that has all processes (PROC_PID_INIT_INO).
	firstPIDNamespace = 0xeffffffc
)

// Engine counts the calls of all processes. Drain and Close are for one goroutine; another one of its own looks for libraries.
type Engine struct {
	opts     Options
	programs struct {
		Call      *ebpf.Program `ebpf:"call"`
		WaitBegin *ebpf.Program `ebpf:"wait_begin"`
		WaitEnd   *ebpf.Program `ebpf:"wait_end"`
		Find      *ebpf.Program `ebpf:"find"`
		MapFile   *ebpf.Program `ebpf:"map_file"` // nil where there is no word of new mappings
	}
	maps    bpf.CudaMaps
	vars    bpf.CudaVariables
	finder  *link.Iter
	trigger link.Link
	wakeups *ringbuf.Reader
	grace   *ebpfmap.GracePeriod
	quiet   error

	epoch  uint32
	counts ebpfmap.Drainer[bpf.CudaCountKey, bpf.CudaCount]
	waits  ebpfmap.Drainer[bpf.CudaCountKey, bpf.CudaWait]

	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu sync.Mutex
	// Of the goroutine that looks for libraries, which alone changes them; mu is for those who read.
	files map[fileKey]*file
	err   error
}

// New loads the programs and attaches them to all libraries that are mapped by now. It needs Linux 5.15, CAP_BPF and CAP_PERFMON,
// and CAP_SYS_PTRACE in the first pid namespace to get at other processes' files. What is missing is in the error.
func New(opts Options) (*Engine, error) {
	if err := check(); err != nil {
		return nil, err
	}
	if opts.Interval == 0 {
		opts.Interval = defaultInterval
	}
	if opts.window == 0 {
		opts.window = defaultWindow
	}
	if opts.keep == 0 {
		opts.keep = defaultKeep
	}
	if opts.Stepped == "" {
		opts.Stepped = SkipStepped
	}
	e := &Engine{opts: opts, files: map[fileKey]*file{}}
	if err := e.load(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	if err := e.scan(time.Now()); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	var ctx context.Context
	ctx, e.cancel = context.WithCancel(context.Background())
	wake := make(chan struct{}, 1)
	if e.wakeups != nil {
		e.wg.Go(func() { e.readWakeups(wake) })
	}
	e.wg.Go(func() { e.watch(ctx, wake) })
	return e, nil
}

// check tells what this host lacks, before anything is loaded.
func check() error {
	var ns unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &ns); err != nil {
		return fmt.Errorf("cannot read the own pid namespace: %w", err)
	}
	if ns.Ino != firstPIDNamespace {
		return errors.New("the processes of other containers are not visible: give the pod hostPID: true")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return fmt.Errorf("the kernel does not describe its types; use one built with CONFIG_DEBUG_INFO_BTF=y: %w", err)
	}
	switch err := features.HaveProgramHelper(ebpf.Kprobe, asm.FnGetAttachCookie); {
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("uprobes that know what they are at need Linux 5.15: %w", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("loading BPF programs is not permitted; add CAP_BPF and CAP_PERFMON: %w", err)
	case err != nil:
		return fmt.Errorf("cannot load BPF programs: %w", err)
	}
	return nil
}

func (e *Engine) load() error {
	// Before Linux 5.11 the memory of maps counts as locked; distributions backport cookies without that.
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("cannot lift the limit on locked memory (RLIMIT_MEMLOCK); add CAP_SYS_RESOURCE: %w", err)
	}
	if err := features.HaveBPFLinkUprobeMulti(); err != nil {
		e.opts.single = true
	}
	err := e.loadAs(e.opts.quiet)
	if err != nil && !e.opts.quiet {
		e.quiet = fmt.Errorf("new libraries are found only every %v: %w", e.opts.Interval, err)
		err = e.loadAs(true)
	}
	if err != nil {
		return err
	}
	if e.grace, err = ebpfmap.NewGracePeriod(); err != nil {
		return err
	}
	if e.finder, err = link.AttachIter(link.IterOptions{Program: e.programs.Find}); err != nil {
		return fmt.Errorf("cannot list who maps CUDA's libraries: %w", err)
	}
	if e.programs.MapFile == nil {
		return nil
	}
	if e.trigger, err = link.AttachTracing(link.TracingOptions{Program: e.programs.MapFile}); err != nil {
		e.quiet = fmt.Errorf("new libraries are found only every %v: %w", e.opts.Interval, err)
		return nil
	}
	if e.wakeups, err = ringbuf.NewReader(e.maps.Wakeups); err != nil {
		return fmt.Errorf("cannot read the ring buffer: %w", err)
	}
	return nil
}

func (e *Engine) loadAs(quiet bool) error {
	spec, err := bpf.LoadCuda()
	if err != nil {
		return fmt.Errorf("cannot read the programs that count CUDA calls: %w", err)
	}
	if quiet {
		delete(spec.Programs, "map_file")
	}
	if e.opts.single {
		for _, name := range []string{"call", "wait_begin", "wait_end"} {
			spec.Programs[name].AttachType = ebpf.AttachNone
		}
	}
	spec.Maps["wakeups"].MaxEntries = uint32(os.Getpagesize())
	if e.opts.entries > 0 {
		for _, name := range []string{"counts_0", "counts_1", "waits_0", "waits_1"} {
			spec.Maps[name].MaxEntries = e.opts.entries
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return fmt.Errorf("cannot load the programs that count CUDA calls: %w", err)
	}
	defer coll.Close() // of what is not taken from it
	if err := errors.Join(coll.Assign(&e.maps), coll.Assign(&e.vars)); err != nil {
		return fmt.Errorf("cannot find the maps of the programs that count CUDA calls: %w", err)
	}
	p := &e.programs
	p.Call, p.WaitBegin, p.WaitEnd = coll.DetachProgram("call"), coll.DetachProgram("wait_begin"), coll.DetachProgram("wait_end")
	p.Find, p.MapFile = coll.DetachProgram("find"), coll.DetachProgram("map_file")
	return nil
}

// Quiet tells why new libraries are found only once an interval, if they are.
func (e *Engine) Quiet() error { return e.quiet }

// Drain hands what was counted since the last time to yield: one Count a cgroup and kind, in no order, or two where some of it is
// an estimate. It returns what was lost since New.
func (e *Engine) Drain(yield func(cgroupID uint64, kind Kind, n *Count)) (Loss, error) {
	counts, waits := e.maps.Counts0, e.maps.Waits0
	if e.epoch&1 == 1 {
		counts, waits = e.maps.Counts1, e.maps.Waits1
	}
	if err := e.vars.Epoch.Set(e.epoch + 1); err != nil {
		return Loss{}, fmt.Errorf("cannot begin a new interval: %w", err)
	}
	e.epoch++
	if err := e.grace.Wait(); err != nil {
		return Loss{}, err
	}
	hand := func(k *bpf.CudaCountKey, n Count) {
		kind := Kind(k.Kind)
		if kind&sampledKind != 0 {
			kind &^= sampledKind
			n.scale(SampleFactor)
		}
		yield(k.Cgroup, kind, &n)
	}
	_, err := e.counts.Drain(counts, func(k *bpf.CudaCountKey, c *bpf.CudaCount) { hand(k, Count{Calls: c.Calls, Bytes: c.Bytes}) })
	if err != nil {
		return Loss{}, err
	}
	_, err = e.waits.Drain(waits, func(k *bpf.CudaCountKey, w *bpf.CudaWait) {
		hand(k, Count{Wait: time.Duration(w.Ns), Buckets: w.Buckets})
	})
	if err != nil {
		return Loss{}, err
	}
	var loss bpf.CudaLoss
	if err := e.maps.Losses.Lookup(uint32(0), &loss); err != nil {
		return Loss{}, fmt.Errorf("cannot read the loss counters: %w", err)
	}
	return Loss{Calls: loss.Calls, Unmeasured: loss.Unmeasured, Unreadable: loss.Unreadable}, nil
}

// Detach takes all probes off and looks for no more. What they counted can still be drained.
func (e *Engine) Detach() error {
	if e.cancel != nil {
		e.cancel()
		e.cancel = nil
	}
	var err error
	if e.trigger != nil {
		err = e.trigger.Close()
		e.trigger = nil
	}
	if e.wakeups != nil {
		err = errors.Join(err, e.wakeups.Close())
		e.wakeups = nil
	}
	e.wg.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, f := range e.files {
		err = errors.Join(err, f.close())
		delete(e.files, key)
	}
	return err
}

// Close detaches and unloads everything.
func (e *Engine) Close() error {
	err := e.Detach()
	if e.finder != nil {
		err = errors.Join(err, e.finder.Close())
	}
	if e.grace != nil {
		err = errors.Join(err, e.grace.Close())
	}
	p := &e.programs
	return errors.Join(err, p.Call.Close(), p.WaitBegin.Close(), p.WaitEnd.Close(), p.Find.Close(), p.MapFile.Close(), e.maps.Close())
}
