package engine

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/bpf/network"
)

const (
	buckets = 8192 // FRONT_BUCKETS
	ways    = 4    // FRONT_WAYS
	tags    = 1 << 16
)

// source is the address of the n-th of many flows: any, or else hashes, which are sums of products, would keep a distance.
func source(n int) netip.Addr {
	mixed := uint32(n) * 0x9e3779b1
	mixed = (mixed ^ mixed>>15) * 0x85ebca77
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(mixed >> 24), byte(mixed >> 16)})
}

// datagram is a frame of it.
func datagram(n int) []byte {
	payload := udp(0)
	binary.BigEndian.PutUint16(payload, uint16(n))
	frame := ethernet(0x0800, ipv4(17, nil, payload)...)
	copy(frame[14+12:], source(n).AsSlice())
	return frame
}

// flowOf is the key that a datagram is counted to.
func flowOf(n int) network.NetworkFlowKey {
	return network.NetworkFlowKey{
		Saddr: source(n).As16(), Daddr: server4.As16(), Scope: 1, Sport: uint16(n), Dport: 53, Transport: 17, Direction: 2,
	}
}

// hasher returns what the programs of this engine hash keys to.
func (e *Engine) hasher(t testing.TB) func(network.NetworkFlowKey) uint32 {
	t.Helper()
	const words = int(unsafe.Sizeof(network.NetworkFlowKey{}) / 4)
	var secret [words + 1]uint64
	require.NoError(t, e.objs.HashSecret.Get(&secret))
	for _, s := range secret {
		require.NotZero(t, s, "not set")
	}
	return func(key network.NetworkFlowKey) uint32 {
		w := (*[words]uint32)(unsafe.Pointer(&key))
		h := secret[words]
		for i := 0; i < words; i += 2 {
			h += (secret[i] + uint64(w[i])) * (secret[i+1] + uint64(w[i+1]))
		}
		return uint32(h >> 32)
	}
}

// parts returns how many entries of the current generation were taken in the front, and how many flows are in the back.
func (e *Engine) parts(t testing.TB) (front uint32, back int) {
	t.Helper()
	var state network.NetworkFrontState
	require.NoError(t, e.objs.FrontStates.Lookup(e.generation, &state))
	table := e.objs.Flows0
	if e.generation == 1 {
		table = e.objs.Flows1
	}
	var key network.NetworkFlowKey
	var value network.NetworkFlow
	it := table.Iterate()
	for it.Next(&key, &value) {
		back++
	}
	require.NoError(t, it.Err())
	return state.Taken, back
}

// passEach runs the program on the datagrams of these flows, in turn.
func (e *Engine) passEach(t testing.TB, flows []int, times int) {
	t.Helper()
	for range times {
		for _, n := range flows {
			e.pass(t, datagram(n), 1)
		}
	}
}

// requireCounted drains, and requires these flows and no others, with so many packets each.
func (e *Engine) requireCounted(t testing.TB, flows []int, packets int) {
	t.Helper()
	got := e.drained(t)
	require.Len(t, got, len(flows))
	for _, n := range flows {
		require.Contains(t, got, flowOf(n))
		require.EqualValues(t, packets, got[flowOf(n)].Packets, "flow %d", n)
		require.EqualValues(t, 28*packets, got[flowOf(n)].Bytes, "flow %d", n)
	}
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func TestSharesOfFrontAndBack(t *testing.T) {
	for size, want := range map[uint32]uint32{1: 0, 8: 0, 63: 0, 64: 32, 1000: 480, 32767: 16352, 32768: 16384, 100_000: 16384, 10_000_000: 16384} {
		assert.Equal(t, want, frontEntries(size), "of %d", size)
		assert.GreaterOrEqual(t, size-frontEntries(size), frontEntries(size), "of %d", size)
	}
}

func TestFlowsOfAFullBucketGoToTheBack(t *testing.T) {
	const times, more = 3, 5
	e := newEngine(t, func(o *Options) { o.FlowTableSize, o.Events = 1000, false })
	hash := e.hasher(t)
	var same []int
	for n := 0; len(same) < ways+more; n++ {
		if hash(flowOf(n))%buckets == hash(flowOf(0))%buckets {
			same = append(same, n)
		}
	}
	for range 2 { // in both generations
		e.passEach(t, same, times)
		front, back := e.parts(t)
		assert.EqualValues(t, ways, front)
		assert.Equal(t, more, back)
		e.requireCounted(t, same, times)
	}
}

// Two flows of which the index says the same are told apart.
func TestFlowsWithOneTag(t *testing.T) {
	e := newEngine(t, func(o *Options) { o.FlowTableSize, o.Events = 1000, false })
	hash := e.hasher(t)
	pair := func() []int {
		seen := map[uint32]int{}
		for n := range 1 << 20 { // a pair in 2^29 is found among 2^15, as a rule
			reference := hash(flowOf(n)) % (buckets * tags)
			if other, ok := seen[reference]; ok {
				return []int{other, n}
			}
			seen[reference] = n
		}
		require.Fail(t, "no two flows have the same tag")
		return nil
	}()
	for range 2 {
		e.passEach(t, pair, 4)
		front, back := e.parts(t)
		assert.EqualValues(t, 1, front)
		assert.Equal(t, 1, back)
		e.requireCounted(t, pair, 4)
	}
}

// A front that is full leaves the other flows to the back, and both are full with as many flows as the table is for.
func TestFrontThenBackThenRingBuffer(t *testing.T) {
	const table, flows, times = 200, 300, 2
	e := newEngine(t, func(o *Options) { o.FlowTableSize, o.Events = table, false })
	inFront := frontEntries(table)
	for range 2 {
		e.passEach(t, upTo(flows), times)
		front, back := e.parts(t)
		assert.Equal(t, inFront+1, front, "one and more have been refused")
		assert.EqualValues(t, table-inFront, back)
		e.requireCounted(t, upTo(table), times)
	}
	overflown := map[network.NetworkFlowKey]int{}
	for _, ev := range e.readAll(t) {
		if network.NetworkEventKind(ev.Kind) == network.NetworkEventKindEVENT_OVERFLOW {
			overflown[ev.Key]++
		}
	}
	assert.Len(t, overflown, flows-table)
	for k, n := range overflown {
		assert.Equal(t, 2*times, n, "%d", k.Sport)
	}
}

// Nothing of a generation that was drained is left, whatever it held.
func TestDrainClearsTheFront(t *testing.T) {
	e := newEngine(t, func(o *Options) { o.FlowTableSize, o.Events = 1000, false })
	for _, flows := range []int{1, 100, 700, 0, 3} {
		e.passEach(t, upTo(flows), 2)
		e.requireCounted(t, upTo(flows), 2)
		index := make([]byte, e.front.index.Size())
		_, err := e.front.index.ReadAt(index, 0)
		require.NoError(t, err)
		for _, b := range index {
			require.Zero(t, b, "a reference is left")
		}
		var state network.NetworkFrontState
		for generation := range uint32(2) {
			require.NoError(t, e.objs.FrontStates.Lookup(generation, &state))
			require.Zero(t, state.Taken)
		}
	}
}

// Two CPUs meet the same new flows at the same time, again and again, while there is room in the front and while it runs
// out: every flow is at one place, with the packets of both.
//
// Of two entries that they take for one flow, one may stay unused: then the table holds fewer flows than it is for, and the
// packets of the others are in the ring buffer.
func TestTheSameFlowsOnTwoCPUs(t *testing.T) {
	const long = 3 * time.Second
	for name, tt := range map[string]struct {
		table    uint32
		flows    int
		overflow bool
	}{
		"room in the front":    {1000, 300, false},
		"the front runs out":   {64, 40, false}, // room in the back for all but eight
		"most are in the back": {64, 60, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, func(o *Options) { o.FlowTableSize, o.Events = tt.table, false })
			frames := make([][]byte, tt.flows)
			for n := range frames {
				frames[n] = datagram(n)
			}
			for begin := time.Now(); time.Since(begin) < long; {
				var ready, done sync.WaitGroup
				ready.Add(2)
				for range 2 {
					done.Add(1)
					go func() {
						defer done.Done()
						ready.Done()
						ready.Wait()
						for _, frame := range frames {
							_, err := e.objs.TcFromHost.Run(&ebpf.RunOptions{Data: frame})
							assert.NoError(t, err)
						}
					}()
				}
				done.Wait()

				packets := map[network.NetworkFlowKey]uint64{}
				for k, f := range e.drained(t) {
					require.Equal(t, 28*f.Packets, f.Bytes, "flow %d", k.Sport)
					packets[k] = f.Packets
				}
				for _, ev := range e.readAll(t) {
					if network.NetworkEventKind(ev.Kind) == network.NetworkEventKindEVENT_OVERFLOW {
						require.True(t, tt.overflow, "flow %d overflowed", ev.Key.Sport)
						packets[ev.Key]++
					}
				}
				for n := range tt.flows {
					require.EqualValues(t, 2, packets[flowOf(n)], "flow %d", n)
					delete(packets, flowOf(n))
				}
				require.Empty(t, packets)
			}
		})
	}
}
