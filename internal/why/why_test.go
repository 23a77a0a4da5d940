package why

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var begin = time.Date(2026, 3, 4, 15, 0, 0, 0, time.UTC)

// story is what a pod does, in slots of 10 s.
type story struct {
	in Input
}

// tell begins a story of a pod whose GPUs are used so in each slot, and whose node measures everything.
func tell(utilization ...float64) *story {
	n := len(utilization)
	return &story{Input{
		Start: begin, Slot: 10 * time.Second, Slots: n, Utilization: utilization, Latency: true,
		Received: make([]Traffic, n), Sent: make([]Traffic, n), Synchronising: make([]float64, n),
	}}
}

func repeat(value float64, n int) []float64 {
	all := make([]float64, n)
	for i := range all {
		all[i] = value
	}
	return all
}

func slots(parts ...[]float64) []float64 {
	var all []float64
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// calls adds calls of a name in the slots from <= slot < to: so many a slot, which take so long together.
func (s *story) calls(name string, from, to int, made uint64, took time.Duration) *story {
	var c *Calls
	for i := range s.in.Calls {
		if s.in.Calls[i].Name == name {
			c = &s.in.Calls[i]
		}
	}
	if c == nil {
		s.in.Calls = append(s.in.Calls, Calls{Name: name, Made: make([]uint64, s.in.Slots), Took: make([]time.Duration, s.in.Slots)})
		c = &s.in.Calls[len(s.in.Calls)-1]
	}
	for slot := from; slot < to; slot++ {
		c.Made[slot] += made
		c.Took[slot] += took
	}
	return s
}

func (s *story) pending(name string, n uint64) *story {
	for i := range s.in.Calls {
		if s.in.Calls[i].Name == name {
			s.in.Calls[i].Pending = n
		}
	}
	return s
}

func (s *story) packets(from, to int, n uint64) *story {
	for slot := from; slot < to; slot++ {
		s.in.Received[slot].Add(Traffic{Packets: n, Bytes: 1400 * n})
	}
	return s
}

func (s *story) synchronising(from, to int, seconds float64) *story {
	for slot := from; slot < to; slot++ {
		s.in.Synchronising[slot] += seconds
	}
	return s
}

func (s *story) with(change func(*Input)) *story {
	change(&s.in)
	return s
}

const second = time.Second

func TestVerdicts(t *testing.T) {
	idle, busy := repeat(0.05, 10), repeat(0.95, 10)
	for name, tc := range map[string]struct {
		story   *story
		verdict Verdict
		// shares that must be so, within 2 hundredths.
		shares map[Cause]float64
	}{
		"waits for a slow peer": {
			tell(idle...).packets(0, 10, 500).calls("recvfrom", 0, 10, 400, 9*second),
			"network", map[Cause]float64{Network: 0.9 / 0.95, CPU: 0.05 / 0.95},
		},
		"waits for a peer by epoll": {
			tell(idle...).packets(0, 10, 500).calls("epoll_wait", 0, 10, 400, 9*second),
			"network", map[Cause]float64{Network: 0.9 / 0.95},
		},
		"fetches with four threads": {
			tell(idle...).packets(0, 10, 50_000).calls("recvfrom", 0, 10, 40_000, 36*second).calls("write", 0, 10, 100_000, second),
			"network", nil,
		},
		"fetches in advance, and still starves": {
			tell(slots(busy, idle)...).packets(0, 20, 50_000).calls("recvfrom", 0, 20, 40_000, 36*second),
			"network", nil,
		},
		"starves for moments in each slot": {
			tell(repeat(0.3, 10)...).packets(0, 10, 500).calls("recvfrom", 0, 10, 400, 7*second),
			"network", map[Cause]float64{Network: 1},
		},
		"one answer takes a minute": {
			tell(repeat(0, 10)...).packets(8, 9, 20).calls("recvfrom", 8, 9, 1, 80*second).calls("getpid", 0, 10, 1, time.Microsecond),
			"network", map[Cause]float64{Network: 0.8, CPU: 0.2},
		},
		"the answer never comes": {
			tell(repeat(0, 10)...).packets(0, 2, 20).calls("recvfrom", 0, 2, 10, second).pending("recvfrom", 1).calls("getpid", 0, 10, 1, time.Microsecond),
			"network", map[Cause]float64{Network: 0.82},
		},
		"waits for a socket of the host": {
			tell(idle...).calls("recvfrom", 0, 10, 400, 9*second), "cpu", map[Cause]float64{Network: 0},
		},
		"syncs files": {
			tell(idle...).calls("fsync", 0, 10, 100, 8*second).calls("write", 0, 10, 1000, second),
			"syscalls", map[Cause]float64{Syscalls: 0.9 / 0.95},
		},
		"reads files, and talks a little": {
			tell(idle...).packets(0, 10, 10).calls("read", 0, 10, 10_000, 9*second),
			"syscalls", map[Cause]float64{Syscalls: 0.9 / 0.95},
		},
		"sleeps": {
			tell(idle...).calls("clock_nanosleep", 0, 10, 10, 9*second), "syscalls", nil,
		},
		"a runtime that ticks beside work on the CPU": {
			tell(idle...).calls("nanosleep", 0, 10, 1000, 10*second).calls("futex", 0, 10, 100, 40*second).calls("epoll_wait", 0, 10, 10, 20*second),
			"cpu", map[Cause]float64{CPU: 1},
		},
		"waits for its own workers, which compute": {
			tell(idle...).calls("read", 0, 10, 20, 9*second), "cpu", map[Cause]float64{CPU: 1},
		},
		"a thread that is parked at a peer, busy or not, beside work on the CPU": {
			tell(slots(busy, idle)...).packets(0, 20, 10).calls("recvfrom", 0, 20, 10, 10*second).calls("madvise", 0, 20, 100, time.Millisecond),
			"cpu", nil,
		},
		"synchronises": {
			tell(idle...).synchronising(0, 10, 8.5).calls("ioctl", 0, 10, 100, second/2), "synchronising", nil,
		},
		"does one, then the other": {
			tell(idle...).packets(0, 5, 500).calls("recvfrom", 0, 5, 400, 9*second).calls("fsync", 5, 10, 100, 9*second),
			"mixed", map[Cause]float64{Network: 0.47, Syscalls: 0.47},
		},
		"is busy": {
			tell(busy...).packets(0, 10, 500).calls("recvfrom", 0, 10, 400, 9*second), "busy", nil,
		},
		"computes or hangs, and nobody knows which": {
			tell(idle...), "not enough data", map[Cause]float64{Unseen: 1},
		},
		"times are not measured": {
			tell(idle...).calls("recvfrom", 0, 10, 400, 0).with(func(in *Input) { in.Latency = false }), "not enough data", nil,
		},
		"is busy, and times are not measured": {
			tell(busy...).with(func(in *Input) { in.Latency = false }), "busy", nil,
		},
		"the network is not measured": {
			tell(idle...).calls("recvfrom", 0, 10, 400, 9*second).calls("fsync", 0, 10, 100, 8*second).with(func(in *Input) { in.Received, in.Sent = nil, nil }),
			"syscalls", map[Cause]float64{Network: 0},
		},
		"hardly any samples": {
			tell(slots(idle[:4], repeat(math.NaN(), 6))...).calls("fsync", 0, 10, 100, 9*second), "not enough data", nil,
		},
		"samples in most slots": {
			tell(slots(idle[:6], repeat(math.NaN(), 4))...).calls("fsync", 0, 10, 100, 9*second), "syscalls", nil,
		},
		"no samples": {tell(repeat(math.NaN(), 10)...), "not enough data", nil},
		"no slots":   {tell(), "not enough data", nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := Analyse(&tc.story.in)
			assert.Equal(t, tc.verdict, r.Verdict, "%v", r.Shares)
			for cause, share := range tc.shares {
				assert.InDelta(t, share, r.Shares[cause], 0.02, "%s: %v", cause, r.Shares)
			}
			sum := 0.0
			for cause, share := range r.Shares {
				assert.Positive(t, share, cause)
				sum += share
			}
			if len(r.Shares) > 0 {
				assert.InDelta(t, 1, sum, 1e-9, "%v", r.Shares)
			}
		})
	}
}

func TestStretchesAndEvidence(t *testing.T) {
	s := tell(slots(repeat(0.9, 2), repeat(0.1, 3), []float64{math.NaN()}, repeat(0.2, 1), repeat(1, 2), repeat(0, 1))...)
	s.packets(0, 10, 100).calls("recvfrom", 2, 5, 50, 9*second).calls("recvfrom", 0, 2, 50, second).calls("fsync", 6, 7, 3, 8*second).calls("futex", 0, 10, 10, 20*second)
	s.synchronising(2, 3, 0.5)
	r := Analyse(&s.in)

	at := func(slot int) time.Time { return begin.Add(time.Duration(slot) * 10 * time.Second) }
	require.Len(t, r.Stretches, 3)
	for i, want := range []struct {
		from, to    int
		utilization float64
		most        Cause
	}{{2, 5, 0.1, Network}, {6, 7, 0.2, Syscalls}, {9, 10, 0, CPU}} {
		got := r.Stretches[i]
		assert.Equal(t, at(want.from), got.Start)
		assert.Equal(t, at(want.to), got.End)
		assert.InDelta(t, want.utilization, got.Utilization, 1e-9)
		assert.Greater(t, got.Shares[want.most], 0.5, "%v", got.Shares)
	}
	assert.InDelta(t, 0.9, r.Known, 1e-9)
	assert.InDelta(t, (2*0.9+3*0.1+0.2+2*1)/9, r.Utilization, 1e-9)
	assert.InDelta(t, 1-r.Utilization, r.Idle, 1e-9)
	// Five slots were not busy.
	assert.Equal(t, Traffic{Packets: 500, Bytes: 700_000}, r.Received)
	assert.InDelta(t, 0.5, r.Synchronising, 1e-9)
	require.Len(t, r.Calls, 3)
	assert.Equal(t, "futex", r.Calls[0].Name)
	assert.Empty(t, r.Calls[0].Cause)
	assert.Equal(t, Use{Name: "recvfrom", Cause: Network, Made: 150, Took: r.Calls[1].Took}, r.Calls[1])
	assert.InDelta(t, 27, r.Calls[1].Took.Seconds(), 1e-6)
	assert.Equal(t, Syscalls, r.Calls[2].Cause)
}

// Reading and writing may be of files or pipes: which it was is clear only of what is fast.
func TestUnclearCalls(t *testing.T) {
	s := tell(repeat(0, 5)...).calls("read", 0, 5, 1000, 5*second).calls("write", 0, 5, 1000, second).calls("fsync", 0, 5, 100, second)
	unclear := map[string]bool{}
	for _, u := range Analyse(&s.in).Calls {
		unclear[u.Name] = u.Unclear
	}
	assert.Equal(t, map[string]bool{"read": true, "write": false, "fsync": false}, unclear)
}

// A call that takes long is where it was, not where it returned.
func TestLongCallsAreSpread(t *testing.T) {
	s := tell(repeat(0, 10)...).packets(0, 10, 1).calls("recvfrom", 6, 7, 1, 45*second)
	w := newWaits(&s.in)
	assert.InDeltaSlice(t, []float64{0, 0, 0.9, 0.9, 0.9, 0.9, 0.9, 0, 0, 0}, w.calls[0].network, 1e-9)
	// What began before the range is not more than the range.
	s = tell(repeat(0, 3)...).packets(0, 3, 1).calls("recvfrom", 1, 2, 1, 100*second)
	w = newWaits(&s.in)
	assert.InDelta(t, 0, w.calls[0].network[2], 1e-9)
}
