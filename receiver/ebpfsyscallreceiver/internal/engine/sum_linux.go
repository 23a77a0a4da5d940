package engine

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	bpf "github.com/orb8/orb8/bpf/syscall"
	"github.com/orb8/orb8/internal/ebpfmap"
	"github.com/orb8/orb8/internal/syscalls"
)

// total is what was counted of one call of one cgroup.
type total struct {
	calls   uint64
	errors  map[string]uint64
	latency *syscalls.Latency
}

// byNumber are totals of one cgroup and ABI.
type byNumber map[int32]*total

// at returns the total of a number, as the kernel side has it.
func (b byNumber) at(number uint32) *total {
	t := b[int32(number)]
	if t == nil {
		t = &total{}
		b[int32(number)] = t
	}
	return t
}

// sums adds up what several CPUs counted, one cgroup and ABI after the other: the memory for one is enough.
type sums struct {
	dense [rowNumbers]total
	order []int               // rows, by key
	rest  map[uint64]byNumber // what was in no row, by key

	calls  ebpfmap.Drainer[bpf.SyscallCallKey, uint64]
	cells  ebpfmap.Drainer[bpf.SyscallCallKey, bpf.SyscallCell]
	errnos ebpfmap.Drainer[bpf.SyscallErrorKey, uint64]
}

func (s *sums) others(key uint64) byNumber {
	if s.rest == nil {
		s.rest = map[uint64]byNumber{}
	}
	b := s.rest[key]
	if b == nil {
		b = byNumber{}
		s.rest[key] = b
	}
	return b
}

// yield hands out the sums of rows and rest, and forgets the rest. Without latency there are no ofRows.
func (s *sums) yield(rows []bpf.SyscallRow, ofRows []bpf.SyscallRowCells, cells []bpf.SyscallCell, yield func(uint64, *syscalls.Count)) {
	s.order = s.order[:0]
	for i := range rows {
		if rows[i].Key != 0 {
			s.order = append(s.order, i)
		}
	}
	slices.SortFunc(s.order, func(a, b int) int { return cmp.Compare(rows[a].Key, rows[b].Key) })
	// Keys that are only in the rest come in between.
	alone := slices.Sorted(maps.Keys(s.rest))
	for i := 0; i < len(s.order) || len(alone) > 0; {
		var key uint64
		if i < len(s.order) {
			key = rows[s.order[i]].Key
		}
		if len(alone) > 0 && (i == len(s.order) || alone[0] <= key) {
			key, alone = alone[0], alone[1:]
		}
		for ; i < len(s.order) && rows[s.order[i]].Key == key; i++ {
			s.addRow(&rows[s.order[i]])
			if ofRows != nil {
				s.addCells(&ofRows[s.order[i]], cells)
			}
		}
		s.yieldKey(key, ofRows != nil, yield)
	}
	clear(s.rest)
}

func (s *sums) addRow(row *bpf.SyscallRow) {
	for number, calls := range row.Calls {
		s.dense[number].calls += uint64(calls)
	}
}

func (s *sums) addCells(ofRow *bpf.SyscallRowCells, cells []bpf.SyscallCell) {
	for number, cell := range ofRow.Cells[:rowNumbers] {
		if cell != 0 && int(cell) < len(cells) {
			s.dense[number].addCell(&cells[cell])
		}
	}
}

// yieldKey hands out and forgets the totals of one cgroup and ABI.
func (s *sums) yieldKey(key uint64, latency bool, yield func(uint64, *syscalls.Count)) {
	cgroupID, abi := splitKey(key)
	var count syscalls.Count
	emit := func(number int32, t *total) {
		if t.calls == 0 && t.latency == nil && t.errors == nil {
			return
		}
		if latency {
			t.measured() // none that returned is not the same as not measured
		}
		count = syscalls.Count{Call: syscalls.Call{ABI: abi, Number: number}, Calls: t.calls, Errors: t.errors, Latency: t.latency}
		yield(cgroupID, &count)
	}
	rest := s.rest[key]
	for number, t := range rest {
		if uint32(number) < uint32(rowNumbers) {
			s.dense[number].add(t)
			delete(rest, number)
		}
	}
	beyond := slices.Sorted(maps.Keys(rest))
	for len(beyond) > 0 && beyond[0] < 0 {
		emit(beyond[0], rest[beyond[0]])
		beyond = beyond[1:]
	}
	for number := range s.dense {
		emit(int32(number), &s.dense[number])
	}
	for _, number := range beyond {
		emit(number, rest[number])
	}
	clear(s.dense[:])
}

func (t *total) add(o *total) {
	t.calls += o.calls
	if o.latency != nil {
		t.measured().Add(o.latency)
	}
	for name, n := range o.errors {
		t.addError(name, n)
	}
}

func (t *total) measured() *syscalls.Latency {
	if t.latency == nil {
		t.latency = &syscalls.Latency{}
	}
	return t.latency
}

func (t *total) addCell(c *bpf.SyscallCell) {
	l := t.measured()
	l.Sum += time.Duration(c.Ns)
	for i, n := range c.Buckets {
		l.Buckets[i] += uint64(n)
	}
	if c.Errors > 0 {
		t.addErrors(c.Errno, uint64(c.Errors))
	}
}

func (t *total) addErrors(errno uint32, n uint64) { t.addError(errorName(errno), n) }

func (t *total) addError(name string, n uint64) {
	if t.errors == nil {
		t.errors = map[string]uint64{}
	}
	t.errors[name] += n
}

// errorName names what a call returns. Some of it no process gets to see: the kernel then calls again or says EINTR.
func errorName(errno uint32) string {
	switch errno {
	case 512:
		return "ERESTARTSYS"
	case 513:
		return "ERESTARTNOINTR"
	case 514:
		return "ERESTARTNOHAND"
	case 516:
		return "ERESTART_RESTARTBLOCK"
	}
	if name := unix.ErrnoName(unix.Errno(errno)); name != "" {
		return name
	}
	return strconv.Itoa(int(errno))
}
