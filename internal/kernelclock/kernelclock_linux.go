package kernelclock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock relates CLOCK_MONOTONIC, which BPF programs stamp with, to wall time.
type Clock struct {
	offset int64 // wall minus monotonic, in nanoseconds
}

// Read takes the relation as it is now: wall time may be set while the collector runs.
func Read() Clock { return Clock{offset: time.Now().UnixNano() - Now()} }

// Now is CLOCK_MONOTONIC in nanoseconds.
func Now() int64 {
	var ts unix.Timespec
	// It cannot fail: the clock exists on every Linux, and ts is valid.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// Wall turns nanoseconds of CLOCK_MONOTONIC into wall time.
func (c Clock) Wall(ns int64) time.Time { return time.Unix(0, ns+c.offset).UTC() }
