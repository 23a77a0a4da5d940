//go:build linux

// Package usage tells what a process takes of the machine, by proc(5).
package usage

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Usage is what a process takes, since it started.
type Usage struct {
	At time.Time
	// RSS and Peak are the resident set, now and at most, in bytes.
	RSS, Peak uint64
	// CPU is user and system time.
	CPU time.Duration
}

// Of reads it.
func Of(t testing.TB, pid int) Usage {
	t.Helper()
	u := Usage{At: time.Now()}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(status)) {
		var kib uint64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			u.RSS = kib << 10
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			u.Peak = kib << 10
		}
	}
	require.NotZero(t, u.Peak, "no VmHWM")
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	_, after, _ := strings.Cut(string(stat), ") ")
	const userHZ = 100
	for _, field := range strings.Fields(after)[11:13] { // utime and stime
		ticks, err := strconv.Atoi(field)
		require.NoError(t, err)
		u.CPU += time.Duration(ticks) * time.Second / userHZ
	}
	return u
}

func (u Usage) String() string {
	return fmt.Sprintf("RSS %.0f MB, at most %.0f MB, CPU %s", float64(u.RSS)/1e6, float64(u.Peak)/1e6, u.CPU)
}

// Since returns which share of one processor was used between two readings.
func (u Usage) Since(earlier Usage) float64 {
	return float64(u.CPU-earlier.CPU) / float64(u.At.Sub(earlier.At))
}
