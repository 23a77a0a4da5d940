package ebpfnetworkreceiver

import (
	"time"

	"golang.org/x/sys/unix"
)

// clock relates CLOCK_MONOTONIC, which BPF programs stamp with, to wall time.
type clock struct {
	offset int64 // wall minus monotonic, in nanoseconds
}

// clockTolerance is what a reading may differ by from an earlier one without being another relation.
const clockTolerance = time.Millisecond

// readClock takes the relation as it is now.
func readClock() clock { return clock{}.read() }

// read takes the relation as it is now: wall time may be set while the collector runs. Unless it was, the relation stays what
// it is, so that a moment has the same wall time whenever it is told: a flow's end must not come to lie before its last packet.
func (c clock) read() clock {
	before, wall := monotonicNow(), time.Now().UnixNano()
	after := monotonicNow()
	// On a busy machine others run in between, and then it says little.
	for range 10 {
		if after-before <= int64(clockTolerance/2) {
			break
		}
		before, wall = monotonicNow(), time.Now().UnixNano()
		after = monotonicNow()
	}
	return c.adjusted(before, wall, after)
}

// adjusted returns the relation that a reading of wall time tells, which was taken between two of monotonic time.
func (c clock) adjusted(before, wall, after int64) clock {
	least, most := wall-after, wall-before
	if c.offset >= least-int64(clockTolerance) && c.offset <= most+int64(clockTolerance) {
		return c
	}
	return clock{offset: least + (most-least)/2}
}

func monotonicNow() int64 {
	var ts unix.Timespec
	// It cannot fail: the clock exists on every Linux, and ts is valid.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

func (c clock) wall(ns int64) time.Time { return time.Unix(0, ns+c.offset).UTC() }

// monotonic is the inverse of wall.
func (c clock) monotonic(t time.Time) int64 { return t.UnixNano() - c.offset }
