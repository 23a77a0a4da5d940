package ebpfmap

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// drainBatch is how many entries are asked for at once. The kernel refuses a batch smaller than its fullest bucket: then
// it grows.
const drainBatch = 4096

// Drainer empties hash maps that no program writes to any more: the generation that is not current. Its zero value is
// ready; it takes memory when it is first used.
type Drainer[K, V any] struct {
	keys   []K
	values []V
}

// Drain hands every entry to yield, once, deletes it, and returns how many there were.
func (d *Drainer[K, V]) Drain(m *ebpf.Map, yield func(*K, *V)) (int, error) {
	if d.keys == nil {
		d.keys, d.values = make([]K, drainBatch), make([]V, drainBatch)
	}
	total := 0
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookupAndDelete(&cursor, d.keys, d.values, nil)
		total += n
		for i := range n {
			yield(&d.keys[i], &d.values[i])
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return total, nil
		case errors.Is(err, unix.ENOSPC):
			d.keys = slices.Grow(d.keys, len(d.keys))[:2*len(d.keys)]
			d.values = slices.Grow(d.values, len(d.values))[:2*len(d.values)]
		case err != nil:
			return total, fmt.Errorf("cannot empty %s: %w", m, err)
		}
	}
}
