package cuda

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// fileKey is a file whatever it is mounted as: the file system's own device and inode number.
type fileKey struct {
	device uint32
	inode  uint64
}

// process is one for good: ids come again, times of birth do not.
type process struct {
	pid  uint32
	born uint64
}

// file is a library that somebody maps.
type file struct {
	name    string
	library library
	// handle is what probes are attached by: the file has as many names as mounts.
	handle *os.File
	probes []probe
	// unread is why there are none, err that or why some could not be attached.
	unread, err error
	// links are of the probes of all processes: those of libcuda that are not stepped, or all of it.
	links []link.Link
	// sampling are the links of the stepped ones while a window is open.
	sampling []link.Link
	// seen are the families of which a function is counted.
	seen map[family]bool
	// own are the links of single processes: those of libcudart.
	own map[process]ownLinks

	processes map[process]bool
	lastSeen  time.Time
}

type ownLinks struct {
	links    []link.Link
	families map[family]bool
}

// probe is a function of a file and where it is looked at.
type probe struct {
	function
	at      uint64 // in the file
	stepped bool
}

// read finds the functions and how each begins.
func (f *file) read() error {
	wanted := f.library.functions()
	found, err := readSymbols(f.handle, wanted)
	if err != nil {
		return fmt.Errorf("cannot read the functions of %s: %w", f.name, err)
	}
	taken := map[uint64]bool{} // two names of one function count once
	for _, w := range wanted {
		at, ok := found.offsets[w.name]
		if !ok || taken[at] {
			continue
		}
		taken[at] = true
		code := make([]byte, prologueBytes)
		n, _ := f.handle.ReadAt(code, int64(at)) // less at the end of the file
		offset, stepped := place(found.machine, code[:n], w.kind.Waits())
		f.probes = append(f.probes, probe{w, at + offset, stepped})
	}
	if len(f.probes) == 0 {
		return fmt.Errorf("%s exports none of the functions that are counted", f.name)
	}
	return nil
}

func (f *file) close() error {
	errs := []error{closeLinks(f.links), closeLinks(f.sampling)}
	for _, own := range f.own {
		errs = append(errs, closeLinks(own.links))
	}
	f.links, f.sampling, f.own = nil, nil, nil
	if f.handle != nil {
		errs = append(errs, f.handle.Close())
		f.handle = nil
	}
	return errors.Join(errs...)
}

// closeLinks closes the later ones first: a wait's end is looked at for longer than its beginning.
func closeLinks(links []link.Link) error {
	var errs []error
	for _, l := range slices.Backward(links) {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func (p *probe) cookie(sampled bool) uint64 {
	c := uint64(p.kind) | uint64(p.bytes)<<8
	if sampled {
		c |= 1 << 16
	}
	return c
}

// attach attaches probes of a file, for all processes or for one (pid not 0). Those that the kernel refuses are in the error; the
// others are attached.
func (e *Engine) attach(f *file, probes []probe, pid uint32, sampled bool) ([]link.Link, []probe, error) {
	executable, err := link.OpenExecutable("/proc/self/fd/" + strconv.Itoa(int(f.handle.Fd())))
	if err != nil {
		return nil, nil, err
	}
	var calls, waits []probe
	for _, p := range probes {
		if p.kind.Waits() {
			waits = append(waits, p)
		} else {
			calls = append(calls, p)
		}
	}
	var links []link.Link
	var attached []probe
	var errs []error
	for _, set := range []struct {
		probes   []probe
		programs []program
	}{
		{calls, []program{{e.programs.Call, false}}},
		// Whatever is seen to begin is seen to end.
		{waits, []program{{e.programs.WaitEnd, true}, {e.programs.WaitBegin, false}}},
	} {
		some, done, err := e.attachEach(executable, set.programs, set.probes, pid, sampled)
		links, attached = append(links, some...), append(attached, done...)
		errs = append(errs, err)
	}
	return links, attached, errors.Join(errs...)
}

type program struct {
	*ebpf.Program
	atReturn bool
}

// attachEach attaches all probes at once where the kernel has links of several, else, or where it refuses one of them, one by one.
func (e *Engine) attachEach(x *link.Executable, programs []program, probes []probe, pid uint32, sampled bool) ([]link.Link, []probe, error) {
	if len(probes) == 0 {
		return nil, nil, nil
	}
	if !e.opts.single {
		links, err := attachMulti(x, programs, probes, pid, sampled)
		if err == nil {
			return links, probes, nil
		}
	}
	var all []link.Link
	var attached []probe
	var errs []error
	for i := range probes {
		links, err := e.attachOne(x, programs, probes[i:i+1], pid, sampled)
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot count %s: %w", probes[i].name, err))
			continue
		}
		all, attached = append(all, links...), append(attached, probes[i])
	}
	return all, attached, errors.Join(errs...)
}

func (e *Engine) attachOne(x *link.Executable, programs []program, one []probe, pid uint32, sampled bool) ([]link.Link, error) {
	if !e.opts.single {
		return attachMulti(x, programs, one, pid, sampled)
	}
	var links []link.Link
	for _, p := range programs {
		opts := &link.UprobeOptions{Address: one[0].at, Cookie: one[0].cookie(sampled)}
		attach := x.Uprobe
		if p.atReturn {
			attach = x.Uretprobe
		}
		l, err := attach("", p.Program, opts)
		if err != nil {
			return nil, errors.Join(err, closeLinks(links))
		}
		links = append(links, l)
	}
	return links, nil
}

func attachMulti(x *link.Executable, programs []program, probes []probe, pid uint32, sampled bool) ([]link.Link, error) {
	opts := &link.UprobeMultiOptions{PID: pid}
	for _, p := range probes {
		opts.Addresses = append(opts.Addresses, p.at)
		opts.Cookies = append(opts.Cookies, p.cookie(sampled))
	}
	var links []link.Link
	for _, p := range programs {
		attach := x.UprobeMulti
		if p.atReturn {
			attach = x.UretprobeMulti
		}
		l, err := attach(nil, p.Program, opts)
		if err != nil {
			return nil, errors.Join(err, closeLinks(links))
		}
		links = append(links, l)
	}
	return links, nil
}
