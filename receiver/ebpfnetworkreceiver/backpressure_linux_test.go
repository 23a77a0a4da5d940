package ebpfnetworkreceiver

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestBackpressureIsSaidOnceAndItsEndOnce(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	b := backpressure{logger: zap.New(core)}
	var events uint64
	intervals := func(n int, utilization float64, lost uint64) {
		for range n {
			events += lost
			b.interval(utilization, events, 0)
		}
	}
	intervals(10, 0.1, 0)
	intervals(backpressureIntervals-1, 0.1, 5)
	intervals(1, 0.1, 0)
	require.Zero(t, logs.Len(), "a burst is no news")

	intervals(20, 0.1, 5)
	require.Equal(t, 1, logs.Len())
	warning := logs.All()[0]
	assert.Equal(t, zapcore.WarnLevel, warning.Level)
	assert.EqualValues(t, 5*backpressureIntervals, warning.ContextMap()["lost_events"])

	intervals(1, 0.1, 0)
	intervals(1, 0.9, 0)
	require.Equal(t, 1, logs.Len(), "a pause is not the end")
	intervals(20, 0.5, 0)
	require.Equal(t, 2, logs.Len())
	end := logs.All()[1]
	assert.Equal(t, zapcore.InfoLevel, end.Level)
	assert.EqualValues(t, 100, end.ContextMap()["lost_events"], "all that it cost")
}

func TestAFullRingBufferIsBackpressureToo(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	b := backpressure{logger: zap.New(core)}
	for range backpressureIntervals {
		b.interval(0.95, 0, 0)
	}
	assert.Equal(t, 1, logs.Len())
}

func TestLostPacketsAreBackpressureToo(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	b := backpressure{logger: zap.New(core)}
	for i := range backpressureIntervals {
		b.interval(0, 0, uint64(i+1))
	}
	require.Equal(t, 1, logs.Len())
	assert.EqualValues(t, backpressureIntervals, logs.All()[0].ContextMap()["lost_packets"])
}
