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
	c := Clock{offset: int64(time.Hour)}
	assert.Equal(t, time.Unix(3600, 7).UTC(), c.Wall(7))
}
