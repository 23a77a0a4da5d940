package main

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// humanBytes is n in the largest 1024-based unit that leaves a number of at least 1: at most eight letters.
func humanBytes(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	value, unit := scale(float64(n), 1024, []string{" KiB", " MiB", " GiB", " TiB", " PiB", " EiB"})
	return value + unit
}

// humanCount is n as it is when that is short, else in millions, thousands of millions and so on: at most seven letters.
func humanCount(n uint64) string {
	if n < 10_000_000 {
		return strconv.FormatUint(n, 10)
	}
	value, unit := scale(float64(n)/1000, 1000, []string{"M", "G", "T", "P", "E"})
	return value + unit
}

// scale divides v by base for each unit until it prints as less than base, in three digits or the four before the next
// unit.
func scale(v, base float64, units []string) (value, unit string) {
	for _, unit = range units {
		v /= base
		if v < base-0.5 {
			break
		}
	}
	digits := 0
	switch {
	case v == math.Trunc(v):
		// A size such as 32 MiB is exact, and reads so.
	case v < 9.995:
		digits = 2
	case v < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64), unit
}

// grouped is n with a comma before every third digit from the right.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural is "1 packet" or "2 packets".
func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return grouped(n) + " " + noun + "s"
}

// humanAge is d in its two largest units: "2d3h", "5m12s", "0s".
func humanAge(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}
