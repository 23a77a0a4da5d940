package flowmetricsconnector

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/internal/flow"
)

func numbered(i int) key {
	return key{workload{"shop", strconv.Itoa(i)}, workload{name: "private"}, flow.Egress, flow.TCP}
}

func TestSketchEstimatesHowManyKeys(t *testing.T) {
	s := newSketch()
	assert.Zero(t, s.estimate())
	added := 0
	for _, n := range []int{1, 10, 1000, 100_000, 1_000_000, 3_000_000} {
		for ; added < n; added++ {
			k := numbered(added)
			s.add(&k)
		}
		assert.InDelta(t, n, s.estimate(), 1+0.05*float64(n), "five standard errors")
	}
	again := s.estimate()
	for i := range 1000 {
		k := numbered(i)
		s.add(&k)
	}
	assert.Equal(t, again, s.estimate(), "keys that it had")
}

func TestSketchTellsEveryPartOfAKeyApart(t *testing.T) {
	s := newSketch()
	keys := []key{
		{},
		{source: workload{"a", ""}},
		{source: workload{"", "a"}},
		{destination: workload{"a", ""}},
		{destination: workload{"", "a"}},
		{direction: 1},
		{transport: 1},
	}
	for i := range keys {
		s.add(&keys[i])
	}
	// Seven of half a million bits: that two keys share one is a matter of chance once in 25,000 runs, that more do of a fault.
	assert.GreaterOrEqual(t, s.set, len(keys)-1)
}

func TestSketchThatIsFull(t *testing.T) {
	s := newSketch()
	s.set = sketchBits
	assert.Greater(t, s.estimate(), int64(6_000_000))
}
