package kernelclock

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestWallTimeIsThatOfTheHost(t *testing.T) {
	before := time.Now()
	got := Read().Wall(Now())
	assert.WithinRange(t, got, before.Add(-time.Second), time.Now().Add(time.Second))
	assert.Equal(t, time.UTC, got.Location())
}

func TestWall(t *testing.T) {
	c := Clock{Offset: int64(time.Hour)}
	wall := time.Unix(3600, 7).UTC()
	assert.Equal(t, wall, c.Wall(7))
	assert.EqualValues(t, 7, c.Monotonic(wall))
}

func TestClockStaysUnlessWallTimeIsSet(t *testing.T) {
	const offset = int64(1000 * time.Hour)
	ms := int64(time.Millisecond)
	c := Clock{Offset: offset}
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
			assert.Equal(t, tt.want, c.adjusted(tt.before, tt.wall, tt.after).Offset)
		})
	}

	first := Read()
	for range 1000 {
		assert.Equal(t, first, first.Read())
	}
}

func TestFollower(t *testing.T) {
	var f Follower
	now := Now()
	first := f.At(now)
	assert.WithinDuration(t, time.Now(), first.Wall(Now()), time.Second)

	wrong := Clock{Offset: first.Offset - int64(time.Hour)}
	f.clock = wrong
	assert.Equal(t, wrong, f.At(now+int64(readEvery)-1), "not yet")
	assert.Equal(t, wrong, f.At(now-int64(time.Minute)), "what is told late is no reason")
	assert.InDelta(t, first.Offset, f.At(now+int64(readEvery)).Offset, float64(time.Second), "wall time was set")
}
