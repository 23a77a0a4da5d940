package cuda

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	bpf "github.com/orb8/orb8/bpf/cuda"
)

const (
	// maxFiles bounds how many libraries are looked at: anybody may map files of that name.
	maxFiles = 256
	// settling is how long after the word of a new mapping there is a look at it: the word comes before the mapping.
	settling = 20 * time.Millisecond
	// scanShare is the share of the time that looks at all processes may take, one in so many, however often libraries are mapped.
	scanShare = 20
)

// watch looks at all processes once an interval and when there is word of a new mapping, and opens and closes windows of samples.
func (e *Engine) watch(ctx context.Context, wake <-chan struct{}) {
	interval := time.NewTicker(e.opts.Interval)
	defer interval.Stop()
	settled := time.NewTimer(e.opts.Interval) // or sooner
	defer settled.Stop()
	window := time.NewTicker(e.opts.window)
	defer window.Stop()
	if e.opts.Stepped != SampleStepped {
		window.Stop()
	}
	var next time.Time // no look at a mere word before
	var at, open int   // in which of SampleFactor windows we are, and which of them is open
	look := func() {
		start := time.Now()
		e.setErr(e.scan(start))
		next = time.Now().Add(scanShare * time.Since(start))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-interval.C:
			look()
		case <-wake:
			settled.Reset(max(settling, time.Until(next)))
		case <-settled.C:
			look()
		case <-window.C:
			if at == 0 {
				// Anywhere in its period, so that it does not keep step with what programs do.
				open = rand.IntN(SampleFactor)
			}
			e.sample(at == open)
			at = (at + 1) % SampleFactor
		}
	}
}

// readWakeups passes on that there were some.
func (e *Engine) readWakeups(wake chan<- struct{}) {
	for {
		if _, err := e.wakeups.Read(); err != nil {
			return // closed
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// mappings lists who maps what of CUDA.
func (e *Engine) mappings() ([]bpf.CudaMapping, error) {
	r, err := e.finder.Open()
	if err != nil {
		return nil, fmt.Errorf("cannot list who maps CUDA's libraries: %w", err)
	}
	defer r.Close()
	all, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("cannot list who maps CUDA's libraries: %w", err)
	}
	list := make([]bpf.CudaMapping, len(all)/binary.Size(bpf.CudaMapping{}))
	if err := binary.Read(bytes.NewReader(all), binary.NativeEndian, list); err != nil {
		return nil, fmt.Errorf("cannot read who maps CUDA's libraries: %w", err)
	}
	return list, nil
}

// scan attaches to what is new and lets go of what nobody maps any more.
func (e *Engine) scan(now time.Time) error {
	list, err := e.mappings()
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.files {
		clear(f.processes)
		if f.library == runtime && f.handle != nil {
			f.err = f.unread
		}
	}
	// What each process maps.
	mapped := map[process][]*file{}
	for i := range list {
		m := &list[i]
		f := e.file(m)
		if f == nil {
			continue
		}
		p := process{m.Pid, m.Born}
		f.lastSeen = now
		if !f.processes[p] {
			f.processes[p] = true
			mapped[p] = append(mapped[p], f)
		}
	}
	for p, files := range mapped {
		e.attachRuntime(p, files)
	}
	var errs []error
	for key, f := range e.files {
		for p, own := range f.own {
			if !f.processes[p] {
				errs = append(errs, closeLinks(own.links))
				delete(f.own, p)
			}
		}
		if len(f.processes) == 0 && now.Sub(f.lastSeen) >= e.keepFor(f) {
			errs = append(errs, f.close())
			delete(e.files, key)
		}
	}
	return errors.Join(errs...)
}

// keepFor is how long a file is kept that nobody maps: programs come and go, but what is deleted should be gone.
func (e *Engine) keepFor(f *file) time.Duration {
	var st unix.Stat_t
	if f.handle == nil || unix.Fstat(int(f.handle.Fd()), &st) != nil || st.Nlink == 0 {
		return 0
	}
	return e.opts.keep
}

// file returns the file of a mapping, attached to if it can be. It is nil for files that are of no interest.
func (e *Engine) file(m *bpf.CudaMapping) *file {
	key := fileKey{m.Device, m.Inode}
	f := e.files[key]
	if f == nil {
		name := unix.ByteSliceToString(asBytes(m.Name[:]))
		l := libraryOf(name)
		if l == noLibrary || len(e.files) >= maxFiles {
			return nil
		}
		f = &file{name: name, library: l, seen: map[family]bool{}, processes: map[process]bool{}, own: map[process]ownLinks{}}
		e.files[key] = f
	}
	if f.handle == nil {
		// The process may be gone by now, or not let us: then another one may.
		f.handle, f.err = open(m, e.opts.byRoot)
		switch {
		case errors.Is(f.err, errGone):
			f.err = nil
			return f
		case f.err != nil:
			return f
		}
		if f.unread = f.read(); f.unread == nil && f.library == driver {
			e.attachDriver(f)
		}
		f.err = errors.Join(f.unread, f.err)
	}
	return f
}

func asBytes(chars []int8) []byte {
	b := make([]byte, len(chars))
	for i, c := range chars {
		b[i] = byte(c)
	}
	return b
}

func (e *Engine) attachDriver(f *file) {
	var wanted []probe
	for _, p := range f.probes {
		if !p.stepped || e.opts.Stepped == CountStepped {
			wanted = append(wanted, p)
		}
	}
	var attached []probe
	f.links, attached, f.err = e.attach(f, wanted, 0, false)
	for _, p := range attached {
		f.seen[p.kind.family()] = true
	}
	if e.opts.Stepped == SampleStepped {
		for _, p := range f.probes {
			if p.stepped {
				f.seen[p.kind.family()] = true
			}
		}
	}
}

// attachRuntime looks at a process's libcudart for what its libcuda does not show. It is of that process alone: of another, which has
// another libcuda, the same calls are seen there.
func (e *Engine) attachRuntime(p process, files []*file) {
	missing := map[family]bool{}
	for g := launches; g <= eventWaits; g++ {
		missing[g] = true
	}
	var hasDriver bool
	for _, f := range files {
		if f.library == driver {
			hasDriver = true
			for g := range f.seen {
				delete(missing, g)
			}
		}
	}
	for _, f := range files {
		if f.library != runtime || f.handle == nil {
			continue
		}
		if err := e.attachOwn(f, p, missing, hasDriver); err != nil {
			f.err = err
		}
	}
}

// attachOwn looks at the missing families of a libcudart in one process, and at no others.
func (e *Engine) attachOwn(f *file, p process, missing map[family]bool, hasDriver bool) error {
	var errs []error
	if own, ok := f.own[p]; ok {
		if sameFamilies(own.families, missing) {
			return nil
		}
		errs = append(errs, closeLinks(own.links))
		delete(f.own, p)
	}
	// Without libcuda libcudart does nothing: it is about to be mapped.
	if !hasDriver || len(missing) == 0 {
		return errors.Join(errs...)
	}
	if e.opts.single {
		return errors.Join(append(errs, errors.New("libcudart is looked at one process at a time, which needs Linux 6.6"))...)
	}
	var wanted []probe
	for _, probe := range f.probes {
		if missing[probe.kind.family()] && (!probe.stepped || e.opts.Stepped == CountStepped) {
			wanted = append(wanted, probe)
		}
	}
	links, _, err := e.attach(f, wanted, p.pid, false)
	if err != nil {
		errs = append(errs, err, closeLinks(links))
	} else {
		f.own[p] = ownLinks{links, missing}
	}
	return errors.Join(errs...)
}

func sameFamilies(a, b map[family]bool) bool {
	if len(a) != len(b) {
		return false
	}
	for g := range a {
		if !b[g] {
			return false
		}
	}
	return true
}

// sample attaches to the stepped functions of all libcuda, or detaches.
func (e *Engine) sample(open bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range e.files {
		if err := closeLinks(f.sampling); err != nil {
			f.err = err
		}
		f.sampling = nil
		if !open || f.library != driver || f.handle == nil {
			continue
		}
		var stepped []probe
		for _, p := range f.probes {
			if p.stepped {
				stepped = append(stepped, p)
			}
		}
		var err error
		if f.sampling, _, err = e.attach(f, stepped, 0, true); err != nil {
			f.err = err
		}
	}
}

func (e *Engine) setErr(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
}

// Err is why processes could not be looked at the last time.
func (e *Engine) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// Files returns the libraries that were found, by name and inode. Those of libcudart are there only if they are looked at.
func (e *Engine) Files() []File {
	e.mu.Lock()
	defer e.mu.Unlock()
	var files []File
	for key, f := range e.files {
		if f.library == runtime && len(f.own) == 0 && f.err == nil {
			continue
		}
		file := File{Name: f.name, Device: key.device, Inode: key.inode, Processes: len(f.processes), Err: f.err,
			Sampled: e.opts.Stepped == SampleStepped}
		for _, p := range f.probes {
			switch {
			case p.stepped && e.opts.Stepped != CountStepped:
				file.Stepped = append(file.Stepped, p.name)
			default:
				file.Functions++
			}
		}
		if f.handle == nil {
			file.Functions = 0
		}
		files = append(files, file)
	}
	slices.SortFunc(files, compareFiles)
	return files
}
