package ebpfmap

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Window shows n entries of an array map with BPF_F_MMAPABLE, from the first on, to yield, which may change them. It takes
// no system call an entry, and unlike a mapping of the whole map it does not count as this process's memory between uses.
// first * the size of T is a multiple of the page size; T holds no pointers and has a size that is a multiple of 8.
func Window[T any](m *ebpf.Map, first, n uint32, yield func([]T)) error {
	if n == 0 {
		yield(nil)
		return nil
	}
	size := unsafe.Sizeof(*new(T))
	page := uintptr(os.Getpagesize())
	length := (uintptr(n)*size + page - 1) &^ (page - 1)
	memory, err := unix.Mmap(m.FD(), int64(uintptr(first)*size), int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("cannot map entries %d to %d of %s: %w", first, first+n-1, m, err)
	}
	yield(unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(memory))), n))
	if err := unix.Munmap(memory); err != nil {
		return fmt.Errorf("cannot unmap entries of %s: %w", m, err)
	}
	return nil
}
