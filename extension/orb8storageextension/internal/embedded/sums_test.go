package embedded

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/storage"
)

// What was kept of blocks is what those sum up to that are there, while blocks come, are merged and expire.
func TestKeptSumsAreThoseOfTheBlocksThatAreThere(t *testing.T) {
	for seed := range uint64(4) {
		random := rand.New(rand.NewPCG(seed, 5))
		s, clock := openTestStore(t, t.TempDir(), func(s *Settings) { s.Retention = 20 * time.Minute })
		queries := []storage.AggregateQuery{
			{By: []string{"source.pod", "destination.pod"}, Measures: []string{"bytes"}},
			{By: []string{"destination.service", "transport"}, Measures: storage.Measures(storage.SignalFlows), Flows: randomSelection(random)},
			{By: []string{"source.pod", "destination.pod"}, Measures: []string{"packets", "retransmits"}, Until: at(500)},
			{Measures: []string{"connections"}},
		}
		records := randomFlows(random, 300, true)
		var expired, reused bool
		for now := 1000; len(records) > 0; now += 25 {
			clock.set(now)
			n := min(len(records), 1+random.IntN(200))
			_, err := s.WriteFlows(t.Context(), records[:n])
			require.NoError(t, err)
			if records = records[n:]; random.IntN(3) > 0 {
				seal(t, s)
			}
			if random.IntN(4) == 0 {
				upkeep(t, s)
			}
			thaw := freeze(s)
			for _, q := range queries {
				got, err := s.Aggregate(t.Context(), q)
				require.NoError(t, err)
				require.Equal(t, exactly(t, s, q), got, "seed %d, at %d, %+v", seed, now, q)
				kept := s.sums.of(&q)
				reused = reused || len(kept.parts) > 2
				expired = expired || kept.groups > got.Matched+1
			}
			thaw()
		}
		assert.True(t, reused)
		assert.True(t, expired, "groups of blocks that are gone")
		seal(t, s)
		clock.set(100_000)
		upkeep(t, s)
		clock.set(1000)
		_, err := s.WriteFlows(t.Context(), randomFlows(random, 5, true))
		require.NoError(t, err)
		seal(t, s)
		_, err = s.Aggregate(t.Context(), queries[0])
		require.NoError(t, err)
		assert.LessOrEqual(t, len(s.sums.of(&queries[0]).parts), len(s.flows.blocks), "what was kept of blocks that are gone is forgotten")
	}
}

func TestKeptSumsAreBounded(t *testing.T) {
	s := newRandomStore(t, rand.New(rand.NewPCG(1, 6)), true)
	s.sums.limit = 20_000
	ask := func(pod int) storage.AggregateQuery {
		q := storage.AggregateQuery{By: []string{"source.pod"}, Measures: []string{"bytes"}}
		q.Flows.Deny = []storage.Filter{{Pods: []string{fmt.Sprint("no-", pod)}}}
		return q
	}
	for pod := range 100 {
		q := ask(pod)
		got, err := s.Aggregate(t.Context(), q)
		require.NoError(t, err)
		require.Equal(t, exactly(t, s, q), got)
	}
	var kept uint64
	for _, q := range s.sums.questions {
		kept += q.bytes()
	}
	assert.LessOrEqual(t, kept, s.sums.limit)
	require.NotEmpty(t, s.sums.questions)
	assert.Less(t, len(s.sums.questions), 100)
	last := ask(99)
	assert.NotEmpty(t, s.sums.of(&last).parts, "those that were asked last stay")

	empty, _ := openTestStore(t, t.TempDir())
	_, err := empty.Aggregate(t.Context(), last)
	require.NoError(t, err)
	assert.Empty(t, empty.sums.questions, "there is no block to keep anything of")
}
