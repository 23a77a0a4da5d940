package engine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"

	bpf "github.com/orb8/orb8/bpf/syscall"
	"github.com/orb8/orb8/internal/syscalls"
)

// readDelay is how long an event may lie in a ring buffer that is nearly empty. A wake-up for each would cost the caller more
// than all of the rest.
const readDelay = 100 * time.Millisecond

// ReadEvents hands every event to yield until Close or Flush; the event is valid until yield returns.
func (e *Engine) ReadEvents(yield func(*Event)) error {
	var rec ringbuf.Record
	var ev Event
	e.ring.SetDeadline(time.Now().Add(readDelay))
	for {
		err := e.ring.ReadInto(&rec)
		switch {
		case errors.Is(err, ringbuf.ErrFlushed) || errors.Is(err, ringbuf.ErrClosed):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			e.ring.SetDeadline(time.Now().Add(readDelay))
			continue
		case err != nil:
			return fmt.Errorf("cannot read the ring buffer: %w", err)
		}
		if err := ev.decode(rec.RawSample); err != nil {
			return err
		}
		yield(&ev)
	}
}

// Flush makes ReadEvents return once it has read what is in the ring buffer now.
func (e *Engine) Flush() error { return e.ring.Flush() }

func (ev *Event) decode(record []byte) error {
	const short, long = int(unsafe.Sizeof(bpf.SyscallEvent{})), int(unsafe.Sizeof(bpf.SyscallTextEvent{}))
	if len(record) != short && len(record) != long {
		return fmt.Errorf("the ring buffer holds a record of %d bytes, not of %d or %d", len(record), short, long)
	}
	raw := (*bpf.SyscallEvent)(unsafe.Pointer(unsafe.SliceData(record)))
	comm := raw.Comm[:]
	if end := bytes.IndexByte(comm, 0); end >= 0 {
		comm = comm[:end]
	}
	cgroup, abi := splitKey(raw.Key)
	*ev = Event{
		Time: raw.Ns, CgroupID: cgroup, Call: syscalls.Call{ABI: abi, Number: raw.Number}, PID: raw.Pid, TID: raw.Tid,
		Comm: comm, Args: raw.Args, Sampling: raw.Sampling,
	}
	if len(record) == long {
		t := (*bpf.SyscallTextEvent)(unsafe.Pointer(unsafe.SliceData(record)))
		if int(t.Length) > len(t.Text) {
			return fmt.Errorf("the ring buffer holds a text of %d bytes, in room for %d", t.Length, len(t.Text))
		}
		ev.Text, ev.State = t.Text[:t.Length], TextState(t.State)
	}
	return nil
}

// splitKey takes a key of the kernel side apart.
func splitKey(key uint64) (cgroupID uint64, abi syscalls.ABI) { return key >> 3, syscalls.ABI(key & 7) }
