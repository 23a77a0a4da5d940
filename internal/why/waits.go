package why

import (
	"math"
	"time"
)

// kind is what the time in a call stands for.
type kind int

const (
	// work is everything else: files, memory, devices, processes.
	work kind = iota
	// socket is waiting for a peer.
	socket
	// stream is reading or writing what may be a socket, a file or a pipe.
	stream
	// readiness is waiting for any of several things, sockets among them, or for a timer.
	readiness
	// sleep is waiting for time to pass.
	sleep
	// own is waiting for others of the pod's own threads and processes, or for work to come: it says nothing of why.
	own
)

const (
	// tick is the longest mean of sleeps that are a runtime's: Go's scheduler sleeps up to 10 ms, all of the time.
	tick = 20 * time.Millisecond
	// slowFile is the mean time from which what was read or written, and is of no peer, is taken for a pipe: files are faster. From
	// slowPipe on it may be either, a slow disk or a pipe.
	slowFile = 50 * time.Millisecond
	slowPipe = 2 * time.Millisecond
)

func kindOf(call string) kind {
	switch call {
	case "connect", "recvfrom", "recvmsg", "recvmmsg", "recv", "sendto", "sendmsg", "sendmmsg", "send", "sendfile", "shutdown":
		return socket
	case "read", "readv", "write", "writev", "splice":
		return stream
	case "poll", "ppoll", "select", "pselect6", "_newselect", "epoll_wait", "epoll_pwait", "epoll_pwait2", "io_uring_enter":
		return readiness
	case "nanosleep", "clock_nanosleep":
		return sleep
	case "futex", "futex_wait", "futex_waitv", "wait4", "waitid", "waitpid", "accept", "accept4", "pause", "rt_sigsuspend",
		"rt_sigtimedwait", "mq_timedreceive", "msgrcv", "semop", "semtimedop",
		"flock", "vfork", "restart_syscall":
		return own
	}
	return work
}

// waits say how many threads were in calls, on average over each slot.
type waits struct {
	in    *Input
	calls []callWaits
}

// callWaits are the threads in calls of one name, by what these count to.
type callWaits struct {
	of                       *Calls
	network, syscalls, other []float64
	// long is what of them was in calls as long as parked ones are.
	long []bool
}

func newWaits(in *Input) *waits {
	w := &waits{in: in}
	for i := range in.Calls {
		w.calls = append(w.calls, w.spread(&in.Calls[i]))
	}
	for i := range w.calls {
		w.unpark(&w.calls[i])
	}
	return w
}

// spread gives the time that calls took to the slots in which it passed: it is measured when they return.
func (w *waits) spread(c *Calls) callWaits {
	in := w.in
	s := callWaits{of: c, network: make([]float64, in.Slots), syscalls: make([]float64, in.Slots), other: make([]float64, in.Slots), long: make([]bool, in.Slots)}
	for slot, took := range c.Took {
		if took <= 0 {
			continue
		}
		mean := took / time.Duration(max(1, c.Made[slot]))
		network, syscalls, other := w.split(c, slot, mean)
		// The last of them returned in this slot, so they began at most so many slots before.
		back := min(slot, int((mean-1)/in.Slot))
		threads := took.Seconds() / in.Slot.Seconds() / float64(1+back)
		for at := slot - back; at <= slot; at++ {
			s.network[at] += threads * network
			s.syscalls[at] += threads * syscalls
			s.other[at] += threads * other
			s.long[at] = s.long[at] || mean >= parked
		}
	}
	w.pend(c, &s)
	return s
}

// pend adds calls that have not returned: since the last slot in which any of that name began, at the latest.
func (w *waits) pend(c *Calls, s *callWaits) {
	if c.Pending == 0 {
		return
	}
	last := len(c.Made) - 1
	for last >= 0 && c.Made[last] == 0 {
		last--
	}
	into := s.other
	switch k := kindOf(c.Name); {
	case k == socket && w.traffic(0, w.in.Slots).Packets > 0:
		into = s.network
	case k == sleep:
		into = s.syscalls
	}
	for at := last + 1; at < w.in.Slots; at++ {
		into[at] += float64(c.Pending)
		s.long[at] = true
	}
}

// split says to what the calls count that returned in a slot.
func (w *waits) split(c *Calls, slot int, mean time.Duration) (network, syscalls, other float64) {
	switch kindOf(c.Name) {
	case socket:
		if w.packets(slot) > 0 {
			return 1, 0, 0
		}
		// A socket within the host, which has no packets: another process.
		return 0, 0, 1
	case stream:
		network = w.atMost(c, slot)
		if mean >= slowFile {
			return network, 0, 1 - network
		}
		return network, 1 - network, 0
	case readiness:
		network = w.atMost(c, slot)
		return network, 0, 1 - network
	case sleep:
		if mean <= tick {
			return 0, 0, 1
		}
		return 0, 1, 0
	case own:
		return 0, 0, 1
	}
	return 0, 1, 0
}

// atMost is the share of a slot's calls that can have waited for packets: no more than came.
func (w *waits) atMost(c *Calls, slot int) float64 {
	return math.Min(1, float64(w.packets(slot))/float64(max(1, c.Made[slot])))
}

// packets came in a slot, or one before: a record of flows and one of calls do not begin at the same instant.
func (w *waits) packets(slot int) uint64 { return w.traffic(max(0, slot-1), slot+1).Packets }

func (w *waits) traffic(from, to int) Traffic {
	var sum Traffic
	if w.in.Received == nil {
		return sum
	}
	for _, t := range w.in.Received[from:to] {
		sum.Add(t)
	}
	return sum
}

// unpark moves the threads out of the way that wait in long calls whether the GPUs are busy or not. In a busy slot the GPUs are idle for
// a while as well, and what waits no longer than that may be why.
func (w *waits) unpark(c *callWaits) {
	var beside, slots float64
	for slot, u := range w.in.Utilization {
		if math.IsNaN(u) || u < BusyShare {
			continue
		}
		slots++
		if c.long[slot] {
			beside += math.Max(0, c.network[slot]+c.syscalls[slot]-(1-u))
		}
	}
	if beside == 0 {
		return
	}
	beside /= slots
	for slot := range c.long {
		all := c.network[slot] + c.syscalls[slot]
		if !c.long[slot] || all == 0 {
			continue
		}
		rest := math.Max(0, all-beside) / all
		c.other[slot] += all * (1 - rest)
		c.network[slot] *= rest
		c.syscalls[slot] *= rest
	}
}

// shares divides the idle part of a slot between what the pod's threads did in it. Threads wait beside each other: where they waited longer
// than the GPUs were idle, each cause has its part. Where they waited shorter, the rest of the time they had something to do.
func (w *waits) shares(slot int, idle float64) map[Cause]float64 {
	shares := map[Cause]float64{}
	seen := false
	for i := range w.calls {
		c := &w.calls[i]
		shares[Network] += c.network[slot]
		shares[Syscalls] += c.syscalls[slot]
		seen = seen || c.of.Made[slot] > 0 || c.of.Took[slot] > 0
	}
	if w.in.Synchronising != nil {
		shares[Synchronising] = w.in.Synchronising[slot] / w.in.Slot.Seconds()
		seen = seen || w.in.Synchronising[slot] > 0
	}
	waited := 0.0
	for _, share := range shares {
		waited += share
	}
	if waited > idle {
		for cause := range shares {
			shares[cause] *= idle / waited
		}
		return shares
	}
	rest := CPU
	if !seen {
		rest = Unseen
	}
	shares[rest] += idle - waited
	return shares
}
