package embedded

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

func lost(packets uint64) storage.Loss {
	return storage.Loss{Packets: packets, Bytes: 100 * packets, Events: 2 * packets}
}

func TestLossWindows(t *testing.T) {
	everything := [2]int{-1000, 1000}
	tests := []struct {
		name     string
		statuses []flow.NetworkStatus
		window   [2]int
		want     uint64
	}{
		{"nothing reported", nil, everything, 0},
		{"nothing lost", []flow.NetworkStatus{status("a", 0, 10, 0), status("a", 0, 20, 0)}, everything, 0},
		{"before the first report", []flow.NetworkStatus{status("a", 0, 10, 5)}, everything, 5},
		{"counters are cumulative", []flow.NetworkStatus{status("a", 0, 10, 5), status("a", 0, 20, 5), status("a", 0, 30, 8)}, everything, 8},
		{"in the interval", []flow.NetworkStatus{status("a", 0, 10, 5), status("a", 0, 20, 8)}, [2]int{15, 18}, 3},
		{"from an earlier interval on", []flow.NetworkStatus{status("a", 0, 10, 5), status("a", 0, 20, 8)}, [2]int{5, 18}, 8},
		{"before the range", []flow.NetworkStatus{status("a", 0, 10, 5), status("a", 0, 20, 8)}, [2]int{21, 30}, 0},
		{"range ends where the interval starts", []flow.NetworkStatus{status("a", 0, 10, 0), status("a", 0, 20, 8)}, [2]int{0, 10}, 0},
		{"all nodes", []flow.NetworkStatus{status("a", 0, 10, 5), status("b", 0, 10, 2)}, everything, 7},
		{"a restart counts from 0", []flow.NetworkStatus{status("a", 0, 10, 5), status("a", 15, 20, 3)}, everything, 8},
		{"a restart that lost more than the run before", []flow.NetworkStatus{status("a", 0, 10, 5), status("a", 15, 20, 9)}, [2]int{12, 30}, 9},
		{"the new run starts with the restart", []flow.NetworkStatus{status("a", 0, 10, 5), status("a", 15, 20, 9)}, [2]int{11, 15}, 0},
		{"twice the same report", []flow.NetworkStatus{status("a", 0, 10, 5), status("a", 0, 10, 5)}, everything, 5},
		{"a late report", []flow.NetworkStatus{status("a", 0, 20, 8), status("a", 0, 10, 5)}, everything, 8},
		{"a counter that shrinks", []flow.NetworkStatus{status("a", 0, 10, 8), status("a", 0, 20, 5), status("a", 0, 30, 6)}, everything, 9},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, clock := newTestStore(MinBytes)
			clock.set(50)
			for _, status := range tt.statuses {
				s.WriteStatus(context.Background(), status)
			}
			result := query(t, s, storage.FlowQuery{Since: at(tt.window[0]), Until: at(tt.window[1])})
			assert.Equal(t, lost(tt.want), result.Lost)
		})
	}
}

func TestLossExpires(t *testing.T) {
	s, clock := newTestStore(MinBytes)
	clock.set(10)
	s.WriteStatus(context.Background(), status("a", 0, 10, 5))
	clock.set(11 + hour)
	assert.Equal(t, lost(0), query(t, s, storage.FlowQuery{}).Lost, "the range ends where the retention does")
	s.WriteStatus(context.Background(), status("a", 0, 11+hour, 6))
	assert.Equal(t, lost(1), query(t, s, storage.FlowQuery{}).Lost)
	assert.Len(t, s.nodes["a"].flows.losses.spans, 1)
}

func TestLossesAreBounded(t *testing.T) {
	var l losses
	const n = 3 * maxSpans
	for i := range int64(n) {
		l.add(span{from: 10 * i, to: 10*i + 10, loss: lost(1)})
	}
	assert.Len(t, l.spans, maxSpans)
	assert.Equal(t, lost(n), l.in(0, math.MaxInt64), "nothing is forgotten")
	assert.Equal(t, lost(2), l.in(10*n-15, 10*n), "what is recent is known exactly")
	assert.Equal(t, lost(n-maxSpans+1), l.in(5, 6), "what is old is known coarsely, and never understated")
}
