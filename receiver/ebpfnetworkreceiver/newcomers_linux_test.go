package ebpfnetworkreceiver

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/bpf/network"
)

// arrivals plays one flow: its packets, the drains, and when its events are read.
type arrivals struct {
	newcomers
	clock int64
	told  int
}

func newArrivals() *arrivals { return &arrivals{newcomers: newcomers{flows: newMemory()}} }

// packet returns the event of the flow's first packet in a generation.
func (a *arrivals) packet() *network.NetworkEvent {
	a.clock += int64(time.Millisecond)
	return &network.NetworkEvent{Key: udpOut, Flow: network.NetworkFlow{Packets: 1, FirstNs: uint64(a.clock)}}
}

func (a *arrivals) read(e *network.NetworkEvent) {
	if a.isNew(&e.Key, e) {
		a.told++
	}
}

// found is what the tracker does of a generation that has the packet.
func (a *arrivals) found(e *network.NetworkEvent) {
	st, known := a.flows.get(&e.Key)
	if !known {
		st.firstNS = int64(e.Flow.FirstNs)
	}
	a.flows.put(&e.Key, &st)
}

func (a *arrivals) drained() {
	a.end(func(*network.NetworkEvent) { a.told++ })
}

// interval is one in which the flow has packets.
func (a *arrivals) interval() {
	e := a.packet()
	a.read(e)
	a.begin()
	a.found(e)
	a.drained()
}

func TestFlowIsNewOnce(t *testing.T) {
	a := newArrivals()
	for range 3 {
		a.interval()
	}
	assert.Equal(t, 1, a.told)
	a.flows.remove(&udpOut)
	a.interval()
	assert.Equal(t, 2, a.told, "it had ended: this is another one")
}

// Whenever the events are read of two packets on either side of a flip, a new flow is told of once, and a known one not.
func TestEventsAreReadWhenTheyAre(t *testing.T) {
	for want, name := range map[int]string{1: "new flow", 0: "known flow"} {
		for first := range 4 {
			for second := max(1, first); second < 4; second++ {
				t.Run(fmt.Sprintf("%s/read at %d and %d", name, first, second), func(t *testing.T) {
					a := newArrivals()
					if want == 0 {
						a.interval()
						a.told = 0
					}
					before, after := a.packet(), a.packet()
					read := func(now int) {
						if now == first {
							a.read(before)
						}
						if now == second {
							a.read(after)
						}
					}
					read(0)
					a.begin() // from here on packets are in the next generation
					read(1)
					a.found(before)
					read(2)
					a.drained()
					read(3)
					a.begin()
					a.found(after)
					a.drained()
					assert.Equal(t, want, a.told)
				})
			}
		}
	}
}

// An interface that tells of a flow may see its first packet later than the one that counts it.
func TestPacketOnItsWayIsTheSame(t *testing.T) {
	for onItsWay, want := range map[time.Duration]int{0: 0, passingTime: 1} {
		a := newArrivals()
		a.onItsWay = onItsWay
		counted, told := a.packet(), a.packet()
		a.begin()
		a.found(counted)
		a.drained()
		a.read(told)
		assert.Equal(t, want, a.told, onItsWay)
	}
}

func TestThoseThatWaitAreBounded(t *testing.T) {
	a := newArrivals()
	a.begin()
	for i := range maxWaiting + 10 {
		e := a.packet()
		e.Key.Sport = uint16(i)
		a.read(e)
	}
	assert.Equal(t, 10, a.told, "what finds no place counts as new")
	a.drained()
	assert.Equal(t, maxWaiting+10, a.told, "nothing is lost")
	assert.Empty(t, a.waiting)
}
