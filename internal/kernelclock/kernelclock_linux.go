package kernelclock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock relates CLOCK_MONOTONIC, which BPF programs stamp with, to wall time. Its zero value has not been read yet.
type Clock struct {
	// Offset is wall minus monotonic, in nanoseconds.
	Offset int64
}

// tolerance is what a reading may differ by from an earlier one without being another relation.
const tolerance = time.Millisecond

// Read takes the relation as it is now.
func Read() Clock { return Clock{}.Read() }

// Read takes the relation as it is now: wall time may be set while the collector runs. Unless it was, the relation stays what
// it is, so that a moment has the same wall time whenever it is told: a flow's end must not come to lie before its last packet.
func (c Clock) Read() Clock {
	before, wall := Now(), time.Now().UnixNano()
	after := Now()
	// On a busy machine others run in between, and then it says little.
	for range 10 {
		if after-before <= int64(tolerance/2) {
			break
		}
		before, wall = Now(), time.Now().UnixNano()
		after = Now()
	}
	return c.adjusted(before, wall, after)
}

// adjusted returns the relation that a reading of wall time tells, which was taken between two of monotonic time.
func (c Clock) adjusted(before, wall, after int64) Clock {
	least, most := wall-after, wall-before
	if c.Offset >= least-int64(tolerance) && c.Offset <= most+int64(tolerance) {
		return c
	}
	return Clock{Offset: least + (most-least)/2}
}

// Now is CLOCK_MONOTONIC in nanoseconds.
func Now() int64 {
	var ts unix.Timespec
	// It cannot fail: the clock exists on every Linux, and ts is valid.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// Wall turns nanoseconds of CLOCK_MONOTONIC into wall time.
func (c Clock) Wall(ns int64) time.Time { return time.Unix(0, ns+c.Offset).UTC() }

// Monotonic is the inverse of Wall.
func (c Clock) Monotonic(t time.Time) int64 { return t.UnixNano() - c.Offset }

// readEvery is how far events may go on before the clock is read anew.
const readEvery = time.Second

// Follower is the clock of what is told one by one: it reads the relation once in a second of it. Its zero value is ready.
type Follower struct {
	clock Clock
	until int64
}

// At returns the clock for what was at ns of CLOCK_MONOTONIC.
func (f *Follower) At(ns int64) Clock {
	if ns >= f.until {
		f.clock, f.until = f.clock.Read(), ns+int64(readEvery)
	}
	return f.clock
}
