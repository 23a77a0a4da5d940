package ebpfnetworkreceiver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestClockStaysUnlessWallTimeIsSet(t *testing.T) {
	const offset = int64(1000 * time.Hour)
	ms := int64(time.Millisecond)
	c := clock{offset: offset}
	tests := map[string]struct {
		before, wall, after int64
		want                int64
	}{
		"the same":                    {10 * ms, offset + 10*ms, 10 * ms, offset},
		"interrupted before wall":     {10 * ms, offset + 510*ms, 510 * ms, offset},
		"interrupted after wall":      {10 * ms, offset + 10*ms, 510 * ms, offset},
		"clocks of different grain":   {10 * ms, offset + 10*ms + ms/2, 10 * ms, offset},
		"wall time was set":           {10 * ms, offset + 310*ms, 12 * ms, offset + 299*ms},
		"wall time was set back":      {10 * ms, offset - 290*ms, 12 * ms, offset - 301*ms},
		"set while it was being read": {10 * ms, offset + 910*ms, 510 * ms, offset + 650*ms},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tt.want, c.adjusted(tt.before, tt.wall, tt.after).offset)
		})
	}

	first := readClock()
	assert.WithinDuration(t, time.Now(), first.wall(monotonicNow()), time.Second)
	for range 1000 {
		assert.Equal(t, first, first.read())
	}
}
