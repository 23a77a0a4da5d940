package embedded

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/storage"
)

// exactly sums by reading every row.
func exactly(t testing.TB, s *Store, q storage.AggregateQuery) storage.AggregateResult {
	t.Helper()
	groups, err := storage.NewGroups(&q)
	require.NoError(t, err)
	a, coverage, err := s.sumFlows(t.Context(), &storage.Selection{}, q.Since, q.Until, 0)
	require.NoError(t, err)
	a.groups(&q.Flows, groups)
	return groups.Result(coverage)
}

// What blocks have summed when they were written is what reading their rows gives, also where the two ends of a connection are in
// different blocks, or in none yet.
func TestRollupsAreWhatTheirRowsSumUpTo(t *testing.T) {
	by := []string{
		"source.pod", "destination.pod", "source.namespace", "destination.workload", "destination.service", "source.container", "source.cgroup", "transport",
	}
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 2))
		s := newRandomStore(t, random, true)
		if seed%2 == 0 {
			upkeep(t, s)
		}
		require.NotEmpty(t, s.flows.blocks)
		for range 30 {
			q := storage.AggregateQuery{Measures: storage.Measures(storage.SignalFlows)}
			for _, name := range by {
				if random.IntN(3) == 0 {
					q.By = append(q.By, name)
				}
			}
			if q.Flows = randomSelection(random); random.IntN(2) == 0 {
				q.Flows = storage.Selection{}
			}
			if random.IntN(3) == 0 {
				q.Since = at(random.IntN(200))
			}
			if random.IntN(3) == 0 {
				q.Until = at(400 + random.IntN(400))
			}
			thaw := freeze(s)
			got, err := s.Aggregate(t.Context(), q)
			require.NoError(t, err)
			want := exactly(t, s, q)
			thaw()
			require.Equal(t, want, got, "seed %d, %+v", seed, q)
		}
	}
}

// What a rollup does not know is read.
func TestWhatRollupsAnswer(t *testing.T) {
	for name, tt := range map[string]struct {
		query storage.AggregateQuery
		want  bool
	}{
		"ends":                {storage.AggregateQuery{By: []string{"source.pod", "destination.service", "transport"}}, true},
		"all":                 {storage.AggregateQuery{}, true},
		"ports":               {storage.AggregateQuery{By: []string{"destination.port"}}, false},
		"nodes":               {storage.AggregateQuery{By: []string{"node"}}, false},
		"buckets":             {storage.AggregateQuery{Bucket: time.Minute}, false},
		"of a pod":            {storage.AggregateQuery{Flows: storage.Selection{Allow: []storage.Filter{{Pods: []string{"a"}}}}}, true},
		"of a port":           {storage.AggregateQuery{Flows: storage.Selection{Deny: []storage.Filter{{Ports: []uint16{1}}}}}, false},
		"of a looked-up name": {storage.AggregateQuery{Flows: storage.Selection{Allow: []storage.Filter{{Source: storage.EndFilter{Names: []string{"a"}}}}}}, false},
	} {
		assert.Equal(t, tt.want, rolledUp(&tt.query), name)
	}
}
