package engine

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/orb8/orb8/bpf/network"
)

const (
	frontPage = uint32(len(network.NetworkFrontPage{}.Entries))
	// maxFrontEntries fill half of a generation's index (FRONT_BUCKETS * FRONT_WAYS): all but 4 in 100 flows find a place
	// there. Of these and the index both generations together take 5 MiB.
	maxFrontEntries = 8192 * 4 / 2
)

// frontEntries returns how many of a generation's flows have their place in the front. The hash table has room for as many
// flows at the least, so that it is never full before the front is, and both together hold flowTableSize.
func frontEntries(flowTableSize uint32) uint32 {
	return min(flowTableSize/2, maxFrontEntries) / frontPage * frontPage
}

// setHashSecret makes the hashes of this run other than those of any other.
func setHashSecret(secret *ebpf.VariableSpec) error {
	random := make([]byte, secret.Size())
	rand.Read(random)
	numbers := make([]uint64, len(random)/8)
	for i := range numbers {
		numbers[i] = binary.NativeEndian.Uint64(random[8*i:])
	}
	return secret.Set(numbers)
}

// front empties the front of the generation that is not current.
type front struct {
	objs    *network.NetworkObjects
	entries uint32 // of a generation
	index   *ebpf.Memory
	empty   []byte // a generation's share of index
	page    network.NetworkFrontPage
}

func newFront(objs *network.NetworkObjects, entries uint32) (*front, error) {
	index, err := objs.FrontIndex.Memory()
	if err != nil {
		return nil, fmt.Errorf("cannot map the flow table's index (Linux 5.5 or later): %w", err)
	}
	return &front{objs: objs, entries: entries, index: index, empty: make([]byte, index.Size()/2)}, nil
}

// drain hands every flow of a generation to yield, once, empties it, and returns how many there were.
func (f *front) drain(generation uint32, yield func(*network.NetworkFlowKey, *network.NetworkFlow)) (int, error) {
	var state network.NetworkFrontState
	if err := f.objs.FrontStates.Lookup(generation, &state); err != nil {
		return 0, fmt.Errorf("cannot read how many flows %s holds: %w", f.objs.Front, err)
	}
	if state.Taken == 0 {
		return 0, nil
	}
	taken, total := min(state.Taken, f.entries), 0
	for first := uint32(0); first < taken; first += frontPage {
		if err := f.objs.Front.Lookup((generation*f.entries+first)/frontPage, &f.page); err != nil {
			return total, fmt.Errorf("cannot read %s: %w", f.objs.Front, err)
		}
		for i := range min(frontPage, taken-first) {
			e := &f.page.Entries[i]
			if e.Key.Direction == 0 {
				continue // another CPU was first with the same flow
			}
			yield(&e.Key, &e.Flow)
			total++
		}
	}
	if _, err := f.index.WriteAt(f.empty, int64(generation)*int64(len(f.empty))); err != nil {
		return total, fmt.Errorf("cannot empty %s: %w", f.objs.FrontIndex, err)
	}
	if err := f.objs.FrontStates.Put(generation, network.NetworkFrontState{}); err != nil {
		return total, fmt.Errorf("cannot empty %s: %w", f.objs.Front, err)
	}
	return total, nil
}
