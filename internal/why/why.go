// Package why tells why a pod's GPUs idle: it holds what they did against what the pod's threads waited for, slot by slot of a range of time.
// docs/why.md explains the method to users.
package why

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Cause is what a pod did while its GPUs were idle.
type Cause string

// Causes, the most telling first.
const (
	Network       Cause = "network"
	Syscalls      Cause = "syscalls"
	Synchronising Cause = "synchronising"
	// CPU is what is left: nothing measures it.
	CPU Cause = "cpu"
	// Unseen is time in which the pod made no call and none returned: it computed, or waited in a call that goes on.
	Unseen Cause = "unseen"
)

// Causes returns all causes, the most telling first.
func Causes() []Cause { return []Cause{Network, Syscalls, Synchronising, CPU, Unseen} }

// Verdict is a Cause, or one of these.
type Verdict string

const (
	Busy      Verdict = "busy"
	Mixed     Verdict = "mixed"
	NotEnough Verdict = "not enough data"
)

const (
	// BusyShare is the utilization from which a GPU is busy, and the share of a range from which it was so.
	BusyShare = 0.8
	// Decisive is the share of the idle time from which one cause is the verdict.
	Decisive = 0.6
	// minKnown is the share of the slots that must have samples of the GPUs.
	minKnown = 0.5
	// parked is how long calls take on average that are compared with those of busy slots: a thread that waits so whatever the GPUs do,
	// is not what they wait for. Threads that fetch in advance wait in both as well, but in short calls.
	parked = 250 * time.Millisecond
)

// Input is what was measured of a pod, in slots of equal length. Slices of slots have Slots entries.
type Input struct {
	Start time.Time
	Slot  time.Duration
	Slots int
	// Utilization is the mean of the pod's GPUs, from 0 to 1; NaN is not known.
	Utilization []float64
	Calls       []Calls
	// Latency tells that Calls have times. Without them nothing is known of what the pod waited for.
	Latency bool
	// Received and Sent are the pod's traffic; nil where it is not measured.
	Received, Sent []Traffic
	// Synchronising are the seconds that CUDA's synchronising functions took; nil where they are not measured.
	Synchronising []float64
}

// Calls are those of one name.
type Calls struct {
	Name string
	// Made is how many began in a slot, Took how long those took that returned in it.
	Made []uint64
	Took []time.Duration
	// Pending had begun in the range and not returned by its end.
	Pending uint64
}

// Traffic is what was seen in one slot.
type Traffic struct {
	Bytes, Packets, Retransmits uint64
}

// Add adds o.
func (t *Traffic) Add(o Traffic) {
	t.Bytes += o.Bytes
	t.Packets += o.Packets
	t.Retransmits += o.Retransmits
}

// Report is the answer.
type Report struct {
	Verdict Verdict
	// Known is the share of the slots that have samples of the GPUs. All else is of these.
	Known float64
	// Utilization is the mean, Idle its rest.
	Utilization, Idle float64
	// Shares are of the idle time; they sum up to 1, unless there is none. Without latency they are empty.
	Shares map[Cause]float64
	// Stretches are those in which the GPUs were not busy, in order of time.
	Stretches []Stretch
	// Calls are what the pod's threads were in while the GPUs were not busy, the longest first, and Received and Sent its traffic.
	Calls          []Use
	Received, Sent Traffic
	// Synchronising is in seconds, while the GPUs were not busy.
	Synchronising float64
	// IdleSlots tells the slots in which the GPUs were not busy.
	IdleSlots []bool
}

// Stretch is a time in which the GPUs were not busy.
type Stretch struct {
	Start, End  time.Time
	Utilization float64
	Shares      map[Cause]float64
}

// Use is a call while the GPUs were not busy.
type Use struct {
	Name string
	// Cause is that which most of its time counts to; empty where it counts to none, as a wait for the pod's own threads.
	Cause Cause
	Made  uint64
	// Took is of all threads together.
	Took time.Duration
	// Pending as in Calls.
	Pending uint64
	// Unclear tells that calls of Syscalls took so long that they may as well have been of a pipe, at whose other end the cause is.
	Unclear bool
}

// Analyse tells what a pod's GPUs waited for.
func Analyse(in *Input) *Report {
	r := &Report{IdleSlots: make([]bool, in.Slots), Shares: map[Cause]float64{}}
	known := 0
	for slot, u := range in.Utilization {
		if math.IsNaN(u) {
			continue
		}
		known++
		r.Utilization += u
		r.IdleSlots[slot] = u < BusyShare
	}
	if in.Slots > 0 {
		r.Known = float64(known) / float64(in.Slots)
	}
	if known == 0 {
		r.Verdict = NotEnough
		return r
	}
	r.Utilization /= float64(known)
	r.Idle = 1 - r.Utilization

	w := newWaits(in)
	slots := make([]map[Cause]float64, in.Slots)
	idle := 0.0
	for slot, u := range in.Utilization {
		if math.IsNaN(u) {
			continue
		}
		if in.Latency {
			slots[slot] = w.shares(slot, 1-u)
		}
		idle += 1 - u
		for cause, share := range slots[slot] {
			r.Shares[cause] += share
		}
	}
	scale(r.Shares, idle)
	r.evidence(in, w)
	r.stretches(in, slots)
	r.Verdict = r.verdict(in)
	return r
}

func (r *Report) verdict(in *Input) Verdict {
	switch {
	case r.Known < minKnown:
		return NotEnough
	case r.Utilization >= BusyShare:
		return Busy
	case !in.Latency:
		return NotEnough
	}
	for _, cause := range Causes() {
		if r.Shares[cause] < Decisive {
			continue
		}
		if cause == Unseen {
			return NotEnough
		}
		return Verdict(cause)
	}
	return Mixed
}

// evidence sums up what was measured while the GPUs were not busy.
func (r *Report) evidence(in *Input, w *waits) {
	for slot, idle := range r.IdleSlots {
		if !idle {
			continue
		}
		if in.Received != nil {
			r.Received.Add(in.Received[slot])
		}
		if in.Sent != nil {
			r.Sent.Add(in.Sent[slot])
		}
		if in.Synchronising != nil {
			r.Synchronising += in.Synchronising[slot]
		}
	}
	for i := range w.calls {
		c := &w.calls[i]
		use := Use{Name: c.of.Name, Pending: c.of.Pending}
		by := map[Cause]float64{}
		for slot, idle := range r.IdleSlots {
			if !idle {
				continue
			}
			use.Made += c.of.Made[slot]
			all := c.network[slot] + c.syscalls[slot] + c.other[slot]
			use.Took += time.Duration(all * float64(in.Slot))
			by[Network] += c.network[slot]
			by[Syscalls] += c.syscalls[slot]
			by[""] += c.other[slot]
		}
		for _, cause := range []Cause{Syscalls, Network} {
			if by[cause] > by[use.Cause] {
				use.Cause = cause
			}
		}
		use.Unclear = use.Cause == Syscalls && kindOf(use.Name) == stream && use.Took/time.Duration(max(1, use.Made)) >= slowPipe
		if use.Made > 0 || use.Took > 0 {
			r.Calls = append(r.Calls, use)
		}
	}
	slices.SortStableFunc(r.Calls, func(a, b Use) int { return cmp.Compare(b.Took, a.Took) })
}

// stretches joins slots that follow each other.
func (r *Report) stretches(in *Input, slots []map[Cause]float64) {
	for slot := 0; slot < in.Slots; slot++ {
		if !r.IdleSlots[slot] {
			continue
		}
		from := slot
		s := Stretch{Shares: map[Cause]float64{}}
		idle := 0.0
		for ; slot < in.Slots && r.IdleSlots[slot]; slot++ {
			s.Utilization += in.Utilization[slot]
			idle += 1 - in.Utilization[slot]
			for cause, share := range slots[slot] {
				s.Shares[cause] += share
			}
		}
		s.Start, s.End = in.Start.Add(time.Duration(from)*in.Slot), in.Start.Add(time.Duration(slot)*in.Slot)
		s.Utilization /= float64(slot - from)
		scale(s.Shares, idle)
		r.Stretches = append(r.Stretches, s)
	}
}

// scale divides shares of something by how much there is of it.
func scale(shares map[Cause]float64, by float64) {
	for cause := range shares {
		if shares[cause] /= by; by <= 0 || shares[cause] == 0 {
			delete(shares, cause)
		}
	}
}
