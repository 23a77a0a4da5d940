package ebpfnetworkreceiver

import (
	"time"

	"golang.org/x/sys/unix"
)

// clock relates CLOCK_MONOTONIC, which BPF programs stamp with, to wall time.
type clock struct {
	offset int64 // wall minus monotonic, in nanoseconds
}

// readClock takes the relation as it is now: wall time may be set while the collector runs.
func readClock() clock {
	return clock{offset: time.Now().UnixNano() - monotonicNow()}
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
