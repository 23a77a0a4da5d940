package main

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestHumanBytes(t *testing.T) {
	tests := map[uint64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.50 KiB", 10 << 10: "10 KiB", 10<<10 + 1: "10.0 KiB", 100 << 10: "100 KiB",
		1023 << 10: "1023 KiB", 1<<20 - 1: "1.00 MiB", 1 << 20: "1 MiB", 5 << 30: "5 GiB", 1 << 40: "1 TiB",
		1 << 50: "1 PiB", math.MaxUint64: "16 EiB",
	}
	for n, want := range tests {
		assert.Equal(t, want, humanBytes(n))
	}
}

func TestHumanCount(t *testing.T) {
	tests := map[uint64]string{
		0: "0", 9_999_999: "9999999", 10_000_000: "10M", 10_000_001: "10.0M", 999_499_999: "999M", 999_500_000: "1.00G", 1_234_567_890: "1.23G",
		12_345_678_901_234: "12.3T", math.MaxUint64: "18.4E",
	}
	for n, want := range tests {
		assert.Equal(t, want, humanCount(n))
	}
}

// TestHumanUnitsStayShort is what the tables' 80 columns rest on.
func TestHumanUnitsStayShort(t *testing.T) {
	for shift := range 64 {
		for _, around := range []uint64{0, 1, 2} {
			n := uint64(1)<<shift + around - 1
			assert.LessOrEqual(t, len(humanBytes(n)), len("1023 KiB"), n)
			assert.LessOrEqual(t, len(humanCount(n)), len("9999999"), n)
		}
	}
	for n := uint64(1); n < math.MaxUint64/11; n = n*10 + 9 {
		assert.LessOrEqual(t, len(humanBytes(n)), len("1023 KiB"), n)
		assert.LessOrEqual(t, len(humanCount(n)), len("9999999"), n)
	}
}

func TestGrouped(t *testing.T) {
	tests := map[uint64]string{
		0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567", math.MaxUint64: "18,446,744,073,709,551,615",
	}
	for n, want := range tests {
		assert.Equal(t, want, grouped(n))
	}
	assert.Equal(t, "1 packet", plural(1, "packet"))
	assert.Equal(t, "0 packets", plural(0, "packet"))
	assert.Equal(t, "1,000 packets", plural(1000, "packet"))
}

func TestHumanAge(t *testing.T) {
	tests := map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 999 * time.Millisecond: "0s", 59 * time.Second: "59s", time.Minute: "1m0s",
		time.Hour - time.Second: "59m59s", 90 * time.Minute: "1h30m", 24 * time.Hour: "1d0h", 75*time.Hour + time.Minute: "3d3h",
	}
	for d, want := range tests {
		assert.Equal(t, want, humanAge(d), d)
	}
}
