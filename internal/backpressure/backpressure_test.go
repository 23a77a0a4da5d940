package backpressure

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func newWatch() (*Watch, *observer.ObservedLogs) {
	core, logs := observer.New(zapcore.InfoLevel)
	return &Watch{Logger: zap.New(core), Advice: "read faster", Losses: []string{"lost_events", "lost_calls"}}, logs
}

func TestBackpressureIsSaidOnceAndItsEndOnce(t *testing.T) {
	w, logs := newWatch()
	var events uint64
	pass := func(n int, utilization float64, lost uint64) {
		for range n {
			events += lost
			w.Interval(utilization, events, 0)
		}
	}
	pass(10, 0.1, 0)
	pass(intervals-1, 0.1, 5)
	pass(1, 0.1, 0)
	require.Zero(t, logs.Len(), "a burst is no news")

	pass(20, 0.1, 5)
	require.Equal(t, 1, logs.Len())
	warning := logs.All()[0]
	assert.Equal(t, zapcore.WarnLevel, warning.Level)
	assert.Equal(t, "The ring buffer is not read fast enough; read faster", warning.Message)
	assert.EqualValues(t, 5*intervals, warning.ContextMap()["lost_events"])
	assert.EqualValues(t, 0, warning.ContextMap()["lost_calls"])

	pass(1, 0.1, 0)
	pass(1, 0.9, 0)
	require.Equal(t, 1, logs.Len(), "a pause is not the end")
	pass(20, 0.5, 0)
	require.Equal(t, 2, logs.Len())
	end := logs.All()[1]
	assert.Equal(t, zapcore.InfoLevel, end.Level)
	assert.EqualValues(t, 100, end.ContextMap()["lost_events"], "all that it cost")
}

func TestAFullRingBufferIsBackpressureToo(t *testing.T) {
	w, logs := newWatch()
	for range intervals {
		w.Interval(0.95, 0, 0)
	}
	assert.Equal(t, 1, logs.Len())
}

func TestAnyLossIsBackpressure(t *testing.T) {
	w, logs := newWatch()
	for i := range intervals {
		w.Interval(0, 0, uint64(i+1))
	}
	require.Equal(t, 1, logs.Len())
	assert.EqualValues(t, intervals, logs.All()[0].ContextMap()["lost_calls"])
}
